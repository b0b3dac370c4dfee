"""Counts as they are read, and what a later reading adds to an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon_processor.exponential import ExponentialSum

Counts = NDArray[np.int64]
Measured = bytes | ExponentialSum | int


class Reading(NamedTuple):
    """Counts as the streams keep them.

    Those of an explicit histogram over k bounds are k + 1 int64 as bytes, which take much less room than an array;
    `bounds` are the k float64 as bytes, so that equal bounds are one key. Both are little-endian, as on the wire. `sum`
    is None where the producer sent none.
    """

    counts: Measured
    bounds: bytes = b""
    sum: float | None = None

    @property
    def cells(self) -> Counts:
        """Counts (k + 1,) of an explicit histogram, read-only."""
        if not isinstance(self.counts, bytes):
            raise TypeError(f"{type(self.counts).__name__} has no cells")
        return np.frombuffer(self.counts, dtype="<i8")


# Whether a cell fell, and the increase of the cells where none did (None where they are all the same); None as a whole
# where the bounds or the kind of the counts changed.
Change = tuple[bool, Measured | None] | None


def compare(pairs: Sequence[tuple[Reading, Reading]]) -> list[Change]:
    """From each earlier to the later counts; of histograms all at once, which is much faster than one by one."""
    changes: list[Change] = [None] * len(pairs)
    places: list[int] = []
    before: list[bytes] = []
    after: list[bytes] = []
    for place, (earlier, later) in enumerate(pairs):
        if earlier.bounds != later.bounds or type(earlier.counts) is not type(later.counts):
            continue
        if isinstance(later.counts, bytes):
            places.append(place)
            before.append(earlier.counts)  # type: ignore[arg-type]  # of the same type
            after.append(later.counts)
        else:
            changes[place] = _compare_one(earlier.counts, later.counts)
    if places:
        for place, change in zip(places, _compare_cells(before, after), strict=True):
            changes[place] = change
    return changes


def _compare_cells(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[Change]:
    difference = np.frombuffer(b"".join(after), dtype="<i8") - np.frombuffer(b"".join(before), dtype="<i8")
    ends = np.cumsum([len(cells) for cells in after])
    starts = np.array([0, *ends[:-1]]) // 8
    fell = np.minimum.reduceat(difference, starts) < 0
    grew = np.maximum.reduceat(difference, starts) > 0
    raw, start = difference.tobytes(), 0
    for end, down, up in zip(ends.tolist(), fell.tolist(), grew.tolist(), strict=True):
        yield down, raw[start:end] if up and not down else None
        start = end


def _compare_one(earlier: Any, later: Any) -> Change:
    if isinstance(later, ExponentialSum):
        if later.falls_below(earlier):
            return True, None
        if later.count == earlier.count:  # no bucket fell, so equal counts are equal buckets
            return False, None
        difference = later.copy()
        difference.subtract(earlier)
        return False, difference
    return later < earlier, later - earlier if later > earlier else None
