"""Where a value is counted: against a specification of one value at a time, and the SDK's own aggregation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from otel_mlmon.numerics.binning import OTHER, UNSEEN, CategoryAxis, NumericAxis, fit_axis

finite = st.floats(allow_nan=False, allow_infinity=False)
near = st.one_of(st.integers(-20, 20).map(float), st.floats(-20, 20))
edge_lists = st.lists(near, min_size=1, max_size=12, unique=True).map(sorted)
samples = st.one_of(
    st.lists(near, min_size=1, max_size=200),
    st.lists(finite, min_size=1, max_size=50),
    st.lists(st.integers(0, 5).map(float), min_size=1, max_size=300),
    st.lists(st.integers(2**53, 2**53 + 40).map(float), min_size=1, max_size=50),
    st.lists(st.floats(0, 1e-300), min_size=1, max_size=50),
    st.builds(lambda value, n: [value] * n, finite, st.integers(1, 9)),
)


def specified_cell(edges, value):
    """OTLP: cell i holds values in (edge i-1, edge i]."""
    for i, edge in enumerate(edges):
        if value <= edge:
            return i
    return len(edges)


@given(edge_lists, st.lists(st.one_of(near, finite), max_size=60))
def test_counting_equals_the_specification(edges, values):
    axis = NumericAxis(np.array(edges), 0, len(edges) - 1)
    values += edges  # the edges themselves are where rules differ
    expected = Counter(specified_cell(edges, value) for value in values)
    assert axis.count(values).tolist() == [expected[i] for i in range(axis.cells)]
    assert axis.locate(values).tolist() == [specified_cell(edges, value) for value in values]


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 50), min_size=1, max_size=12, unique=True).map(sorted),
    st.lists(st.floats(0, 60), max_size=40),
)
def test_counting_equals_the_sdk_aggregation(edges, values):
    values += edges
    reader = InMemoryMetricReader()
    view = View(instrument_name="h", aggregation=ExplicitBucketHistogramAggregation(edges))
    provider = MeterProvider([reader], views=[view], shutdown_on_exit=False)
    instrument = provider.get_meter("test").create_histogram("h")
    for value in values:
        instrument.record(value)
    (metric,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    provider.shutdown()
    axis = NumericAxis(np.array(edges), 0, len(edges) - 1)
    assert tuple(axis.edges) == tuple(point.explicit_bounds)
    assert axis.count(values).tolist() == list(point.bucket_counts)


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [np.nan], [np.inf], [[1.0, 2.0]]])
def test_edges_must_be_finite_and_increasing(edges):
    with pytest.raises(ValueError, match="strictly increasing"):
        NumericAxis(np.array(edges, dtype=float), 0, 0)


@pytest.mark.parametrize(("low", "high"), [(-1, 0), (1, 0), (0, 2)])
def test_the_range_must_be_in_the_edges(low, high):
    with pytest.raises(ValueError, match="low"):
        NumericAxis(np.array([0.0, 1.0]), low, high)


class TestFitAxis:
    """Cells fitted to a sample."""

    @settings(max_examples=300)
    @given(samples)
    def test_any_sample_lies_inside_the_range_also_as_float32(self, values):
        ordered = np.sort(np.array(values))
        axis = fit_axis(ordered)
        assert axis == fit_axis(ordered)
        assert axis.cells <= 31 + 12 + 2 * 32 + 2 + 2 * 7 + 1
        with np.errstate(over="ignore"):
            as_float32 = ordered.astype(np.float32).astype(np.float64)
        for fed in (ordered, as_float32[np.isfinite(as_float32)]):
            counts = axis.count(fed)
            assert counts.sum() == fed.size
            assert not counts[: axis.low + 1].any()
            assert not counts[axis.high + 1 :].any()

    @settings(max_examples=300)
    @given(samples, st.integers(-300, 300).map(float))
    def test_atoms_have_a_cell_of_their_own_also_as_float32(self, values, atom):
        ordered = np.sort(np.array([*values, *[atom] * (len(values) + 2)]))
        axis = fit_axis(ordered)
        cell = axis.locate(atom)
        assert axis.locate(np.float64(np.float32(atom))) == cell
        # Whatever else is in that cell cannot be told from the atom once it has been a float32, give or take one step.
        with_it = ordered[axis.locate(ordered) == cell]
        step = np.spacing(np.float32(abs(atom)))
        assert np.abs(with_it.astype(np.float64) - atom).max() <= 2 * step

    def test_an_atom_that_float32_rounds_stays_in_its_cell(self):
        rng = np.random.default_rng(0)
        prices = np.concatenate([np.full(500, 19.99), np.full(300, 0.1), np.full(200, -7.3), rng.normal(10, 5, 4000)])
        axis = fit_axis(np.sort(prices))
        for value, number in ((19.99, 500), (0.1, 300), (-7.3, 200)):
            cell = axis.locate(value)
            assert axis.count(prices)[cell] == number
            assert axis.count(prices.astype(np.float32))[cell] == number
            assert axis.locate(value - 1e-4) == cell - 1
            assert axis.locate(value + 1e-4) == cell + 1

    def test_no_tie_changes_its_cell_when_fed_as_float32(self):
        cents = np.random.default_rng(1).integers(0, 3000, 50_000) / 100  # no atoms, every value many times
        axis = fit_axis(np.sort(cents))
        assert axis.count(cents).tolist() == axis.count(cents.astype(np.float32)).tolist()

    def test_continuous_data_gets_32_cells_of_equal_share_cut_further_in_the_tails(self):
        values = np.sort(np.random.default_rng(2).normal(size=200_000))
        axis = fit_axis(values)
        inside = axis.edges[axis.low + 1 : axis.high]
        levels = {
            *np.arange(1, 32) / 32,
            *(tails := (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)),
            *(1 - p for p in tails),
        }
        np.testing.assert_allclose(inside, np.quantile(values, sorted(levels)), atol=0.02)
        assert axis.low == 7
        assert axis.edges.size - 1 - axis.high == 7

    def test_cells_beyond_the_range_grow_with_their_distance(self):
        axis = fit_axis(np.linspace(10, 20, 1001))
        np.testing.assert_allclose(axis.edges[axis.high :] - 20, [0, 1, 3, 10, 30, 100, 300, 1000], atol=1e-3)
        np.testing.assert_allclose(10 - axis.edges[: axis.low + 1], [1000, 300, 100, 30, 10, 3, 1, 0], atol=1e-3)

    def test_the_range_is_that_of_all_values_where_the_sample_is_a_part(self):
        axis = fit_axis(np.array([1.0, 2.0, 3.0]), minimum=-5.0, maximum=50.0)
        assert axis.edges[axis.low] < -5 <= np.nextafter(np.float32(axis.edges[axis.low]), np.float32(np.inf))
        assert axis.edges[axis.high] > 50 >= np.nextafter(np.float32(axis.edges[axis.high]), np.float32(-np.inf))
        assert fit_axis(np.array([1.0]), minimum=2.0, maximum=0.0) == fit_axis(np.array([1.0]))

    @pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-320, 2.0**53, -1e300, 1.7976931348623157e308])
    def test_a_constant_has_one_cell_in_its_range(self, value):
        axis = fit_axis(np.full(100, value))
        assert axis.high == axis.low + 1
        assert axis.locate(value) == axis.high

    def test_every_integer_keeps_a_cell_where_there_are_few(self):
        values = np.repeat(np.arange(40.0), np.arange(1, 41))
        cells = fit_axis(values).locate(np.arange(40.0))
        assert len(set(cells.tolist())) == 40

    def test_the_heaviest_atoms_are_kept(self):
        values = np.sort(np.repeat(np.arange(60.0) ** 2, np.where(np.arange(60) % 2, 20, 30)))
        axis = fit_axis(values)
        assert axis.cells <= 31 + 12 + 2 * 32 + 2 + 2 * 7 + 1
        assert all(axis.locate(v - 1e-3) != axis.locate(v) != axis.locate(v + 1e-3) for v in np.arange(0, 60.0, 2) ** 2)

    @pytest.mark.parametrize("values", [[], [2.0, 1.0], [np.nan], [1.0, np.inf], [1.0, np.nan, 2.0], [[1.0]]])
    def test_what_is_not_an_ascending_finite_sample_is_refused(self, values):
        with pytest.raises(ValueError, match="ascending finite"):
            fit_axis(np.array(values, dtype=float))


class TestCategoryAxis:
    """Cells of categories."""

    @given(
        st.lists(st.text(max_size=3).filter(lambda s: s not in (OTHER, UNSEEN)), unique=True, max_size=9),
        st.integers(0, 9),
        st.booleans(),
        st.lists(st.text(max_size=3), max_size=30),
    )
    def test_codes_follow_the_lists(self, names, cut, closed, seen):
        axis = CategoryAxis(tuple(names[:cut]), tuple(names[cut:]), closed)
        codes = [axis.codes.get(name, axis.default) for name in seen]
        for name, code in zip(seen, codes, strict=True):
            listed = axis.names.index(name) if name in axis.names else None
            rest = len(axis.names) + (closed and name not in axis.others)
            assert code == (rest if listed is None else listed)
        expected = Counter(axis.labels[code] for code in codes)
        assert axis.count(codes).tolist() == [expected[label] for label in axis.labels]

    @pytest.mark.parametrize(("names", "others"), [(("a", "a"), ()), (("a",), ("a",)), ((OTHER,), ()), ((), (UNSEEN,))])
    def test_names_are_distinct_and_not_reserved(self, names, others):
        with pytest.raises(ValueError, match="distinct"):
            CategoryAxis(names, others)
