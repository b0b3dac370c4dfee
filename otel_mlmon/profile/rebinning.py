"""Histograms over different cells as one over common cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts, Floats, NumericAxis, fit_axis
from otel_mlmon.numerics.histogram import Histogram
from otel_mlmon.profile.document import ProfileError, Reference

POINTS: Final = 50_000  # values that stand for the parts when common cells are chosen
POINT_WIDTH: Final = 1e-6  # relative width up to which a cell is an atom's
LISTED: Final = 50
KEPT: Final = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A distribution of numbers as segments (lower, upper] with counts; a segment of no width is an atom.

    Args:
        lower, upper, counts: shape (k,).
        sum, m2, min, max: of the values.
    """

    lower: Floats
    upper: Floats
    counts: Counts
    sum: float
    m2: float
    min: float
    max: float

    @property
    def count(self) -> int:
        """Values in all segments."""
        return int(self.counts.sum())

    @classmethod
    def of(cls, reference: Reference, shift: float) -> Piece:
        """The numbers of a reference, `shift` added to each.

        Categories that are numbers, such as few integers, are atoms.

        Raises:
            ProfileError: the categories are no numbers.
        """
        histogram, axis = reference.histogram, reference.histogram.axis
        if isinstance(axis, CategoryAxis):
            return _of_categories(reference, axis)
        least, most = histogram.min, histogram.max
        filled = histogram.counts > 0
        lower = np.maximum(np.concatenate([[-np.inf], axis.edges]), least)[filled]
        upper = np.minimum(np.concatenate([axis.edges, [np.inf]]), most)[filled]
        atoms = upper - lower <= POINT_WIDTH * np.maximum(np.abs(lower), np.abs(upper)) + np.finfo(np.float32).tiny
        middle = lower / 2 + upper / 2
        lower, upper = np.where(atoms, middle, lower) + shift, np.where(atoms, middle, upper) + shift
        total = histogram.sum + shift * histogram.valid
        return cls(lower, upper, histogram.counts[filled], total, reference.m2, least + shift, most + shift)


def _of_categories(reference: Reference, axis: CategoryAxis) -> Piece:
    counts = dict(zip(axis.names, reference.histogram.counts.tolist(), strict=False))
    rest = sum(reference.histogram.counts.tolist()[-2:])
    if rest and axis.others:  # known by name, but not how many of each: evenly
        shares = np.diff(np.rint(np.linspace(0, rest, len(axis.others) + 1)).astype(np.int64)).tolist()
        counts.update(zip(axis.others, shares, strict=True))
    elif rest and counts:
        counts[axis.names[0]] += rest
    try:
        points = {_number(reference, name): count for name, count in counts.items() if count}
    except ValueError:
        raise ProfileError(
            f"column {reference.variable.column!r}: numbers in one part, categories in another; "
            "build them with one plan, or with types="
        ) from None
    values = np.array(sorted(points), dtype=np.float64)
    sizes = np.array([points[value] for value in values.tolist()], dtype=np.int64)
    if not values.size:
        return Piece(values, values, sizes, 0.0, 0.0, np.inf, -np.inf)
    total = float(values @ sizes)
    m2 = float(np.square(values - total / sizes.sum()) @ sizes)
    return Piece(values, values, sizes, total, m2, float(values[0]), float(values[-1]))


def _number(reference: Reference, name: str) -> float:
    if reference.variable.dtype == "boolean":
        return float(("false", "true").index(name))
    if reference.variable.dtype not in ("integer", "float"):
        raise ValueError(name)
    return float(name)


def join_numbers(pieces: Sequence[Piece], least: float, most: float) -> tuple[NumericAxis, Counts]:
    """Common cells, chosen from the mixture of the pieces as cells are from a sample, and the counts in them."""
    lower = np.concatenate([piece.lower for piece in pieces])
    upper = np.concatenate([piece.upper for piece in pieces])
    counts = np.concatenate([piece.counts for piece in pieces])
    axis = fit_axis(np.sort(_spread(lower, upper, counts)), minimum=least, maximum=most)
    return axis, count_into(axis, pieces)


def count_into(axis: NumericAxis, pieces: Sequence[Piece]) -> Counts:
    """Counts of the pieces in the cells of an axis.

    Within a segment values are taken to be spread evenly; the cumulative counts at the edges are rounded, so that
    none is lost.
    """
    lower = np.concatenate([piece.lower for piece in pieces])
    upper = np.concatenate([piece.upper for piece in pieces])
    counts = np.concatenate([piece.counts for piece in pieces])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (axis.edges[:, np.newaxis] - lower) / (upper - lower)
    inside = np.where(upper > lower, np.clip(share, 0.0, 1.0), axis.edges[:, np.newaxis] >= lower)
    below = np.rint(inside @ counts).astype(np.int64)
    cells: Counts = np.diff(below, prepend=0, append=counts.sum())
    return cells


def _spread(lower: Floats, upper: Floats, counts: Counts) -> Floats:
    """POINTS values (or as many as there are) that stand for the segments, evenly within each."""
    ends = np.cumsum(counts)
    points = min(POINTS, int(ends[-1]))
    sizes = np.diff(np.rint(ends / ends[-1] * points).astype(np.int64), prepend=0)
    segment = np.repeat(np.arange(counts.size), sizes)
    nth = np.arange(segment.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    values: Floats = lower[segment] + (upper - lower)[segment] * ((nth + 0.5) / sizes[segment])
    return values


def join_categories(histograms: Sequence[Histogram]) -> tuple[CategoryAxis, Counts]:
    """Common categories: the most frequent of those that any part lists; what a part did not list stays "other"."""
    sizes: Counter[str] = Counter()
    others: set[str] = set()
    rest = unseen = 0
    axes = [histogram.axis for histogram in histograms if isinstance(histogram.axis, CategoryAxis)]
    for axis, histogram in zip(axes, histograms, strict=True):
        *listed, other, new = histogram.counts.tolist()
        for name, count in zip(axis.names, listed, strict=True):
            sizes[name] += count
        others.update(axis.others)
        rest, unseen = rest + other, unseen + new
    ranked = sorted(sizes, key=lambda name: (-sizes[name], name))
    most = max(LISTED, *(len(axis.names) for axis in axes))
    names, dropped = ranked[:most], ranked[most:]
    known = dropped + sorted(others - set(ranked))
    closed = all(axis.closed for axis in axes) and not unseen and len(known) <= KEPT
    counts = [*(sizes[name] for name in names), rest + unseen + sum(sizes[name] for name in dropped), 0]
    return CategoryAxis(tuple(names), tuple(known[:KEPT]), closed), np.array(counts, dtype=np.int64)


def counts_over(axis: Axis, reference: Reference, like: Counts | None = None) -> Counts:
    """Counts of a reference over the cells of another: exact where the cells are the same.

    Where they are not, values of one cell may lie in several: they are spread evenly over it; or, with `like`, put
    where that says, as far as they can be, so that what differs from it does so for certain.

    Args:
        axis: the other cells.
        reference: whose counts.
        like: counts over the other cells, (cells,).

    Raises:
        ProfileError: numbers against categories.
    """
    histogram = reference.histogram
    if histogram.axis == axis:
        return histogram.counts
    if isinstance(axis, NumericAxis):
        piece = Piece.of(reference, 0.0)
        return count_into(axis, [piece]) if like is None else _count_like(axis, piece, like)
    if not isinstance(histogram.axis, CategoryAxis):
        raise ProfileError(f"column {reference.variable.column!r}: numbers against categories")
    return _counts_of_categories(axis, histogram, histogram.axis, like)


def _count_like(axis: NumericAxis, piece: Piece, like: Counts) -> Counts:
    """Of the cumulative counts that may be at each edge, those nearest to that of `like`."""
    edges, total = axis.edges[:, np.newaxis], piece.count
    least = (piece.upper <= edges) @ piece.counts
    most = np.where(piece.upper > piece.lower, piece.lower < edges, piece.lower <= edges) @ piece.counts
    wanted = like.cumsum()[:-1] / max(like.sum(), 1) * total
    below = np.clip(np.rint(wanted).astype(np.int64), least, most)
    cells: Counts = np.diff(below, prepend=0, append=total)
    return cells


def _counts_of_categories(axis: CategoryAxis, histogram: Histogram, own: CategoryAxis, like: Counts | None) -> Counts:
    counts = np.zeros(axis.cells, dtype=np.int64)
    codes = axis.codes
    *listed, other, unseen = histogram.counts.tolist()
    for name, count in zip(own.names, listed, strict=True):
        counts[codes.get(name, axis.default)] += count
    if like is not None:  # what `own` does not list may be any name that it does not list
        wanted = np.rint(like / max(like.sum(), 1) * histogram.valid).astype(np.int64).tolist()
        for place, name in enumerate(axis.names):
            if name not in own.names:
                counts[place] = min(wanted[place], other)
                other -= int(counts[place])
    counts[-2] += other
    counts[axis.default] += unseen
    return counts
