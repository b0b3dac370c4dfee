"""Measures against scipy on the same cells, and against closed forms of two normals."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from scipy.spatial import distance

from otel_mlmon.numerics import measures
from otel_mlmon.numerics.binning import NumericAxis, fit_axis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen
from otel_mlmon.numerics.measures import MEASURES, cell_bounds
from otel_mlmon.semconv import DriftMeasure

counts = st.lists(st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 10**6)), min_size=5, max_size=5)
pairs = st.tuples(counts, counts).filter(lambda pair: sum(pair[0]) and sum(pair[1]))
BOUNDS = np.array([-3.0, -1.0, -0.5, 0.0, 2.0, 10.0])
ON_CELLS = [name for name, measure in MEASURES.items() if not measure.bounds]


def compute(name, p, q, bounds=BOUNDS):
    measure = MEASURES[name]
    return measure.compute(p, q, bounds) if measure.bounds else measure.compute(p, q)


def values_of(count, bounds=BOUNDS):
    """One value in the middle of each cell, and their numbers."""
    return (bounds[1:] + bounds[:-1]) / 2, np.array(count)


def test_worked_numbers_in_docstrings():
    found = doctest.testmod(measures)
    assert found.attempted >= 8
    assert not found.failed


def test_every_measure_of_the_conventions_is_there():
    declared = {value for name, value in vars(DriftMeasure).items() if not name.startswith("_")}
    assert {*MEASURES, DriftMeasure.MEAN_SHIFT} == declared  # that one comes from sums, not from cells


class TestAgainstScipy:
    """The same counts through scipy."""

    @given(pairs)
    def test_psi_is_the_symmetric_divergence(self, pair):
        a, b = (np.array(count, dtype=float) for count in pair)
        p, q = np.where((a == 0) & (b > 0), 0.5, a), np.where((b == 0) & (a > 0), 0.5, b)
        expected = stats.entropy(p, q) + stats.entropy(q, p)  # scipy makes them sum to 1
        assert measures.psi(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)

    @given(pairs)
    def test_jensen_shannon(self, pair):
        with np.errstate(invalid="ignore"):  # scipy takes the root of -1e-17
            expected = np.nan_to_num(distance.jensenshannon(*pair, base=2))
        assert measures.jensen_shannon(*pair) == pytest.approx(expected, rel=1e-6, abs=1e-7)

    @given(pairs)
    def test_ks(self, pair):
        samples = [np.repeat(*values_of(np.minimum(count, 50))) for count in pair]
        assume(all(sample.size for sample in samples))
        with np.errstate(divide="ignore"):  # in its p-value
            expected = stats.ks_2samp(*samples, method="asymp").statistic
        assert measures.ks(*(np.minimum(count, 50) for count in pair)) == pytest.approx(expected, abs=1e-12)

    @given(pairs)
    def test_wasserstein_of_evenly_spread_values(self, pair):
        # Each cell as 400 equal points; scipy's distance of points is then right to the spacing of these.
        middle = (BOUNDS[:-1, None] + np.diff(BOUNDS)[:, None] * (np.arange(400) + 0.5) / 400).ravel()
        expected = stats.wasserstein_distance(middle, middle, *(np.repeat(count, 400) for count in pair))
        assert measures.wasserstein(*pair, BOUNDS) == pytest.approx(expected, abs=8 / 400)

    @given(pairs)
    def test_chi_square(self, pair):
        table = np.array(pair)[:, np.array(pair).any(axis=0)]
        assume(table.shape[1] > 1)
        found = stats.chi2_contingency(table, correction=False)
        assert measures.chi_square(*pair) == pytest.approx(found.statistic / found.dof, rel=1e-9, abs=1e-12)

    @given(pairs)
    def test_hellinger_and_linf_as_distances_of_vectors(self, pair):
        p, q = (np.array(count) / sum(count) for count in pair)
        assert measures.linf(*pair) == pytest.approx(distance.chebyshev(p, q))
        expected = distance.euclidean(np.sqrt(p), np.sqrt(q)) / math.sqrt(2)
        assert measures.hellinger(*pair) == pytest.approx(expected, abs=1e-12)


class TestLaws:
    """What holds for every measure."""

    @given(pairs, st.integers(0, 4))
    def test_padding_changes_nothing(self, pair, pad):
        p, q = (np.array(count) for count in pair)
        bounds = np.concatenate([BOUNDS, np.repeat(BOUNDS[-1], pad)])
        for name in MEASURES:
            padded = compute(name, np.pad(p, (0, pad)), np.pad(q, (0, pad)), bounds)
            np.testing.assert_allclose(padded, compute(name, p, q), rtol=1e-9, atol=1e-12)

    @given(st.lists(pairs, min_size=1, max_size=6))
    def test_many_features_at_once_are_each_alone(self, many):
        p, q = (np.array([pair[side] for pair in many]) for side in (0, 1))
        bounds = np.array([BOUNDS * (i + 1) for i in range(len(many))])
        for name in MEASURES:
            alone = [compute(name, p[i], q[i], bounds[i]) for i in range(len(many))]
            np.testing.assert_allclose(compute(name, p, q, bounds), alone, rtol=1e-9, atol=1e-12)
            both = compute(name, np.stack([p, p]), q, bounds)
            assert both.shape == (2, len(many))

    @given(pairs)
    def test_ranges_and_zero_for_equal_shares(self, pair):
        p, q = pair
        largest = {DriftMeasure.JS: 1, DriftMeasure.KS: 1, DriftMeasure.HELLINGER: 1, DriftMeasure.LINF: 1}
        corrected = (DriftMeasure.PSI_CORRECTED, DriftMeasure.EFFECT, DriftMeasure.EFFECT_LOWER)
        for name in MEASURES:
            found = float(compute(name, p, q))
            assert math.isfinite(found)
            if name not in corrected:
                assert -1e-15 <= found <= largest.get(name, math.inf) + 1e-12
                assert compute(name, p, np.array(p) * 7) == pytest.approx(0, abs=2e-8)

    @given(pairs)
    def test_metrics_are_symmetric(self, pair):
        p, q = pair
        for name in (DriftMeasure.PSI, DriftMeasure.JS, DriftMeasure.KS, DriftMeasure.WASSERSTEIN, DriftMeasure.LINF):
            assert compute(name, p, q) == pytest.approx(compute(name, q, p), rel=1e-9, abs=1e-12)

    def test_an_empty_sample_has_no_distance(self):
        for name in MEASURES:
            assert np.isnan(compute(name, [0] * 5, [1] * 5))
            assert np.isnan(compute(name, [1] * 5, [0] * 5))
            assert np.isnan(compute(name, [0] * 5, [0] * 5))

    def test_nothing_shared_is_the_end_of_the_range(self):
        p, q = [10, 0, 0, 0, 0], [0, 0, 0, 0, 10]
        for name in (DriftMeasure.JS, DriftMeasure.KS, DriftMeasure.HELLINGER, DriftMeasure.LINF):
            assert compute(name, p, q) == pytest.approx(1)
        half = 0.5 / 10.5
        assert compute(DriftMeasure.PSI, p, q) == pytest.approx(2 * (1 - 2 * half) * math.log(10 / 0.5))


GRID = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
AXIS = fit_axis(GRID)
STARTS = coarse_starts(AXIS.count(GRID), AXIS)
MOVES = [0.02, 0.07, 0.2, 0.5, 1.0]


def cells_of_normal(mean, sd=1.0):
    """So many values of a normal in the cells of the standard normal that only the cells make an error."""
    reached = np.concatenate([[0], stats.norm.cdf(AXIS.edges, mean, sd), [1]])
    return np.rint(np.diff(reached) * 1e13)


def jensen_shannon_of_normals(move):
    def term(x):
        p, q = stats.norm.pdf(x, move), stats.norm.pdf(x)
        return (p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q))) / 2

    return math.sqrt(quad(term, -12, 12 + move, limit=200)[0])


class TestAgainstClosedForms:
    """A standard normal that moves by `move` standard deviations: what the cells lose, as numbers."""

    @pytest.mark.parametrize("move", MOVES)
    @pytest.mark.parametrize(
        ("measure", "closed", "fine", "coarse"),
        [
            (measures.psi, lambda d: d * d, 0.003, 0.03),
            (measures.hellinger, lambda d: math.sqrt(1 - math.exp(-d * d / 8)), 0.0015, 0.01),
            (measures.jensen_shannon, jensen_shannon_of_normals, 0.0015, 0.01),
            (measures.ks, lambda d: 2 * stats.norm.cdf(d / 2) - 1, 0.001, 0.05),
        ],
    )
    def test_relative_error_of_the_cells(self, move, measure, closed, fine, coarse):
        p, q = cells_of_normal(move), cells_of_normal(0)
        exact = closed(move)
        assert 1 - fine <= measure(p, q) / exact <= 1 + 1e-6  # cells can only hide a difference
        assert 1 - coarse <= measure(coarsen(p, STARTS), coarsen(q, STARTS)) / exact <= 1 + 1e-6

    @pytest.mark.parametrize("move", [*MOVES, 2.0, 4.0])
    def test_wasserstein_inside_the_range_is_within_1_5_percent(self, move):
        found = measures.wasserstein(cells_of_normal(move), cells_of_normal(0), cell_bounds(AXIS.edges))
        assert found == pytest.approx(move, rel=0.015)

    @pytest.mark.parametrize("move", [6.0, 10.0, 30.0, 100.0, 300.0, 1000.0])
    def test_wasserstein_out_of_the_range_is_within_a_factor_of_2_1_and_exact_where_sums_are_known(self, move):
        p, q, bounds = cells_of_normal(move), cells_of_normal(0), cell_bounds(AXIS.edges)
        assert 1 / 2.1 <= measures.wasserstein(p, q, bounds) / move <= 2.1
        assert measures.wasserstein(p, q, bounds, mean_difference=move) == pytest.approx(move, rel=1e-9)

    @pytest.mark.parametrize("sd", [0.5, 0.8, 1.25, 2.0])
    def test_wasserstein_of_another_spread_is_within_2_percent(self, sd):
        exact = abs(sd - 1) * math.sqrt(2 / math.pi)
        p, q, bounds = cells_of_normal(0, sd), cells_of_normal(0), cell_bounds(AXIS.edges)
        assert measures.wasserstein(p, q, bounds) == pytest.approx(exact, rel=0.02)
        assert measures.wasserstein(p, q, bounds, mean_difference=0.0) == pytest.approx(exact, rel=0.02)

    def test_a_mean_that_is_unknown_is_not_used(self):
        p, q, bounds = cells_of_normal(1), cells_of_normal(0), cell_bounds(AXIS.edges)
        both = measures.wasserstein(np.stack([p, p]), q, bounds, mean_difference=[np.nan, 1.0])
        assert both[0] == measures.wasserstein(p, q, bounds)
        assert both[1] == pytest.approx(1.0, abs=1e-6)


def samples_of_eight(rng, n):
    return {
        "normal": rng.normal(size=n),
        "uniform": rng.uniform(size=n),
        "exponential": rng.exponential(size=n),
        "lognormal": rng.lognormal(size=n),
        "student 3": rng.standard_t(3, n),
        "two modes": np.where(rng.random(n) < 0.3, rng.normal(-3, 0.5, n), rng.normal(2, 1, n)),
        "many zeros": np.where(rng.random(n) < 0.4, 0, rng.gamma(2, size=n)),
        "far from zero": 1e6 + rng.normal(size=n),
    }


def test_mean_ks_error_on_eight_distributions_is_at_most_0_0015():
    """Binned against exact KS of 20,000 and 100,000 values, unmoved, moved and spread; 20 quantiles to compare."""
    rng = np.random.default_rng(5)
    errors, plain = [], []
    for name, values in samples_of_eight(rng, 100_000).items():
        reference = np.sort(values)
        axis, mean, sd = fit_axis(reference), values.mean(), values.std()
        edges = np.unique(np.quantile(reference, np.arange(1, 20) / 20))
        quantiles = NumericAxis(edges, 0, edges.size - 1)
        for move, spread in ((0, 1), (0.1, 1), (0.5, 1), (0, 1.3)):
            current = np.sort(mean + move * sd + spread * (samples_of_eight(rng, 20_000)[name] - mean))
            exact = stats.ks_2samp(current, reference, method="asymp").statistic
            for cells, into in ((axis, errors), (quantiles, plain)):
                found = measures.ks(cells.count_sorted(current), cells.count_sorted(reference))
                assert found <= exact + 1e-12
                into.append(exact - found)
    assert np.mean(errors) <= 0.0015
    assert np.mean(plain) >= 3 * np.mean(errors)


class TestCellBounds:
    """Ends of the open cells."""

    def test_known_extremes_end_the_open_cells(self):
        assert cell_bounds([0.0, 1.0, 3.0], -2.0, 9.0).tolist() == [-2, 0, 1, 3, 9]
        assert cell_bounds([0.0, 1.0, 3.0], 0.5, 2.0).tolist() == [-3, 0, 1, 3, 9]  # they are not in these

    def test_unknown_ones_continue_the_cells(self):
        assert cell_bounds([0.0, 1.0, 3.0]).tolist() == [-3, 0, 1, 3, 9]
        assert cell_bounds([0.0, 1.0, 3.0], math.inf, -math.inf).tolist() == [-3, 0, 1, 3, 9]
        assert cell_bounds([5.0]).tolist() == [0, 5, 10]
        assert cell_bounds([0.0]).tolist() == [-1, 0, 1]

    @settings(max_examples=100)
    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9, unique=True).map(sorted))
    def test_always_finite_and_ascending(self, edges):
        bounds = cell_bounds(edges)
        assert np.isfinite(bounds).all()
        assert (bounds[1:] >= bounds[:-1]).all()
        assert measures.wasserstein(np.ones(bounds.size - 1), np.arange(1, bounds.size), bounds) >= 0
