"""What goes wrong between model and PromQL, with the real programs: every row is counted once in the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pytest
import yaml
from otel_mlmon_processor.config import read_duration

from otel_mlmon import Monitor, Profile

COUNTS = "sum by (ml_feature_name) (ml_feature_count_total)"
# A process of its own, as incarnations are of processes. A line in: how many rows to send; a line out: they are sent.
PRODUCER = """
import sys
import numpy as np
from otel_mlmon import Monitor
monitor = Monitor("m", version="1")
for line in sys.stdin:
    monitor.observe({"x": np.arange(float(line)), "y": np.arange(float(line))})
    print(monitor.flush(), flush=True)
monitor.close()
"""


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(0)
    return Profile.build({"x": rng.normal(size=2_000), "y": rng.normal(size=2_000)}, model="m", version="1")


@pytest.fixture
def model(monkeypatch, profile):
    """A monitor that sends to an agent; each is closed at the end."""
    monitors = []

    def make(port: int, temporality: str) -> Monitor:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monitors.append(Monitor(profile, temporality=temporality))
        return monitors[-1]

    yield make
    for monitor in monitors:
        monitor.close()


@pytest.fixture
def producer():
    """Starts processes that send when told to, by the variables given."""
    processes = []

    def start(port: int, **variables: str):
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **variables}
        process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)

        def send(rows: int) -> None:
            process.stdin.write(f"{rows}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n"

        return send

    yield start
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0


def observe(monitor: Monitor, rows: int) -> None:
    monitor.observe({"x": np.zeros(rows), "y": np.ones(rows)})


def counted(prometheus, rows: int):
    """A condition: so many rows at the far end, of each feature."""
    return lambda: prometheus.by("ml_feature_name", COUNTS) == {"x": rows, "y": rows}


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_the_processor_is_away_and_the_agent_is_killed_meanwhile(start, model, wait, temporality):
    """What was acknowledged to the model is in the agent's queue on disk, whatever becomes of the agent."""
    processor = start.processor()
    prometheus = start.prometheus(processor)
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    monitor = model(agent.ports["GRPC"], temporality)
    observe(monitor, 100)
    assert monitor.flush()
    wait(counted(prometheus, 100), "the first rows")
    processor.stop()
    for rows in (10, 20, 30):
        observe(monitor, rows)
        assert monitor.flush()  # the agent has it
    agent.process.kill()
    agent.process.wait()
    start.agent(f"127.0.0.1:{processor.otlp}", agent.folder, agent.ports)
    start.processor(processor.folder, otlp=processor.otlp, http=processor.port)
    wait(counted(prometheus, 160), "what was in the queue", 60)  # and not the next request, which has all if cumulative
    observe(monitor, 7)
    wait(monitor.flush, "the agent")
    wait(counted(prometheus, 167), "the last rows")


def test_prometheus_is_restarted(start, model, wait):
    """What it had it still has, and the counts go on; nobody else notices."""
    processor = start.processor()
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    prometheus = start.prometheus(processor)
    monitor = model(agent.ports["GRPC"], "delta")
    observe(monitor, 100)
    assert monitor.flush()
    wait(counted(prometheus, 100), "the first rows")
    seen = prometheus.query("timestamp(ml_feature_count_total)")[0][1]
    prometheus.stop()
    observe(monitor, 20)
    assert monitor.flush()
    wait(lambda: processor.feature_counts() == {"x": 120, "y": 120}, "the processor")
    again = start.prometheus(processor, folder=prometheus.folder, port=prometheus.port)
    observe(monitor, 3)
    assert monitor.flush()
    wait(counted(again, 123), "all rows")
    assert again.by("ml_feature_name", f"sum by (ml_feature_name) (ml_feature_count_total @ {seen})") == {
        "x": 100,
        "y": 100,
    }
    assert again.query('resets(ml_feature_count_total{ml_feature_name="x"}[1h])')[0][1] == 0


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_two_producers_with_one_instance_id_are_told_apart(start, producer, wait, temporality):
    """As from a template that sets it: by their incarnations, which no collector takes away."""
    processor = start.processor()
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    prometheus = start.prometheus(processor)
    variables = {
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.instance.id=always-the-same",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
    }
    one, two = (producer(agent.ports["GRPC"], **variables) for _ in range(2))
    for rows in (100, 10, 1):  # in turn; neither ever has fewer than the other had before
        one(rows)
        two(2 * rows)
    wait(counted(prometheus, 333), "the rows of both")
    assert prometheus.by("service_name", "ml_model_replicas") == {"shop": 1}  # replicas are shown by their id


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_a_producer_by_two_paths_is_counted_once(start, model, wait, temporality):
    """A collector sends to two agents, one of which enriches the resource and batches in its own way."""
    processor = start.processor()
    prometheus = start.prometheus(processor)
    enriching = start.folder / "enriching.yaml"
    enriching.write_text(
        yaml.safe_dump(
            {
                "processors": {
                    "transform": {
                        "metric_statements": ['set(resource.attributes["host.name"], "here")'],
                        "error_mode": "propagate",
                    }
                },
                "service": {"pipelines": {"metrics/mlmon": {"processors": ["memory_limiter", "transform"]}}},
            }
        )
    )
    endpoint = f"127.0.0.1:{processor.otlp}"
    agents = [start.agent(endpoint), start.agent(endpoint, files=("agent.yaml", enriching))]
    both = start.folder / "both.yaml"
    exporters = {
        f"otlp_grpc/{n}": {"endpoint": f"127.0.0.1:{agent.ports['GRPC']}", "tls": {"insecure": True}}
        for n, agent in enumerate(agents)
    }
    pipelines = {f"{signal}/mlmon": {"exporters": list(exporters)} for signal in ("metrics", "logs")}
    both.write_text(yaml.safe_dump({"exporters": exporters, "service": {"pipelines": pipelines}}))
    monitor = model(start.agent(endpoint, files=("agent.yaml", both)).ports["GRPC"], temporality)
    total = 0
    for rows in (100, 20, 3):
        observe(monitor, rows)
        assert monitor.flush()
        total += rows
        wait(counted(prometheus, total), "the rows")
    wait(lambda: prometheus.query("mlmon_processor_duplicates_total >= 6"), "the second path")  # two features, thrice
    assert counted(prometheus, total)()
    assert prometheus.by("ml_model_name", "ml_model_replicas") == {"m": 1}


# A retry that the Collector announces: when, of which signal, why, and how long it will wait.
RETRY = re.compile(r"^(\S+)\t.*Will retry the request after interval.*?(\{.*)$", re.MULTILINE)


def retries(agent) -> list[tuple[float, float, str]]:
    """Of metrics, from the agent's log: when, the seconds until it comes again, and what it was told."""
    found = []
    for when, fields in RETRY.findall(agent.log.read_text()):
        held = json.loads(fields)
        if held["otelcol.signal"] == "metrics":
            moment = datetime.strptime(when, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
            found.append((moment, read_duration(held["interval"]), held["error"]))
    return found


def send_one(url: str, instance: str) -> None:
    """One value of a feature of another model, over a connection of its own, again until it is taken."""
    now = str(time.time_ns())
    attributes = {"ml.model.name": "other", "ml.feature.name": "other"}
    point = {"asInt": "1", "startTimeUnixNano": now, "timeUnixNano": now, "attributes": name(attributes)}
    counted = {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [point]}
    scope = {"metrics": [{"name": "ml.feature.count", "sum": counted}]}
    resource = {"attributes": name({"service.instance.id": instance})}
    body = json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]}).encode()
    request = urllib.request.Request(f"{url}/v1/metrics", body, {"Content-Type": "application/json"})
    while True:
        try:
            urllib.request.urlopen(request, timeout=20).close()
            return
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise


def name(attributes: dict[str, str]) -> list:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


def test_the_agent_comes_again_no_sooner_than_an_overloaded_processor_says(start, model, wait):
    """The disk stalls and two others have all the room. The agent, left alone, would come again every 100 ms."""
    processor = start.processor(settings="limits: {requests: 2}\nevaluate: {interval: 100ms}\nalarms: {learn: false}\n")
    hasty = start.folder / "hasty.yaml"
    retry = {"initial_interval": "100ms", "max_interval": "100ms", "randomization_factor": 0}
    hasty.write_text(yaml.safe_dump({"exporters": {"otlp_grpc/mlmon": {"retry_on_failure": retry}}}))
    agent = start.agent(f"127.0.0.1:{processor.otlp}", files=("agent.yaml", hasty))
    monitor = model(agent.ports["GRPC"], "delta")
    observe(monitor, 100)
    assert monitor.flush()
    wait(lambda: processor.feature_counts() == {"x": 100, "y": 100}, "the first rows, and the profile")
    database = sqlite3.connect(processor.folder / "data" / "mlmon.db", isolation_level=None)
    with contextlib.closing(database), ThreadPoolExecutor(2) as pool:
        database.execute("BEGIN IMMEDIATE")  # nobody else can write
        others = [pool.submit(send_one, f"http://127.0.0.1:{processor.otlp_http}", f"other {i}") for i in range(2)]
        try:
            wait(lambda: processor.samples("mlmon_processor_waiting")[0][1] == 2, "the room to be full")
            observe(monitor, 20)
            assert monitor.flush()  # the agent has it
            wait(lambda: sum("ResourceExhausted" in error for _, _, error in retries(agent)) >= 3, "three refusals")
        finally:
            database.execute("ROLLBACK")
        assert [other.result() for other in others] == [None, None]
    wait(lambda: processor.feature_counts() == {"x": 120, "y": 120, "other": 2}, "all rows")
    told = retries(agent)
    assert min(interval for _, interval, _ in told) >= 1.0  # as RetryInfo says
    moments = [moment for moment, _, _ in told]
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.999  # the log has milliseconds
    assert processor.samples("mlmon_processor_duplicates_total")[0][1] == 0
