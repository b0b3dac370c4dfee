"""Dumps of the fold in older formats, turned into the one of this version."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from otel_mlmon_processor.pack import Table
from otel_mlmon_processor.points import Attributes

OLDEST: Final = 3  # that can be read


def upgrade(version: int, state: list[Any]) -> list[Any]:
    """The state of a dump of format `version`, as `State.load` takes it."""
    return _from_3(state) if version == OLDEST else state


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
