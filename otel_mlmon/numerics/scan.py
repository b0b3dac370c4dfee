"""How far the counts of a window are from what is expected, against what the reference's own windows show.

Only elementwise operations and sums in a fixed order: the same counts give the same bits, one window at a time or many.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.smooth import ORDERS

# Where the packed lower triangle of a symmetric 4 x 4 matrix has each element, row by row.
TRIANGLE: Final = tuple((i, j) for i in range(ORDERS) for j in range(i + 1))
_AT: Final = {pair: k for k, pair in enumerate(TRIANGLE)}
DIAGONAL: Final = tuple(k for k, (i, j) in enumerate(TRIANGLE) if i == j)
_TINY: Final = 1e-12


def basis_covariance(basis: Floats, shares: Floats) -> Floats:
    """Covariance of the basis functions of one value, packed; 1 on the diagonal of a function that is constant.

    Args:
        basis: shape (cells, 4).
        shares: shape (..., cells).

    Returns:
        Shape (..., 10), see TRIANGLE.
    """
    mean = shares @ basis
    packed = np.empty((*shares.shape[:-1], len(TRIANGLE)))
    for k, (i, j) in enumerate(TRIANGLE):
        packed[..., k] = shares @ (basis[:, i] * basis[:, j]) - mean[..., i] * mean[..., j]
        if i == j:
            packed[..., k] = np.where(packed[..., k] > _TINY, packed[..., k], 1.0)
    return packed


def project(apart: Floats, basis: Floats) -> list[Floats]:
    """Scores S_j = sum_i phi_j(i) (c_i - e_i).

    Args:
        apart: c - e, shape (cells, variables, looks).
        basis: shape (4, cells, variables).

    Returns:
        Four arrays (variables, looks).
    """
    scores = []
    for order in basis:
        score = order[0][:, np.newaxis] * apart[0]
        for weight, cell in zip(order[1:], apart[1:], strict=True):
            score += weight[:, np.newaxis] * cell
        scores.append(score)
    return scores


def whiten(scores: list[Floats], covariance: list[Floats]) -> list[Floats]:
    """L^-1 S for the Cholesky factor L of a covariance given as its packed lower triangle, element by element."""
    factor: dict[tuple[int, int], Floats] = {}
    white: list[Floats] = []
    for i in range(ORDERS):
        for j in range(i + 1):
            rest = covariance[_AT[i, j]]
            for k in range(j):
                rest = rest - factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(np.maximum(rest, _TINY)) if i == j else rest / factor[j, j]
        rest = scores[i]
        for k in range(i):
            rest = rest - factor[i, k] * white[k]
        white.append(rest / factor[i, i])
    return white


def order_statistic(scores: list[Floats], rows: Floats, covariance: list[Floats]) -> tuple[Floats, Floats]:
    """The largest S_j^2 / (n Sigma_jj) of the orders j: mean, spread, skewness, tails.

    A change of one order alone is seen sooner so than among all four.

    Returns:
        The statistic and its order, (variables, looks) each; 0 where there is no row.
    """
    scaled = np.maximum(rows, 1)
    largest, order = np.zeros(rows.shape), np.zeros(rows.shape)
    for j, k in enumerate(DIAGONAL):
        value = scores[j] * scores[j] / (scaled * np.maximum(covariance[k], _TINY))
        order = np.where(value > largest, float(j), order)
        largest = np.maximum(largest, value)
    return largest, order


class Weight(NamedTuple):
    """How the variance grows with the rows: n, what multiplies the spread, and sampling; (variables, looks) each."""

    rows: Floats
    larger: Floats
    certain: Floats


def weigh(rows: Floats, typical: Floats, doubt: Floats, alike: Floats | float = 1.0) -> Weight:
    """max(n, nbar k) and max(1 + max(n - nbar, 0) doubt, k).

    Rows come in sessions, so fewer of them do not make them independent: below the reference's nbar its spread counts
    in full. Above nbar, the spread is only known as well as the reference knew it: `doubt` is its error per row. With
    1 / nbar or more, the same distance from what is expected is never more evidence than with nbar rows.

    Args:
        rows: n, (variables, looks).
        typical: nbar, (variables, 1).
        doubt: (variables, 1).
        alike: k, how many rows there are for one that says something of its own, >= 1, (variables, looks).
    """
    certain = np.maximum(1 + np.maximum(rows - typical, 0.0) * doubt, alike)
    return Weight(rows, np.maximum(rows, typical * alike), certain)


def combine(weight: Weight, sampling: Floats, spread: Floats) -> list[Floats]:
    """Covariance of S / sqrt(n): C max(1 + max(n - nbar, 0) doubt, k) + max(n, nbar k) T.

    Args:
        weight: of the rows, from `weigh`.
        sampling: C, packed, (10, variables, 1 or looks).
        spread: T, packed, likewise.

    Returns:
        Ten arrays (variables, looks).
    """
    return [c * weight.certain + t * weight.larger for c, t in zip(sampling, spread, strict=True)]


def smooth_statistic(scores: list[Floats], rows: Floats, covariance: list[Floats]) -> tuple[Floats, list[Floats]]:
    """Q = S' Sigma^-1 S / n, 0 where there is no row, and the four parts of whose squares n Q is the sum."""
    white = whiten(scores, covariance)
    total = white[0] * white[0]
    for part in white[1:]:
        total += part * part
    return total / np.maximum(rows, 1), white


def cell_statistic(apart: Floats, expected: Floats, weight: Weight, ratio: Floats) -> Floats:
    """The largest (c - e)^2 / (e (1 - e / n) f) over the cells; f as in `combine`, with rho for T and 1 for C.

    Args:
        apart: c - e, (cells, variables, looks).
        expected: e, likewise.
        weight: of the rows.
        ratio: rho, overdispersion of each cell per row, (cells, variables, 1 or looks).
    """
    inverse = 1 / np.maximum(weight.rows, 1)
    largest = np.zeros(weight.rows.shape)
    for d, e, rho in zip(apart, expected, ratio, strict=True):
        variance = (e - e * e * inverse) * (weight.certain + weight.larger * rho)
        np.maximum(largest, d * d / np.maximum(variance, _TINY), out=largest)
    return largest


def deviance(counts: Floats, expected: Floats, rows: Floats) -> Floats:
    """Chernoff's bound: -log of the binomial tail is at least c log(c / e) + (n - c) log((n - c) / (n - e))."""
    rest, others = np.maximum(rows - counts, 0), np.maximum(rows - expected, _TINY)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(counts > 0, counts * np.log(counts / np.maximum(expected, _TINY)), 0.0)
        two = np.where(rest > 0, rest * np.log(rest / others), 0.0)
    return np.asarray(np.maximum(one + two, 0.0))


def surprise(statistic: Floats, freedom: Floats) -> Floats:
    """G = nu / 2 log(1 + Q / nu), the exponent of the F tail of Q: about -log p, and Q / 2 where nu is large."""
    return freedom / 2 * np.log1p(statistic / freedom)


def surprise_inverse(value: Floats, freedom: Floats) -> Floats:
    """The Q of a G."""
    return freedom * np.expm1(2 * value / freedom)
