"""Statistics of windows: their null distributions, against scipy and numpy."""

import numpy as np
import pytest
from scipy import stats

from otel_mlmon.numerics.scan import (
    TRIANGLE,
    basis_covariance,
    cell_statistic,
    combine,
    deviance,
    order_statistic,
    project,
    smooth_statistic,
    surprise,
    surprise_inverse,
    weigh,
    whiten,
)
from otel_mlmon.numerics.smooth import smooth_basis

SHARES = np.array([0.3, 0.05, 0.15, 0.1, 0.2, 0.08, 0.12])
BASIS = smooth_basis(SHARES)


def look(counts: np.ndarray, spread: np.ndarray | None = None, typical: float = 1.0):
    """Q, the largest of one order, and the largest cell's of counts (looks, cells)."""
    rows = counts.sum(axis=1)[np.newaxis].astype(float)
    expected = (rows[0][:, np.newaxis] * SHARES).T[:, np.newaxis]
    apart = counts.T[:, np.newaxis] - expected
    weight = weigh(rows, np.full((1, 1), typical), np.zeros((1, 1)))
    none = np.zeros(len(TRIANGLE)) if spread is None else spread
    covariance = combine(weight, basis_covariance(BASIS, SHARES)[:, None, None], none[:, None, None])
    scores = project(apart, BASIS.T[..., np.newaxis])
    q, _ = smooth_statistic(scores, rows, covariance)
    one, order = order_statistic(scores, rows, covariance)
    return q[0], one[0], order[0], cell_statistic(apart, expected, weight, np.zeros((SHARES.size, 1, 1)))[0]


def test_without_change_q_is_chi_square_of_four_degrees():
    counts = np.random.default_rng(1).multinomial(2_000, SHARES, size=20_000)
    q, one, _, cells = look(counts)
    assert stats.kstest(q, stats.chi2(4).cdf).pvalue > 0.01
    largest_of_four = lambda x: stats.chi2(1).cdf(x) ** 4  # noqa: E731
    assert stats.kstest(one, largest_of_four).pvalue > 0.01
    each = (counts - 2_000 * SHARES) ** 2 / (2_000 * SHARES * (1 - SHARES))
    assert cells == pytest.approx(each.max(axis=1))


def test_with_levels_that_wander_as_the_spread_says_it_is_so_too():
    """Window means have covariance T on top of sampling: y ~ N(0, I + n T)."""
    rng, n = np.random.default_rng(2), 4_000
    factor = np.array([[3.0, 0, 0, 0], [1.0, 2, 0, 0], [0, 0, 1, 0], [0.5, 0, 0, 1]]) / 300
    levels = rng.normal(size=(20_000, 4)) @ factor.T
    counts = np.array([rng.multinomial(n, SHARES * (1 + BASIS @ level)) for level in levels])
    spread = factor @ factor.T
    q, _, _, _ = look(counts, np.array([spread[i, j] for i, j in TRIANGLE]))
    assert stats.kstest(q, stats.chi2(4).cdf).pvalue > 0.01


def test_orders_are_told_apart():
    for j in range(4):
        moved = SHARES * (1 + 0.1 * BASIS[:, j])
        _, _, order, _ = look(np.round(100_000 * moved).astype(int)[np.newaxis])
        assert order == [j]


def test_whitening_is_that_of_cholesky():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 4))
    covariance, scores = root @ root.T + np.eye(4), rng.normal(size=4)
    white = whiten([np.array([[s]]) for s in scores], [np.array([[covariance[i, j]]]) for i, j in TRIANGLE])
    assert np.ravel(white) == pytest.approx(np.linalg.solve(np.linalg.cholesky(covariance), scores))


def test_the_basis_is_orthonormal_and_its_constant_directions_do_no_harm():
    assert BASIS.T @ (SHARES[:, None] * BASIS) == pytest.approx(np.eye(4), abs=1e-12)
    assert pytest.approx(np.zeros(4), abs=1e-12) == (SHARES @ BASIS)
    two = smooth_basis([0.25, 0.75])
    assert two[:, 0] == pytest.approx([-(3**0.5), 3**-0.5])
    assert not two[:, 1:].any()
    packed = basis_covariance(two, np.array([0.25, 0.75]))
    assert packed[[0, 2, 5, 9]] == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize(("n", "p"), [(50, 0.01), (200, 0.1), (1_000, 0.3), (5_000, 0.0005)])
def test_no_binomial_tail_is_heavier_than_the_deviance_says(n, p):
    k = np.arange(0, n + 1)
    bound = deviance(k.astype(float), np.full(k.size, n * p), np.full(k.size, float(n)))
    tail = np.where(k > n * p, stats.binom.logsf(k - 1, n, p), stats.binom.logcdf(k, n, p))
    assert (-tail >= bound - 1e-9).all()
    assert bound[round(n * p)] == pytest.approx(0, abs=0.6)


def test_the_deviance_is_never_above_chi_square():
    """So that what a cheap chi-square passes over cannot be an alarm."""
    n, p = 300, 0.07
    k = np.arange(0, n + 1)
    bound = deviance(k.astype(float), np.full(k.size, n * p), np.full(k.size, float(n)))
    assert (bound <= (k - n * p) ** 2 / (n * p * (1 - p)) + 1e-9).all()


def test_the_surprise_goes_as_the_tail_of_f():
    """For large Q its slope against -log of the tail is 1."""
    for nu in (8.0, 30.0, 1e6):
        q = np.array([400.0, 900.0]) if nu < 100 else np.array([60.0, 90.0])
        g = surprise(q, np.array(nu))
        tail = -stats.f.logsf(q / 4, 4, nu)
        assert np.diff(g) / np.diff(tail) == pytest.approx(1, abs=0.1)
        assert surprise_inverse(g, np.array(nu)) == pytest.approx(q)
    assert surprise(np.array(40.0), np.array(1e9)) == pytest.approx(20)


def test_fewer_rows_than_the_reference_had_are_not_more_independent():
    """Sessions of 50: the reference's windows of 1,000 rows vary 50 times as much; so do windows of 100."""
    typical, spread = np.full((1, 1), 1_000.0), 49 / 1_000
    for rows, expected in ((100.0, 50.0), (1_000.0, 50.0), (10_000.0, 491.0)):
        weight = weigh(np.full((1, 1), rows), typical, np.zeros((1, 1)))
        covariance = combine(weight, np.ones((1, 1, 1)), np.full((1, 1, 1), spread))
        assert covariance[0].item() == pytest.approx(expected)
    doubtful = weigh(np.full((1, 1), 3_000.0), typical, np.full((1, 1), 0.001))
    assert doubtful.certain.item() == pytest.approx(3.0)
