"""Requests as a producer would send them, built from the OTLP messages themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.windows import VariableKey

from otel_mlmon import semconv

MINUTE = 60 * 10**9
EPOCH = 29_000_000  # a minute in 2025: times below are minutes after it
DELTA, CUMULATIVE = 1, 2
EDGES = (0.0, 1.0, 2.0)
NONE: Mapping[str, str] = {}


def at(minute: float) -> int:
    """Nanoseconds of a time given in minutes."""
    return EPOCH * MINUTE + round(minute * MINUTE)


def annotate(attributes, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        pair = attributes.add()
        pair.key = key
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = str(value)


@dataclass(frozen=True)
class Sender:
    """One process, as its requests name it."""

    instance: str = "a"
    incarnation: str = "i"
    service: str = "svc"
    namespace: str = ""
    environment: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, str] = field(
        default_factory=lambda: {
            semconv.ML_MODEL_NAME: "m",
            semconv.ML_MODEL_VERSION: "1",
            semconv.ML_REFERENCE_HASH: "h",
        }
    )

    def annotate(self, resource, scope) -> None:
        names = {
            "service.name": self.service,
            "service.namespace": self.namespace,
            "service.instance.id": self.instance,
            "deployment.environment.name": self.environment,
        }
        annotate(resource.attributes, {key: value for key, value in names.items() if value} | dict(self.extra))
        scope.name = "otel_mlmon"
        if self.incarnation:
            annotate(scope.attributes, {semconv.ML_PRODUCER_INCARNATION: self.incarnation})

    def request(self, *metrics: Metric) -> bytes:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        scope = resource.scope_metrics.add()
        self.annotate(resource.resource, scope.scope)
        scope.metrics.extend(metrics)
        return request.SerializeToString()

    def profile(self, digest: str, bodies: Mapping[int, bytes], parts: int, version: str = "1") -> bytes:
        """A logs request with some parts of a profile."""
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        scope = resource.scope_logs.add()
        self.annotate(resource.resource, scope.scope)
        for number, body in bodies.items():
            record = scope.log_records.add()
            record.event_name = semconv.EVENT_ML_REFERENCE_PROFILE
            record.body.bytes_value = body
            names = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: version, semconv.ML_REFERENCE_HASH: digest}
            annotate(record.attributes, {**names, semconv.ML_REFERENCE_PART: number, semconv.ML_REFERENCE_PARTS: parts})
        return request.SerializeToString()

    def histogram(
        self,
        counts: Sequence[int],
        start: float,
        end: float,
        *,
        edges: Iterable[float] = EDGES,
        name: str = semconv.METRIC_ML_FEATURE_VALUE.name,
        temporality: int = DELTA,
        total: float | None = None,
        labels: Mapping[str, str] = NONE,
    ) -> Metric:
        """A histogram point over the minutes (start, end]."""
        metric = Metric(name=name)
        metric.histogram.aggregation_temporality = temporality
        point = metric.histogram.data_points.add(start_time_unix_nano=at(start), time_unix_nano=at(end))
        point.explicit_bounds.extend(edges)
        point.bucket_counts.extend(counts)
        point.count = sum(counts)
        if total is not None:
            point.sum = total
        self.label(point, name, labels)
        return metric

    def count(
        self,
        count: int,
        start: float,
        end: float,
        *,
        name: str = semconv.METRIC_ML_FEATURE_COUNT.name,
        temporality: int = DELTA,
        monotonic: bool = True,
        labels: Mapping[str, str] = NONE,
    ) -> Metric:
        """A counter's point over the minutes (start, end]."""
        metric = Metric(name=name)
        metric.sum.aggregation_temporality = temporality
        metric.sum.is_monotonic = monotonic
        point = metric.sum.data_points.add(start_time_unix_nano=at(start), time_unix_nano=at(end), as_int=count)
        self.label(point, name, labels)
        return metric

    def label(self, point, name: str, labels: Mapping[str, str]) -> None:
        """Attributes of a point: the model's, and `labels`."""
        given = {**self.model, **labels}
        if name.startswith(semconv.METRIC_ML_FEATURE_VALUE.name.rpartition(".")[0]):
            given.setdefault(semconv.ML_FEATURE_NAME, "x")
        annotate(point.attributes, given)


class Otlp:
    """What the tests of this folder share."""

    MINUTE, EPOCH, EDGES, DELTA, CUMULATIVE = MINUTE, EPOCH, EDGES, DELTA, CUMULATIVE
    X = VariableKey("feature", "x")
    Sender = Sender
    at = staticmethod(at)
    annotate = staticmethod(annotate)


@pytest.fixture(scope="session")
def otlp() -> type[Otlp]:
    return Otlp
