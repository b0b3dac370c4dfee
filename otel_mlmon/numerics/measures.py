"""Differences of two distributions from their counts.

Every measure takes counts of the current sample, `p_counts`, and of the reference, `q_counts`, over the same cells:
shape (..., cells), broadcast with each other. The result has shape (...) and is NaN where one of the two is empty. A
cell that is empty in both contributes nothing, so features of different size can be padded with zeros. p and q are
shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otel_mlmon.numerics.effect import effect, expected_psi
from otel_mlmon.semconv import DriftMeasure

Floats = NDArray[np.float64]


def psi(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Population stability index, which is the symmetric Kullback-Leibler divergence.

    sum((p - q) ln(p / q)), in nats; range [0, inf), 0 where equal.
    A cell that is empty in one of the two counts as half an observation there.
    Source: H. Jeffreys, 1946, doi:10.1098/rspa.1946.0056.

    >>> float(psi([30, 70], [50, 50]).round(6))
    0.16946
    """
    p, q = _shares(*_half_for_empty(p_counts, q_counts))
    used = (p > 0) & (q > 0)
    with np.errstate(invalid="ignore"):
        return _sum((p - q) * np.log(np.where(used, p, 1.0) / np.where(used, q, 1.0)))


def psi_corrected(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """PSI less what it is on average where nothing has changed, `expected_psi`; about 0 there, may be negative.

    psi(p, q) - (B - 1)(1/n + 1/m) over the B cells that are not empty in both; empty cells as in `psi`.
    Source: B. Yurdakul, J. Naranjo, 2020, doi:10.21314/JRMV.2020.227.

    >>> float(psi_corrected([30, 70], [50, 50]).round(6))
    0.14946
    """
    a, b = _counts(p_counts, q_counts)
    cells = ((a > 0) | (b > 0)).sum(axis=-1)
    return np.asarray(psi(a, b) - expected_psi(cells, a.sum(axis=-1), b.sum(axis=-1)))


def jensen_shannon(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Jensen-Shannon distance with base 2, a metric.

    sqrt((KL(p | a) + KL(q | a)) / 2), a = (p + q) / 2; no unit, range [0, 1], 1 where no cell is shared.
    An empty cell contributes its limit, 0 log 0 = 0, so nothing is added to it.
    Source: D. M. Endres, J. E. Schindelin, 2003, doi:10.1109/TIT.2003.813506.

    >>> float(jensen_shannon([30, 70], [50, 50]).round(6))
    0.174084
    """
    p, q = _shares(*_counts(p_counts, q_counts))
    middle = (p + q) / 2
    divergence = (_sum(_entropy_terms(p, middle)) + _sum(_entropy_terms(q, middle))) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def ks(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Kolmogorov-Smirnov distance of ordered cells.

    max |P - Q| of the cumulative shares at the edges; no unit, range [0, 1]. Never above the distance of the samples
    themselves, and below it by at most the largest share of a cell. Empty cells change nothing.
    Source: N. Smirnov, 1948, doi:10.1214/aoms/1177730256.

    >>> float(ks([10, 20, 70], [20, 30, 50]).round(6))
    0.2
    """
    p, q = _shares(*_counts(p_counts, q_counts))
    return np.asarray(np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1))


def wasserstein(
    p_counts: ArrayLike, q_counts: ArrayLike, bounds: ArrayLike, *, mean_difference: ArrayLike | None = None
) -> Floats:
    """Wasserstein-1 distance, the mean way that values have moved, in the units of the variable; range [0, inf).

    The integral of |P - Q| with values spread evenly over each cell, so the cumulative shares are straight lines in it.
    It is a + b, where a is the part with P < Q (values have grown) and b the other; a - b is the difference of the
    means. Where this is known, |difference| + 2 min(a, b) is given: exact where all move the same way, into open cells
    too. Else the error is at most the mean width of the cells that values are in: with a profile's cells 1.5 % for a
    normal that moves inside the range, and a factor of 2.1 for one that has left it.
    Empty cells change nothing. Source: S. S. Vallender, 1974, doi:10.1137/1118101.

    Args:
        p_counts: shape (..., cells).
        q_counts: the same.
        bounds: of the cells, shape (..., cells + 1), finite and ascending, see `cell_bounds`; pad with the last.
        mean_difference: mean of the current less mean of the reference values, shape (...); NaN where unknown.

    >>> float(wasserstein([0, 10], [10, 0], [0.0, 1.0, 2.0]))
    1.0
    """
    p, q = _shares(*_counts(p_counts, q_counts))
    right = np.cumsum(p - q, axis=-1)
    left = right - (p - q)
    with np.errstate(over="ignore"):
        widths = np.minimum(np.diff(np.asarray(bounds, dtype=np.float64), axis=-1), np.finfo(np.float64).max)
        grown, shrunk = (_sum(_area(sign * left, sign * right) * widths) for sign in (-1.0, 1.0))
    if mean_difference is None:
        return grown + shrunk
    known = np.abs(np.asarray(mean_difference, dtype=np.float64))
    return np.where(np.isfinite(known), known + 2 * np.minimum(grown, shrunk), grown + shrunk)


def _area(left: Floats, right: Floats) -> Floats:
    """Area above zero under the line from height left to height right over unit width."""
    across = np.abs(left) + np.abs(right)
    peak = np.maximum(np.maximum(left, right), 0.0)
    triangle = peak**2 / np.where(across > 0, across, 1.0)
    return np.asarray(np.where(left * right < 0, triangle, np.maximum(left, 0.0) + np.maximum(right, 0.0)) / 2)


def cell_bounds(edges: ArrayLike, minimum: float = np.nan, maximum: float = np.nan) -> Floats:
    """Finite bounds of the cells that edges make, shape (k + 2,), for `wasserstein`.

    An open end cell reaches to the least (greatest) value known where that is outside the edges, else it is three times
    as wide as its neighbour, which is how cells grow beyond the range of a profile.

    Args:
        edges: shape (k,), ascending.
        minimum: of all values, as far as known; NaN or infinite where it is not.
        maximum: likewise.
    """
    edges = np.asarray(edges, dtype=np.float64)
    limit = float(np.finfo(np.float64).max)
    first, last = float(edges[0]), float(edges[-1])
    with np.errstate(over="ignore"):
        widths = np.minimum(3.0 * np.diff(edges), limit) if edges.size > 1 else np.array([abs(first) or 1.0])
    low = minimum if -limit <= minimum < first else max(first - float(widths[0]), -limit)
    high = maximum if last < maximum <= limit else min(last + float(widths[-1]), limit)
    return np.concatenate([[low], edges, [high]])


def hellinger(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Hellinger distance, a metric.

    sqrt(sum((sqrt(p) - sqrt(q))^2) / 2); no unit, range [0, 1], 1 where no cell is shared.
    An empty cell contributes the other's share; nothing is added to it.
    Source: E. Hellinger, 1909, doi:10.1515/crll.1909.136.210.

    >>> float(hellinger([30, 70], [50, 50]).round(6))
    0.145237
    """
    p, q = _shares(*_counts(p_counts, q_counts))
    return np.asarray(np.sqrt(np.minimum(_sum((np.sqrt(p) - np.sqrt(q)) ** 2) / 2, 1.0)))


def chi_square(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Chi-square statistic of two samples over its degrees of freedom.

    sum((a sqrt(m/n) - b sqrt(n/m))^2 / (a + b)) / (B - 1) with counts a of n and b of m over the B cells that are not
    empty in both; no unit, range [0, inf), about 1 where nothing has changed, and it grows with the sample. 0 where B
    is 1. A cell that is empty in one of the two is used as it is.
    Source: K. Pearson, 1911, doi:10.1093/biomet/8.1-2.250.

    >>> float(chi_square([30, 70], [50, 50]).round(6))
    8.333333
    """
    a, b = _counts(p_counts, q_counts)
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    both = a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = _sum((a * np.sqrt(m / n) - b * np.sqrt(n / m)) ** 2 / np.where(both > 0, both, 1.0))
    return np.asarray(statistic / np.maximum((both > 0).sum(axis=-1) - 1, 1))


def linf(p_counts: ArrayLike, q_counts: ArrayLike) -> Floats:
    """Largest change of a cell's share: max |p - q|; no unit, range [0, 1]; for categories. Empty cells change nothing.

    Source: A. L. Gibbs, F. E. Su, On choosing and bounding probability metrics, 2002,
    doi:10.1111/j.1751-5823.2002.tb00178.x (the largest change of a set of cells is half the sum of |p - q|).

    >>> float(linf([30, 70], [50, 50]).round(6))
    0.2
    """
    p, q = _shares(*_counts(p_counts, q_counts))
    return np.asarray(np.abs(p - q).max(axis=-1))


def _counts(p_counts: ArrayLike, q_counts: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.broadcast_arrays(np.asarray(p_counts, dtype=np.float64), np.asarray(q_counts, dtype=np.float64))
    return a, b


def _half_for_empty(p_counts: ArrayLike, q_counts: ArrayLike) -> tuple[Floats, Floats]:
    """Counts with half an observation where a cell is empty in one of two samples that are not empty."""
    a, b = _counts(p_counts, q_counts)
    seen = a.any(axis=-1, keepdims=True) & b.any(axis=-1, keepdims=True)
    return np.where(seen & (a == 0) & (b > 0), 0.5, a), np.where(seen & (b == 0) & (a > 0), 0.5, b)


def _shares(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Shares of each; NaN where either sample is empty."""
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    empty = (n == 0) | (m == 0)
    return a / np.where(empty, np.nan, n), b / np.where(empty, np.nan, m)


def _entropy_terms(p: Floats, q: Floats) -> Floats:
    """Terms p log2(p / q), 0 where p is 0."""
    used = p > 0
    return p * np.log2(np.where(used, p, 1.0) / np.where(used, q, 1.0))


def _sum(terms: Floats) -> Floats:
    return np.asarray(terms.sum(axis=-1))


class Measure(NamedTuple):
    """A measure that is emitted: what computes it, and whether that takes the bounds of the cells, too.

    `ordered` says that it makes sense for numbers only.
    """

    compute: Callable[..., Floats]
    ordered: bool = False
    bounds: bool = False


MEASURES: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        DriftMeasure.PSI: Measure(psi),
        DriftMeasure.PSI_CORRECTED: Measure(psi_corrected),
        DriftMeasure.JS: Measure(jensen_shannon),
        DriftMeasure.KS: Measure(ks, ordered=True),
        DriftMeasure.WASSERSTEIN: Measure(wasserstein, ordered=True, bounds=True),
        DriftMeasure.HELLINGER: Measure(hellinger),
        DriftMeasure.CHI2: Measure(chi_square),
        DriftMeasure.LINF: Measure(linf),
        DriftMeasure.EFFECT: Measure(lambda p, q: effect(p, q).estimate),
        DriftMeasure.EFFECT_LOWER: Measure(lambda p, q: effect(p, q).lower),
    }
)
