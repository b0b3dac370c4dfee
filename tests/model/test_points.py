"""Counts as points of the conventions, in requests that a receiver of 4 MiB takes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    Gauge,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_mlmon import semconv
from otel_mlmon.export import make_metrics_data
from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.operations import Call, Operations, OperationTotals, Sizes
from otel_mlmon.points import MetricPoints, split_metrics
from otel_mlmon.tallies import CellTally, LearntTally, VariableKey

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
BASE = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: "1"}
AXIS = NumericAxis(np.array([0.0, 1.0]), 0, 1)
MIB = 1 << 20


def encoded(*values, **invalid):
    from otel_mlmon.encoding import Encoded

    return Encoded(np.array(values, dtype=np.float64), **invalid)


def points_of(tallies, temporality=DELTA, reference="abc", start=10, end=20):
    points = MetricPoints(temporality, BASE, reference)
    points.add_tallies(tallies, start, end)
    return {metric.name: metric for metric in points.metrics()}


def without_base(point):
    attributes = dict(point.attributes)
    assert {name: attributes.pop(name) for name in BASE} == BASE
    return attributes


@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
def test_a_number_is_a_histogram_with_the_bounds_of_its_profile_and_what_is_invalid_apart(temporality):
    tally = CellTally(AXIS)
    tally.count(encoded(-3.0, 0.0, 0.5, 2.0, math.nan, math.inf, -math.inf, missing=4, wrong_type=5))
    metrics = points_of({VariableKey("feature", "x"): tally}, temporality)
    feature = {semconv.ML_FEATURE_NAME: "x", semconv.ML_REFERENCE_HASH: "abc"}
    histogram = metrics[semconv.METRIC_ML_FEATURE_VALUE.name]
    assert (histogram.unit, histogram.description) == semconv.METRIC_ML_FEATURE_VALUE[2:]
    (point,) = histogram.data.data_points
    assert without_base(point) == feature
    assert (point.count, list(point.bucket_counts), list(point.explicit_bounds)) == (4, [2, 1, 1], [0.0, 1.0])
    assert (point.sum, point.min, point.max) == (-0.5, -3.0, 2.0)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (10, 20)
    assert histogram.data.aggregation_temporality is temporality
    (count,) = metrics[semconv.METRIC_ML_FEATURE_COUNT.name].data.data_points
    assert (count.value, without_base(count)) == (4 + 3 + 4 + 5, feature)
    invalid = metrics[semconv.METRIC_ML_FEATURE_INVALID.name].data
    assert invalid.is_monotonic
    reasons = {point.attributes[semconv.ML_FEATURE_INVALID_REASON]: point.value for point in invalid.data_points}
    assert reasons == {"missing": 4, "nan": 1, "inf": 2, "type": 5}


def test_a_category_is_a_counter_by_label_without_those_that_did_not_come():
    tally = CellTally(CategoryAxis(("a", "b", "c")))
    tally.count(encoded(0, 0, 2, 3, 4, 4))
    metrics = points_of({VariableKey("feature", "w"): tally})
    category = metrics[semconv.METRIC_ML_FEATURE_CATEGORY.name].data
    found = {point.attributes[semconv.ML_FEATURE_CATEGORY]: point.value for point in category.data_points}
    assert found == {"a": 2, "c": 1, "_OTHER_": 1, "_UNSEEN_": 2}
    assert category.is_monotonic
    assert semconv.METRIC_ML_FEATURE_VALUE.name not in metrics


def test_without_a_profile_numbers_are_an_exponential_histogram_and_there_is_no_hash():
    tally = LearntTally()
    tally.count([1.0, 2.0, -4.0, 0.0], "feature")
    metrics = points_of({VariableKey("feature", "x"): tally}, reference="")
    (point,) = metrics[semconv.METRIC_ML_FEATURE_VALUE.name].data.data_points
    assert isinstance(point, ExponentialHistogramDataPoint)
    assert without_base(point) == {semconv.ML_FEATURE_NAME: "x"}
    assert (point.count, point.zero_count, point.sum, point.min, point.max) == (4, 1, -1.0, -4.0, 2.0)
    assert sum(point.positive.bucket_counts) == 2
    assert sum(point.negative.bucket_counts) == 1


@pytest.mark.parametrize(
    ("role", "metric"),
    [("value", semconv.METRIC_ML_PREDICTION_VALUE), ("score", semconv.METRIC_ML_PREDICTION_SCORE)],
)
def test_outputs_have_metrics_of_their_own(role, metric):
    tally = CellTally(AXIS)
    tally.count(encoded(0.5, math.nan))
    metrics = points_of({VariableKey(role, role): tally})
    (point,) = metrics[metric.name].data.data_points
    assert (point.count, semconv.ML_FEATURE_NAME in point.attributes) == (1, False)
    for counter in (semconv.METRIC_ML_PREDICTION_COUNT, semconv.METRIC_ML_PREDICTION_INVALID):
        (count,) = metrics[counter.name].data.data_points
        assert count.attributes[semconv.ML_PREDICTION_SIGNAL] == role


def test_classes_are_counted_by_class():
    tally = CellTally(CategoryAxis(("no", "yes")))
    tally.count(encoded(0, 1, 1))
    data = points_of({VariableKey("class", "class"): tally})[semconv.METRIC_ML_PREDICTION_CLASS.name].data
    assert {p.attributes[semconv.ML_PREDICTION_CLASS]: p.value for p in data.data_points} == {"no": 1, "yes": 2}


def test_what_was_not_seen_has_no_points():
    assert points_of({VariableKey("feature", "x"): CellTally(AXIS)}) == {}


def test_calls_are_histograms_by_operation_and_error():
    operations = Operations()
    for seconds, rows, error in ((0.002, 1, ""), (0.02, 100, ""), (7.0, None, "ValueError")):
        operations.begin(error)
        operations.end(error, Call("predict", "sklearn", error), seconds, rows)
    operations.drop("unreadable")
    operations.give_up(7)
    totals = operations.collect()
    assert operations.active == 0
    points = MetricPoints(DELTA, BASE, "")
    points.add_operations(totals, 10, 20)
    metrics = {metric.name: metric.data.data_points for metric in points.metrics()}
    good, failed = metrics[semconv.METRIC_ML_INFERENCE_DURATION.name]
    common = {semconv.ML_OPERATION_NAME: "predict", semconv.ML_FRAMEWORK_NAME: "sklearn"}
    assert (without_base(good), good.count, good.sum) == (common, 2, 0.022)
    assert (without_base(failed), failed.count) == ({**common, "error.type": "ValueError"}, 1)
    for point, values in ((good, (0.002, 0.02)), (failed, (7.0,))):
        cells = Counter(sum(value > bound for bound in point.explicit_bounds) for value in values)
        assert [cells[i] for i in range(len(point.explicit_bounds) + 1)] == list(point.bucket_counts)
    (batch,) = metrics[semconv.METRIC_ML_INFERENCE_BATCH_SIZE.name]
    assert (without_base(batch), batch.count, batch.sum, batch.min, batch.max) == (common, 2, 101, 1, 100)
    (dropped,) = metrics[semconv.METRIC_MLMON_RECORDER_DROPPED.name]
    assert (without_base(dropped), dropped.value) == ({semconv.MLMON_REASON: "unreadable"}, 1)
    (unsent,) = metrics[semconv.METRIC_MLMON_RECORDER_UNSENT.name]
    assert unsent.value == 7


def test_totals_of_calls_add_up():
    call, other = Call("predict", "", ""), Call("transform", "", "")
    totals = OperationTotals()
    for part in range(3):
        sizes = Sizes((1.0, 2.0))
        sizes.add(part)
        totals.merge(
            OperationTotals({call: sizes, other: Sizes((1.0,))}, {}, Counter(a=1), Counter(b=part), part, part)
        )
    assert totals.durations[call] == Sizes((1.0, 2.0), [2, 1, 0], 3.0, 0, 2)
    assert (totals.dropped, totals.errors, totals.extra_columns, totals.unsent) == ({"a": 3}, {"b": 3}, 3, 3)


def test_levels_are_cumulative_and_no_counters_whatever_the_temporality():
    points = MetricPoints(DELTA, BASE, "")
    points.add_level(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS, 3, 5, 20)
    points.add_gauge(semconv.METRIC_ML_MODEL_INFO, {"a": "b"}, 1, 20)
    level, info = points.metrics()
    assert (level.data.aggregation_temporality, level.data.is_monotonic) == (CUMULATIVE, False)
    assert isinstance(info.data, Gauge)
    (point,) = info.data.data_points
    assert without_base(point) == {"a": "b"}


# Requests.


def histogram_of(index, cells=90):
    counts = [index % 1000] * cells
    attributes = {**BASE, semconv.ML_FEATURE_NAME: f"feature {index}", semconv.ML_REFERENCE_HASH: "0123456789abcdef"}
    return HistogramDataPoint(attributes, 10, 20, sum(counts), 0.5, counts, [float(i) for i in range(cells - 1)], 0, 1)


def metrics_with(features, labels):
    from opentelemetry.sdk.metrics.export import Histogram

    histograms = [histogram_of(i) for i in range(features)]
    counts = [
        NumberDataPoint({**BASE, semconv.ML_FEATURE_CATEGORY: f"{'é' * 100} {i}"}, 10, 20, i) for i in range(labels)
    ]
    return [
        Metric("a", "", "1", Gauge([NumberDataPoint(BASE, 20, 20, 1)])),
        Metric("b", "", "1", Histogram(histograms, DELTA)),
        Metric("c", "", "1", Sum(counts, DELTA, True)),
    ]


def bytes_of(group):
    scope = InstrumentationScope("otel_mlmon", attributes={semconv.ML_PRODUCER_INCARNATION: "0" * 16})
    return encode_metrics(make_metrics_data(Resource({"service.name": "svc"}), scope, group)).ByteSize()


@pytest.mark.parametrize(("features", "labels"), [(0, 0), (10, 10), (6000, 0), (0, 40_000), (3000, 10_000)])
def test_requests_are_small_enough_and_their_points_add_up(features, labels):
    metrics = metrics_with(features, labels)
    groups = list(split_metrics(metrics, 3 * MIB))
    assert all(bytes_of(group) < 4 * MIB for group in groups)
    whole = bytes_of(metrics)
    assert (len(groups) > 1) == (whole > 3 * MIB)
    assert len(groups) <= 1 + whole // MIB  # the estimate is not far off
    found = {"a": [], "b": [], "c": []}
    kinds = {}
    for metric in (metric for group in groups for metric in group):
        found[metric.name] += metric.data.data_points
        kinds.setdefault(metric.name, set()).add(
            (
                type(metric.data),
                getattr(metric.data, "aggregation_temporality", None),
                getattr(metric.data, "is_monotonic", None),
            )
        )
    assert [list(points) for points in found.values()] == [list(metric.data.data_points) for metric in metrics]
    assert all(len(kind) == 1 for kind in kinds.values())


def test_a_point_that_is_too_large_alone_goes_alone():
    metrics = metrics_with(3, 2)
    groups = list(split_metrics(metrics, 1))
    assert [sum(len(metric.data.data_points) for metric in group) for group in groups] == [1] * 6


def test_nothing_to_send_gives_no_request():
    assert list(split_metrics([], MIB)) == []
