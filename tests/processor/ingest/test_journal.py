"""The journal: durable in order, replaced by a checkpoint in one step, clear about what it cannot use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otel_mlmon_processor.journal import Entry, Journal, JournalError, Outbox, pack_body


def append(journal, requests):
    """The entries as they are expected to come back."""
    packed = [(signal, received_ns, pack_body(body)) for signal, received_ns, body in requests]
    first = journal.append(packed)
    return [
        Entry(seq, *request, len(kept.body))
        for seq, (request, (*_, kept)) in enumerate(zip(requests, packed, strict=True), start=first)
    ]


def entries(journal):
    checkpoint, found = journal.recover()
    return checkpoint, list(found)


def query(journal, statement):
    """The rows of a statement, by a connection of its own."""
    with contextlib.closing(sqlite3.connect(journal.path)) as database, database:
        return database.execute(statement).fetchall()


def test_entries_come_back_in_order_and_numbers_are_never_used_twice(tmp_path):
    journal = Journal(tmp_path)
    first = append(journal, [("metrics", 10, b"one"), ("logs", 10, b"\x00two")])
    second = append(journal, [("metrics", 11, b"")])
    journal.close()
    journal = Journal(tmp_path)
    checkpoint, found = entries(journal)
    assert checkpoint is None
    assert found == [*first, *second]
    assert [(e.signal, e.received_ns, e.body) for e in found] == [
        ("metrics", 10, b"one"),
        ("logs", 10, b"\x00two"),
        ("metrics", 11, b""),
    ]
    journal.checkpoint(found[-1].seq, 12, [b"state"], {})
    journal.close()
    journal = Journal(tmp_path)
    checkpoint, found = entries(journal)
    assert (checkpoint.created_ns, checkpoint.parts, found) == (12, [b"state"], [])
    (entry,) = append(journal, [("metrics", 13, b"x")])
    assert entry.seq > checkpoint.seq
    journal.close()


def test_a_checkpoint_writes_the_state_and_overwrites_nothing_that_it_deletes(tmp_path):
    """As some systems' SQLite would, while all who send wait."""
    journal = Journal(tmp_path)
    for _ in range(12):
        (entry,) = append(journal, [("metrics", 1, os.urandom(1 << 20))])
    log = tmp_path / "mlmon.db-wal"
    before = log.stat().st_size
    assert before > 12 << 20
    journal.checkpoint(entry.seq, 1, [b"state"], {})
    assert log.stat().st_size < before + (1 << 20)
    journal.close()


def test_what_a_checkpoint_holds_is_deleted_bit_by_bit(tmp_path):
    """Seconds for gigabytes, which all who send would wait for; but more with each commit than comes with it."""
    size = 1 << 20

    def count() -> int:
        return query(journal, "SELECT count(*) FROM journal WHERE NOT waits")[0][0]

    def write(number: int, waits: bool = False) -> int:
        packed = [("metrics", 1, pack_body(os.urandom(size))) for _ in range(number)]
        return journal.append(packed, [waits] * number) + number - 1

    journal = Journal(tmp_path)
    waiting = write(1, waits=True)
    last = write(48)
    journal.checkpoint(last, 1, [b"state"], {})
    assert (journal.entries, journal.bytes) == (0, 0)
    assert 30 <= count() <= 34  # 16 MiB are gone
    write(1)
    assert 27 <= count() <= 31  # one came, four went
    journal.close()
    journal = Journal(tmp_path)
    assert journal.entries == 1
    for _ in range(8):
        write(1)
    assert count() == 9  # those after the checkpoint
    last = write(40)
    journal.checkpoint(last, 1, [b"state"], {})
    journal.compact()
    assert count() == 0
    assert (tmp_path / "mlmon.db").stat().st_size < 2 * size
    assert query(journal, "SELECT seq FROM journal") == [(waiting,)]
    journal.close()


def test_what_is_deleted_is_there_again_where_a_commit_fails(tmp_path):
    journal = Journal(tmp_path)
    packed = [("metrics", 1, pack_body(os.urandom(1 << 20))) for _ in range(24)]
    last = journal.append(packed) + 23
    journal.checkpoint(last, 1, [b"state"], {})
    ((first,),) = query(journal, "SELECT min(seq) FROM journal")
    # A reference that is checked at the commit, after the deletion.
    query(journal, "CREATE TABLE holder (seq REFERENCES journal (seq) DEFERRABLE INITIALLY DEFERRED)")
    query(journal, f"INSERT INTO holder VALUES ({first})")
    journal._database.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(JournalError, match="FOREIGN KEY"):
        journal.append(packed[:1])
    query(journal, "DROP TABLE holder")
    assert query(journal, "SELECT min(seq) FROM journal") == [(first,)]
    begun = journal.append(packed[:4])
    assert query(journal, f"SELECT count(*) FROM journal WHERE seq <= {last}") == [(0,)]
    assert [entry.seq for entry in entries(journal)[1]] == list(range(begun, begun + 4))
    journal.close()


def test_a_checkpoint_writes_the_documents_that_are_new_and_no_others(tmp_path):
    """A thousand profiles are a hundred megabytes, which all who send would wait for."""
    documents = {hashlib.sha256(body).hexdigest(): body for body in (os.urandom(1 << 20) for _ in range(4))}
    first, *_, last = documents
    journal, log = Journal(tmp_path), tmp_path / "mlmon.db-wal"
    journal.checkpoint(0, 1, [b"state"], {digest: documents[digest] for digest in documents if digest != last})
    before = log.stat().st_size
    journal.checkpoint(0, 2, [b"state"], {digest: documents[digest] for digest in documents if digest != first})
    assert 1 << 20 < log.stat().st_size - before < 2 << 20
    before = log.stat().st_size
    journal.checkpoint(0, 3, [b"state"], dict(list(documents.items())[1:]))
    assert log.stat().st_size - before < 1 << 18
    journal.close()
    journal = Journal(tmp_path)
    checkpoint, _ = journal.recover()
    assert checkpoint.documents == dict(list(documents.items())[1:])
    journal.close()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.lists(st.binary(max_size=50), min_size=1, max_size=4), st.integers(0, 3)), max_size=8))
def test_what_is_recovered_is_what_was_written_after_the_checkpoint(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("journal")
    journal, written, state = Journal(directory), [], 0
    for step in steps:
        if isinstance(step, list):
            written += append(journal, [("metrics", 1, body) for body in step])
        elif len(written) > step:  # a checkpoint that leaves the last `step` entries
            state = max(state, written[len(written) - step - 1].seq)
            journal.checkpoint(state, 1, [b"state"], {})
        assert journal.entries == sum(entry.seq > state for entry in written)
        assert journal.bytes == sum(len(entry.body) for entry in written if entry.seq > state)
        if not isinstance(step, list):
            journal.close()
            journal = Journal(directory)
    checkpoint, found = entries(journal)
    assert (checkpoint.seq if checkpoint else 0) == state
    assert found == [entry for entry in written if entry.seq > state]
    journal.close()


def test_every_commit_is_synced(tmp_path):
    """strace is not everywhere; the settings that make SQLite sync are read back from the file and the connection."""
    journal = Journal(tmp_path)
    append(journal, [("metrics", 1, b"x")])
    with sqlite3.connect(journal.path) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    assert journal.synchronous == 2  # FULL
    journal.close()


def test_a_second_processor_on_the_directory_is_told_who_has_it(tmp_path):
    journal = Journal(tmp_path)
    script = f"from otel_mlmon_processor.journal import Journal; Journal({str(tmp_path)!r})"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert other.returncode
    assert f"another processor (process {os.getpid()}) uses this directory" in other.stderr
    journal.close()
    Journal(tmp_path).close()


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["PRAGMA user_version = 99"], "written by a newer version (format 99"),
        (["PRAGMA user_version = 1"], "written by an older version (format 1"),
        (["PRAGMA application_id = 1"], "a database of something else"),
        (["INSERT INTO journal VALUES (7, 'metrics', 1, 42, 0, 0, x'00')"], "entry 7 has codec 42"),
        (["DROP TABLE journal"], "no such table"),
    ],
)
def test_a_database_that_is_not_ours_to_read_is_refused(tmp_path, statements, message):
    Journal(tmp_path).close()
    database = sqlite3.connect(tmp_path / "mlmon.db")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()

    def recover():
        with contextlib.closing(Journal(tmp_path)) as journal:
            entries(journal)

    with pytest.raises(JournalError) as raised:
        recover()
    assert message in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("content", [b"this is no database at all" * 200, b"SQLite format 3\x00" + bytes(5000)])
def test_a_damaged_file_is_called_damaged(tmp_path, content):
    (tmp_path / "mlmon.db").write_bytes(content)
    with pytest.raises(JournalError, match=r"damaged .*(restore a backup|move the directory away)"):
        Journal(tmp_path)


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="file/data: cannot be used as the data directory: Not a directory"):
        Journal(tmp_path / "file" / "data")
    (tmp_path / "mlmon.db").mkdir()
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path)


def test_a_disk_that_is_full_loses_nothing_and_recovers(tmp_path):
    """A limit on the size of files stands in for the disk: the system refuses the same writes."""
    script = textwrap.dedent(
        f"""
        import os, resource, sys
        from otel_mlmon_processor.journal import Journal, JournalError, pack_body
        journal = Journal({str(tmp_path)!r})
        journal.append([("metrics", 1, pack_body(b"kept"))])
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        failed = 0
        for _ in range(3):
            try:
                journal.append([("metrics", 2, pack_body(os.urandom(500_000)))])
            except JournalError:
                failed += 1
        journal.append([("metrics", 3, pack_body(b"small"))])
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.append([("metrics", 4, pack_body(b"after" + os.urandom(500_000)))])
        assert failed == 3, failed
        assert [e.body[:5] for e in journal.recover()[1]] == [b"kept", b"small", b"after"]
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    journal = Journal(tmp_path)
    assert [entry.body[:5] for entry in entries(journal)[1]] == [b"kept", b"small", b"after"]
    journal.close()


@pytest.mark.parametrize(
    ("body", "smaller"),
    [(b"", 1), (b"x", 1), (os.urandom(1_000), 1), (bytes(100_000), 100), (os.urandom(50) * 100, 20)],
)
def test_bodies_are_compressed_where_that_makes_them_smaller(tmp_path, body, smaller):
    journal = Journal(tmp_path)
    (entry,) = append(journal, [("metrics", 1, body)])
    assert entry.size <= len(body) / smaller
    assert journal.bytes == entry.size
    assert entries(journal)[1] == [entry]
    journal.close()


def test_an_entry_that_is_not_what_was_written_is_found(tmp_path):
    journal = Journal(tmp_path)
    append(journal, [("metrics", 1, bytes(1_000))])
    journal.close()
    database = sqlite3.connect(tmp_path / "mlmon.db")
    database.execute("UPDATE journal SET body = CAST(body || x'00' AS BLOB)")
    database.commit()
    database.close()
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="entry 1 is not what was written"):
        entries(journal)
    outbox = Outbox(journal.path)
    assert outbox.next(0) is None  # it does not wait
    outbox.close()
    journal.close()
