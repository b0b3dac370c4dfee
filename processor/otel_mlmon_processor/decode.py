"""OTLP protobuf to frozen points. Pure: the same bytes always give the same batch.

Only metrics of the registry are read. A point that cannot be used is refused by reason, the rest of its
request is used.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_mlmon import semconv
from otel_mlmon_processor.points import (
    CUMULATIVE,
    DELTA,
    GAUGE,
    Attributes,
    Batch,
    Counts,
    Explicit,
    Exponential,
    Group,
    Point,
    Producer,
    ProfilePart,
    Value,
)

SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
ENVIRONMENT: Final = "deployment.environment.name"

LARGEST_COUNT: Final = 2**48  # so that thousands of points of this size still add up in 64 bits
LATEST_TIME: Final = 2**63 - 1
_COMMON_BOUNDS: Final = 256
NO_RECORDED_VALUE: Final = 1  # a flag of OTLP: the point says only that its stream has ended
NOT_ML: Final = "not_ml"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Sizes above which a point is refused.

    Args:
        cells: of a histogram.
        attributes: of a point.
        text: characters of an attribute's name or value.
        profile_part: bytes of a part of a profile.
        profile_parts: parts of a profile.
    """

    cells: int = 4096
    attributes: int = 32
    text: int = 1024
    profile_part: int = 2 * 1024 * 1024
    profile_parts: int = 64


class MalformedError(ValueError):
    """The bytes are not a request of this signal."""


class _UnusableError(Exception):
    """One point cannot be used; the argument is the reason."""


# What the model process sends and the fold uses; a metric that is not here is none of ours.
_HISTOGRAMS: Final = frozenset(
    metric.name
    for metric in (
        semconv.METRIC_ML_INFERENCE_DURATION,
        semconv.METRIC_ML_INFERENCE_BATCH_SIZE,
        semconv.METRIC_ML_FEATURE_VALUE,
        semconv.METRIC_ML_PREDICTION_VALUE,
        semconv.METRIC_ML_PREDICTION_SCORE,
        semconv.METRIC_ML_PREDICTION_ERROR,
        semconv.METRIC_ML_LABEL_DELAY,
    )
)
_COUNTERS: Final = frozenset(
    metric.name
    for metric in (
        semconv.METRIC_ML_FEATURE_COUNT,
        semconv.METRIC_ML_FEATURE_CATEGORY,
        semconv.METRIC_ML_FEATURE_INVALID,
        semconv.METRIC_ML_PREDICTION_CLASS,
        semconv.METRIC_ML_PREDICTION_COUNT,
        semconv.METRIC_ML_PREDICTION_INVALID,
        semconv.METRIC_MLMON_RECORDER_DROPPED,
        semconv.METRIC_MLMON_RECORDER_ERRORS,
    )
)
_LEVELS: Final = frozenset({semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name})  # sums that may fall
_GAUGES: Final = frozenset({semconv.METRIC_ML_MODEL_INFO.name})
# Ours too, but the fold has no use for them: ages are told by the profile itself.
_UNUSED: Final = frozenset(
    metric.name for metric in (semconv.METRIC_ML_MODEL_AGE, semconv.METRIC_ML_REFERENCE_AGE, semconv.METRIC_ML_OUTCOME)
)
METRICS: Final = _HISTOGRAMS | _COUNTERS | _LEVELS | _GAUGES


def decode_metrics(body: bytes, limits: DecodeLimits = DecodeLimits()) -> Batch:
    """Points of a metrics request.

    Raises:
        MalformedError: the bytes are not an ExportMetricsServiceRequest.
    """
    request = _parse(ExportMetricsServiceRequest, body)
    groups: list[Group] = []
    tally = _Tally()
    for resource_metrics in request.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            points: list[Point] = []
            for metric in scope_metrics.metrics:
                _read_metric(metric, points, tally, limits)
            if points:
                producer = _read_producer(resource_metrics.resource, scope_metrics.scope.attributes, limits)
                if producer is None:
                    tally.refuse("identity", len(points))
                else:
                    groups.append(Group(producer, tuple(points)))
    return tally.finish(groups)


def decode_logs(body: bytes, limits: DecodeLimits = DecodeLimits()) -> Batch:
    """Parts of profiles in a logs request.

    Raises:
        MalformedError: the bytes are not an ExportLogsServiceRequest.
    """
    request = _parse(ExportLogsServiceRequest, body)
    groups: list[Group] = []
    tally = _Tally()
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            parts: list[ProfilePart] = []
            for record in scope_logs.log_records:
                tally.items += 1
                if record.event_name != semconv.EVENT_ML_REFERENCE_PROFILE:
                    tally.ignored[NOT_ML] += 1
                    continue
                try:
                    parts.append(_read_part(record, limits))
                except _UnusableError as reason:
                    tally.refused[str(reason)] += 1
            if parts:
                producer = _read_producer(resource_logs.resource, scope_logs.scope.attributes, limits)
                if producer is None:
                    tally.refuse("identity", len(parts))
                else:
                    groups.append(Group(producer, (), tuple(parts)))
    return tally.finish(groups)


def decode_traces(body: bytes) -> Batch:
    """Spans of a traces request: none of them is ours to fold, they are counted.

    Raises:
        MalformedError: the bytes are not an ExportTraceServiceRequest.
    """
    request = _parse(ExportTraceServiceRequest, body)
    spans = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    return Batch((), spans, {}, {NOT_ML: spans} if spans else {})


class _Tally:
    """Counts of items while a request is read."""

    def __init__(self) -> None:
        self.items = 0
        self.refused: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def refuse(self, reason: str, items: int) -> None:
        self.refused[reason] += items

    def finish(self, groups: list[Group]) -> Batch:
        return Batch(tuple(groups), self.items, dict(self.refused), dict(self.ignored))


_Request = TypeVar("_Request", ExportMetricsServiceRequest, ExportLogsServiceRequest, ExportTraceServiceRequest)


def _parse(kind: type[_Request], body: bytes) -> _Request:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise MalformedError(f"not an {kind.DESCRIPTOR.full_name}: {error}") from error


def _read_metric(metric: Metric, points: list[Point], tally: _Tally, limits: DecodeLimits) -> None:
    data = metric.WhichOneof("data")
    held = getattr(metric, data).data_points if data else ()
    tally.items += len(held)
    if metric.name not in METRICS:
        tally.ignored["unused" if metric.name in _UNUSED else NOT_ML] += len(held)
        return
    try:
        read, temporality = _reader(metric, data)
    except _UnusableError as reason:
        tally.refuse(str(reason), len(held))
        return
    for point in held:
        if point.flags & NO_RECORDED_VALUE:
            tally.ignored["no_recorded_value"] += 1
            continue
        try:
            start, end = _read_times(point.start_time_unix_nano, point.time_unix_nano)
            attributes = _read_attributes(point.attributes, limits)
            points.append(Point(metric.name, attributes, temporality, start, end, read(point, limits)))
        except _UnusableError as reason:
            tally.refused[str(reason)] += 1


_Reader = Callable[[Any, DecodeLimits], Value]


def _reader(metric: Metric, data: str | None) -> tuple[_Reader, int]:
    """How to read the points of a metric, and their temporality."""
    name = metric.name
    if name in _HISTOGRAMS:
        if data == "histogram":
            return _read_explicit, _temporality(metric.histogram.aggregation_temporality)
        if data == "exponential_histogram":
            return _read_exponential, _temporality(metric.exponential_histogram.aggregation_temporality)
    elif name in _GAUGES:
        if data == "gauge":
            return _read_gauge, GAUGE
    elif data == "sum":
        if name in _COUNTERS and metric.sum.is_monotonic:
            return _read_count, _temporality(metric.sum.aggregation_temporality)
        if name in _LEVELS and not metric.sum.is_monotonic:
            return _read_level, _temporality(metric.sum.aggregation_temporality)
    raise _UnusableError("instrument")


def _temporality(value: int) -> int:
    if value not in (DELTA, CUMULATIVE):  # the numbers are those of OTLP
        raise _UnusableError("temporality")
    return value


def _read_times(start: int, end: int) -> tuple[int, int]:
    if not 0 < end <= LATEST_TIME or start > LATEST_TIME:
        raise _UnusableError("time")
    return start, end


def _read_attributes(attributes: Sequence[KeyValue], limits: DecodeLimits) -> Attributes:
    if len(attributes) > limits.attributes:
        raise _UnusableError("attributes")
    read = [(pair.key, pair.value.string_value or _read_text(pair.value)) for pair in attributes]
    read.sort()
    for key, value in read:
        if len(key) > limits.text or len(value) > limits.text:
            raise _UnusableError("attribute_size")
    return tuple(read)


def _read_text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return str(value.int_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "double_value":
        return repr(value.double_value)
    if kind is None:
        return ""
    raise _UnusableError("attributes")


_IDENTITY: Final = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE, ENVIRONMENT)


def _read_producer(resource: Resource, scope: Iterable[KeyValue], limits: DecodeLimits) -> Producer | None:
    """Identity of the sender; None where it is not text of a sensible size."""
    identity = {pair.key: pair.value for pair in resource.attributes if pair.key in _IDENTITY}
    marks = {pair.key: pair.value for pair in scope if pair.key == semconv.ML_PRODUCER_INCARNATION}
    values = (*(identity.get(key) for key in _IDENTITY), marks.get(semconv.ML_PRODUCER_INCARNATION))
    try:
        read = [_read_text(value) if value is not None else "" for value in values]
    except _UnusableError:
        return None
    return Producer(*read) if max(map(len, read)) <= limits.text else None


def _read_explicit(point: HistogramDataPoint, limits: DecodeLimits) -> Explicit:
    cells = len(point.bucket_counts)
    if cells > limits.cells:
        raise _UnusableError("too_many_cells")
    if cells != len(point.explicit_bounds) + 1:
        raise _UnusableError("cells")  # also histograms without cells: they have no distribution to count
    counts = _count_cells(point.bucket_counts[:], point.count)
    counts.setflags(write=False)
    bounds = tuple(point.explicit_bounds)
    packed = _pack_bounds(bounds) if len(bounds) <= _COMMON_BOUNDS else _pack_bounds.__wrapped__(bounds)
    if packed is None:
        raise _UnusableError("bounds")
    return Explicit(packed, counts, _read_sum(point))


@functools.lru_cache(maxsize=1024)  # a profile's bounds come again with every point; only short ones are kept
def _pack_bounds(values: tuple[float, ...]) -> bytes | None:
    """Bytes of the bounds; None where they are not finite and ascending."""
    bounds = np.array(values, dtype=np.float64)
    if not np.isfinite(bounds).all() or (bounds[1:] <= bounds[:-1]).any():
        return None
    return bounds.tobytes()


def _read_exponential(point: ExponentialHistogramDataPoint, limits: DecodeLimits) -> Exponential:
    positive, negative = point.positive, point.negative
    if len(positive.bucket_counts) + len(negative.bucket_counts) > limits.cells:
        raise _UnusableError("too_many_cells")
    if not -10 <= point.scale <= 20:
        raise _UnusableError("scale")
    reach = 1100 << max(point.scale, 0)  # 2**1100 is beyond every float
    for buckets in (positive, negative):
        if not -reach <= buckets.offset <= reach - len(buckets.bucket_counts):
            raise _UnusableError("bounds")
    if not 0 <= point.zero_threshold < math.inf:
        raise _UnusableError("bounds")
    _count_cells([*positive.bucket_counts, *negative.bucket_counts, point.zero_count], point.count)
    return Exponential(
        point.scale,
        point.zero_threshold,
        point.zero_count,
        positive.offset,
        tuple(positive.bucket_counts),
        negative.offset,
        tuple(negative.bucket_counts),
        _read_sum(point),
    )


def _count_cells(cells: list[int], count: int) -> Counts:
    """Counts of the cells, checked: none is absurd and they add up. They are unsigned on the wire."""
    if count > LARGEST_COUNT:
        raise _UnusableError("too_large")
    if sum(cells) != count:  # so none is larger than the count
        raise _UnusableError("counts")
    return np.array(cells, dtype=np.int64)


def _read_sum(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> float | None:
    if not point.HasField("sum"):
        return None
    if not math.isfinite(point.sum):
        raise _UnusableError("sum")
    return point.sum


def _read_level(point: NumberDataPoint, _: DecodeLimits) -> int:
    kind = point.WhichOneof("value")
    value: float = point.as_int if kind == "as_int" else point.as_double
    if kind is None or not math.isfinite(value) or value != int(value):
        raise _UnusableError("not_an_integer")
    if abs(value) > LARGEST_COUNT:
        raise _UnusableError("too_large")
    return int(value)


def _read_count(point: NumberDataPoint, limits: DecodeLimits) -> int:
    value = _read_level(point, limits)
    if value < 0:
        raise _UnusableError("negative")
    return value


def _read_gauge(point: NumberDataPoint, _: DecodeLimits) -> int:
    """A gauge is read for its attributes."""
    if point.WhichOneof("value") is None:
        raise _UnusableError("not_an_integer")
    return 1


def _read_part(record: LogRecord, limits: DecodeLimits) -> ProfilePart:
    values = dict(_read_attributes(record.attributes, limits))
    body = record.body.bytes_value
    if not body or len(body) > limits.profile_part:
        raise _UnusableError("profile_part")
    try:
        part, parts = int(values[semconv.ML_REFERENCE_PART]), int(values[semconv.ML_REFERENCE_PARTS])
        read = ProfilePart(
            values[semconv.ML_MODEL_NAME],
            values.get(semconv.ML_MODEL_VERSION, ""),
            values[semconv.ML_REFERENCE_HASH],
            part,
            parts,
            body,
        )
    except (KeyError, ValueError):
        raise _UnusableError("profile_part") from None
    if not 1 <= part <= parts <= limits.profile_parts:
        raise _UnusableError("profile_part")
    return read
