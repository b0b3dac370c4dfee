"""Sums of exponential histograms. Merging never loses a count: the coarser scale and the wider zero bucket win."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Buckets = dict[int, int]


class Exponential(NamedTuple):
    """An exponential histogram; the buckets are counts from an index on, as in OTLP."""

    scale: int
    zero_threshold: float
    zero: int
    positive_offset: int
    positive: tuple[int, ...]
    negative_offset: int
    negative: tuple[int, ...]
    sum: float | None


@dataclass(slots=True)
class ExponentialSum:
    """Counts by bucket, mutable.

    Bucket i of a scale s holds the values in (2**(i / 2**s), 2**((i + 1) / 2**s)]; the zero bucket those of at most
    `threshold` in size. `merge` coarsens both to one scale and threshold, so the order of merging does not matter (only
    a zero bucket that widens may leave the scale coarser than another order would).
    `subtract` takes out what has been merged before.
    """

    scale: int = 20
    threshold: float = 0.0
    zero: int = 0
    positive: Buckets = field(default_factory=dict)
    negative: Buckets = field(default_factory=dict)

    @classmethod
    def read(cls, point: Exponential) -> ExponentialSum:
        """The sum of one point."""
        read = cls(point.scale, point.zero_threshold, point.zero)
        read.positive = {point.positive_offset + i: n for i, n in enumerate(point.positive) if n}
        read.negative = {point.negative_offset + i: n for i, n in enumerate(point.negative) if n}
        return read

    @property
    def count(self) -> int:
        """Values in all buckets."""
        return self.zero + sum(self.positive.values()) + sum(self.negative.values())

    def copy(self) -> ExponentialSum:
        """An independent sum of the same counts."""
        return ExponentialSum(self.scale, self.threshold, self.zero, dict(self.positive), dict(self.negative))

    def merge(self, other: ExponentialSum, limit: int = 320) -> None:
        """Add the counts of `other`; the scale goes down until both signs together span at most `limit` buckets."""
        self._add(other, 1)
        while _span(self.positive) + _span(self.negative) > limit:
            self._coarsen(self.scale - 1, self.threshold)

    def subtract(self, other: ExponentialSum) -> None:
        """Take out counts that were merged before."""
        self._add(other, -1)

    def falls_below(self, earlier: ExponentialSum) -> bool:
        """Whether some bucket holds fewer than in `earlier`, compared at the coarser scale of the two."""
        difference = self.copy()
        difference.subtract(earlier)
        return difference.zero < 0 or any(
            n < 0 for buckets in (difference.positive, difference.negative) for n in buckets.values()
        )

    def cells(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Bounds (k,) and counts (k + 1,) of the same distribution as an explicit histogram, ascending.

        A negative bucket is closed at its other end there; bounds beyond the floats are left out.
        """
        bound = self._bound
        threshold = self.threshold if self.threshold > 0 else 5e-324
        counts: dict[float, int] = {}
        for index, n in self.negative.items():  # keyed by the upper bound of the cell
            upper = min(-bound(index), -threshold)
            counts[upper] = counts.get(upper, 0) + n
        counts[threshold] = counts.get(threshold, 0) + self.zero
        lows = [-bound(index + 1) for index in self.negative] + [-threshold]
        for index, n in self.positive.items():
            upper = max(bound(index + 1), threshold)
            counts[upper] = counts.get(upper, 0) + n
            lows.append(max(bound(index), threshold))
        edges = sorted(edge for edge in {*counts, *lows} if math.isfinite(edge))
        cells = [counts.pop(edge, 0) for edge in edges]
        return np.array(edges, dtype=np.float64), np.array([*cells, sum(counts.values())], dtype=np.int64)

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [self.scale, self.threshold, self.zero, list(self.positive.items()), list(self.negative.items())]

    @classmethod
    def load(cls, plain: list[Any]) -> ExponentialSum:
        """What `dump` gave."""
        scale, threshold, zero, positive, negative = plain
        return cls(scale, threshold, zero, dict(map(tuple, positive)), dict(map(tuple, negative)))

    def _bound(self, index: int) -> float:
        exponent = index / 2.0**self.scale
        return math.inf if exponent >= 1024 else 2.0**exponent

    def _add(self, other: ExponentialSum, sign: int) -> None:
        if (self.scale, self.threshold) != (other.scale, other.threshold):
            # Where all is in the zero bucket the scale says nothing: SDKs send 0 then.
            scales = [part.scale for part in (self, other) if part.positive or part.negative]
            scale, threshold = min(scales, default=self.scale), max(self.threshold, other.threshold)
            self._coarsen(scale, threshold)
            other = other.copy()
            other._coarsen(scale, threshold)  # noqa: SLF001 (another value of this class)
        self.zero += sign * other.zero
        for mine, theirs in ((self.positive, other.positive), (self.negative, other.negative)):
            for index, n in theirs.items():
                total = mine.get(index, 0) + sign * n
                if total:
                    mine[index] = total
                else:
                    mine.pop(index, None)

    def _coarsen(self, scale: int, threshold: float) -> None:
        shift = max(self.scale - scale, 0)
        widened = threshold > self.threshold
        self.scale, self.threshold = scale, threshold
        if shift:
            self.positive, self.negative = _shifted(self.positive, shift), _shifted(self.negative, shift)
        if threshold > 0 and (shift or widened):
            # A bucket that begins below the threshold goes whole to zero; the test does not depend on the counts,
            # so what is merged in two steps and taken out in one stays exact.
            for buckets in (self.positive, self.negative):
                for index in [i for i in buckets if self._bound(i) < threshold]:
                    self.zero += buckets.pop(index)


def _shifted(buckets: Buckets, shift: int) -> Buckets:
    shifted: Buckets = {}
    for index, n in buckets.items():
        shifted[index >> shift] = shifted.get(index >> shift, 0) + n
    return shifted


def _span(buckets: Buckets) -> int:
    return max(buckets) - min(buckets) + 1 if buckets else 0
