"""The command `otel-mlmon store`: look after the data directory of a processor."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from rich.console import Console

from otel_mlmon.cli import SUMMARIES, Command, CommandError
from otel_mlmon_processor.alarm_store import FILE
from otel_mlmon_processor.config import Config
from otel_mlmon_processor.database import JournalError, examine, explain, open_private, sync
from otel_mlmon_processor.fold import Dump, Fold, FoldCounters, FormatError
from otel_mlmon_processor.journal import DamagedCheckpointError, Journal, read_checkpoint

NAME: Final = "mlmon.db"


@dataclass(slots=True)
class _Journal:
    """Entries after the checkpoint: number, bytes, time of the oldest (0: none); those that wait to be passed on."""

    entries: int = 0
    size: int = 0
    oldest: int = 0
    waiting: int = 0
    waiting_size: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at a database found.

    Args:
        problems: what is damaged; empty where all is sound.
        size, free, log: bytes of the file, free ones in it, and of the write-ahead log beside it.
        format: of the tables.
        checkpoint: entry, nanoseconds since 1970 and bytes; None before the first.
        fold: what the checkpoint holds: counters, and the number of models; None where it cannot be read.
        journal: what came after it.
    """

    problems: tuple[str, ...]
    size: int
    free: int
    log: int
    format: int
    checkpoint: tuple[int, int, int] | None
    fold: tuple[FoldCounters, int] | None
    journal: _Journal


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the three subcommands and their arguments."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="is it sound, and what is in it; while a processor runs, too",
        description="Read all of it. Exit status: 0 sound, 1 damaged, 2 cannot be used.",
    )
    backup = commands.add_parser(
        "backup",
        help="copy it, while a processor runs, too",
        description="The copy is a data directory itself: to restore it, start a processor with it.",
    )
    compact = commands.add_parser(
        "compact",
        help="give free space back to the system; no processor may run",
        description="Needs about as much free space as the file has while it runs.",
    )
    default = Config().data
    text = f"data directory of a processor ({default})"
    for command in (check, backup, compact):
        command.add_argument("data", nargs="?", type=Path, metavar="DIR", default=default, help=text)
    backup.add_argument("copy", type=Path, metavar="COPY", help="directory to be made")


def run(args: argparse.Namespace) -> int:
    """Do it; exit status 1 where something is damaged."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    path = args.data / NAME
    if not path.is_file():
        raise CommandError(f"{args.data}: no data directory of a processor: there is no {NAME} in it")
    try:
        if args.subcommand == "check":
            health = check(path)
            console.print("\n".join(describe(path, health)))
            return 1 if health.problems else 0
        if args.subcommand == "backup":
            size = back_up(path, args.copy)
            console.print(f"{args.copy}: {_size(size)}, checked")
            return 0
        before, after = compact(args.data)
        console.print(f"{path}: {_size(before)} before, {_size(after)} now")
    except JournalError as error:
        raise CommandError(str(error)) from None
    return 0


def check(path: Path) -> Health:
    """Read the whole database as it is at one moment; others may write to it meanwhile.

    Raises:
        JournalError: it cannot be used.
    """
    with _reading(path) as database:
        examine(path, database)
        page, free, version = (_ask(database, name) for name in ("page_size", "freelist_count", "user_version"))
        problems: list[str] = []
        try:
            found = [problem for (problem,) in database.execute("PRAGMA integrity_check")]
            problems += [problem for problem in found if problem != "ok"]
            checkpoint, fold = _read_checkpoint(database, problems)
            journal = _read_journal(database, checkpoint[0] if checkpoint else 0, problems)
        except (sqlite3.DatabaseError, DamagedCheckpointError) as error:  # not all of it can be read
            problems.append(str(error))
            checkpoint, fold, journal = None, None, _Journal()
    log = path.with_name(f"{NAME}-wal")
    beside = log.stat().st_size if log.exists() else 0
    return Health(tuple(problems), path.stat().st_size, page * free, beside, version, checkpoint, fold, journal)


def _read_checkpoint(
    database: sqlite3.Connection, problems: list[str]
) -> tuple[tuple[int, int, int] | None, tuple[FoldCounters, int] | None]:
    checkpoint = read_checkpoint(database)
    if checkpoint is None:
        return None, None
    seq, created, parts, documents = checkpoint
    size = sum(map(len, parts)) + sum(map(len, documents.values()))
    try:
        fold = Fold.load(Dump(parts, documents))
    except FormatError as error:
        problems.append(str(error))
        return (seq, created, size), None
    return (seq, created, size), (fold.counters(), len(fold.models()))


def _read_journal(database: sqlite3.Connection, folded: int, problems: list[str]) -> _Journal:
    held = _Journal()
    query = "SELECT seq, received_ns, waits, crc, body FROM journal ORDER BY seq"
    for seq, received, waits, crc, body in database.execute(query):
        if zlib.crc32(body) != crc:
            problems.append(f"entry {seq} of the journal is not what was written")
        if seq > folded:
            held.entries, held.size, held.oldest = held.entries + 1, held.size + len(body), held.oldest or received
        held.waiting, held.waiting_size = held.waiting + waits, held.waiting_size + waits * len(body)
    return held


def back_up(path: Path, copy: Path) -> int:
    """Copy the database as it is at one moment into a new directory, and check the copy; gives its bytes.

    Others may write meanwhile and do not wait. The directory gets its name when all is on the disk.

    Raises:
        JournalError: it cannot be read, or the copy not be written, or the copy is damaged.
        CommandError: the directory is there already.
    """
    if copy.exists():
        raise CommandError(f"{copy}: is there already; name a directory to be made")
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was broken off
    partial.mkdir(parents=True, mode=0o700)
    try:
        health = _copy(path, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(copy)
    sync(copy.parent)
    return health.size


def _copy(path: Path, partial: Path) -> Health:
    """Into a directory that is there; all is on the disk then."""
    target = partial / NAME
    alarms = path.with_name(FILE)
    if alarms.exists():  # first: it may be older than the counts, not newer
        shutil.copy(alarms, partial)  # with its mode
        sync(partial / FILE)
    with _reading(path) as source:
        examine(path, source)
        try:
            os.close(open_private(target, os.O_RDWR | os.O_CREAT | os.O_EXCL))
            with contextlib.closing(sqlite3.connect(target)) as database:
                source.backup(database)  # all pages in one step: one moment
        except sqlite3.Error as error:
            raise JournalError(explain(target, error)) from error
    health = check(target)
    if health.problems:
        raise JournalError(f"the copy is damaged, and so may be {path}: {health.problems[0]}")
    for beside in partial.glob(f"{NAME}-*"):  # left by the check, and empty
        beside.unlink()
    sync(target)
    sync(partial)
    return health


def compact(directory: Path) -> tuple[int, int]:
    """Give free space back; bytes of the file and its log before and after.

    Raises:
        JournalError: a processor runs, it is damaged, or there is not the space for it.
    """
    before = _measure(directory)
    journal = Journal(directory)
    try:
        problems = check(journal.path).problems
        if problems:
            raise JournalError(f"{journal.path}: damaged, see `otel-mlmon store check`: {problems[0]}")
        journal.compact()
    finally:
        journal.close()
    return before, _measure(directory)


def describe(path: Path, health: Health) -> Iterator[str]:
    """The lines that `check` prints."""
    yield f"{path}: {'DAMAGED' if health.problems else 'sound'}"
    for problem in health.problems:
        yield f"  {problem}"
    if health.problems and not any("restore a backup" in problem for problem in health.problems):
        yield "  restore a backup, or move the directory away to begin anew"
    yield f"format      {health.format}"
    yield f"size        {_size(health.size)}, {_size(health.free)} of it free; write-ahead log {_size(health.log)}"
    if health.checkpoint is None:
        yield f"checkpoint  {'cannot be told' if health.problems else 'none yet'}"
    else:
        seq, created, size = health.checkpoint
        yield f"checkpoint  up to entry {seq}, {_time(created)}, {_size(size)}"
    if health.fold is not None:
        fold, models = health.fold
        yield f"            models {models}, producers {fold.producers}, streams {fold.streams:,}"
        yield f"            points {fold.points:,}, duplicates {fold.duplicates:,}, late {fold.late:,}"
    journal = health.journal
    since = f", the oldest of {_time(journal.oldest)}" if journal.entries else ""
    yield f"journal     {journal.entries:,} requests since, {_size(journal.size)}{since}"
    yield f"outbox      {journal.waiting:,} requests wait to be passed on, {_size(journal.waiting_size)}"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and sees one moment."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as database:
            database.execute("BEGIN")
            yield database
    except sqlite3.Error as error:
        raise JournalError(explain(path, error)) from error


def _ask(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _measure(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob(f"{NAME}*"))


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


COMMAND = Command(SUMMARIES["store"], configure, run)
