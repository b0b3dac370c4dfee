"""The wheel as users get it: what is in it, what it brings, what works without the extras."""

from __future__ import annotations

import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from otel_mlmon import semconv

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

# What a model process does, from a profile to an export, with numpy alone.
MODEL_PROCESS = """
import sys
import numpy as np
from otel_mlmon import Monitor, Profile

rng = np.random.default_rng(0)
train = {"x": rng.normal(size=1000), "city": rng.choice(["Rome", "Oslo"], 1000)}
profile = Profile.build(train, model="m", version="1")
profile = Profile.from_bytes(profile.to_bytes())
monitor = Monitor(profile)
for _ in range(7):
    with monitor.inference({"x": 0.5, "city": "Rome"}) as call:
        call.record(1.0)
assert monitor.flush()
monitor.close()
heavy = {"pandas", "pyarrow", "scipy", "rich", "pydantic", "otel_mlmon_processor"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
PREDICT_PATH = """
import sys
import otel_mlmon.monitor
unwanted = ("otel_mlmon.profile.build", "otel_mlmon.profile.planning", "pyarrow", "grpc", "requests", "google.protobuf")
found = [name for name in unwanted if name in sys.modules]
assert not found, found
"""


class Receiver:
    """Takes metrics and logs."""

    def __init__(self) -> None:
        self.metrics, self.logs = [], []
        self.server = grpc.server(ThreadPoolExecutor(2))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self.server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def points(self, wanted: semconv.Metric):
        return [
            point
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == wanted.name
            for point in (metric.histogram.data_points or metric.sum.data_points)
        ]


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver):
        self.receiver = receiver

    def Export(self, request, context):  # noqa: N802 -- the service's name
        self.receiver.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver):
        self.receiver = receiver

    def Export(self, request, context):  # noqa: N802 -- the service's name
        self.receiver.logs.append(request)
        return logs_service_pb2.ExportLogsServiceResponse()


@pytest.fixture
def receiver():
    held = Receiver()
    yield held
    held.server.stop(None)


def test_the_wheel_has_both_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"otel_mlmon", "otel_mlmon_processor"}
    assert {"otel_mlmon/py.typed", "otel_mlmon_processor/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_bare_install_brings_numpy_and_opentelemetry_only(bare):
    distributions = bare.distributions()
    beyond = {name for name in distributions if not name.startswith("opentelemetry-")}
    of_the_exporters = {"googleapis-common-protos", "grpcio", "protobuf", "requests", "charset-normalizer", "idna"}
    of_the_exporters |= {"urllib3", "certifi", "typing-extensions", "importlib-metadata", "zipp"}
    assert beyond - of_the_exporters == {"otel-mlmon", "numpy"}
    assert len(distributions) <= 24


@pytest.mark.parametrize("environment", ["bare", "oldest"])
def test_a_model_process_records_and_exports_without_the_extras(environment, request, receiver):
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}", "OTEL_SERVICE_NAME": "svc"}
    request.getfixturevalue(environment).python(MODEL_PROCESS, env=endpoint)
    (count,) = {point.count for point in receiver.points(semconv.METRIC_ML_FEATURE_VALUE)}
    assert count == 7
    assert {point.as_int for point in receiver.points(semconv.METRIC_ML_FEATURE_COUNT)} == {7}
    assert len(receiver.logs) == 1  # the profile


def test_the_predict_path_imports_nothing_heavy(bare):
    bare.python(PREDICT_PATH)


def test_the_command_runs_without_the_extras_and_names_what_is_missing(bare, tmp_path):
    command = bare.bin / "otel-mlmon"
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("otel-mlmon 0.")
    assert "processor" in subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for arguments, extra in (
        (["processor"], "processor"),
        (["status"], "processor"),
        (["reference", "show", "x"], "processor"),
        (["store", "check", "x"], "processor"),
        (["profile", "show", "x"], "profile"),
    ):
        done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert f"otel-mlmon[{extra}]" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_without_code_a_process_without_any_framework_runs_as_it_did(auto):
    command = [auto.bin / "opentelemetry-instrument", auto.bin / "python", "-c", "print(6 * 7)"]
    environment = {"PATH": str(auto.bin), "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_instrumentors_are_found_by_their_entry_points_and_import_without_a_framework(auto):
    auto.python(
        "from importlib.metadata import entry_points\n"
        "ours = {entry.name: entry.load() for entry in entry_points(group='opentelemetry_instrumentor')}\n"
        "assert {'otel_mlmon_sklearn', 'otel_mlmon_xgboost'} <= ours.keys(), ours\n"
    )
