"""How much memory counts may take, reckoned from what is held: so it is the same when the journal is folded again.

Each place of a model's layout has room for all its windows when it is made, so what is there can go on.
"""

from __future__ import annotations

from typing import Final

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.points import Attributes
from otel_mlmon_processor.reading import Reading

SERIES: Final = 500  # bytes of a series of one producer without its counts
_BUCKET: Final = 100  # bytes of a bucket of an exponential sum
BUCKETS: Final = 160 * _BUCKET  # of as many as SDKs send at most


class Room:
    """Bytes that may be held, and are."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def fits(self, size: int) -> bool:
        """Whether there is room for so much more."""
        return size <= 0 or self.held + size <= self.most


def size_of(reading: Reading) -> int:
    """Bytes of what is kept of a cumulative point, beside its stream."""
    counts = reading.counts
    if isinstance(counts, ExponentialSum):
        return _BUCKET * (len(counts.positive) + len(counts.negative))
    return len(counts) if isinstance(counts, bytes) else 0


def size_of_names(attributes: Attributes) -> int:
    """Bytes of what all series with the same attributes share."""
    return sum(_BUCKET + len(name) + len(value) for name, value in attributes)
