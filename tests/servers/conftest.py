"""Real servers: a processor, a receiver of spans, and the example application under its web servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value


class Server:
    """A process that answers HTTP; its log is shown when it does not."""

    def __init__(self, command, port: int, ready: str, log: Path, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        try:
            wait_for(lambda: self._answers(ready), f"{command[0]} to answer")
        except BaseException:
            self.stop()
            print(log.read_text()[-5000:])
            raise

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Processor(Server):
    def __init__(self, folder: Path) -> None:
        config = folder / "mlmon.yaml"
        config.write_text("evaluate: {interval: 100ms}\n")
        self.otlp, port = free_port(), free_port()
        command = [BIN / "otel-mlmon", "processor", "--config", config, "--data", folder / "data"]
        command += ["--listen", f"127.0.0.1:{self.otlp}", "--http", f"127.0.0.1:{port}"]
        super().__init__(command, port, "/readyz", folder / "processor.log")

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        text = urllib.request.urlopen(self.url + "/metrics", timeout=10).read().decode()
        families = text_string_to_metric_families(text)
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]

    def feature_counts(self) -> dict[str, float]:
        return {labels["ml_feature_name"]: value for labels, value in self.samples("ml_feature_count_total")}


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
def processor(tmp_path):
    server = Processor(tmp_path)
    yield server
    server.stop()


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
def serve(tmp_path, model_file):
    """Start the example under a command with {port} in it; instrumented where a processor is given."""
    servers = []

    def start(command: list[str], processor=None, spans=None, **environment: str) -> Server:
        port = free_port()
        parts = [str(BIN / command[0]), *(part.replace("{port}", str(port)) for part in command[1:])]
        if processor is not None:
            parts = [str(BIN / "opentelemetry-instrument"), *parts]
            environment |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{processor.otlp}",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{spans.port}" if spans else "",
                "OTEL_TRACES_EXPORTER": "otlp" if spans else "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_SERVICE_NAME": "tumours-api",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            }
        environment |= {"MODEL": str(model_file), "PYTHONPATH": str(ROOT / "examples/fastapi_app")}
        servers.append(Server(parts, port, "/docs", tmp_path / f"app-{len(servers)}.log", **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def wait():
    """Wait for a condition; what for may be a function that is called when it did not come true."""

    def until(condition, what, seconds: float = 30.0):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s for {what() if callable(what) else what}")
            time.sleep(0.05)
        return value

    return until
