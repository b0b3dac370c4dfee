"""The database of the journal: whose it is, what it must look like, who may use it, what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

APPLICATION: Final = 0x6D6C6D6E  # "mlmn": says whose database it is
FORMAT: Final = 8
OLDEST: Final = 3  # that is taken up

_PAGE: Final = 16_384  # bytes; bodies are long, and each page costs a call of the system

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
    created_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    instance TEXT NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT;
"""
# Of profiles that the checkpoint names, by the SHA-256 of what lz4 made smaller. Since format 6.
_DOCUMENTS: Final = "CREATE TABLE IF NOT EXISTS document (digest TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT"
# The checkpoint's, in parts, as a value has at most 1 GB. Since format 8; before, the checkpoint had a body.
_STATE: Final = "CREATE TABLE state (part INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL) STRICT"


class JournalError(Exception):
    """The database cannot be used; the message says why and what to do."""


def lock(directory: Path) -> Lock:
    """Use the directory, which is made where absent, until the lock is closed.

    Raises:
        JournalError: it cannot be used, or another process does.
    """
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # counts and orders are for nobody else
        for made in missing:
            sync(made.parent)  # or a power failure could take the new directory with all that is in it
        return Lock(directory / "mlmon.lock")
    except OSError as error:
        raise JournalError(f"{directory}: cannot be used as the data directory: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Have the system write a file or the names in a directory to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def open_private(path: str | Path, flags: int) -> int:
    """Open a file, which nobody else may read where it is made now; an `opener` of `open`."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class Lock:
    """Held while this process uses the directory; the system frees it however the process ends."""

    def __init__(self, path: Path) -> None:
        self._file = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise JournalError(
                f"{path.parent}: another processor{f' (process {holder})' if holder else ''} uses this directory; "
                "stop it, or name another directory"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Free the directory."""
        os.close(self._file)


def examine(path: Path, database: sqlite3.Connection) -> bool:
    """Whether there is something in the database already.

    Raises:
        JournalError: it is not one that this version can use.
    """
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION:
        raise JournalError(f"{path}: this is a database of something else; name another directory")
    if tables and version < OLDEST:
        raise JournalError(
            f"{path}: written by an older version (format {version}; this one reads {OLDEST} to {FORMAT}): "
            "move the directory away to begin anew"
        )
    if version > FORMAT:
        raise JournalError(
            f"{path}: written by a newer version (format {version}; this one reads up to {FORMAT}): "
            "run that version, or name another directory"
        )
    return bool(tables)


def connect(path: Path, clock: Callable[[], int]) -> sqlite3.Connection:
    """Open the database to write; made where absent.

    Raises:
        JournalError: it is not one that this version can use.
        sqlite3.Error: it cannot be read or written.
    """
    if path.is_file() and not os.access(path, os.W_OK):  # SQLite would say so at the first request only
        raise JournalError(_say_unwritable(path, "it is read-only"))
    with contextlib.suppress(OSError):  # it is there, or SQLite says more; its log and index get its mode
        os.close(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    # Transactions are begun by hand; the thread that uses the connection may change, never two at once.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        tables = examine(path, database)
        database.execute(f"PRAGMA page_size = {_PAGE}")  # heeded where there is nothing yet
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        # Some systems' default overwrites what is deleted, which a checkpoint would write to the log once more.
        database.execute("PRAGMA secure_delete = OFF")
        if not tables:
            database.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO identity VALUES (1, ?, ?)", (str(uuid.uuid4()), clock()))
            database.execute(_DOCUMENTS)
            database.execute(_STATE)
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute(f"PRAGMA user_version = {FORMAT}")
            database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def adopt(database: sqlite3.Connection) -> None:
    """Make a database that an older version wrote one of this version, which no older one can read from now on; within
    a transaction of the caller's.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
        return
    database.execute(_DOCUMENTS)
    database.execute(_STATE)
    write_state(database, [body for (body,) in database.execute("SELECT body FROM checkpoint")])
    database.execute("ALTER TABLE checkpoint DROP COLUMN body")
    database.execute(f"PRAGMA user_version = {FORMAT}")


def write_state(database: sqlite3.Connection, parts: Sequence[bytes]) -> None:
    """The parts of a checkpoint's state, in place of those that are there.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    database.execute("DELETE FROM state")
    rows = ((number, zlib.crc32(part), part) for number, part in enumerate(parts))
    database.executemany("INSERT INTO state VALUES (?, ?, ?)", rows)


def explain(path: Path, error: sqlite3.Error) -> str:
    """What an error of SQLite means to whoever runs the processor."""
    name = getattr(error, "sqlite_errorname", "")  # since Python 3.11
    text = str(error)
    if name.startswith("SQLITE_FULL") or "is full" in text:
        return f"{path}: the disk is full; free some space, what was acknowledged is safe"
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or "not a database" in text or "malformed" in text:
        return say_damaged(path, text)
    if name.startswith("SQLITE_IOERR") or "disk I/O error" in text:
        return (
            f"{path}: {text}: the disk fails, is full or over quota; what was acknowledged is safe once it works again"
        )
    unopened = "unable to open" in text or "readonly" in text
    if unopened or name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return _say_unwritable(path, text)
    return f"{path}: {text}"


def _say_unwritable(path: Path, how: str) -> str:
    return f"{path}: cannot be written ({how}); check the owner and the mode of the file and its directory"


def say_damaged(path: Path, how: str) -> str:
    """What to do about a database that cannot be trusted."""
    return f"{path}: damaged ({how}); restore a backup, or move the directory away to begin anew"
