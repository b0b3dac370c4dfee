"""Effect, its lower bound, and the rates' bound; coverage in full: benchmarks/effect_coverage.py."""

import importlib.util
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otel_mlmon.numerics.binning import fit_axis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen
from otel_mlmon.numerics.effect import WIDTH, effect, expected_psi, sufficient, wilson_lower
from otel_mlmon.numerics.measures import psi

counts = st.lists(st.integers(0, 1000), min_size=6, max_size=6).filter(any)


@given(counts, counts)
def test_the_estimate_is_its_formula(p_counts, q_counts):
    n, m, b, total = sum(p_counts), 0.0, 0, 0.0
    filled = [0.5 if q == 0 < p else q for p, q in zip(p_counts, q_counts, strict=True)]
    m = sum(filled)
    for p, q in zip(p_counts, filled, strict=True):
        if q:
            b += 1
            total += (p / n - q / m) ** 2 / (q / m)
    found = effect(p_counts, q_counts)
    assert found.estimate == pytest.approx(total - (b - 1) * (1 / n + 1 / m), rel=1e-9, abs=1e-12)
    assert found.lower <= found.estimate


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9), st.data())
def test_the_bound_is_the_delta_method_with_numerical_derivatives(q_counts, data):
    p_counts = data.draw(st.lists(st.integers(1, 1000), min_size=len(q_counts), max_size=len(q_counts)))
    n, m = sum(p_counts), sum(q_counts)
    p, q = np.array(p_counts) / n, np.array(q_counts) / m

    def divergence(p, q):
        return (p**2 / q).sum() - 1  # sum((p - q)^2 / q) on the simplex

    def gradient(of, at):
        step = 1e-5 * at
        return np.array([(of(at + e) - of(at - e)) / (2 * e.sum()) for e in np.diag(step)])

    def covariance(shares, size):
        return (np.diag(shares) - np.outer(shares, shares)) / size

    g, h = gradient(lambda x: divergence(x, q), p), gradient(lambda x: divergence(p, x), q)
    variance = max(g @ covariance(p, n) @ g + h @ covariance(q, m) @ h, 0.0)
    found = effect(p_counts, q_counts)
    width = WIDTH * math.sqrt(variance)
    assert float(found.estimate - found.lower) == pytest.approx(width, rel=1e-4, abs=1e-6 * (1 + divergence(p, q)))


@given(counts, counts, st.integers(0, 3))
def test_padding_and_many_at_once(p, q, pad):
    alone = effect(p, q)
    many = effect(np.pad([p, p, q], ((0, 0), (0, pad))), np.pad(q, (0, pad)))
    for found, one in zip(many, alone, strict=True):
        assert found.shape == (3,)
        np.testing.assert_allclose(found[:2], one, rtol=1e-9, atol=1e-12)


def test_without_values_there_is_no_effect():
    for p, q in (([0, 0], [1, 2]), ([1, 2], [0, 0]), ([0, 0], [0, 0])):
        assert np.isnan(effect(p, q).estimate)
        assert np.isnan(effect(p, q).lower)


def test_worked_numbers():
    found = effect([30, 70], [50, 50])
    assert (round(float(found.estimate), 4), round(float(found.lower), 4)) == (0.14, -0.0499)
    assert expected_psi(20, 1000, 1000) == pytest.approx(0.038)
    assert wilson_lower(10, 100) == pytest.approx(0.0607, abs=5e-5)


@pytest.mark.parametrize(("move", "most"), [(0.07, 0.02), (0.2, 0.02), (0.5, 0.05)])
def test_the_effect_of_a_moved_normal_is_its_divergence_less_what_coarse_cells_hide(move, most):
    grid = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    axis = fit_axis(grid)
    starts = coarse_starts(axis.count(grid), axis)
    p, q = (
        coarsen(np.rint(1e13 * np.diff(stats.norm.cdf(axis.edges, mean), prepend=0, append=1)), starts)
        for mean in (move, 0)
    )
    exact = math.expm1(move**2)
    assert 1 - most <= effect(p, q).estimate / exact <= 1


@pytest.mark.parametrize(("n", "m"), [*itertools.product((200, 2000, 100_000), repeat=2)])
def test_corrections_leave_no_bias_where_nothing_has_changed(n, m):
    rng = np.random.default_rng(7)
    shares = rng.dirichlet(np.full(10, 5.0))
    p, q = rng.multinomial(n, shares, 20_000), rng.multinomial(m, shares, 20_000)
    unit = 9 * (1 / n + 1 / m)
    # The correction is to first order: what is left is of the order of one over the values in a cell.
    least = min(n, m) * shares.min()
    for left in (effect(p, q).estimate, psi(p, q) - expected_psi(10, n, m)):
        assert abs(left.mean()) / unit <= 1.5 / least + 4 * left.std() / math.sqrt(20_000) / unit


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "effect_coverage.py"
    spec = importlib.util.spec_from_file_location("effect_coverage", path)
    module = sys.modules["effect_coverage"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["effect_coverage"]


def test_coverage_is_93_percent_or_more(benchmark):
    cases = benchmark.simulate_all(np.random.default_rng(20), (100, 1_000, 100_000), 500)
    assert len(cases) >= 1000
    lowest = sorted(cases, key=lambda case: case.coverage)[:5]
    for case in lowest:  # with fresh numbers, as the lowest of many is low by chance too
        again = benchmark.simulate(np.random.default_rng(21), case.setting, 20_000)
        assert again.high >= benchmark.CLAIM, again
    quiet = [case.coverage for case in cases if case.setting.drift == "none"]
    assert np.mean(quiet) >= 0.97


@pytest.mark.parametrize("kind", ["coarse", "decision"])
def test_coverage_of_cells_fitted_to_the_reference(benchmark, kind):
    rng = np.random.default_rng(22)
    for name, move, n, m in itertools.product(("normal", "Student's t, 2"), ("0", "0.5"), (100, 10_000), (100, 2_000)):
        case = benchmark.simulate_profile(rng, benchmark.Setting(f"{kind}: {name}", move, n, m), 60)
        assert case.high >= benchmark.CLAIM, case


def test_sufficient_is_five_values_a_cell():
    assert sufficient([99, 100, 101], 20).tolist() == [False, True, True]


@given(st.integers(1, 10**6), st.data())
def test_wilson_is_scipys(n, data):
    k = data.draw(st.integers(0, n))
    # The lower end of a two-sided 90 % interval is that of a one-sided 95 % one.
    expected = stats.binomtest(k, n).proportion_ci(0.9, method="wilson").low
    assert wilson_lower(k, n) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert 0 <= wilson_lower(k, n) <= k / n


def test_wilson_of_nothing_is_unknown():
    assert np.isnan(wilson_lower(0, 0))
    assert wilson_lower([0, 5], [10, 10]).shape == (2,)
