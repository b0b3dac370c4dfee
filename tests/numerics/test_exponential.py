"""Exponential buckets against the SDK's own aggregation and the data model's definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_mlmon.numerics.binning import NumericAxis, fit_axis
from otel_mlmon.numerics.exponential import Exponential, bucket_of, count_exponential, rebin

LEAST = 2.0**-1022
sizes = st.one_of(st.floats(LEAST, 1.7976931348623157e308), st.floats(0.001, 1000), st.floats(1.0, 1.001))
values = st.lists(st.one_of(sizes, sizes.map(lambda x: -x), st.just(0.0)), max_size=60)


def buckets(part):
    return {part.offset + i: n for i, n in enumerate(part.counts.tolist()) if n}


def parts(found):
    return found.scale, found.zero, buckets(found.positive), buckets(found.negative)


def count(values, **limits):
    return count_exponential(np.sort(np.array(values, dtype=np.float64)), **limits)


def aggregate_by_sdk(values, max_size, max_scale=20):
    reader = InMemoryMetricReader()
    view = View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation(max_size, max_scale))
    provider = MeterProvider([reader], views=[view], shutdown_on_exit=False)
    instrument = provider.get_meter("test").create_histogram("h")
    for value in values:
        instrument.record(value)
    (metric,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    provider.shutdown()
    return point


@pytest.mark.parametrize("max_size", [4, 20, 160])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "narrow", "wide", "integers", "powers", "one", "zeros"])
def test_equals_the_sdk_aggregation(kind, max_size):
    rng = np.random.default_rng(3)
    data = {
        "normal": np.abs(rng.normal(size=500)),
        "lognormal": rng.lognormal(sigma=3, size=500),
        "narrow": 1e6 + rng.normal(size=500),
        "wide": 10.0 ** rng.uniform(-300, 300, 500),
        "integers": rng.integers(0, 100, 500).astype(float),
        "powers": 2.0 ** rng.integers(-20, 20, 500),
        "one": np.array([0.3]),
        "zeros": np.zeros(3),
    }[kind]
    point = aggregate_by_sdk(data.tolist(), max_size)
    found = count(data, max_size=max_size)
    theirs = {point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n}
    assert (found.zero, found.valid) == (point.zero_count, point.count)
    if kind != "zeros":  # without buckets the scale says nothing; the SDK then sends 0
        assert (found.scale, buckets(found.positive)) == (point.scale, theirs)


@settings(max_examples=300)
@given(values, st.integers(2, 160))
def test_buckets_hold_what_the_data_model_says(values, max_size):
    found = count(values, max_size=max_size)
    assert found.valid == len(values)
    assert found.zero == values.count(0.0)
    for part, sign in ((found.positive, 1), (found.negative, -1)):
        assert part.counts.size <= max_size
        ours = [abs(v) for v in values if v * sign > 0]
        for index, number in buckets(part).items():
            # Bounds in logarithms, which are rounded: a value within 1e-9 of a bound may be on either side.
            low, high = index * 2.0**-found.scale, (index + 1) * 2.0**-found.scale
            logs = np.log2(ours)
            assert np.sum((logs > low + 1e-9) & (logs <= high - 1e-9)) <= number
            assert np.sum((logs > low - 1e-9) & (logs <= high + 1e-9)) >= number


@settings(max_examples=300)
@given(values, values, values, st.integers(2, 160))
def test_merging_equals_counting_together(a, b, c, max_size):
    one, two, three = (count(part, max_size=max_size) for part in (a, b, c))
    together = count([*a, *b, *c], max_size=max_size)
    left = one.merge(two, max_size).merge(three, max_size)
    right = one.merge(three.merge(two, max_size), max_size)
    assert parts(left) == parts(right) == parts(together)
    assert parts(one.merge(Exponential(), max_size)) == parts(one)


@given(values, st.integers(0, 12))
def test_a_lower_scale_is_that_of_counting_with_it(values, by):
    found = count(values)
    lower = found.at_scale(found.scale - by)
    if any(values):
        assert parts(lower) == parts(count(values, max_scale=found.scale - by))
    with pytest.raises(ValueError, match="cannot be split"):
        lower.at_scale(lower.scale + 1)


@pytest.mark.parametrize("scale", [-3, 0, 1, 3, 8, 20])
@pytest.mark.parametrize("exponent", [-1022, -3, 0, 1, 52, 1023])
def test_powers_of_two_end_their_bucket(scale, exponent):
    size = 2.0**exponent
    bucket = bucket_of(size, scale)
    assert bucket == -(-exponent * 2**20 // 2 ** (20 - scale)) - 1  # ceil(exponent * 2**scale) - 1
    if exponent > -1022 and (scale >= 0 or exponent % 2**-scale == 0):
        assert bucket_of(np.nextafter(size, np.inf), scale) == bucket + 1


@given(sizes, st.integers(-10, 20))
def test_a_bucket_holds_its_sizes_by_its_own_bounds(size, scale):
    bounds, counts = count([size], max_scale=scale).cells()
    assert counts.tolist() == [0, 0, 1][-counts.size :]
    assert bounds[-2] <= size <= bounds[-1]
    # Every bound but that at the end of the floats is counted in the bucket it closes.
    if bounds[-1] < 1e308 and bounds[-1] >= 2 * LEAST:
        assert bucket_of(float(bounds[-1]), scale) == bucket_of(size, scale)
        assert bucket_of(float(np.nextafter(bounds[-1], np.inf)), scale) == bucket_of(size, scale) + 1


def test_sizes_below_the_normal_floats_are_in_the_first_bucket_of_these():
    assert buckets(count([5e-324, 1e-310], max_scale=0).positive) == {-1023: 2}


@settings(max_examples=200)
@given(values)
def test_cells_are_the_buckets_in_order(values):
    found = count(values)
    bounds, counts = found.cells()
    assert (np.diff(bounds) >= 0).all()
    assert bounds.size == counts.size + 1
    assert counts.sum() == len(values)
    assert counts[(bounds[:-1] == 0) & (bounds[1:] == 0)].tolist() == [found.zero]
    # Not at a bound, where sizes are rounded; halves, as differences may be beyond the floats.
    clear = [v for v in values if np.abs(bounds / 2 - v / 2).min() > 1e-9 * abs(v)]
    inside = np.searchsorted(bounds, clear, side="left") - 1
    assert (np.bincount(inside, minlength=counts.size)[: counts.size] <= counts).all()


class TestRebin:
    """Counts moved to other cells."""

    @settings(max_examples=200)
    @given(values.filter(bool), values.filter(bool))
    def test_the_total_is_kept(self, values, others):
        bounds, counts = count_exponential(np.sort(values)).cells()
        moved = rebin(counts, bounds, fit_axis(np.sort(others)))
        assert moved.sum() == len(values)
        assert (moved >= 0).all()

    def test_values_are_spread_evenly_and_points_stay_points(self):
        axis = NumericAxis(np.array([-1.0, 0.0, 1.0, 2.0, 4.0]), 0, 4)
        counts, bounds = np.array([8, 5, 0, 100]), np.array([-2.0, 0.0, 0.0, 1.0, 5.0])
        assert rebin(counts, bounds, axis).tolist() == [4, 9, 0, 25, 50, 25]

    def test_same_cells_same_counts(self):
        axis = NumericAxis(np.array([0.0, 1.0, 2.0, 4.0]), 0, 3)
        assert rebin(np.array([3, 4, 5]), axis.edges, axis).tolist() == [0, 3, 4, 5, 0]

    def test_many_buckets_give_the_counts_to_within_a_percent_of_the_values(self):
        values = np.sort(np.random.default_rng(4).lognormal(size=20_000))
        axis = fit_axis(values)
        bounds, counts = count_exponential(values).cells()
        error = np.abs(np.cumsum(rebin(counts, bounds, axis) - axis.count(values)))
        assert error.max() <= 0.01 * values.size
