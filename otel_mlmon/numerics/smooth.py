"""Neyman's smooth test of two samples over ordered cells: four directions in which a distribution moves."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from otel_mlmon.numerics.binning import Counts, Floats

ORDERS: Final = 4  # mean, spread, skewness, tails


class Smooth(NamedTuple):
    """The statistic, chi-square distributed with `freedom` degrees where nothing has changed."""

    statistic: float
    freedom: int


def smooth_test(p: Counts, q: Counts) -> Smooth:
    """Neyman's smooth test of two samples.

    With the pooled shares w of B ordered cells and polynomials phi_1..phi_k of the mid-ranks, orthonormal under w,
    k = min(4, B - 1): sum_j (sum_i (p_i/n - q_i/m) phi_j(i))^2 / (1/n + 1/m). Where a whole distribution has moved, it
    needs fewer values to see it than the chi-square test over all cells; what is finer than a polynomial of the fourth
    order it does not see.

    Args:
        p: counts of one sample, shape (B,).
        q: of the other; cells that are empty in both do not count.

    Returns:
        The statistic, range [0, inf), and k; (0, 0) where all is in one cell or a sample is empty.

    Source: J. Neyman, 1937, doi:10.1080/03461238.1937.10404821; of two samples J. C. W. Rayner, O. Thas, D. J. Best,
    Smooth Tests of Goodness of Fit, 2009, doi:10.1002/9780470824443.

    >>> smooth_test([30, 70], [50, 50])
    Smooth(statistic=8.333333333333332, freedom=1)
    """
    counts = np.array([p, q], dtype=np.float64)
    counts = counts[:, counts.sum(axis=0) > 0]
    n, m = counts.sum(axis=1)
    orders = min(ORDERS, counts.shape[1] - 1)
    if orders < 1 or not n or not m:
        return Smooth(0.0, 0)
    basis = smooth_basis(counts.sum(axis=0) / (n + m))[:, :orders]
    scores = (counts[0] / n - counts[1] / m) @ basis
    return Smooth(float(scores @ scores / (1 / n + 1 / m)), orders)


def smooth_basis(weights: ArrayLike) -> Floats:
    """Neyman's polynomials phi_1..phi_4 of the mid-ranks, orthonormal under the weights.

    Args:
        weights: shares of B ordered cells, shape (B,), sum 1; one of 0 has the value of its mid-rank.

    Returns:
        Shape (B, 4); orders beyond the filled cells less one are 0. Two cells of 1/2: -1 and 1, then zeros.
    """
    weights = np.asarray(weights, dtype=np.float64)
    orders = min(ORDERS, int((weights > 0).sum()) - 1)
    basis = np.zeros((weights.size, ORDERS))
    if orders < 1:
        return basis
    powers = np.polynomial.legendre.legvander(2 * (np.cumsum(weights) - weights / 2) - 1, orders)
    triangle = np.linalg.qr(powers * np.sqrt(weights)[:, np.newaxis])[1]
    signs = np.sign(np.diag(triangle))
    basis[:, :orders] = np.linalg.solve(triangle.T * signs, powers.T).T[:, 1:]
    return basis
