"""A script that just ends: its counts arrive, its own fate is unchanged, and nobody makes it wait for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_mlmon import semconv
from otel_mlmon.processes import EXIT_SECONDS

RECORD = """
import sys
import numpy as np
from otel_mlmon import Monitor

monitor = Monitor("m", version="1")
monitor.observe(np.ones((1000, 2)), np.ones(1000))
with monitor.inference({"x0": 1.0, "x1": 2.0}) as call:
    call.record([1.0])
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_what_was_recorded_arrives(protocol, temporality, collectors, run_script):
    collector = collectors[protocol]
    done = run_script(
        RECORD,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=temporality,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    counts = collector.of(semconv.METRIC_ML_FEATURE_COUNT)
    assert {p.attributes[semconv.ML_FEATURE_NAME]: p.point.as_int for p in counts} == {"x0": 1001, "x1": 1001}
    (predictions,) = collector.of(semconv.METRIC_ML_PREDICTION_COUNT)
    assert predictions.point.as_int == 1001
    (duration,) = collector.of(semconv.METRIC_ML_INFERENCE_DURATION)
    assert duration.point.count == 1


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("raise KeyError('mine')", 1, "KeyError: 'mine'"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('sorry')", 1, "sorry"),
        ("raise SystemExit", 0, ""),
        ("with monitor.inference({'x0': 1.0, 'x1': 1.0}): sys.exit(3)", 3, ""),
        ("with monitor.inference({'x0': 1.0, 'x1': 1.0}): raise ValueError('mine')", 1, "ValueError: mine"),
    ],
)
def test_the_end_of_the_script_is_its_own(end, code, error, grpc_collector, run_script):
    done = run_script(RECORD + end, OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1:] == ([error] if error else [])
    rows = 1002 if "with" in end else 1001
    assert {p.point.as_int for p in grpc_collector.of(semconv.METRIC_ML_FEATURE_COUNT)} == {rows}


def test_an_interrupt_stays_one(grpc_collector, run_script):
    done = run_script(RECORD + "raise KeyboardInterrupt", OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint)
    assert done.returncode != 0  # by the signal, or 1 where a module was imported at exit, which is CPython's way
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert {p.point.as_int for p in grpc_collector.of(semconv.METRIC_ML_FEATURE_COUNT)} == {1001}


@pytest.mark.parametrize("end", ["", "monitor.close()"])
def test_what_nobody_took_at_the_end_is_said_to_be_lost(end, run_script):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen
        done = run_script(RECORD + end, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert done.returncode == 0
    assert done.stderr.count("the last export was not acknowledged, and what it held is lost") == 1


def test_a_profile_that_nobody_takes_does_not_hold_back_the_counts(grpc_collector, run_script):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        done = run_script(
            """
            import numpy as np
            from otel_mlmon import Monitor, Profile

            X = np.random.default_rng(1).normal(size=(100, 2))
            Monitor(Profile.build(X, model="m", version="1")).observe(X)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://127.0.0.1:{probe.getsockname()[1]}",
        )
    assert done.returncode == 0
    assert {p.point.as_int for p in grpc_collector.of(semconv.METRIC_ML_FEATURE_COUNT)} == {100}


def test_a_closed_monitor_has_nothing_left_to_send(grpc_collector, run_script):
    done = run_script(RECORD + "monitor.close()", OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(grpc_collector.metrics) == 1


def test_the_applications_provider_that_is_shut_down_at_exit_takes_the_counts_along(grpc_collector, run_script):
    done = run_script(
        """
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from otel_mlmon import Monitor
        from otel_mlmon.export import MonitoredExporter

        monitor = Monitor("m")
        provider = MeterProvider([PeriodicExportingMetricReader(MonitoredExporter(OTLPMetricExporter(), monitor))])
        provider.get_meter("app").create_counter("requests").add(1)
        monitor.observe({"x": 1.0})
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (count,) = grpc_collector.of(semconv.METRIC_ML_FEATURE_COUNT)
    assert count.point.as_int == 1


def test_a_collector_that_never_answers_delays_the_end_by_the_allowed_seconds_only(tmp_path):
    """The figure is the documented bound, of all monitors together, with as much again for a busy machine."""
    script = tmp_path / "script.py"
    script.write_text("""
import time, sys
from otel_mlmon import Monitor
monitors = [Monitor(f"m{i}") for i in range(8)]
for monitor in monitors:
    monitor.observe({"x": 1.0})
sys.stdout.write(str(time.time()))
sys.stdout.flush()
sys.exit(5)
""")
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never says a word
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        running = [
            subprocess.Popen(
                [sys.executable, script],
                env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for protocol in ("grpc", "http/protobuf")
        ]
        for process in running:
            said, _ = process.communicate(timeout=60)
            assert time.time() - float(said) < 2 * EXIT_SECONDS
            assert process.returncode == 5


def test_threads_that_go_on_recording_hold_up_no_end(collectors, tmp_path):
    """The interpreter stops daemon threads wherever they are, which is another place each time."""
    script = tmp_path / "script.py"
    script.write_text("""
import threading, time
import numpy as np
from otel_mlmon import Monitor

monitor, row, recorded = Monitor("m", version="1"), np.ones((1, 5)), threading.Barrier(9)

def predict():
    call = 0
    while True:
        with monitor.inference(row) as inference:
            inference.record([1.0])
        call += 1
        if call == 20:
            recorded.wait()

monitor.observe(row)
assert monitor.flush()  # imports the exporter, as in all that run for a minute
for _ in range(8):
    threading.Thread(target=predict, daemon=True).start()
recorded.wait()
print(time.time(), flush=True)
""")

    def end(protocol):
        endpoint = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collectors[protocol].endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        done = subprocess.run(
            [sys.executable, script], env={**os.environ, **endpoint}, capture_output=True, text=True, timeout=60
        )
        took = time.time() - float(done.stdout)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return took

    with ThreadPoolExecutor(len(collectors)) as pool:
        for _ in range(10):
            assert max(pool.map(end, collectors)) < 2 * EXIT_SECONDS
    for collector in collectors.values():
        assert len({point.incarnation for point in collector.points}) == 10
