"""A receiver of OTLP as a collector has one, and models instrumented for the length of a block."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from otel_mlmon import semconv
from otel_mlmon.instrumentors.sklearn import SklearnInstrumentor
from otel_mlmon.instrumentors.xgboost import XGBoostInstrumentor


def _attributes(holder) -> dict[str, str | int | bool]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in holder.attributes}


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, requests) -> None:
        self.requests = requests

    def Export(self, request, context):  # noqa: N802 -- the service's name
        self.requests.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):  # noqa: N802
        return logs_service_pb2.ExportLogsServiceResponse()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, requests) -> None:
        self.requests = requests

    def Export(self, request, context):  # noqa: N802
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Receiver:
    """What arrived, by the names of the convention. Totals are cumulative: the last of a process counts."""

    def __init__(self) -> None:
        self.metrics, self.traces = [], []
        self.server = grpc.server(ThreadPoolExecutor(4))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self.metrics), self.server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(), self.server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self.traces), self.server)
        self.url = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def clear(self) -> None:
        self.metrics.clear()
        self.traces.clear()

    def points(self, metric: semconv.Metric, model: str | None = None) -> list[tuple[dict, object]]:
        """Attributes and value (a number, or the point of a histogram) of the last point of each series."""
        last = {}
        for request in list(self.metrics):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    producer = _attributes(scope.scope).get(semconv.ML_PRODUCER_INCARNATION)
                    for found in scope.metrics:
                        if found.name == metric.name:
                            kind = found.WhichOneof("data")
                            for point in getattr(found, kind).data_points:
                                key = (producer, *sorted(_attributes(point).items()))
                                number = (
                                    getattr(point, point.WhichOneof("value")) if kind in ("sum", "gauge") else point
                                )
                                last[key] = number
        found = [(dict(key[1:]), value) for key, value in last.items()]
        return [(a, value) for a, value in found if model in (None, a[semconv.ML_MODEL_NAME])]

    def totals(self, metric: semconv.Metric, attribute: str, model: str | None = None) -> dict:
        """Numbers added up over processes, by an attribute."""
        totals: dict = defaultdict(int)
        for attributes, value in self.points(metric, model):
            totals[attributes[attribute]] += value
        return dict(totals)

    @property
    def models(self) -> set[tuple[str, str]]:
        """Name and version of every model heard of."""
        found = self.points(semconv.METRIC_ML_MODEL_INFO)
        return {(a[semconv.ML_MODEL_NAME], a[semconv.ML_MODEL_VERSION]) for a, _ in found}

    def features(self, model: str | None = None) -> dict[str, int]:
        """Values seen by feature."""
        return self.totals(semconv.METRIC_ML_FEATURE_COUNT, semconv.ML_FEATURE_NAME, model)

    def predictions(self, model: str | None = None) -> dict[str, int]:
        """Outputs seen by role."""
        return self.totals(semconv.METRIC_ML_PREDICTION_COUNT, semconv.ML_PREDICTION_SIGNAL, model)

    def classes(self, model: str | None = None) -> dict[str, int]:
        return self.totals(semconv.METRIC_ML_PREDICTION_CLASS, semconv.ML_PREDICTION_CLASS, model)

    def histogram(self, metric: semconv.Metric, **attributes: str):
        """The one point of a distribution."""
        found = [p for a, p in self.points(metric) if all(a.get(key) == value for key, value in attributes.items())]
        assert len(found) == 1, found
        return found[0]

    def calls(self, model: str | None = None) -> dict[tuple[str, str], int]:
        """Calls by method and error."""
        totals: dict = defaultdict(int)
        for attributes, point in self.points(semconv.METRIC_ML_INFERENCE_DURATION, model):
            totals[attributes[semconv.ML_OPERATION_NAME], attributes.get("error.type", "")] += point.count
        return dict(totals)

    @property
    def spans(self) -> list[tuple[str, object]]:
        """Scope and span."""
        return [
            (scope.scope.name, span)
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture(scope="session")
def _receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.stop(None)


@pytest.fixture
def receiver(_receiver, monkeypatch):
    """Where this process and those that it starts send to."""
    _receiver.clear()
    for name in ("PROFILE", "MODEL_NAME", "MODEL_VERSION", "CAPTURE_FEATURES"):
        monkeypatch.delenv(f"OTEL_MLMON_{name}", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", _receiver.url)
    return _receiver


@pytest.fixture
def serving(receiver):
    """`with serving() as seen:` predicts instrumented; what was recorded has arrived when the block is left."""

    @contextmanager
    def instrumented(*kinds, **kwargs):
        instrumentors = [kind() for kind in kinds or (SklearnInstrumentor, XGBoostInstrumentor)]
        try:
            for instrumentor in instrumentors:
                instrumentor.instrument(**kwargs)
            yield receiver
        finally:
            for instrumentor in instrumentors:
                if instrumentor.is_instrumented_by_opentelemetry:
                    instrumentor.uninstrument()

    return instrumented
