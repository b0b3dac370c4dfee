"""Entries of the journal, read and unpacked by a thread of its own while those before are folded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from otel_mlmon_processor.journal import Entry

_AHEAD: Final = 1 << 20  # bytes of bodies, about


def read_ahead(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same entries. SQLite, checksums and lz4 do not hold the interpreter, so that this takes the other core."""
    with ThreadPoolExecutor(1, "mlmon-recover") as pool:
        following = pool.submit(_take, entries)
        while taken := following.result():
            following = pool.submit(_take, entries)
            yield from taken


def _take(entries: Iterator[Entry]) -> list[Entry]:
    taken, size = [], 0
    for entry in entries:
        taken.append(entry)
        size += len(entry.body)
        if size >= _AHEAD:
            break
    return taken
