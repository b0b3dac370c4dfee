"""The one durable thing: accepted requests in an embedded SQLite database, and the folded state that replaces them.

WAL mode with synchronous=FULL: every commit syncs the write-ahead log, so that what was acknowledged survives a power
failure. NORMAL would sync at WAL checkpoints only and could lose the last commits, OFF would never sync
(benchmarks/sync.md). SQLite does not check what it reads back: bodies carry a CRC. They are compressed, because the
disk is what limits how much can be taken in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import lz4.block

from otel_mlmon_processor.database import JournalError, adopt, connect, explain, lock, say_damaged, write_state

__all__ = ["Checkpoint", "DamagedEntryError", "Entry", "Journal", "JournalError", "Outbox", "Packed", "pack_body"]

_RAW: Final = 0  # codec of a body as it came
_LZ4: Final = 1  # and of one that lz4 made smaller

# What a checkpoint holds is deleted bit by bit: SQLite looks at each page that it frees, seconds for gigabytes.
_TRIM: Final = 16 << 20  # bytes with the checkpoint
_TRIM_RATIO: Final = 4  # times the bytes of each commit, with it
_ROW: Final = 512  # bytes, about, of an entry beside its body


class Packed(NamedTuple):
    """A body as it is kept."""

    codec: int
    body: bytes
    crc: int


def pack_body(body: bytes) -> Packed:
    """A body, compressed where that makes it smaller; done by those who wait, not by the thread that writes."""
    small = lz4.block.compress(body)
    codec, kept = (_LZ4, small) if len(small) < len(body) else (_RAW, body)
    return Packed(codec, kept, zlib.crc32(kept))


class Entry(NamedTuple):
    """An accepted request. `seq` orders all of them and is never used twice; `size` is what it takes in the journal."""

    seq: int
    signal: str
    received_ns: int
    body: bytes
    size: int


class Checkpoint(NamedTuple):
    """The folded state up to and with entry `seq`, in parts, and the documents in it by their SHA-256."""

    seq: int
    created_ns: int
    parts: Sequence[bytes]
    documents: Mapping[str, bytes]


class Journal:
    """Appends and reads; used by one thread at a time and by one process at a time.

    `instance` is the random identity of what is kept here, `created_ns` the time when it began. Entries after the
    checkpoint are `entries` in number with `bytes` of bodies.

    Args:
        directory: where the database is; made where absent.
        clock: nanoseconds since 1970.

    Raises:
        JournalError: another process uses the directory, or the database cannot be read or written.
    """

    def __init__(self, directory: str | os.PathLike[str], clock: Callable[[], int] = time.time_ns) -> None:
        self.path = Path(directory) / "mlmon.db"
        self._lock = lock(Path(directory))
        self._trimmed = 0  # the entry up to which those are deleted that the checkpoint holds
        try:
            self._database = connect(self.path, clock)
            self._read_size()
            query = "SELECT instance, created_ns FROM identity"
            self.instance, self.created_ns = self._database.execute(query).fetchone()
        except sqlite3.Error as error:
            self._lock.close()
            raise JournalError(explain(self.path, error)) from error
        except JournalError:
            self._lock.close()
            raise

    @property
    def synchronous(self) -> int:
        """SQLite's synchronous setting: 2 is FULL."""
        return int(self._database.execute("PRAGMA synchronous").fetchone()[0])

    def append(self, requests: Sequence[tuple[str, int, Packed]], waits: Sequence[bool] = ()) -> int:
        """Write requests (signal, time of receipt, body) in one synced commit; they are durable on return.

        Args:
            requests: what to write.
            waits: of each, whether it waits to be passed on; none does where this is empty.

        Returns:
            The number of the first entry; the others follow it.

        Raises:
            JournalError: nothing was written, e.g. because the disk is full.
        """
        first: int = self._seq + 1
        marks = waits or [False] * len(requests)
        size = sum(len(packed.body) for _, _, packed in requests)
        with self._transaction():
            self._database.executemany(
                "INSERT INTO journal (seq, signal, received_ns, codec, waits, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (seq, signal, received_ns, codec, waits, crc, body)
                    for seq, (signal, received_ns, (codec, body, crc)), waits in zip(
                        count(first), requests, marks, strict=False
                    )
                ],
            )
            self._trim(_TRIM_RATIO * (size + _ROW * len(requests)))
        self._seq += len(requests)
        self.entries += len(requests)
        self.bytes += size
        return first

    def checkpoint(self, seq: int, created_ns: int, parts: Sequence[bytes], documents: Mapping[str, bytes]) -> None:
        """Keep the state folded up to and with entry `seq`, in one transaction. These entries, but for those that wait,
        count no more; some are deleted with it, the others as further ones come. Of the documents those are written
        that were not in the last.

        Raises:
            JournalError: nothing was changed.
        """
        with self._transaction():
            held = {digest for (digest,) in self._database.execute("SELECT digest FROM document")}
            gone = [(digest,) for digest in held - documents.keys()]
            self._database.executemany("DELETE FROM document WHERE digest = ?", gone)
            new = ((digest, lz4.block.compress(documents[digest])) for digest in documents.keys() - held)
            self._database.executemany("INSERT INTO document VALUES (?, ?)", new)
            self._database.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (seq, created_ns))
            write_state(self._database, parts)
            self._trim(_TRIM)
        self._read_size()

    def settle(self, seqs: Sequence[int]) -> None:
        """Entries wait no longer; deletes those that are folded.

        Raises:
            JournalError: nothing was changed.
        """
        which = [(seq,) for seq in seqs]
        with self._transaction():
            self._database.executemany("UPDATE journal SET waits = 0 WHERE seq = ?", which)
            self._database.executemany(
                "DELETE FROM journal WHERE seq = ? AND seq <= (SELECT seq FROM checkpoint)", which
            )

    def abandon(self) -> dict[str, int]:
        """No entry waits any longer, as nothing is passed on; how many waited, by signal.

        Raises:
            JournalError: nothing was changed.
        """
        with self._transaction():
            query = "SELECT signal, count(*) FROM journal WHERE waits GROUP BY signal"
            abandoned = dict(self._database.execute(query))
            self._database.execute("UPDATE journal SET waits = 0 WHERE waits")
            self._database.execute("DELETE FROM journal WHERE seq <= (SELECT seq FROM checkpoint)")
        return abandoned

    def measure_outbox(self) -> tuple[int, int]:
        """Number and bytes of the entries that wait."""
        query = "SELECT count(*), coalesce(sum(length(body)), 0) FROM journal WHERE waits"
        count, size = self._database.execute(query).fetchone()
        return count, size

    def recover(self) -> tuple[Checkpoint | None, Iterator[Entry]]:
        """The newest checkpoint, and the entries after it in their order.

        Raises:
            JournalError: the database is damaged.
        """
        try:
            checkpoint = read_checkpoint(self._database)
        except sqlite3.Error as error:
            raise JournalError(explain(self.path, error)) from error
        except DamagedCheckpointError as error:
            raise JournalError(say_damaged(self.path, str(error))) from error
        return checkpoint, self._entries(checkpoint.seq if checkpoint else 0)

    def adopt(self) -> None:
        """Write in the format of this version from now on; nothing is changed before, so that what cannot be recovered
        stays as it is.

        Raises:
            JournalError: it cannot be written.
        """
        with self._transaction():
            adopt(self._database)

    def compact(self) -> None:
        """Give back to the system what is free in the file and its log. Needs as much space again while it runs.

        Raises:
            JournalError: nothing was changed.
        """
        with self._transaction():
            self._trim(sys.maxsize)
        try:
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise JournalError(explain(self.path, error)) from error

    def close(self) -> None:
        """Close the database and free the directory."""
        try:
            self._database.close()
        finally:
            self._lock.close()

    def _entries(self, after: int) -> Iterator[Entry]:
        query = "SELECT seq, signal, received_ns, codec, crc, body FROM journal WHERE seq > ? ORDER BY seq"
        try:
            for row in self._database.execute(query, (after,)):
                yield _read_entry(self.path, row)
        except sqlite3.Error as error:
            raise JournalError(explain(self.path, error)) from error

    def _trim(self, size: int) -> None:
        """Delete entries of about `size` bytes that the checkpoint holds and that do not wait; within a transaction."""
        last = folded = self._read_folded()
        if self._trimmed >= folded:
            return
        query = "SELECT seq, length(body) FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq"
        for seq, held in self._database.execute(query, (self._trimmed, folded)):
            size -= held + _ROW
            if size <= 0:
                last = seq
                break
        query = "DELETE FROM journal WHERE seq > ? AND seq <= ? AND NOT waits"
        self._database.execute(query, (self._trimmed, last))
        self._trimmed = last

    def _read_folded(self) -> int:
        """The last entry that the checkpoint holds."""
        folded: int = self._database.execute("SELECT coalesce(max(seq), 0) FROM checkpoint").fetchone()[0]
        return folded

    def _read_size(self) -> None:
        folded = self._read_folded()
        self.entries, self.bytes, self._seq = self._database.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(seq), ?) FROM journal WHERE seq > ?",
            (folded, folded),
        ).fetchone()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                self._database.execute("ROLLBACK")
            self._trimmed = 0  # what was deleted is there again
            with contextlib.suppress(sqlite3.Error):
                # A commit that fails late may be found on the disk all the same: its numbers must not be used again.
                self._read_size()
            raise JournalError(explain(self.path, error)) from error


class Outbox:
    """Reads entries that wait, beside the thread that writes.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def next(self, after: int) -> Entry | None:
        """The first that waits after entry `after`.

        Raises:
            DamagedEntryError: it is not what was written.
            JournalError: the database cannot be read.
        """
        query = (
            "SELECT seq, signal, received_ns, codec, crc, body FROM journal "
            "WHERE waits AND seq > ? ORDER BY seq LIMIT 1"
        )
        try:
            row = self._database.execute(query, (after,)).fetchone()
        except sqlite3.Error as error:
            raise JournalError(explain(self._path, error)) from error
        return _read_entry(self._path, row) if row else None

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class DamagedEntryError(JournalError):
    """An entry is not what was written; `entry` is what is known of it, without its body."""

    def __init__(self, message: str, entry: Entry) -> None:
        super().__init__(message)
        self.entry = entry


class DamagedCheckpointError(ValueError):
    """The state or a document is not what was written."""


def read_checkpoint(database: sqlite3.Connection) -> Checkpoint | None:
    """The newest checkpoint.

    Raises:
        DamagedCheckpointError: see there.
        sqlite3.Error: the database cannot be read.
    """
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    row = database.execute("SELECT seq, created_ns FROM checkpoint").fetchone()
    if row is None:
        return None
    seq, created_ns = row
    if "state" in tables:
        parts = [_read_part(*held) for held in database.execute("SELECT crc, body FROM state ORDER BY part")]
    else:  # before format 8
        parts = [body for (body,) in database.execute("SELECT body FROM checkpoint")]
    held = database.execute("SELECT digest, body FROM document") if "document" in tables else ()  # since format 6
    return Checkpoint(seq, created_ns, parts, {digest: _read_document(digest, body) for digest, body in held})


def _read_part(crc: int, body: bytes) -> bytes:
    if zlib.crc32(body) != crc:
        raise DamagedCheckpointError("the checkpoint is not what was written")
    return body


def _read_document(digest: str, body: bytes) -> bytes:
    try:
        document: bytes = lz4.block.decompress(body)
    except (lz4.block.LZ4BlockError, ValueError, MemoryError):  # of a size that it does not have
        document = b""
    if hashlib.sha256(document).hexdigest() != digest:
        raise DamagedCheckpointError(f"the profile {digest} is not what was written")
    return document


def _read_entry(path: Path, row: tuple[int, str, int, int, int, bytes]) -> Entry:
    seq, signal, received_ns, codec, crc, kept = row
    entry = Entry(seq, signal, received_ns, b"", len(kept))
    if codec not in (_RAW, _LZ4):
        raise DamagedEntryError(f"{path}: entry {seq} has codec {codec}, which this version does not know", entry)
    if crc != zlib.crc32(kept):
        raise DamagedEntryError(say_damaged(path, f"entry {seq} is not what was written"), entry)
    return entry._replace(body=lz4.block.decompress(kept) if codec == _LZ4 else kept)
