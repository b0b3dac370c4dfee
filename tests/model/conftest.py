"""Where points end up: real receivers of OTLP over gRPC and HTTP, and an exporter that keeps them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from otel_mlmon import semconv


class Point(NamedTuple):
    """A point of a request, with what is around it."""

    metric: str
    attributes: dict[str, Any]
    point: Any
    data: Any  # gauge, sum or histogram of the metric
    scope: dict[str, Any]
    resource: dict[str, Any]

    @property
    def incarnation(self) -> str:
        return self.scope[semconv.ML_PRODUCER_INCARNATION]


def attributes_of(pairs) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def points_of(requests) -> list[Point]:
    """Points of ExportMetricsServiceRequests, in their order."""
    return [
        Point(
            metric.name,
            attributes_of(point.attributes),
            point,
            getattr(metric, metric.WhichOneof("data")),
            attributes_of(scope.scope.attributes),
            attributes_of(resource.resource.attributes),
        )
        for request in list(requests)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


class Received:
    """Requests that were acknowledged, and those that were not."""

    def __init__(self) -> None:
        self.metrics, self.logs, self.refused = [], [], []
        self.headers: list[dict[str, str]] = []
        self.refuse = False

    @property
    def points(self) -> list[Point]:
        return points_of(self.metrics)

    def of(self, metric: semconv.Metric, **attributes: str) -> list[Point]:
        """Points of a metric; a keyword is the end of an attribute's name."""

        def agrees(point: Point) -> bool:
            return all(
                any(k.endswith(n) and v == w for k, v in point.attributes.items()) for n, w in attributes.items()
            )

        return [point for point in self.points if point.metric == metric.name and agrees(point)]

    @property
    def records(self):
        return [
            record
            for request in self.logs
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


class GrpcCollector(Received):
    """OTLP over gRPC; `refuse` answers with a code that exporters do not try again at once.

    `before` and `after` are called around the taking of a request, with its context.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.before = self.after = lambda context: None
        self.start()

    def start(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(4))
        metrics = type("Metrics", (metrics_service_pb2_grpc.MetricsServiceServicer,), {"Export": self._take_metrics})
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(metrics, self.server)
        logs = type("Logs", (logs_service_pb2_grpc.LogsServiceServicer,), {"Export": self._take_logs})
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(logs, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def _take_metrics(self, request, context):
        self._take(request, context, self.metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _take_logs(self, request, context):
        self._take(request, context, self.logs)
        return logs_service_pb2.ExportLogsServiceResponse()

    def _take(self, request, context, kept) -> None:
        if self.refuse:
            self.refused.append(request)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused")
        self.before(context)
        self.headers.append(dict(context.invocation_metadata()))
        kept.append(request)
        self.after(context)

    def stop(self) -> None:
        self.server.stop(None).wait()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class HttpCollector(Received):
    """OTLP over HTTP with protobuf bodies, plain or gzip."""

    def __init__(self) -> None:
        super().__init__()
        kinds = {
            "/v1/metrics": (metrics_service_pb2.ExportMetricsServiceRequest, self.metrics),
            "/v1/logs": (logs_service_pb2.ExportLogsServiceRequest, self.logs),
        }
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                kind, kept = kinds[self.path]
                request = kind.FromString(body)
                if received.refuse:
                    received.refused.append(request)
                else:
                    received.headers.append({name.lower(): value for name, value in self.headers.items()})
                    kept.append(request)
                self.send_response(400 if received.refuse else 200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


class Sink(MetricExporter):
    """Keeps what it is given; fails while told to, and waits at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.requests, self.failed = [], []
        self.failing = False
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.entered.set()
        self.gate.wait(30)
        (self.failed if self.failing else self.requests).append(metrics_data)
        return MetricExportResult.FAILURE if self.failing else MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass

    @property
    def points(self) -> list[Point]:
        return [
            Point(
                m.name, dict(p.attributes), p, m.data, dict(scope.scope.attributes or {}), dict(r.resource.attributes)
            )
            for request in self.requests
            for r in request.resource_metrics
            for scope in r.scope_metrics
            for m in scope.metrics
            for p in m.data.data_points
        ]

    of = Received.of

    def total(self, metric: semconv.Metric, **attributes: str) -> int:
        """Sum of deltas."""
        return sum(getattr(p.point, "value", 0) or getattr(p.point, "count", 0) for p in self.of(metric, **attributes))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def grpc_collector():
    collector = GrpcCollector()
    yield collector
    collector.stop()


@pytest.fixture
def http_collector():
    collector = HttpCollector()
    yield collector
    collector.stop()


@pytest.fixture
def collectors(grpc_collector, http_collector):
    return {"grpc": grpc_collector, "http/protobuf": http_collector}


@pytest.fixture(scope="session")
def make_sink():
    return Sink


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def make_monitor():
    """Make monitors that are closed at the end."""
    from otel_mlmon import Monitor

    made = []

    def make(*arguments: Any, **keywords: Any) -> Monitor:
        made.append(Monitor(*arguments, **keywords))
        return made[-1]

    yield make
    for monitor in made:
        monitor.close()


@pytest.fixture
def run_script(tmp_path):
    """Run a script as a process of its own, which must end within a minute.

    Without coverage where its threads run over a fork: coverage's lock may be held by one of them.
    """

    def run(code: str, *, coverage: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if coverage or not k.startswith(("COVERAGE_", "COV_"))}
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        return subprocess.run(
            [sys.executable, path], env={**inherited, **environment}, capture_output=True, text=True, timeout=60
        )

    return run
