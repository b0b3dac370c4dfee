"""Exponential histograms against the definition of their buckets, on raw values."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.points import Exponential

from otel_mlmon import semconv

values = st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 3)), max_size=30)
scales = st.integers(-3, 8)


def index_of(value: float, scale: int) -> int:
    """The i with 2**(i / 2**scale) < value <= 2**((i + 1) / 2**scale), by exact comparison."""
    guess = math.ceil(math.log2(value) * 2.0**scale) - 1
    for index in (guess - 1, guess, guess + 1):
        if bound_below(index, scale, value) and not bound_below(index + 1, scale, value):
            return index
    raise AssertionError(value)


def bound_below(index: int, scale: int, value: float) -> bool:
    """Whether 2**(index / 2**scale) < value, in rational numbers."""
    if scale <= 0:
        return Fraction(2) ** (index << -scale) < Fraction(value)
    return Fraction(2) ** index < Fraction(value) ** (2**scale)


def buckets(indices: list[int]) -> tuple[int, tuple[int, ...]]:
    counts = Counter(indices)
    if not counts:
        return 0, ()
    return min(counts), tuple(counts[i] for i in range(min(counts), max(counts) + 1))


def make(data: list[float], scale: int, threshold: float = 0.0) -> Exponential:
    """A point as the specification defines it."""
    positive = buckets([index_of(v, scale) for v in data if v > threshold])
    negative = buckets([index_of(-v, scale) for v in data if v < -threshold])
    zero = sum(abs(v) <= threshold for v in data)
    return Exponential(scale, threshold, zero, *positive, *negative, sum(data))


def plain(total: ExponentialSum):
    return (total.scale, total.threshold, total.zero, total.positive, total.negative)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, scales), min_size=1, max_size=4), st.randoms())
def test_merging_is_counting_all_values_at_the_coarsest_scale(parts, random):
    merged = ExponentialSum()
    random.shuffle(parts)
    for data, scale in parts:
        merged.merge(ExponentialSum.read(make(data, scale)), limit=10**9)
    everything = [value for data, _ in parts for value in data]
    # The scale of a part without buckets says nothing.
    expected = ExponentialSum.read(make(everything, min((s for d, s in parts if any(d)), default=0)))
    assert plain(merged)[1:] == plain(expected)[1:]
    assert merged.scale == expected.scale or not any(everything)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, scales), min_size=2, max_size=5), st.sampled_from([0.0, 0.01, 1.0]), st.data())
def test_the_order_of_merging_does_not_matter_and_no_count_is_lost(parts, threshold, data):
    points = [ExponentialSum.read(make(*part, threshold)) for part in parts]
    one, other = ExponentialSum(), ExponentialSum()
    for point in points:
        one.merge(point, limit=20)
    for point in data.draw(st.permutations(points)):
        other.merge(point, limit=20)
    assert plain(one) == plain(other)
    assert one.count == sum(len(values) for values, _ in parts)
    assert one.cells()[1].sum() == one.count


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, scales, st.sampled_from([0.0, 0.01, 1.0])), min_size=2, max_size=5), st.data())
def test_with_different_zero_buckets_no_count_is_lost(parts, data):
    one, other = ExponentialSum(), ExponentialSum()
    for part in parts:
        one.merge(ExponentialSum.read(make(*part)), limit=10**9)
    for part in data.draw(st.permutations(parts)):
        other.merge(ExponentialSum.read(make(*part)), limit=10**9)
    assert plain(one) == plain(other)
    assert one.count == sum(len(values) for values, _, _ in parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, scales), min_size=2, max_size=5))
def test_taking_out_what_was_merged_leaves_the_rest(parts):
    points = [ExponentialSum.read(make(*part)) for part in parts]
    total, rest = ExponentialSum(), ExponentialSum()
    for point in points:
        total.merge(point)
    for point in points[1:]:
        rest.merge(point)
    total.subtract(points[0])
    extra = ExponentialSum(scale=total.scale, positive={0: 1})
    for part in (total, rest):  # to one scale
        part.merge(extra, limit=10**9)
        part.subtract(extra)
    assert plain(total) == plain(rest)


@settings(max_examples=60, deadline=None)
@given(values, scales)
def test_as_explicit_cells_every_value_lies_in_the_cell_that_counts_it(data, scale):
    edges, cells = ExponentialSum.read(make(data, scale)).cells()
    assert (np.diff(edges) > 0).all()
    # Seen from the values: a negative bucket is closed at its other end, so its bounds count with either cell.
    inner = np.array([v for v in data if v > 0 or v == 0 or -v not in edges * -1])
    if inner.size == len(data):
        located = np.bincount(np.searchsorted(edges, inner), minlength=edges.size + 1)
        near = [abs(edges - v).min() < 1e-9 * abs(v) for v in inner if v]
        if not any(near):  # rounding of a bound may put a value on either side
            assert located.tolist() == cells.tolist()
    assert cells.sum() == len(data)


def test_through_the_fold_with_deltas_and_cumulative_points(otlp):
    """Values 1, 2, 4, 4 at scale 0: buckets (0.5, 1], (1, 2], (2, 4]."""

    def request(sender, temporality, start, end, /, counts, *, zero=0):
        metric = Metric(name=semconv.METRIC_ML_FEATURE_VALUE.name)
        metric.exponential_histogram.aggregation_temporality = temporality
        point = metric.exponential_histogram.data_points.add(
            start_time_unix_nano=otlp.at(start), time_unix_nano=otlp.at(end), scale=0, zero_count=zero
        )
        point.positive.offset = -1
        point.positive.bucket_counts.extend(counts)
        point.count = sum(counts) + zero
        sender.label(point, metric.name, {})
        return sender.request(metric)

    fold = Fold()
    delta, cumulative = otlp.Sender("a", "i"), otlp.Sender("b", "j")
    for body in (
        request(delta, otlp.DELTA, 0, 1, [1, 1, 0]),
        request(delta, otlp.DELTA, 1, 2, [0, 0, 2], zero=1),
        request(cumulative, otlp.CUMULATIVE, 0, 1, [1]),
        request(cumulative, otlp.CUMULATIVE, 0, 2, [1, 1, 2], zero=1),
    ):
        fold.apply(otlp.at(2), decode_metrics(body))
        fold = Fold.load(fold.dump())
    (view,) = fold.views()
    for counts in (view.totals[otlp.X], view.window[otlp.X]):
        held = dict(zip(counts.edges.tolist(), counts.cells.tolist(), strict=False))
        assert (held[1.0], held[2.0], held[4.0]) == (2, 2, 4)
        assert counts.cells.sum() == counts.seen == 10
        assert counts.exponential
        assert counts.sum is None
