"""sharded.yaml: eight models over two processors, and everything else to the backend."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import yaml
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_mlmon import Monitor, Profile

MODELS = [f"model-{number}" for number in range(8)]
COUNTS = 'sum by (ml_model_name) (ml_feature_count_total{ml_feature_name="x"})'
WHERE = 'count by (ml_model_name, instance) (ml_feature_count_total{ml_feature_name="x"})'


def find_shards(endpoints) -> dict[str, str]:
    """Model to endpoint, as the exporter's ring has it, so that the ports of a test are some that use both."""
    ring = sorted(
        (zlib.crc32(endpoint.encode() + struct.pack("<I", point)) % 131_071, endpoint)
        for endpoint in endpoints
        for point in range(200)
    )
    found = {}
    for model in MODELS:
        position = zlib.crc32(f"ml.model.name={model}|".encode()) % 131_071
        found[model] = next((endpoint for at, endpoint in ring if at >= position), ring[0][1])
    return found


class Sharded:
    """Two processors behind a collector with sharded.yaml, a backend that writes to files, a Prometheus."""

    def __init__(self, start, real, build, folder, monkeypatch) -> None:
        self.start, self.real, self.folder = start, real, folder
        self.processors = [start.processor(folder / f"shard{number}") for number in (0, 1)]
        self.backend = folder / "backend"
        grpc = self._start_backend(build)
        while len(set(find_shards(shards := [f"127.0.0.1:{real.free_port()}" for _ in (0, 1)]).values())) < 2:
            pass
        self.variables = {f"SHARD_{number}": shard for number, shard in enumerate(shards)}
        self.variables |= {f"MLMON_{n}": f"127.0.0.1:{p.otlp}" for n, p in enumerate(self.processors)}
        self.variables |= {"BACKEND_ENDPOINT": grpc}
        self.collector = start.agent("", files=("sharded.yaml",), variables=self.variables)
        self.prometheus = start.prometheus(*self.processors)
        self.endpoint = f"http://127.0.0.1:{self.collector.ports['GRPC']}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint)

    def _start_backend(self, build) -> str:
        self.backend.mkdir()
        ports = [self.real.free_port(), self.real.free_port()]
        address = f"127.0.0.1:{ports[0]}"
        signals = ("metrics", "logs", "traces")
        settings = {
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports[1]}"}},
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": address}}}},
            "exporters": {
                f"file/{s}": {"path": str(self.backend / f"{s}.json"), "flush_interval": "100ms"} for s in signals
            },
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {s: {"receivers": ["otlp"], "exporters": [f"file/{s}"]} for s in signals},
            },
        }
        (self.backend / "backend.yaml").write_text(yaml.safe_dump(settings))
        command = [build.build_collector(), "--config", self.backend / "backend.yaml"]
        self.start.add(self.real.Server(command, ports[1], "/", self.backend / "backend.log"))
        return address

    def came(self, signal: str) -> list[dict]:
        """Requests that the backend has."""
        path = self.backend / f"{signal}.json"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def counts(self) -> dict[str, float]:
        return self.prometheus.by("ml_model_name", COUNTS)

    def places(self) -> dict[str, list[str]]:
        """Model to the processors that have it."""
        found: dict[str, list[str]] = {}
        for labels, _ in self.prometheus.query(WHERE):
            found.setdefault(labels["ml_model_name"], []).append(labels["instance"])
        return found


@pytest.fixture
def sharded(start, real, build, tmp_path, monkeypatch):
    return Sharded(start, real, build, tmp_path, monkeypatch)


@pytest.fixture
def replicas(sharded):
    """Two replicas of each model, with a profile; each is closed at the end."""
    rng = np.random.default_rng(0)
    made = []
    for number, model in enumerate(MODELS):
        profile = Profile.build({"x": rng.normal(size=500 + number)}, model=model, version="1")
        for instance in ("a", "b"):
            resource = Resource({"service.name": "shop", "service.instance.id": instance})
            made.append((model, Monitor(profile, resource=resource, temporality="delta")))
    yield made
    for _, monitor in made:
        monitor.close()


def send(replicas, rounds: int) -> dict[str, int]:
    """Rows by model: a number of its own for each."""
    rng, sent = np.random.default_rng(rounds), dict.fromkeys(MODELS, 0)
    for number in range(rounds):
        for which, (model, monitor) in enumerate(replicas):
            rows = 10 + which + number
            monitor.observe({"x": rng.normal(size=rows)})
            assert monitor.flush()
            sent[model] += rows
    return sent


def names(requests) -> set[str]:
    """Of metrics in requests as JSON."""
    return {
        metric["name"]
        for request in requests
        for resource in request["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }


def test_every_model_is_whole_on_one_of_two_processors(sharded, replicas, wait):
    sent = send(replicas, 2)
    wait(lambda: sharded.counts() == sent, lambda: f"{sharded.counts()} to be {sent}")
    places = sharded.places()
    assert sorted(places) == MODELS
    assert {len(where) for where in places.values()} == {1}
    assert len({where[0] for where in places.values()}) == 2
    # The profile went the same way, and both replicas.
    wait(lambda: len(sharded.prometheus.query("ml_reference_rows")) == 8, "the profiles")
    rows = sharded.prometheus.by("ml_model_name", "ml_reference_rows")
    assert rows == {model: 500 + number for number, model in enumerate(MODELS)}
    assert sharded.prometheus.by("ml_model_name", "ml_model_replicas") == dict.fromkeys(MODELS, 2)
    assert sharded.prometheus.query("mlmon_processor_duplicates_total > 0") == []


def test_what_is_not_about_models_goes_to_the_backend_and_nothing_else_does(sharded, replicas, wait):
    sent = send(replicas, 1)
    resource = Resource({"service.name": "shop"})
    exporter = OTLPMetricExporter(endpoint=sharded.endpoint, insecure=True)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)], resource)
    provider.get_meter("shop").create_counter("http.requests").add(3)
    provider.get_meter("shop").create_counter("mlops.requests").add(3)  # as it begins
    provider.shutdown()
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sharded.endpoint, insecure=True)))
    tracing.get_tracer("shop").start_span("buy").end()
    tracing.shutdown()
    logs = OTLPLogExporter(endpoint=sharded.endpoint, insecure=True)
    logs.export([ReadableLogRecord(LogRecord(timestamp=1, body="hello"), resource, InstrumentationScope("shop"))])
    logs.shutdown()
    wait(lambda: all(sharded.came(signal) for signal in ("metrics", "logs", "traces")), "the backend")
    wait(lambda: sharded.counts() == sent, "the counts")
    assert names(sharded.came("metrics")) == {"http.requests", "mlops.requests"}
    (request,) = sharded.came("logs")
    assert "hello" in json.dumps(request)
    assert len(sharded.came("traces")) == 1
    assert sharded.prometheus.query('sum(mlmon_processor_dropped_total{mlmon_reason="not_ml"}) > 0') == []
    assert sharded.prometheus.query('sum(mlmon_processor_received_total{mlmon_signal="traces"}) > 0') == []


def test_one_of_two_processors_is_away_and_back_and_every_count_is_right(sharded, replicas, wait):
    """Its models wait on disk, through a restart of the collector too; those of the other go on."""
    first = send(replicas, 1)
    wait(lambda: sharded.counts() == first, "the first counts")
    gone = sharded.processors[1]
    address = gone.url.rpartition("/")[2]
    away = {model for model, (where,) in sharded.places().items() if where == address}
    gone.stop()
    second = send(replicas, 15)  # more requests than a queue has consumers
    total = {model: first[model] + second[model] for model in MODELS}
    here = {model: rows for model, rows in total.items() if model not in away}
    wait(lambda: {m: n for m, n in sharded.counts().items() if m not in away} == here, "the models of the other")
    sharded.collector.stop()
    again = sharded.start.agent(
        "", sharded.collector.folder, sharded.collector.ports, ("sharded.yaml",), sharded.variables
    )
    wait(lambda: all(monitor.flush() for _, monitor in replicas), "the collector")
    sharded.start.processor(gone.folder, otlp=gone.otlp, http=gone.port)
    wait(lambda: sharded.counts() == total, lambda: f"{sharded.counts()} to be {total}", 60)
    assert {len(where) for where in sharded.places().values()} == {1}
    assert again.process.poll() is None
