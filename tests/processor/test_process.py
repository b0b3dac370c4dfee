"""The whole processor as a process of its own, over real gRPC and HTTP."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import logging
import re
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor import app
from otel_mlmon_processor.app import Processor
from otel_mlmon_processor.config import read_config
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.ingest import Ingest

from otel_mlmon import Monitor, Profile, semconv

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) \S.*")
WAITING = "mlmon_processor_waiting"
DAY = 1_735_689_600.0  # 1 January 2025, UTC


@pytest.fixture(scope="module")
def running(real, tmp_path_factory):
    """One process for the tests that only look at what is theirs."""
    server = real.Processor(tmp_path_factory.mktemp("running"))
    yield server
    server.stop()


def export(server, body: bytes) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
        return channel.unary_unary(EXPORT)(body, timeout=20, wait_for_ready=True)


@pytest.fixture
def make_monitor(monkeypatch):
    """A monitor as an application has it: everything from the environment."""
    opened = []

    def make(server, profile, service, *, instance="", temporality="cumulative", **options):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.otlp}")
        names = {"service.name": service, **({"service.instance.id": instance} if instance else {})}
        opened.append(Monitor(profile, resource=Resource(names), temporality=temporality, **options))
        return opened[-1]

    yield make
    for monitor in opened:
        monitor.close()


def model_series(server, service: str) -> dict:
    """Every series of the models of a service, without its name."""
    text = urllib.request.urlopen(server.url + "/metrics", timeout=10).read().decode()
    found = {}
    for line in text.splitlines():
        if f'service_name="{service}"' in line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series.replace(f'service_name="{service}"', "")] = float(value)
    return found


def value(server, name: str, **labels: str) -> float:
    return sum(v for held, v in server.samples(name) if labels.items() <= held.items())


# ---------------------------------------------------------------- one that runs


def test_it_is_ready_over_http_and_healthy_over_grpc(running):
    for page in ("/healthz", "/readyz"):
        assert urllib.request.urlopen(running.url + page, timeout=10).status == 200
    with grpc.insecure_channel(f"127.0.0.1:{running.otlp}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", EXPORT.split("/")[1]):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_two_replicas_are_one_that_saw_all_rows(running, make_monitor, wait, temporality):
    """Counts, measures and verdict; the profile comes from the monitors themselves, as an event."""
    rng = np.random.default_rng(40)
    train = {"x": rng.normal(size=5_000), "c": rng.choice(["a", "b"], 5_000)}
    profile = Profile.build(train, model="m", version=temporality, predictions={"score": rng.random(5_000)})
    n = 2_000
    rows = {"x": rng.normal(0.5, 1, n), "c": rng.choice(["a", "b", "new"], n, p=[0.45, 0.45, 0.1])}
    rows["x"][::10] = np.nan
    score, when = rng.random(n) ** 2, DAY + np.arange(n) * 0.5
    shared, alone = f"shared-{temporality}", f"alone-{temporality}"
    first = make_monitor(running, profile, shared, temporality=temporality)
    second = make_monitor(running, profile, shared, temporality=temporality)
    single = make_monitor(running, profile, alone, temporality=temporality)
    for start in range(0, n, 250):
        part = slice(start, start + 250)
        for monitor, every in ((single, slice(None)), (first, slice(0, None, 2)), (second, slice(1, None, 2))):
            taken = {name: values[part][every] for name, values in rows.items()}
            monitor.observe(taken, {"score": score[part][every]}, time=when[part][every])
        if start % 500:
            assert first.flush()
    assert all(monitor.flush() for monitor in (first, second, single))

    for service in (shared, alone):
        seen = {"service_name": service}
        wait(lambda seen=seen: value(running, "ml_window_rows", **seen) == n, f"the rows of {service}")
        # The profile comes by another signal, and may be later.
        wait(lambda seen=seen: value(running, "ml_reference_rows", **seen), f"the profile of {service}")
    unlike = re.compile(r"ml_model_replicas|ml_model_info|mlmon_processor_lag|ml_\w+_age_seconds|ml_drift_replica")
    merged, whole = (
        {series: v for series, v in model_series(running, service).items() if not unlike.match(series)}
        for service in (shared, alone)
    )
    assert merged == pytest.approx(whole, rel=1e-9)
    assert value(running, "ml_model_replicas", service_name=shared) == 2
    # And it is what was sent, and what it means.
    assert value(running, "ml_feature_count_total", service_name=shared, ml_feature_name="x") == n
    assert value(running, "ml_feature_invalid_total", service_name=shared, ml_feature_invalid_reason="nan") == n / 10
    assert value(running, "ml_feature_category_total", service_name=shared, ml_feature_category="_UNSEEN_") == sum(
        rows["c"] == "new"
    )
    assert value(running, "ml_prediction_count_total", service_name=shared, ml_prediction_signal="score") == n
    assert value(running, "ml_window_end_seconds", service_name=shared) == DAY + n * 0.5 // 60 * 60 + 60
    assert value(running, "ml_drift_alarm", service_name=shared) == 3  # of x, of c, of the score
    mean = value(running, "ml_feature_drift", service_name=shared, ml_feature_name="x", ml_drift_measure="mean_shift")
    expected = (np.nanmean(rows["x"]) - train["x"].mean()) / train["x"].std(ddof=1)
    assert mean == pytest.approx(expected)


def test_metrics_of_others_are_taken_counted_and_not_used(running, wait):
    before = value(running, "mlmon_processor_dropped_total", mlmon_reason="not_ml")
    models = value(running, "mlmon_processor_models")
    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{running.otlp}", insecure=True)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
    provider.get_meter("other").create_counter("http.requests").add(3, {"route": "/"})
    provider.get_meter("other").create_histogram("http.duration").record(0.1)
    assert provider.force_flush()
    after = value(running, "mlmon_processor_dropped_total", mlmon_reason="not_ml")
    assert after == before + 2
    assert value(running, "mlmon_processor_models") == models
    provider.shutdown()


def test_a_model_without_a_profile_has_counts_and_nothing_decided(running, make_monitor, wait):
    monitor = make_monitor(running, "nameless", "lonely")
    with monitor.inference({"x": np.array([0.5, -2.0, np.nan])}, operation="predict") as call:
        call.record(np.array([1.0, 2.0, 3.0]))
    assert monitor.flush()
    wait(lambda: value(running, "ml_feature_count_total", service_name="lonely") == 3, "the counts")
    wait(
        lambda: value(running, "ml_feature_quality", service_name="lonely", ml_quality_measure="missing") > 0,
        "the rate",
    )
    names = {series.split("{")[0] for series in model_series(running, "lonely")}
    assert not names & {"ml_drift_alarm", "ml_feature_drift", "ml_reference_rows", "ml_drift_insufficient"}
    assert (
        value(running, "ml_inference_duration_seconds_count", service_name="lonely", ml_operation_name="predict") == 1
    )
    assert value(running, "ml_inference_batch_size_sum", service_name="lonely") == 3


def test_what_the_recorder_noticed_is_exposed(running, make_monitor, wait):
    rng = np.random.default_rng(41)
    profile = Profile.build({"x": rng.normal(size=500)}, model="m", version="extra")
    monitor = make_monitor(running, profile, "noticed")
    monitor.observe({"x": rng.normal(size=4), "other": np.zeros(4)})
    monitor.observe(iter([1, 2]))
    assert monitor.flush()
    wait(lambda: value(running, "mlmon_recorder_extra_columns_total", service_name="noticed") == 1, "the extra column")
    wait(lambda: value(running, "mlmon_recorder_dropped_total", service_name="noticed") > 0, "the unreadable input")
    assert value(running, "mlmon_recorder_errors_total", service_name="noticed") > 0


def test_malformed_bytes_are_refused_and_counted(running):
    labels = {"mlmon_signal": "metrics", "mlmon_reason": "malformed"}
    before = value(running, "mlmon_processor_refused_total", **labels)
    with pytest.raises(grpc.RpcError) as error:
        export(running, b"\xff\xff nothing of OTLP")
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert value(running, "mlmon_processor_refused_total", **labels) == before + 1


def test_points_that_can_never_be_used_are_a_partial_success_and_counted(running, otlp):
    sender = otlp.Sender(service="unusable", model={})
    before = value(running, "mlmon_processor_dropped_total", mlmon_reason="no_model")
    assert b"no_model: 1" in export(running, sender.request(sender.count(5, 0, 1)))
    assert value(running, "mlmon_processor_dropped_total", mlmon_reason="no_model") == before + 1
    assert not model_series(running, "unusable")


@pytest.mark.parametrize("shared", ["data", "listen", "listen-http", "http"])
def test_a_second_one_on_the_same_directory_or_port_ends_with_2_and_one_line(running, real, tmp_path, shared):
    taken = {
        "data": running.log.parent / "data",
        "listen": f"127.0.0.1:{running.otlp}",
        "listen-http": f"127.0.0.1:{running.otlp_http}",
        "http": running.url.removeprefix("http://"),
    }
    free = {"data": tmp_path / "data", **dict.fromkeys(["listen", "listen-http", "http"], "127.0.0.1:0")}
    arguments = [f"--{name}={taken[name] if name == shared else free[name]}" for name in free]
    done = subprocess.run(
        [real.BIN / "otel-mlmon", "processor", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("otel-mlmon processor: ")
    assert str(taken[shared]) in done.stderr
    assert urllib.request.urlopen(running.url + "/readyz", timeout=10).status == 200


def test_settings_that_are_wrong_end_with_2_and_one_line(real, tmp_path):
    (tmp_path / "mlmon.yaml").write_text("window: {sise: 60s}\n")
    command = [real.BIN / "otel-mlmon", "processor", "--config", tmp_path / "mlmon.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "window.sise: no such key; did you mean size?" in done.stderr


# ---------------------------------------------------------------- its life


@contextlib.contextmanager
def run_here(folder, settings):
    """A processor in this process, which is ended at the end."""
    (folder / "mlmon.yaml").write_text(settings)
    flags = {"listen": "127.0.0.1:0", "listen_http": "off", "http": "127.0.0.1:0", "data": folder / "data"}
    processor = Processor(read_config(folder / "mlmon.yaml", **flags))
    processor.start()
    try:
        yield processor
    finally:
        processor.stop()


def test_a_model_that_is_silent_is_forgotten_and_seen_anew_when_it_comes_back(otlp, tmp_path, wait, caplog):
    """In this process, as one event for each is all there is to see."""
    caplog.set_level(logging.INFO)
    with run_here(tmp_path, "{retire: 300ms, evaluate: {interval: 20ms}, shutdown: 2s}") as processor:
        for times in (1, 2):
            processor._ingest.submit("metrics", otlp.Sender().request(otlp.Sender().count(2, times, times + 1)))
            for event in ("model seen: m 1 of svc", "model forgotten: m 1 of svc"):
                wait(lambda event=event, times=times: caplog.text.count(event) == times, event)


def test_an_evaluation_rests_after_each_model_and_the_end_waits_for_no_rest(otlp, tmp_path, wait, monkeypatch):
    """In this process: rests of days, so that a second model would never be looked at, were the processor not ended."""
    looked: list[str] = []

    def evaluate(view, *given, **settings):
        looked.append(view.key.model)
        return evaluate_model(view, *given, **settings)

    monkeypatch.setattr(app, "REST", 1e9)
    monkeypatch.setattr(app, "evaluate_model", evaluate)
    with run_here(tmp_path, "{evaluate: {interval: 20ms}, shutdown: 10s}") as processor:
        points = [otlp.Sender().count(2, 1, 2, labels={"ml.model.name": name}) for name in ("m1", "m2")]
        processor._ingest.submit("metrics", otlp.Sender().request(*points))
        wait(lambda: looked, "a model that is looked at")
        for minute in range(2, 12):  # requests go on
            processor._ingest.submit("metrics", otlp.Sender().request(otlp.Sender().count(2, minute, minute + 1)))
        assert looked == ["m1"]
        assert not processor._snapshot.models
    assert sorted(state.view.key.model for state in processor._snapshot.models) == ["m", "m1", "m2"]


def test_counts_are_there_once_after_kill_9_and_the_same_request_again(real, otlp, tmp_path, wait):
    """Acknowledged, killed at once, restarted; and sent again by a producer that has not heard."""
    sender = otlp.Sender()
    bodies = [
        sender.request(sender.histogram([1, 2, 3, 4], 0, 1, total=12.0), sender.count(11, 0, 1)),
        sender.request(sender.count(7, 0, 1, temporality=otlp.CUMULATIVE, labels={"ml.feature.name": "y"})),
    ]
    first = real.Processor(tmp_path)
    for body in bodies:
        export(first, body)
    first.process.kill()
    assert first.process.wait(20) == -signal.SIGKILL
    second = real.Processor(tmp_path)
    try:
        assert second.feature_counts() == {"x": 11, "y": 7}
        for body in bodies:
            export(second, body)
        wait(lambda: value(second, "mlmon_processor_duplicates_total") == 3, "the duplicates")
        # An evaluation that has seen them has ended once a later request is shown.
        export(second, sender.request(sender.count(1, 1, 2)))
        wait(lambda: second.feature_counts() == {"x": 12, "y": 7}, "the next count")
    finally:
        second.stop()
    assert second.process.returncode == 0


def test_sigterm_ends_it_with_0_and_all_that_was_acknowledged_is_in_the_directory(real, otlp, tmp_path, wait):
    """Ports of the system's choice, named in the log; events on stderr, one a line, and nothing per item."""
    (tmp_path / "mlmon.yaml").write_text("evaluate: {interval: 50ms}\n")
    command = [real.BIN / "otel-mlmon", "processor", "--config", tmp_path / "mlmon.yaml", "--data", tmp_path / "data"]
    command += ["--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    out, log = tmp_path / "out", tmp_path / "log"
    with out.open("w") as stdout, log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
    try:
        address = r"127\.0\.0\.1:\d+"
        listening = re.compile(rf"OTLP over gRPC on ({address}), over HTTP on {address}, (http://{address})/metrics")
        target, url = wait(lambda: listening.search(log.read_text()), log.read_text).groups()
        hostile = otlp.Sender(
            model={"ml.model.name": "evil\n2025-01-01 00:00:00,000 INFO fine\x1b[2J", "ml.model.version": "1"}
        )
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary(EXPORT)
            for minute in range(200):
                call(otlp.Sender().request(otlp.Sender().count(2, minute, minute + 1)), timeout=20, wait_for_ready=True)
            call(hostile.request(hostile.count(3, 0, 1)), timeout=20)
            wait(lambda: log.read_text().count("model seen") == 2, log.read_text)
            assert urllib.request.urlopen(url + "/readyz", timeout=10).status == 200
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - began < 10  # with a client that stays connected
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = log.read_text().split("\n")[:-1]
    assert out.read_text() == ""
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert "\x1b" not in log.read_text()
    told = [line for line in lines if "listening" in line or "model seen" in line or "stopped" in line]
    assert len(told) == 4, lines  # listening, two models, stopped; and what is learnt or changed
    ingest = Ingest(tmp_path / "data")
    try:
        totals = {view.key.model[:4]: view.totals[otlp.X].seen for view in ingest.views()}
        assert totals == {"m": 400, "evil": 3}
        assert ingest.counters().journal_entries == 0  # all of it is in the checkpoint
    finally:
        ingest.close()


def test_a_signal_that_comes_to_another_thread_ends_it_too(real, tmp_path):
    """Which the system may choose; the main thread waits and is not disturbed by it."""
    process = real.Processor(tmp_path).process
    others = [
        int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir() if thread.name != str(process.pid)
    ]
    assert ctypes.CDLL(None).tgkill(process.pid, others[0], signal.SIGTERM) == 0
    assert process.wait(60) == 0


@pytest.fixture
def silent():
    """The port of an endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_ends_in_time_while_clients_and_endpoints_hang(real, otlp, tmp_path, silent, protocol):
    settings = f"""
        shutdown: 3s
        evaluate: {{interval: 50ms}}
        export: [{{endpoint: "http://127.0.0.1:{silent}", protocol: {protocol}, interval: 50ms, timeout: 60s}}]
        forward: {{endpoint: "http://127.0.0.1:{silent}", protocol: {protocol}, timeout: 60s}}
    """
    server = real.Processor(tmp_path, settings=settings)
    sender = otlp.Sender()
    export(server, sender.request(sender.count(3, 0, 1), otlp.Sender().count(1, 0, 1, name="of.others")))
    with (
        socket.create_connection(("127.0.0.1", server.otlp_http)) as slow,
        socket.create_connection(("127.0.0.1", server.otlp)),
    ):
        slow.sendall(b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log.read_text()
        assert time.monotonic() - began < 3 + 5  # the checkpoint, and a machine that is busy
    assert "stopped; everything acknowledged is in" in server.log.read_text()
    with contextlib.closing(Ingest(tmp_path / "data", forwarding=True)) as ingest:
        assert [view.totals[otlp.X].seen for view in ingest.views()] == [3]
        assert ingest.outbox_size()[0] == 1  # what was not passed on waits for the next start


def test_what_is_given_up_as_there_is_no_forward_is_counted(real, otlp, tmp_path):
    with contextlib.closing(Ingest(tmp_path / "data", forwarding=True)) as ingest:
        for minute in range(3):
            ingest.submit(
                "metrics", otlp.Sender().request(otlp.Sender().count(1, minute, minute + 1, name="of.others"))
            )
    server = real.Processor(tmp_path)
    dropped = server.samples("mlmon_processor_send_dropped_total")
    server.stop()
    labels = {"mlmon_endpoint": "", "mlmon_purpose": "forward", "mlmon_reason": "no_forward", "mlmon_signal": "metrics"}
    assert dropped == [(labels, 3)]


def test_the_last_export_holds_what_was_acknowledged_last(real, otlp, tmp_path, wait):
    """No evaluation and no export would be due for an hour."""
    got = []

    class Far(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda body, _: got.append(body) or b"")

    far = grpc.server(ThreadPoolExecutor(2), handlers=[Far()])
    port = far.add_insecure_port("127.0.0.1:0")
    far.start()
    settings = f"""
        evaluate: {{interval: 1h}}
        export: [{{endpoint: "http://127.0.0.1:{port}", interval: 1h, compression: none}}]
    """
    server = real.Processor(tmp_path, settings=settings)
    sender = otlp.Sender()
    export(server, sender.request(sender.count(3_141, 0, 1)))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    far.stop(0)
    metrics = [
        metric
        for resource in ExportMetricsServiceRequest.FromString(got[-1]).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    (counts,) = [metric for metric in metrics if metric.name == semconv.METRIC_ML_FEATURE_COUNT.name]
    assert [point.as_int or point.as_double for point in counts.sum.data_points] == [3_141]


def is_refused(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return False
    return True


def test_a_signal_has_what_waits_acknowledged_and_what_comes_refused(real, otlp, tmp_path, wait):
    """Over gRPC and HTTP, on connections that were there before."""
    server = real.Processor(tmp_path)
    sender, headers = otlp.Sender(), {"content-type": "application/x-protobuf"}
    first, second, third, late = (sender.request(sender.count(n, n, n + 1)) for n in (1, 2, 4, 8))
    held, kept = (http.client.HTTPConnection("127.0.0.1", server.otlp_http, timeout=60) for _ in range(2))

    def post(body: bytes) -> tuple[int, bytes]:
        kept.request("POST", "/v1/metrics", body, headers)
        answer = kept.getresponse()
        return answer.status, answer.read()

    with (
        contextlib.closing(sqlite3.connect(tmp_path / "data" / "mlmon.db", isolation_level=None)) as other,
        contextlib.closing(held),
        contextlib.closing(kept),
        grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel,
    ):
        assert post(first) == (200, b"")
        other.execute("BEGIN IMMEDIATE")
        over_grpc = channel.unary_unary(EXPORT).future(second, timeout=60)
        held.request("POST", "/v1/metrics", third, headers)
        wait(lambda: server.samples(WAITING)[0][1] == 2, "two requests that wait")
        server.process.send_signal(signal.SIGTERM)
        wait(lambda: is_refused(server.otlp) and is_refused(server.otlp_http), "the end has begun")
        again = channel.unary_unary(EXPORT)
        wait(lambda: again.future(late, timeout=20).code() is grpc.StatusCode.UNAVAILABLE, "a refusal")
        with pytest.raises(ConnectionError):
            post(late)
        assert server.process.poll() is None
        assert not over_grpc.done()
        other.execute("ROLLBACK")
        assert over_grpc.result() == b""
        assert held.getresponse().status == 200
    assert server.process.wait(60) == 0, server.log.read_text()
    assert otlp.count_in(tmp_path / "data") == 1 + 2 + 4


def test_a_second_signal_ends_it_at_once_and_loses_nothing(real, otlp, tmp_path, wait):
    server = real.Processor(tmp_path, settings="shutdown: 1h")
    sender = otlp.Sender()
    export(server, sender.request(sender.count(3, 0, 1)))
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "mlmon.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # so that a request hangs, and the end waits for it
        with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
            _held = channel.unary_unary(EXPORT).future(sender.request(sender.count(1, 1, 2)), timeout=60)
            wait(lambda: server.samples(WAITING)[0][1] == 1, "a request that waits")
            server.process.send_signal(signal.SIGTERM)
            wait(lambda: is_refused(server.otlp), "the end has begun")
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == -signal.SIGTERM
        other.execute("ROLLBACK")
    with contextlib.closing(Ingest(tmp_path / "data")) as ingest:
        assert [view.totals[otlp.X].seen for view in ingest.views()] == [3]


def test_a_profile_that_is_replaced_while_data_flows_is_taken_up(real, make_monitor, tmp_path, wait):
    """Of a model that counts without one, so that its points name none: the folder decides, from then on."""
    rng = np.random.default_rng(42)
    folder = tmp_path / "profiles"
    folder.mkdir()
    profiles = [
        Profile.build({"x": rng.lognormal(mean, 1, size)}, model="m", version="1", created=f"2025-01-0{day}T00:00:00Z")
        for day, (mean, size) in enumerate([(0, 5_000), (1, 6_000)], start=1)
    ]
    server = real.Processor(tmp_path, "--profiles", folder)
    try:
        monitor = make_monitor(server, "m", "svc", version="1")

        def send():
            monitor.observe({"x": rng.lognormal(0, 1, 500)})
            assert monitor.flush()
            return True

        def alarm():
            send()
            return [v for _, v in server.samples("ml_drift_alarm")]

        assert alarm() == []
        profiles[0].save(folder / "m.json")
        wait(lambda: alarm() == [0], "no change from the first")
        assert value(server, "ml_reference_rows") == 5_000
        profiles[1].save(folder / "m.json")
        wait(lambda: alarm() == [1], "a change from the second")
        assert value(server, "ml_reference_rows") == 6_000
        (folder / "m.json").write_text("{")  # while it is broken there is no reference, and the counts go on
        wait(lambda: alarm() == [], "no verdict")
        profiles[0].save(folder / "m.json")
        wait(lambda: alarm() == [0], "the first again")
        # A replica with a profile of its own is counted over that one's cells, and compared with it.
        own = make_monitor(server, profiles[1], "svc")
        own.observe({"x": rng.lognormal(1, 1, 2_000)})
        assert own.flush()
        wait(lambda: value(server, "ml_reference_rows") == 6_000, "the replica's own profile")
        wait(lambda: value(server, "ml_window_rows") == 2_000, "its own rows alone")
        assert [v for _, v in server.samples("ml_drift_alarm")] == [0]
        said = [line for line in server.log.read_text().splitlines() if "profile left out" in line]
        assert len(said) == 1
        for opened in (monitor, own):  # while there is somebody to send the rest to
            opened.close()
    finally:
        server.stop()
    assert server.process.returncode == 0
