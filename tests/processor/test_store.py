"""`otel-mlmon store` beside processors that run, were killed, or have ended; and over damaged files."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import threading

import grpc
import pytest
from otel_mlmon_processor.alarm_store import AlarmStore, Saved
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.journal import Journal, pack_body
from otel_mlmon_processor.store import back_up

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


@pytest.fixture
def store(real):
    """Runs the command; gives status, output and errors."""

    def run(*arguments):
        command = [real.BIN / "otel-mlmon", "store", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_check_says_what_is_in_it_and_changes_nothing(store, filled, otlp):
    before = {file.name: file.read_bytes() for file in filled.iterdir() if not file.name.endswith("-shm")}
    status, out, err = store("check", filled)
    assert (status, err) == (0, "")
    assert out.startswith(f"{filled}/mlmon.db: sound\nformat      8\nsize ")
    assert re.search(r"^checkpoint  up to entry 3, 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, [\d.]+ k?B$", out, re.MULTILINE)
    assert "models 1, producers 1, streams 1\n" in out
    assert "points 3, duplicates 0, late 0\n" in out
    assert re.search(r"^journal     2 requests since, \d+ B, the oldest of 20", out, re.MULTILINE)
    assert "outbox      0 requests wait" in out
    assert {file.name: file.read_bytes() for file in filled.iterdir() if not file.name.endswith("-shm")} == before
    assert otlp.count_in(filled) == 20


@pytest.mark.server
@pytest.mark.timeout(120)
def test_check_and_backup_beside_a_processor_that_is_sent_to(store, real, otlp, tmp_path):
    """Requests go on meanwhile; each copy holds what had been acknowledged before it, and no request by half."""
    server = real.Processor(tmp_path, settings="checkpoint: {age: 200ms}\n")
    acknowledged, stop, sender = [0], threading.Event(), otlp.Sender()

    def send():
        with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
            call = channel.unary_unary(EXPORT)
            for minute in range(100_000):
                pair = [sender.count(1, minute, minute + 1, labels={"ml.feature.name": name}) for name in "xy"]
                call(sender.request(*pair), timeout=20, wait_for_ready=True)
                acknowledged[0] += 1
                if stop.is_set():
                    return

    client = threading.Thread(target=send)
    client.start()
    try:
        copies = []
        for number in range(3):
            assert store("check", server.folder / "data")[0] == 0
            before = acknowledged[0]
            copy = tmp_path / "copies" / str(number)
            status, out, err = store("backup", server.folder / "data", copy)
            assert (status, err) == (0, "")
            assert re.fullmatch(rf"{copy}: [\d.]+ [kM]?B, checked\n", out)
            copies.append((before, copy, acknowledged[0]))
            assert client.is_alive()
        status, _, err = store("compact", server.folder / "data")
        assert status == 2
        assert f"another processor (process {server.process.pid}) uses this directory; stop it" in err
    finally:
        stop.set()
        client.join()
        server.stop()
    assert server.process.returncode == 0
    for before, copy, after in copies:
        assert "mlmon.db" in [file.name for file in copy.iterdir()]
        assert not list(copy.glob("mlmon.db-*"))
        ingest = Ingest(copy)
        (view,) = ingest.views()
        numbers = {counts.seen for counts in view.totals.values()}
        ingest.close()
        assert len(numbers) == 1
        assert before <= numbers.pop() <= after + 1  # one may have been counted and not yet answered
    assert not store("check", server.folder / "data")[0]


@pytest.mark.server
@pytest.mark.timeout(120)
def test_a_backup_is_restored_and_cumulative_producers_make_up_for_what_it_lacks(store, real, otlp, tmp_path, wait):
    sender = otlp.Sender()

    def send(server, *metrics):
        with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
            channel.unary_unary(EXPORT)(sender.request(*metrics), timeout=20, wait_for_ready=True)

    def total(number, end):
        return sender.count(number, 0, end, temporality=otlp.CUMULATIVE)

    def delta(number, end):
        return sender.count(number, end - 1, end, labels={"ml.feature.name": "y"})

    first = real.Processor(tmp_path)
    send(first, total(5, 1), delta(5, 1))
    assert store("backup", tmp_path / "data", tmp_path / "copy")[0] == 0
    send(first, total(9, 2), delta(4, 2))
    first.process.kill()
    first.process.wait()
    (tmp_path / "data").rename(tmp_path / "broken")
    (tmp_path / "copy").rename(tmp_path / "data")
    second = real.Processor(tmp_path)
    try:
        assert second.feature_counts() == {"x": 5, "y": 5}
        send(second, total(12, 3), delta(3, 3))
        wait(lambda: second.feature_counts() == {"x": 12, "y": 8}, "all but the deltas since the backup")
    finally:
        second.stop()


def test_the_alarms_state_is_in_the_backup(store, filled):
    (filled / "alarms.state").write_bytes(b"as it is")
    assert store("backup", filled, filled.parent / "copy")[0] == 0
    assert (filled.parent / "copy" / "alarms.state").read_bytes() == b"as it is"


def test_compact_gives_back_what_is_free(store, otlp, tmp_path):
    ingest = Ingest(tmp_path / "data")
    for minute in range(300):
        sender = otlp.Sender(extra={"padding": os.urandom(500).hex()})  # which does not compress much
        ingest.submit("metrics", sender.request(sender.count(1, minute, minute + 1)))
    ingest.close()
    status, out, err = store("compact", tmp_path / "data")
    assert (status, err) == (0, "")
    assert re.fullmatch(r".*/data/mlmon.db: \d+\.\d kB before, \d+\.\d kB now\n", out)
    before, after = map(float, re.findall(r"([\d.]+) kB", out))
    assert after < before / 4
    assert otlp.count_in(tmp_path / "data") == 300


# ------------------------------------------------------------------ damage


def test_nobody_else_may_read_what_is_kept(otlp, tmp_path):
    """Whatever the umask: counts may tell of those who were asked about."""
    before = os.umask(0)
    try:
        ingest = Ingest(tmp_path / "data")
        ingest.submit("metrics", otlp.Sender().request(otlp.Sender().count(1, 0, 1)))
        AlarmStore(tmp_path / "data").save(Saved({}, []))
        back_up(ingest.path, tmp_path / "copy")
    finally:
        os.umask(before)
    modes = {
        path.name: oct(path.stat().st_mode) for folder in ("data", "copy") for path in (tmp_path / folder).iterdir()
    }
    ingest.close()
    assert modes.keys() == {"mlmon.db", "mlmon.db-wal", "mlmon.db-shm", "mlmon.lock", "alarms.state"}
    assert set(modes.values()) == {"0o100600"}


def change(directory, statement):
    database = sqlite3.connect(directory / "mlmon.db")
    database.execute(statement)
    database.commit()
    database.close()


DAMAGES = {
    "an entry": (
        "UPDATE journal SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE seq = 5",
        "entry 5 of the journal",
    ),
    "the checkpoint": (
        "UPDATE state SET body = CAST(substr(body, 1, 40) || x'00' || substr(body, 42) AS BLOB)",
        "the checkpoint is not what was written",
    ),
}


@pytest.mark.parametrize(("statement", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_that_sqlite_does_not_see_is_found(store, filled, statement, says):
    change(filled, statement)
    status, out, _ = store("check", filled)
    assert status == 1
    assert out.startswith(f"{filled}/mlmon.db: DAMAGED\n  {says}")
    assert out.count("restore a backup") == 1
    assert "none yet" not in out
    status, _, err = store("backup", filled, filled.parent / "copy")
    assert status == 2
    assert "the copy is damaged, and so may be" in err
    assert not list(filled.parent.glob("copy*"))
    before = (filled / "mlmon.db").read_bytes()
    status, _, err = store("compact", filled)
    assert status == 2
    assert f"{filled}/mlmon.db: damaged, see `otel-mlmon store check`: {says}" in err
    assert (filled / "mlmon.db").read_bytes() == before


def test_damage_to_pages_is_found(store, otlp, tmp_path):
    journal = Journal(tmp_path / "data")
    for number in range(50):
        journal.append([("metrics", number + 1, pack_body(os.urandom(1_000)))])
    journal.close()
    path = tmp_path / "data" / "mlmon.db"
    content = bytearray(path.read_bytes())
    content[2 * 16_384 : 4 * 16_384] = b"\xff" * (2 * 16_384)
    path.write_bytes(content)
    status, out, err = store("check", tmp_path / "data")
    assert status == 1, err
    assert out.startswith(f"{path}: DAMAGED\n")


# ------------------------------------------------------------------ what the user can mend


def test_what_cannot_be_done_is_said_in_one_line(store, filled, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [
        (["check", tmp_path / "none"], "none: no data directory of a processor: there is no mlmon.db in it"),
        (["compact", tmp_path / "empty"], "empty: no data directory of a processor"),
        (["backup", filled, tmp_path / "empty"], "empty: is there already; name a directory to be made"),
        (["backup", filled, filled / "mlmon.db" / "copy"], "a part of the path is a file, not a folder"),
    ]
    for arguments, says in cases:
        status, out, err = store(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("otel-mlmon store: ")
        assert says in err
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("command", [["check"], ["compact"], ["backup"]])
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("PRAGMA user_version = 99", "written by a newer version (format 99"),
        ("PRAGMA application_id = 1", "something else"),
    ],
)
def test_a_database_of_another_version_is_left_alone(store, filled, command, statement, says):
    change(filled, statement)
    status, _, err = store(*command, filled, *([filled.parent / "copy"] if command == ["backup"] else []))
    assert status == 2
    assert says in err


def test_help_names_the_commands_and_what_they_ask_for(store):
    _, out, _ = store("--help")
    assert all(name in out for name in ("check", "backup", "compact"))
    for name, says in (("check", "0 sound, 1 damaged"), ("backup", "to restore it"), ("compact", "free space")):
        status, out, _ = store(name, "--help")
        assert status == 0
        assert says in out
