"""Neyman's smooth test: its null by simulation, what it sees, what it leaves out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otel_mlmon.numerics.smooth import Smooth, smooth_test


def test_of_two_cells_it_is_the_chi_square_test():
    statistic, freedom = smooth_test(np.array([30, 70]), np.array([50, 50]))
    expected = stats.chi2_contingency([[30, 70], [50, 50]], correction=False)
    assert (statistic, freedom) == (pytest.approx(expected.statistic), expected.dof)


def test_with_one_direction_of_each_cell_it_is_the_chi_square_test_too():
    """Five cells have four directions, which is all there is."""
    p, q = np.array([30, 70, 20, 11, 9]), np.array([50, 50, 33, 5, 2])
    expected = stats.chi2_contingency([p, q], correction=False)
    assert smooth_test(p, q) == (pytest.approx(expected.statistic), 4)


def test_its_first_direction_is_the_test_of_wilcoxon():
    """Of scores linear in the mid-ranks, with the variance that ties leave (no continuity correction)."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 400), rng.integers(1, 9, 300)
    p, q = (np.bincount(side, minlength=9) for side in (a, b))
    u = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic")
    w = (p + q) / 700
    ranks = np.cumsum(w) - w / 2
    phi = (ranks - 0.5) / np.sqrt((w * (ranks - 0.5) ** 2).sum())
    z = ((p / 400 - q / 300) * phi).sum() / np.sqrt(1 / 400 + 1 / 300)
    assert z**2 * (699 / 700) == pytest.approx(stats.norm.isf(u.pvalue / 2) ** 2, rel=1e-9)
    assert smooth_test(p, q).statistic >= z**2


@pytest.mark.parametrize("sizes", [(1_000, 1_000), (200, 20_000), (100, 100)])
def test_where_nothing_has_changed_it_is_chi_square_of_four(sizes):
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(20, 5.0))
    found = [smooth_test(*(rng.multinomial(n, shares) for n in sizes)).statistic for _ in range(4_000)]
    for level in (0.1, 0.01, 0.001):
        rate = np.mean(np.array(found) > stats.chi2.isf(level, 4))
        assert rate <= level + 3.5 * np.sqrt(level / 4_000)
    assert np.mean(found) == pytest.approx(4, abs=0.2)


def test_a_moved_distribution_is_seen_and_one_cell_of_twenty_hardly():
    cells = np.full(20, 500)
    moved = np.round(500 * (1 + 0.2 * np.linspace(-1, 1, 20))).astype(int)
    assert stats.chi2.sf(*smooth_test(moved, cells)) < 1e-9
    assert smooth_test(np.full(20, 700), cells).statistic == pytest.approx(0, abs=1e-9)


counts = st.lists(st.integers(0, 1_000), min_size=1, max_size=30)


@given(counts, st.data())
def test_symmetric_finite_and_blind_to_cells_that_are_empty_in_both(p, data):
    q = data.draw(st.lists(st.integers(0, 1_000), min_size=len(p), max_size=len(p)))
    a, b = np.array(p), np.array(q)
    found = smooth_test(a, b)
    assert found.statistic >= 0
    assert np.isfinite(found.statistic)
    assert smooth_test(b, a) == (pytest.approx(found.statistic, rel=1e-6, abs=1e-9), found.freedom)
    wider = (np.insert(side, len(p) // 2, 0) for side in (a, b))
    assert smooth_test(*wider) == (pytest.approx(found.statistic, rel=1e-6, abs=1e-9), found.freedom)


@pytest.mark.parametrize(("p", "q"), [([5], [7]), ([5, 0], [7, 0]), ([0, 0], [3, 4]), ([3, 4], [0, 0])])
def test_where_there_is_nothing_to_test(p, q):
    assert smooth_test(np.array(p), np.array(q)) == Smooth(0.0, 0)
