"""The one durable thing: accepted requests in an embedded SQLite database, and the folded state that replaces them.

WAL mode with synchronous=FULL: every commit syncs the write-ahead log, so that what was acknowledged survives a power
failure. NORMAL would sync at WAL checkpoints only and could lose the last commits, OFF would never sync
(benchmarks/sync.md). SQLite does not check what it reads back: bodies carry a CRC.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

APPLICATION: Final = 0x6D6C6D6E  # "mlmn": says whose database it is
FORMAT: Final = 3

_SCHEMA: Final = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    signal TEXT NOT NULL,
    received_ns INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    waits INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX outbox ON journal (seq) WHERE waits;
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    instance TEXT NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT;
"""
_RAW: Final = 0  # codec of a body as it came


class JournalError(Exception):
    """The database cannot be used; the message says why and what to do."""


class Entry(NamedTuple):
    """An accepted request. `seq` orders all of them and is never used twice."""

    seq: int
    signal: str
    received_ns: int
    body: bytes


class Checkpoint(NamedTuple):
    """The folded state up to and with entry `seq`."""

    seq: int
    created_ns: int
    body: bytes


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
        self._lock = _lock(Path(directory))
        try:
            self._database = _open(self.path, clock)
            self._read_size()
            query = "SELECT instance, created_ns FROM identity"
            self.instance, self.created_ns = self._database.execute(query).fetchone()
        except sqlite3.Error as error:
            self._lock.close()
            raise JournalError(_explain(self.path, error)) from error
        except JournalError:
            self._lock.close()
            raise

    @property
    def synchronous(self) -> int:
        """SQLite's synchronous setting: 2 is FULL."""
        return int(self._database.execute("PRAGMA synchronous").fetchone()[0])

    def append(self, requests: Sequence[tuple[str, int, bytes]], waits: Sequence[bool] = ()) -> list[Entry]:
        """Write requests (signal, time of receipt, body) in one synced commit; the entries are durable on return.

        Args:
            requests: what to write.
            waits: of each, whether it waits to be passed on; none does where this is empty.

        Raises:
            JournalError: nothing was written, e.g. because the disk is full.
        """
        entries = [Entry(self._seq + i, *request) for i, request in enumerate(requests, start=1)]
        marks = waits or [False] * len(entries)
        with self._transaction():
            self._database.executemany(
                "INSERT INTO journal (seq, signal, received_ns, codec, waits, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (e.seq, e.signal, e.received_ns, _RAW, waits, zlib.crc32(e.body), e.body)
                    for e, waits in zip(entries, marks, strict=True)
                ],
            )
        self._seq += len(entries)
        self.entries += len(entries)
        self.bytes += sum(len(entry.body) for entry in entries)
        return entries

    def checkpoint(self, seq: int, created_ns: int, body: bytes) -> None:
        """Keep the state folded up to and with entry `seq`, and delete these entries, but for those that wait, in one
        transaction.

        Raises:
            JournalError: nothing was changed.
        """
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?)", (seq, created_ns, body))
            self._database.execute("DELETE FROM journal WHERE seq <= ? AND NOT waits", (seq,))
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

    def abandon(self) -> None:
        """No entry waits any longer, as nothing is passed on."""
        with self._transaction():
            self._database.execute("UPDATE journal SET waits = 0 WHERE waits")
            self._database.execute("DELETE FROM journal WHERE seq <= (SELECT seq FROM checkpoint)")

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
            row = self._database.execute("SELECT seq, created_ns, body FROM checkpoint").fetchone()
        except sqlite3.Error as error:
            raise JournalError(_explain(self.path, error)) from error
        checkpoint = Checkpoint(*row) if row else None
        return checkpoint, self._entries(checkpoint.seq if checkpoint else 0)

    def close(self) -> None:
        """Close the database and free the directory."""
        try:
            self._database.close()
        finally:
            self._lock.close()

    def _entries(self, after: int) -> Iterator[Entry]:
        query = "SELECT seq, signal, received_ns, codec, crc, body FROM journal WHERE seq > ? ORDER BY seq"
        try:
            for seq, signal, received_ns, codec, crc, body in self._database.execute(query, (after,)):
                if codec != _RAW:
                    raise JournalError(f"{self.path}: entry {seq} has codec {codec}, which this version does not know")
                if crc != zlib.crc32(body):
                    raise JournalError(_say_damaged(self.path, f"entry {seq} is not what was written"))
                yield Entry(seq, signal, received_ns, body)
        except sqlite3.Error as error:
            raise JournalError(_explain(self.path, error)) from error

    def _read_size(self) -> None:
        (folded,) = self._database.execute("SELECT coalesce(max(seq), 0) FROM checkpoint").fetchone()
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
            with contextlib.suppress(sqlite3.Error):
                # A commit that fails late may be found on the disk all the same: its numbers must not be used again.
                self._read_size()
            raise JournalError(_explain(self.path, error)) from error


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
            JournalError: the database cannot be read.
        """
        query = "SELECT seq, signal, received_ns, body FROM journal WHERE waits AND seq > ? ORDER BY seq LIMIT 1"
        try:
            row = self._database.execute(query, (after,)).fetchone()
        except sqlite3.Error as error:
            raise JournalError(_explain(self._path, error)) from error
        return Entry(*row) if row else None

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _lock(directory: Path) -> _Lock:
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync(made.parent)  # or a power failure could take the new directory with all that is in it
        return _Lock(directory / "mlmon.lock")
    except OSError as error:
        raise JournalError(f"{directory}: cannot be used as the data directory: {error.strerror or error}") from error


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class _Lock:
    """Held while this process uses the directory; the system frees it however the process ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise JournalError(
                f"{path.parent}: another processor{f' (process {holder})' if holder else ''} uses this directory; "
                "give each its own"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._file)


def _open(path: Path, clock: Callable[[], int]) -> sqlite3.Connection:
    # Transactions are begun by hand; the thread that uses the connection may change, never two at once.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != APPLICATION:
            raise JournalError(f"{path}: this is a database of something else; name another directory")
        if tables and version < FORMAT:
            raise JournalError(
                f"{path}: written by an older version (format {version}; this one reads {FORMAT}): "
                "move the directory away to begin anew"
            )
        if version > FORMAT:
            raise JournalError(
                f"{path}: written by a newer version (format {version}; this one reads up to {FORMAT}): "
                "run that version, or name another directory"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        if not tables:
            database.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO identity VALUES (1, ?, ?)", (str(uuid.uuid4()), clock()))
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute(f"PRAGMA user_version = {FORMAT}")
            database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _explain(path: Path, error: sqlite3.Error) -> str:
    """What an error of SQLite means to whoever runs the processor."""
    name = getattr(error, "sqlite_errorname", "")  # since Python 3.11
    text = str(error)
    if name.startswith("SQLITE_FULL") or "is full" in text:
        return f"{path}: the disk is full; free some space, what was acknowledged is safe"
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or "not a database" in text or "malformed" in text:
        return _say_damaged(path, text)
    if name.startswith("SQLITE_IOERR") or "disk I/O error" in text:
        return (
            f"{path}: {text}: the disk fails, is full or over quota; what was acknowledged is safe once it works again"
        )
    unopened = "unable to open" in text or "readonly" in text
    if unopened or name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"{path}: cannot be written ({text}); check the owner and the mode of the file and its directory"
    return f"{path}: {text}"


def _say_damaged(path: Path, how: str) -> str:
    return f"{path}: damaged ({how}); restore a backup, or move the directory away to begin anew"
