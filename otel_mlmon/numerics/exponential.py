"""Exponential histograms of OTLP, for variables that have no profile yet.

Bucket i of scale s holds sizes in (2^(i / 2^s), 2^((i + 1) / 2^s)]; bounds are computed as 2^(fraction) times a power
of two, so those at powers of two are exact. Source: OpenTelemetry metrics data model, exponential histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis, differences

MAX_SCALE: Final = 20
MIN_SCALE: Final = -10
MAX_SIZE: Final = 160
_LEAST: Final = 2.0**-1022  # smaller sizes are counted as this one, as the specification allows


class Buckets(NamedTuple):
    """Counts of the buckets offset, offset + 1, ...; offset is 0 where there are none."""

    offset: int
    counts: Counts


_NONE: Final = Buckets(0, np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Exponential:
    """An exponential histogram; merging returns a new one.

    Args:
        scale: of the buckets, MIN_SCALE to MAX_SCALE.
        zero: values that are 0.
        positive: buckets of the values above 0.
        negative: of those below, by their size.
    """

    scale: int = MAX_SCALE
    zero: int = 0
    positive: Buckets = _NONE
    negative: Buckets = _NONE

    @property
    def valid(self) -> int:
        """Values in buckets."""
        return self.zero + int(self.positive.counts.sum()) + int(self.negative.counts.sum())

    def at_scale(self, scale: int) -> Exponential:
        """The same counts in the wider buckets of a lower scale.

        Raises:
            ValueError: the scale is higher than this one's.
        """
        shift = self.scale - scale
        if shift < 0:
            raise ValueError(f"buckets of scale {self.scale} cannot be split to scale {scale}")
        return Exponential(scale, self.zero, _shift(self.positive, shift), _shift(self.negative, shift))

    def merge(self, other: Exponential, max_size: int = MAX_SIZE) -> Exponential:
        """Counts of both, at the highest scale at which neither sign needs more than `max_size` buckets."""
        scale = min(self.scale, other.scale)
        a, b = self.at_scale(scale), other.at_scale(scale)
        shift = max(
            _excess(*_span(a.positive, b.positive), max_size), _excess(*_span(a.negative, b.negative), max_size)
        )
        a, b = a.at_scale(scale - shift), b.at_scale(scale - shift)
        return Exponential(a.scale, a.zero + b.zero, _add(a.positive, b.positive), _add(a.negative, b.negative))

    def cells(self) -> tuple[Floats, Counts]:
        """The same as ascending cells: bounds (k + 1,) and counts (k,); the zeros are a cell without width."""
        up = _bounds(self.positive.offset, self.positive.counts.size + 1, self.scale)
        down = -_bounds(self.negative.offset, self.negative.counts.size + 1, self.scale)[::-1]
        if not self.positive.counts.size:
            up = up[:0]
        if not self.negative.counts.size:
            down = down[:0]
        gap_down, gap_up = ([0] if part.size else [] for part in (down, up))
        bounds = np.concatenate([down, [0.0, 0.0], up])
        counts = np.concatenate([self.negative.counts[::-1], gap_down, [self.zero], gap_up, self.positive.counts])
        return bounds, counts.astype(np.int64)


def count_exponential(ordered: Floats, max_size: int = MAX_SIZE, max_scale: int = MAX_SCALE) -> Exponential:
    """Count values at the highest scale at which neither sign needs more than `max_size` buckets.

    As in `count_columns`, the bounds are searched in the sorted values.

    Args:
        ordered: ascending finite values, shape (n,).
        max_size: most buckets of a sign, at least 2.
        max_scale: highest scale.
    """
    below, above = ordered.searchsorted(0.0, "left"), ordered.searchsorted(0.0, "right")
    signs = np.maximum(ordered[above:], _LEAST), np.maximum(-ordered[:below][::-1], _LEAST)
    ends = [
        (bucket_of(float(sizes[0]), max_scale), bucket_of(float(sizes[-1]), max_scale)) if sizes.size else (0, 0)
        for sizes in signs
    ]
    scale = max_scale - max(_excess(first, last, max_size) for first, last in ends)
    positive, negative = (_count_sign(sizes, scale) for sizes in signs)
    return Exponential(scale, int(above - below), positive, negative)


def bucket_of(size: float, scale: int) -> int:
    """Bucket of a size > 0."""
    fraction, exponent = math.frexp(size)
    octave = exponent - 2 if fraction == 0.5 else exponent - 1  # the size is in (2^octave, 2^(octave + 1)]
    if scale <= 0:
        return octave >> -scale
    part = math.ldexp(fraction, exponent - octave)  # in (1, 2]
    last = (1 << scale) - 1
    index = min(max(math.ceil(math.log2(part) * (last + 1)) - 1, 0), last)
    # The logarithm is rounded; the bound decides.
    while index > 0 and part <= _fraction(index, scale):
        index -= 1
    while index < last and part > _fraction(index + 1, scale):
        index += 1
    return (octave << scale) + index


def rebin(counts: Counts, bounds: Floats, axis: NumericAxis) -> Counts:
    """Counts over other cells, as if values were spread evenly over theirs; shape (axis.cells,), the total is kept.

    Args:
        counts: shape (k,).
        bounds: of their cells, ascending and finite, shape (k + 1,); a cell without width holds that value.
        axis: the new cells.
    """
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    # At a bound that occurs twice everything up to and with that value counts, as cells are closed above.
    last = np.searchsorted(bounds, axis.edges, side="right") - 1
    at = np.clip(last, 0, counts.size - 1)
    # Halves, as the width may be beyond the floats; within a cell the edge is between its bounds.
    width = bounds[at + 1] / 2 - bounds[at] / 2
    way = np.clip(axis.edges, bounds[at], bounds[at + 1]) / 2 - bounds[at] / 2
    share = way / np.where(width > 0, width, 1.0)
    inside = (last >= 0) & (last < counts.size)
    reached = np.where(inside, cumulative[at] + share * counts[at], np.where(last < 0, 0, cumulative[-1]))
    return differences(np.rint(reached).astype(np.int64), int(cumulative[-1]))


def _fraction(index: int, scale: int) -> float:
    return float(np.exp2(index / 2.0**scale))


def _bounds(first: int, number: int, scale: int) -> Floats:
    """Lower bounds of so many buckets from the first on; the greatest float where they are beyond the floats."""
    index = np.arange(first, first + number, dtype=np.int64)
    with np.errstate(over="ignore"):
        if scale <= 0:
            found = np.ldexp(1.0, np.clip(index << -scale, -1074, 1024))
        else:
            found = np.ldexp(np.exp2((index & (2**scale - 1)) / 2.0**scale), index >> scale)
    bounds: Floats = np.minimum(found, np.finfo(np.float64).max)
    return bounds


def _count_sign(sizes: Floats, scale: int) -> Buckets:
    if not sizes.size:
        return _NONE
    first, last = bucket_of(float(sizes[0]), scale), bucket_of(float(sizes[-1]), scale)
    reached = sizes.searchsorted(_bounds(first + 1, last - first, scale), "right")
    return Buckets(first, differences(reached, sizes.size))


def _span(a: Buckets, b: Buckets) -> tuple[int, int]:
    """First and last bucket of both."""
    filled = [part for part in (a, b) if part.counts.size]
    if not filled:
        return 0, 0
    return min(part.offset for part in filled), max(part.offset + part.counts.size - 1 for part in filled)


def _excess(first: int, last: int, max_size: int) -> int:
    """By how much the scale must go down for the buckets first..last to be at most max_size."""
    shift = 0
    while (last >> shift) - (first >> shift) >= max_size:
        shift += 1
    return shift


def _shift(buckets: Buckets, shift: int) -> Buckets:
    if not shift or not buckets.counts.size:
        return buckets
    index = (buckets.offset + np.arange(buckets.counts.size)) >> shift
    starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
    return Buckets(int(index[0]), np.add.reduceat(buckets.counts, starts))


def _add(a: Buckets, b: Buckets) -> Buckets:
    if not a.counts.size or not b.counts.size:
        return b if b.counts.size else a
    first, last = _span(a, b)
    total = np.zeros(last - first + 1, dtype=np.int64)
    for part in (a, b):
        total[part.offset - first : part.offset - first + part.counts.size] += part.counts
    return Buckets(first, total)
