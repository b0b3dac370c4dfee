"""What a model of ingest.py is, and what its replicas send: its profile, and what a Monitor exports."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import grpc
import numpy as np
from ingest_bodies import DIGEST, INCARNATION, INSTANCE, MODEL, Load, Names, mark_times
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource

from otel_mlmon import Monitor, Profile, semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.profile.planning import choose_cells

FEATURES, CELLS = 35, 50
CLIENTS = 2


class Keep(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ExportMetricsServiceRequest] = []

    def export(self, metrics_data, *_, **__) -> MetricExportResult:
        self.requests.append(encode_metrics(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, *_, **__) -> bool:
        return True

    def shutdown(self, *_, **__) -> None:
        pass


@cache
def make_profile() -> Profile:
    """Of 35 normal features over three days, 50 cells each."""
    rng = np.random.default_rng(7)
    rows = {f"feature_{i:02}": rng.normal(size=20 * 3 * 1440) for i in range(FEATURES)}
    rows["time"] = 1.7e9 + np.arange(20 * 3 * 1440) * 3.0
    plan = Profile.plan(rows, time_column="time")
    variables = []
    for variable in plan.variables:
        axis = variable.axis
        first = (axis.cells - CELLS) // 2  # without some of those at the ends, far outside of the data
        axis = NumericAxis(axis.edges[first : first + CELLS - 1], axis.low - first, axis.high - first)
        cells = choose_cells(axis, axis.count_sorted(np.sort(rows[variable.column])))
        variables.append(replace(variable, axis=cells.axis, decision=cells.decision))
    built = Profile.build(
        rows, model=MODEL, version="1", plan=replace(plan, variables=tuple(variables)), time_column="time"
    )
    return replace(built, packages={})  # which are not in the hash, see `digest`


@cache
def make_export() -> ExportMetricsServiceRequest:
    """What a Monitor exports for a minute of 1,000 rows, with names in which each client puts its own."""
    keep, rng = Keep(), np.random.default_rng(8)
    resource = Resource.create({"service.name": "bench", "service.instance.id": INSTANCE})
    monitor = Monitor(make_profile(), exporter=keep, resource=resource, temporality="delta")
    with monitor.inference({f"feature_{i:02}": rng.normal(size=1000) for i in range(FEATURES)}) as call:
        call.record(np.zeros(1000))
    monitor.close()
    (scope,) = keep.requests[0].resource_metrics[0].scope_metrics
    scope.scope.attributes[0].value.string_value = INCARNATION
    for metric in scope.metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            for pair in point.attributes:
                if pair.key == semconv.ML_REFERENCE_HASH:
                    pair.value.string_value = DIGEST
    return keep.requests[0]


@cache
def make_histograms() -> bytes:
    """Its histograms of features alone."""
    request = ExportMetricsServiceRequest()
    request.CopyFrom(make_export())
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    kept = [metric for metric in metrics if metric.name == semconv.METRIC_ML_FEATURE_VALUE.name]
    del metrics[:]
    metrics.extend(kept)
    assert [len(metric.histogram.data_points) for metric in metrics] == [FEATURES]
    assert {len(point.bucket_counts) for point in metrics[0].histogram.data_points} == {CELLS}
    return request.SerializeToString()


@cache
def make_whole() -> tuple[bytes, int]:
    """The same with all that is sent, and how many points that are."""
    request, points = ExportMetricsServiceRequest(), 0
    request.CopyFrom(make_export())
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        held = getattr(metric, metric.WhichOneof("data")).data_points
        mark_times(held)
        points += len(held)
    return request.SerializeToString(), points


@cache
def name_model(number: int) -> tuple[Names, bytes]:
    """A model, and the document of its profile."""
    name = f"model-{number:04}"
    document = make_document().replace(MODEL.encode(), name.encode())
    return Names(name, digest(document)), document


def digest(document: bytes) -> str:
    """The hash of its profile, without reading it."""
    created = make_profile().created
    return hashlib.sha256(document.replace(created.encode(), b"", 1)).hexdigest()[:16]


def recognize(document: bytes) -> Profile:
    """One of these profiles, of another name, without reading it: reading a thousand takes a minute."""
    profile = replace(make_profile())
    vars(profile)["hash"] = digest(document)
    return profile


@cache
def make_document() -> bytes:
    return make_profile().to_bytes()


def make_loads(
    points: int, replicas: int, *, cumulative: bool = False, models: int = 1, clients: int = CLIENTS
) -> list[Load]:
    """A share of the replicas for each client."""
    names = tuple(name_model(i)[0] for i in range(models))
    return [
        Load(make_histograms(), points, range(i, replicas, clients), cumulative, names)
        for i in range(min(clients, replicas))
    ]


def _send(export: Callable[..., bytes], body: bytes, patience: float = 30.0) -> bytes:
    """As exporters do: a collector says that it is ready before its parts have found one another."""
    until = time.monotonic() + patience
    while True:
        try:
            return export(body, timeout=60)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise
        time.sleep(0.2)


def send_profiles(target: str, models: int) -> None:
    """As events, from one process."""
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        for number in range(models):
            names, document = name_model(number)
            request = ExportLogsServiceRequest()
            resource = request.resource_logs.add()
            for key, value in (("service.name", "bench"), ("service.instance.id", "profiles")):
                resource.resource.attributes.add(key=key).value.string_value = value
            record = resource.scope_logs.add().log_records.add(event_name=semconv.EVENT_ML_REFERENCE_PROFILE)
            record.body.bytes_value = gzip.compress(document, 1)
            for key, text in (
                (semconv.ML_MODEL_NAME, names.model),
                (semconv.ML_MODEL_VERSION, "1"),
                (semconv.ML_REFERENCE_HASH, names.digest),
            ):
                record.attributes.add(key=key).value.string_value = text
            for key in (semconv.ML_REFERENCE_PART, semconv.ML_REFERENCE_PARTS):
                record.attributes.add(key=key).value.int_value = 1
            answer = _send(export, request.SerializeToString())
            assert not ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records, answer
