"""Counts as metrics of the SDK's public types. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from otel_mlmon import semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.operations import Call, OperationTotals, Sizes
from otel_mlmon.schema import Tallies
from otel_mlmon.tallies import CellTally, LearntTally, Tally, VariableKey

Attributes = Mapping[str, str]
_VALUES: Final = {
    "feature": semconv.METRIC_ML_FEATURE_VALUE,
    "value": semconv.METRIC_ML_PREDICTION_VALUE,
    "score": semconv.METRIC_ML_PREDICTION_SCORE,
    "class": semconv.METRIC_ML_PREDICTION_VALUE,
}


class MetricPoints:
    """Points by metric, all of one temporality.

    Args:
        temporality: of counters and histograms.
        base: attributes of every point: model and version.
        reference: hash of the profile; "" where there is none.
    """

    def __init__(self, temporality: AggregationTemporality, base: Attributes, reference: str) -> None:
        self._temporality = temporality
        self._base = dict(base)
        self._reference = {semconv.ML_REFERENCE_HASH: reference} if reference else {}
        self._points: dict[tuple[semconv.Metric, type], list[Any]] = {}

    def add_tallies(self, tallies: Tallies, start: int, end: int) -> None:
        """Distributions of features and predictions over (start, end], ns since 1970."""
        for key, tally in tallies.items():
            if tally.seen:
                self._add_tally(key, tally, start, end)

    def _add_tally(self, key: VariableKey, tally: Tally, start: int, end: int) -> None:
        feature = key.role == "feature"
        attributes = {**self._base, **self._reference}
        counted = dict(attributes)
        if feature:
            attributes[semconv.ML_FEATURE_NAME] = counted[semconv.ML_FEATURE_NAME] = key.name
        else:
            counted[semconv.ML_PREDICTION_SIGNAL] = key.role
        count = semconv.METRIC_ML_FEATURE_COUNT if feature else semconv.METRIC_ML_PREDICTION_COUNT
        invalid = semconv.METRIC_ML_FEATURE_INVALID if feature else semconv.METRIC_ML_PREDICTION_INVALID
        self._add_sum(count, counted, tally.seen, start, end)
        for reason, number in _invalid(tally):
            if number:
                self._add_sum(invalid, {**counted, semconv.ML_FEATURE_INVALID_REASON: reason}, number, start, end)
        if tally.valid:
            self._add_valid(key, tally, attributes, start, end)

    def _add_valid(self, key: VariableKey, tally: Tally, attributes: Attributes, start: int, end: int) -> None:
        labels: Mapping[str, int] = {}
        if isinstance(tally, LearntTally):
            labels = tally.labels
            if tally.exponential.valid:
                self._add_exponential(_VALUES[key.role], attributes, tally, start, end)
        elif isinstance(tally, CellTally) and isinstance(tally.axis, NumericAxis):
            self._add(
                _VALUES[key.role],
                HistogramDataPoint(
                    attributes, start, end, tally.valid, tally.sum, tally.counts.tolist(), tally.axis.edges.tolist(),
                    tally.min, tally.max,
                ),
            )  # fmt: skip
        elif isinstance(tally, CellTally):
            labels = tally.labels
        feature = key.role == "feature"
        metric = semconv.METRIC_ML_FEATURE_CATEGORY if feature else semconv.METRIC_ML_PREDICTION_CLASS
        name = semconv.ML_FEATURE_CATEGORY if feature else semconv.ML_PREDICTION_CLASS
        for label, number in labels.items():
            self._add_sum(metric, {**attributes, name: label}, number, start, end)

    def _add_exponential(
        self, metric: semconv.Metric, attributes: Attributes, tally: LearntTally, start: int, end: int
    ) -> None:
        shape = tally.exponential
        positive, negative = (Buckets(part.offset, part.counts.tolist()) for part in (shape.positive, shape.negative))
        self._add(
            metric,
            ExponentialHistogramDataPoint(
                attributes, start, end, shape.valid, tally.sum, shape.scale, shape.zero, positive, negative, 0,
                tally.min, tally.max,
            ),
        )  # fmt: skip

    def add_operations(self, totals: OperationTotals, start: int, end: int) -> None:
        """Durations, batch sizes and what was dropped over (start, end]."""
        for call, sizes in totals.durations.items():
            self._add_sizes(semconv.METRIC_ML_INFERENCE_DURATION, call, sizes, start, end)
        for call, sizes in totals.batches.items():
            self._add_sizes(semconv.METRIC_ML_INFERENCE_BATCH_SIZE, call, sizes, start, end)
        reasons = (
            (semconv.METRIC_MLMON_RECORDER_DROPPED, totals.dropped),
            (semconv.METRIC_MLMON_RECORDER_ERRORS, totals.errors),
        )
        for metric, numbers in reasons:
            for reason, number in numbers.items():
                self._add_counter(metric, {semconv.MLMON_REASON: reason}, number, start, end)
        if totals.extra_columns:
            self._add_counter(semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS, {}, totals.extra_columns, start, end)
        if totals.unsent:
            self._add_counter(semconv.METRIC_MLMON_RECORDER_UNSENT, {}, totals.unsent, start, end)

    def _add_sizes(self, metric: semconv.Metric, call: Call, sizes: Sizes, start: int, end: int) -> None:
        attributes = {**self._base, semconv.ML_OPERATION_NAME: call.operation}
        if call.framework:
            attributes[semconv.ML_FRAMEWORK_NAME] = call.framework
        if call.error:
            attributes["error.type"] = call.error
        self._add(
            metric,
            HistogramDataPoint(
                attributes, start, end, sum(sizes.counts), sizes.sum, list(sizes.counts), sizes.bounds, sizes.min,
                sizes.max,
            ),
        )  # fmt: skip

    def _add_counter(self, metric: semconv.Metric, attributes: Attributes, value: int, start: int, end: int) -> None:
        self._add_sum(metric, {**self._base, **attributes}, value, start, end)

    def add_gauge(self, metric: semconv.Metric, attributes: Attributes, value: float, end: int) -> None:
        """A gauge of the model."""
        self._add(metric, NumberDataPoint({**self._base, **attributes}, end, end, value), Gauge)

    def add_level(self, metric: semconv.Metric, value: int, start: int, end: int) -> None:
        """An up-down counter of the model, always cumulative."""
        self._add(metric, NumberDataPoint(self._base, start, end, value), Sum)

    def _add_sum(self, metric: semconv.Metric, attributes: Attributes, value: int, start: int, end: int) -> None:
        self._add(metric, NumberDataPoint(attributes, start, end, value), Sum)

    def _add(self, metric: semconv.Metric, point: Any, kind: type | None = None) -> None:
        if kind is None:
            kind = Histogram if isinstance(point, HistogramDataPoint) else ExponentialHistogram
        self._points.setdefault((metric, kind), []).append(point)

    def metrics(self) -> list[Metric]:
        """All points, one metric for each name and type."""
        return [self._metric(metric, kind, points) for (metric, kind), points in self._points.items()]

    def _metric(self, metric: semconv.Metric, kind: type, points: Sequence[Any]) -> Metric:
        data: Any
        if kind is Gauge:
            data = Gauge(points)
        elif kind is Sum:
            monotonic = metric.instrument == "counter"
            data = Sum(points, self._temporality if monotonic else AggregationTemporality.CUMULATIVE, monotonic)
        else:
            data = kind(points, self._temporality)
        return Metric(metric.name, metric.description, metric.unit, data)


def _invalid(tally: Tally) -> tuple[tuple[str, int], ...]:
    reasons = semconv.FeatureInvalidReason
    return (
        (reasons.MISSING, tally.missing),
        (reasons.NAN, tally.nan),
        (reasons.INF, tally.inf),
        (reasons.TYPE, tally.wrong_type),
    )


def split_metrics(metrics: Iterable[Metric], limit: int) -> Iterator[list[Metric]]:
    """Groups of metrics of at most about `limit` bytes on the wire each; a metric is split between its points."""
    group: list[Metric] = []
    size = 0
    for metric in metrics:
        points: list[Any] = []
        for point in metric.data.data_points:
            cost = _size(point)
            if size + cost > limit and (group or points):
                if points:
                    group.append(_with_points(metric, points))
                yield group
                group, points, size = [], [], 0
            points.append(point)
            size += cost
        if points:
            group.append(_with_points(metric, points))
    if group:
        yield group


def _size(point: Any) -> int:
    """Bytes of a point on the wire, at most."""
    attributes = sum(len(name) + 4 * len(str(value)) + 8 for name, value in point.attributes.items())
    counts = 8 * (len(getattr(point, "bucket_counts", ())) + len(getattr(point, "explicit_bounds", ())))
    for part in (getattr(point, "positive", None), getattr(point, "negative", None)):
        counts += 10 * len(part.bucket_counts) if part is not None else 0
    return 96 + attributes + counts


def _with_points(metric: Metric, points: list[Any]) -> Metric:
    data: Any = metric.data
    if len(points) == len(data.data_points):
        return metric
    rebuild: Callable[..., Any] = type(data)
    if isinstance(data, Sum):
        return Metric(
            metric.name, metric.description, metric.unit, Sum(points, data.aggregation_temporality, data.is_monotonic)
        )
    if isinstance(data, Gauge):
        return Metric(metric.name, metric.description, metric.unit, Gauge(points))
    return Metric(metric.name, metric.description, metric.unit, rebuild(points, data.aggregation_temporality))
