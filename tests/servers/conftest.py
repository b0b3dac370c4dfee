"""A receiver of spans, and the example application under its web servers."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Spans(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans as a collector does."""

    def __init__(self) -> None:
        self.requests = []
        self.server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Export(self, request, context):  # noqa: N802 -- the service's name
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self):
        return [
            (scope.scope.name, span)
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def spans():
    receiver = Spans()
    yield receiver
    receiver.server.stop(None)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.joblib"
    subprocess.run([sys.executable, ROOT / "examples/fastapi_app/train.py", path], check=True)
    return path


@pytest.fixture
def serve(tmp_path, model_file, real):
    """Start the example under a command with {port} in it; instrumented where a processor is given."""
    servers = []

    def start(command: list[str], processor=None, spans=None, protocol: str = "grpc", **environment: str):
        port = real.free_port()
        parts = [str(BIN / command[0]), *(part.replace("{port}", str(port)) for part in command[1:])]
        if processor is not None:
            parts = [str(BIN / "opentelemetry-instrument"), *parts]
            ports = {"grpc": processor.otlp, "http/protobuf": processor.otlp_http}
            environment |= {
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports[protocol]}",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{spans.port}" if spans else "",
                "OTEL_TRACES_EXPORTER": "otlp" if spans else "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_SERVICE_NAME": "tumours-api",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            }
        environment |= {"MODEL": str(model_file), "PYTHONPATH": str(ROOT / "examples/fastapi_app")}
        servers.append(real.Server(parts, port, "/docs", tmp_path / f"app-{len(servers)}.log", **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
