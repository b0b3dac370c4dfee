"""OTLP protobuf to frozen points. Pure: the same bytes always give the same batch.

Only metrics of the registry are read. A point that cannot be used is refused by reason, the rest of its
request is used.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_mlmon import semconv
from otel_mlmon_processor.batch import Batch, Group
from otel_mlmon_processor.forms import Forms, split
from otel_mlmon_processor.point_values import (
    DEFAULT_LIMITS,
    DecodeLimits,
    MalformedError,
    TooManyPointsError,
    UnreadablePointError,
    check_cells,
    read_attributes,
    read_count,
    read_explicit,
    read_exponential,
    read_gauge,
    read_level,
    read_text,
    reader_of,
)
from otel_mlmon_processor.points import (
    CUMULATIVE,
    DELTA,
    ENVIRONMENT,
    GAUGE,
    LATEST_TIME,
    SERVICE_INSTANCE,
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    Point,
    Producer,
    ProfilePart,
    Value,
)
from otel_mlmon_processor.reasons import Ignored, Reason, Unusable
from otel_mlmon_processor.wire import MetricsRequest

__all__ = ["METRICS", "NOT_ML", "OURS", "MalformedError", "decode_logs", "decode_metrics", "decode_traces"]

_COMMON_BYTES: Final = 4096  # of a resource and a scope that are kept
NO_RECORDED_VALUE: Final = 1  # a flag of OTLP: the point says only that its stream has ended
NOT_ML: Final[Ignored] = "not_ml"


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
        semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS,
        semconv.METRIC_MLMON_RECORDER_UNSENT,
    )
)
_LEVELS: Final = frozenset({semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name})  # sums that may fall
_GAUGES: Final = frozenset({semconv.METRIC_ML_MODEL_INFO.name})
METRICS: Final = _HISTOGRAMS | _COUNTERS | _LEVELS | _GAUGES
# The registry's others are ours too, but the fold has no use for them.
OURS: Final = frozenset(metric.name for metric in vars(semconv).values() if isinstance(metric, semconv.Metric))


def decode_metrics(body: bytes, limits: DecodeLimits = DEFAULT_LIMITS, forms: Forms | None = None) -> Batch:
    """Points of a metrics request.

    Args:
        body: bytes of an ExportMetricsServiceRequest.
        limits: sizes.
        forms: what is known of messages that come again, and learnt here; those of one limits only.

    Raises:
        MalformedError: the bytes are not such a request, or (TooManyPointsError) it holds too much.
    """
    messages = split(body) if forms is not None else None
    if forms is None or messages is None:
        return _read_in_full(body, limits)
    groups: list[Group] = []
    tally = _Tally()
    for tag, begin, end in messages:
        message = body[begin:end]
        known = forms.read(message)
        if known is None:
            batch = _read_in_full(body[tag:end], limits)
            tally.add(batch)
            tally.check(limits)
            groups += batch.groups
            if len(batch.groups) == 1 and not batch.refused and "no_recorded_value" not in batch.ignored:
                forms.learn(message, batch.groups[0].points, batch.items, batch.ignored)
            continue
        block, resource, scope = known
        producer = _find_producer(resource, scope, limits)
        tally.items += block.form.items
        tally.ignored.update(block.form.ignored)
        tally.check(limits)
        if producer is None:
            tally.refuse("identity", len(block.form.points))
        else:
            groups.append(Group(producer, (), block=block))
    return tally.finish(groups)


def _read_in_full(body: bytes, limits: DecodeLimits) -> Batch:
    try:
        batch = _read_metrics(body, limits)
        if not batch.refused:
            return batch
    except TooManyPointsError:
        raise
    except MalformedError:
        pass
    # Protobuf has more than one spelling of packed numbers; `wire` reads the one that all known encoders write.
    return _read_metrics(_parse(ExportMetricsServiceRequest, body).SerializeToString(), limits)


def _read_metrics(body: bytes, limits: DecodeLimits) -> Batch:
    request = _parse(MetricsRequest, body)
    groups: list[Group] = []
    tally = _Tally()
    for resource_metrics in request.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            points: list[Point] = []
            for metric in scope_metrics.metrics:
                _read_metric(metric, points, tally, limits)
            if points:
                producer = _find_producer(resource_metrics.resource, scope_metrics.scope, limits)
                if producer is None:
                    tally.refuse("identity", len(points))
                else:
                    groups.append(Group(producer, tuple(points)))
    return tally.finish(groups)


def decode_logs(body: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> Batch:
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
                    tally.ignore(NOT_ML, 1)
                    continue
                try:
                    parts.append(_read_part(record, limits))
                except UnreadablePointError as error:
                    tally.refuse(error.reason, 1)
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
        self.refused: Counter[Reason] = Counter()
        self.ignored: Counter[Reason] = Counter()

    def refuse(self, reason: Unusable, items: int) -> None:
        if items:
            self.refused[reason] += items

    def ignore(self, reason: Ignored, items: int) -> None:
        self.ignored[reason] += items

    def check(self, limits: DecodeLimits) -> None:
        """Refuse a request of too many points."""
        points = self.items - self.ignored[NOT_ML] - self.ignored["unused"]
        if points > limits.points:
            raise TooManyPointsError(f"a request may hold {limits.points} points of our metrics")

    def add(self, batch: Batch) -> None:
        self.items += batch.items
        self.refused.update(batch.refused)
        self.ignored.update(batch.ignored)

    def finish(self, groups: list[Group]) -> Batch:
        return Batch(tuple(groups), self.items, dict(self.refused), dict(self.ignored))


_Message = TypeVar("_Message", bound=Message)


def _parse(kind: type[_Message], body: bytes) -> _Message:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise MalformedError(f"not an {kind.DESCRIPTOR.full_name}: {error}") from error


def _read_metric(metric: Any, points: list[Point], tally: _Tally, limits: DecodeLimits) -> None:
    data = metric.WhichOneof("data")
    held = getattr(metric, data).data_points if data else ()
    tally.items += len(held)
    name: str = metric.name
    if name not in METRICS:
        tally.ignore("unused" if name in OURS else NOT_ML, len(held))
        return
    tally.check(limits)
    try:
        read, temporality = _reader(metric, data)
    except UnreadablePointError as error:
        tally.refuse(error.reason, len(held))
        return
    found: list[Point] = []
    counts: list[int] = []
    attributes = reader_of(limits)
    for point in held:
        if point.flags & NO_RECORDED_VALUE:
            tally.ignore("no_recorded_value", 1)
            continue
        try:
            start, end = point.start_time_unix_nano, point.time_unix_nano
            if not 0 < end <= LATEST_TIME or start > LATEST_TIME:
                raise UnreadablePointError("time")
            known = attributes[tuple(point.attributes)]
            found.append(Point(name, known, temporality, start, end, read(point, limits)))
        except UnreadablePointError as error:
            tally.refuse(error.reason, 1)
            continue
        if read is read_explicit:
            counts.append(point.count)
    if counts:
        sound = check_cells([point.value for point in found], counts)
        tally.refuse("counts", sound.count(False))
        found = list(compress(found, sound))
    points += found


_Reader = Callable[[Any, DecodeLimits], Value]


def _reader(metric: Any, data: str | None) -> tuple[_Reader, int]:
    """How to read the points of a metric, and their temporality."""
    name = metric.name
    if name in _HISTOGRAMS:
        if data == "histogram":
            return read_explicit, _temporality(metric.histogram.aggregation_temporality)
        if data == "exponential_histogram":
            return read_exponential, _temporality(metric.exponential_histogram.aggregation_temporality)
    elif name in _GAUGES:
        if data == "gauge":
            return read_gauge, GAUGE
    elif data == "sum":
        if name in _COUNTERS and metric.sum.is_monotonic:
            return read_count, _temporality(metric.sum.aggregation_temporality)
        if name in _LEVELS and not metric.sum.is_monotonic:
            return read_level, _temporality(metric.sum.aggregation_temporality)
    raise UnreadablePointError("instrument")


def _temporality(value: int) -> int:
    if value not in (DELTA, CUMULATIVE):  # the numbers are those of OTLP
        raise UnreadablePointError("temporality")
    return value


def _find_producer(resource: bytes, scope: bytes, limits: DecodeLimits) -> Producer | None:
    """Of the bytes of a resource and a scope, which come again with every request."""
    find = _parse_producer if len(resource) + len(scope) <= _COMMON_BYTES else _parse_producer.__wrapped__
    return find(resource, scope, limits)


@functools.lru_cache(maxsize=4096)
def _parse_producer(resource: bytes, scope: bytes, limits: DecodeLimits) -> Producer | None:
    return _read_producer(_parse(Resource, resource), _parse(InstrumentationScope, scope).attributes, limits)


_IDENTITY: Final = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE, ENVIRONMENT)


def _read_producer(resource: Resource, scope: Iterable[KeyValue], limits: DecodeLimits) -> Producer | None:
    """Identity of the sender; None where it is not text of a sensible size."""
    identity = {pair.key: pair.value for pair in resource.attributes if pair.key in _IDENTITY}
    marks = {pair.key: pair.value for pair in scope if pair.key == semconv.ML_PRODUCER_INCARNATION}
    values = (*(identity.get(key) for key in _IDENTITY), marks.get(semconv.ML_PRODUCER_INCARNATION))
    try:
        read = [read_text(value) if value is not None else "" for value in values]
    except UnreadablePointError:
        return None
    return Producer(*read) if max(map(len, read)) <= limits.text else None


def _read_part(record: LogRecord, limits: DecodeLimits) -> ProfilePart:
    values = dict(read_attributes(record.attributes, limits))
    body = record.body.bytes_value
    if not body or len(body) > limits.profile_part:
        raise UnreadablePointError("profile_part")
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
        raise UnreadablePointError("profile_part") from None
    if not 1 <= part <= parts <= limits.profile_parts:
        raise UnreadablePointError("profile_part")
    return read
