"""Dumps of the fold in older formats, turned into the one of this version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from otel_mlmon_processor.pack import Table
from otel_mlmon_processor.points import Attributes
from otel_mlmon_processor.profile_store import name_document

OLDEST: Final = 3  # that can be read
_ROWS: Final = 4
_INLINE: Final = 5
_UNMEASURED: Final = 6


def upgrade(version: int, state: list[Any]) -> list[Any]:
    """The state of a dump of format `version`, as `State.load` takes it."""
    if version == OLDEST:
        state = _from_3(state)
    if version <= _ROWS:
        state = _from_4(state)
    if version <= _UNMEASURED:
        state[0].append(None)  # the memory that counts take is to be measured
    return state


def upgrade_profiles(
    version: int, profiles: list[Any], documents: Mapping[str, bytes]
) -> tuple[list[Any], Mapping[str, bytes]]:
    """The profiles and documents of a dump of format `version`, as `ProfileStore.load` takes them."""
    if version > _INLINE:
        return profiles, documents
    held, *rest = profiles  # documents were in the dump itself
    documents = {name_document(document): document for _, document in held}
    return [[[key, name_document(document)] for key, document in held], *rest], documents


def _from_4(state: list[Any]) -> list[Any]:
    """Each series and each cumulative stream was a list of its own."""
    *_, producers = state
    for _, producer in producers:
        *_, series, cells = producer
        streams = [stream for _, _, held in series for stream in held]
        starts, ends, floors, counts, bounds, sums = zip(*streams, strict=True) if streams else [()] * 6
        producer[4:] = [
            np.array([place for place, _, _ in series], dtype=np.int64),
            np.array([number for _, number, _ in series], dtype=np.int64),
            np.array([len(held) for _, _, held in series], dtype=np.int64),
            [
                *[np.array(column, dtype=np.int64) for column in (starts, ends, floors)],
                np.array([math.nan if total is None else total for total in sums], dtype=np.float64),
                np.array([place if c is None else -1 for place, c in zip(bounds, counts, strict=True)], dtype=np.int64),
                cells,
                [count for count in counts if count is not None],
            ],
        ]
    return state


def _from_3(state: list[Any]) -> list[Any]:
    """Each series had its metric and attributes, each cumulative stream its bounds."""
    numbers, dropped, models, producers = state
    meanings: Table[tuple[str, Attributes]] = Table()
    bounds: Table[bytes] = Table()
    for _, producer in producers:
        cells: list[bytes] = []
        producer[4] = [
            [
                meanings.place((metric, tuple((key, value) for key, value in pairs))),
                number,
                [_cumulative_from_3(cumulative, bounds, cells) for cumulative in cumulatives],
            ]
            for metric, pairs, number, cumulatives in producer[4]
        ]
        producer.append(b"".join(cells))
    return [numbers, dropped, models, meanings.items, bounds.items, producers]


def _cumulative_from_3(plain: list[Any], bounds: Table[bytes], cells: list[bytes]) -> list[Any]:
    start, end, floor, counts, edges, total = plain
    if isinstance(counts, np.ndarray):
        cells.append(counts.tobytes())
        counts = None
    return [start, end, floor, counts, bounds.place(edges), total]
