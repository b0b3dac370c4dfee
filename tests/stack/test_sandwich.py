"""A collector before and after the processor: what is ours is folded, the rest arrives untouched, everything once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_mlmon import Profile

SETTINGS = """
evaluate: {{interval: 100ms}}
export: [{{endpoint: "http://127.0.0.1:{back}", interval: 500ms}}]
forward: {{endpoint: "http://127.0.0.1:{back}"}}
"""


@pytest.fixture(scope="module")
def profile():
    return Profile.build({"x": np.random.default_rng(0).normal(size=5_000)}, model="m", version="1")


@pytest.fixture
def backend(start, real, build, tmp_path):
    """A collector that writes what arrives into a file, a request a line."""
    port, health, file = real.free_port(), real.free_port(), tmp_path / "arrived.json"
    pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
    settings = {
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"file": {"path": str(file), "flush_interval": "100ms"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"logs": pipeline, "traces": pipeline},
        },
    }
    config = tmp_path / "backend.yaml"
    config.write_text(yaml.safe_dump(settings))
    server = real.Server([build.build_collector(), "--config", config], health, "/", tmp_path / "backend.log")
    server.port = port
    server.arrived = lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return start.add(server)


def spans(arrived) -> list[str]:
    resources = [resource for request in arrived for resource in request.get("resourceSpans", ())]
    return [span["name"] for resource in resources for scope in resource["scopeSpans"] for span in scope["spans"]]


def logs(arrived) -> list[str]:
    resources = [resource for request in arrived for resource in request.get("resourceLogs", ())]
    records = [record for resource in resources for scope in resource["scopeLogs"] for record in scope["logRecords"]]
    return [record["body"].get("stringValue") for record in records]


class Application:
    """Its own metric, log and span, with the real SDK."""

    def __init__(self, port: int) -> None:
        options = {"endpoint": f"http://127.0.0.1:{port}"}
        resource = Resource({"service.name": "shop", "service.instance.id": "1"})
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(**options), export_interval_millis=3_600_000)
        self.meters = MeterProvider([reader], resource)
        self.tracers, self.loggers = TracerProvider(resource=resource), LoggerProvider(resource)
        self.tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(**options)))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(**options)))
        self._orders = self.meters.get_meter("shop").create_counter("shop.orders", "{order}")

    def work(self, name: str, orders: int) -> None:
        self._orders.add(orders, {"kind": "book"})
        assert self.meters.force_flush()
        self.tracers.get_tracer("shop").start_span(name).end()
        self.loggers.get_logger("shop").emit(body=name, severity_text="WARN")

    def close(self) -> None:
        for provider in (self.meters, self.tracers, self.loggers):
            provider.shutdown()


@pytest.fixture
def application():
    opened = []

    def make(port: int) -> Application:
        opened.append(Application(port))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def sandwich(start, real, backend):
    """sandwich.yaml between applications, a processor, a Prometheus and the backend."""

    class Sandwich:
        def __init__(self) -> None:
            self.backend, self.prometheus = backend, start.prometheus()
            self.addresses = {
                "MLMON_ENDPOINT": f"127.0.0.1:{real.free_port()}",
                "PROMETHEUS_OTLP": f"{self.prometheus.url}/api/v1/otlp",
                "BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}",
                "SANDWICH_QUEUE": str(start.folder / "queue"),
            }
            self.collector = start.collector("sandwich.yaml", **self.addresses)

        def start_again(self) -> None:
            before = self.collector
            start.collector("sandwich.yaml", folder=before.folder, ports=before.ports, **self.addresses)

        def start_processor(self, folder=None):
            settings = SETTINGS.format(back=self.collector.ports["BACK"])
            return start.processor(folder, settings=settings, otlp=int(self.addresses["MLMON_ENDPOINT"].split(":")[1]))

    return Sandwich()


def forwarding(processor, name: str) -> float:
    found = processor.samples(f"mlmon_processor_send_{name}")
    return sum(value for labels, value in found if labels["mlmon_purpose"] == "forward")


def test_ours_is_folded_and_the_rest_arrives_untouched_and_once(sandwich, model, application, wait):
    processor, prometheus, backend = sandwich.start_processor(), sandwich.prometheus, sandwich.backend
    port = sandwich.collector.ports["GRPC"]
    shop, monitor = application(port), model(f"127.0.0.1:{port}")
    for i in range(3):
        shop.work(f"order {i}", orders=10 + i)
        X = {"x": np.random.default_rng(i).normal(size=200)}
        with monitor.inference(X):
            pass
        assert monitor.flush()
    wait(lambda: prometheus.query("ml_feature_count_total == 600"), lambda: prometheus.query("ml_feature_count_total"))
    wait(lambda: prometheus.query('shop_orders_total{kind="book", job="shop", instance="1"} == 33'), "the metric")
    wait(lambda: len(logs(backend.arrived())) >= 3 and len(spans(backend.arrived())) >= 3, backend.arrived)
    wait(lambda: forwarding(processor, "pending") == 0, "nothing to wait")
    names = [f"order {i}" for i in range(3)]
    assert sorted(spans(backend.arrived())) == names
    assert sorted(logs(backend.arrived())) == names  # no profile among them
    # What the processor itself says, and what came from the model, went round no second time.
    assert {labels["instance"] for labels, _ in prometheus.query("ml_feature_count_total")} == {
        labels["instance"] for labels, _ in prometheus.query("mlmon_processor_models")
    }
    # Nothing of others is dropped; ages are ours and not needed.
    dropped = processor.samples("mlmon_processor_dropped_total")
    assert {labels["mlmon_reason"] for labels, _ in dropped} <= {"unused"}


def test_what_waits_for_a_collector_that_is_away_goes_on_after_a_restart(sandwich, model, application, wait, tmp_path):
    """The way back is closed while the processor takes in, and the processor is restarted meanwhile."""
    folder = tmp_path / "kept"
    first = sandwich.start_processor(folder)
    sandwich.collector.stop()
    shop, monitor = application(first.otlp), model(f"127.0.0.1:{first.otlp}")
    for i in range(4):
        shop.work(f"order {i}", orders=1)
        monitor.observe({"x": np.random.default_rng(i).normal(size=50)})
        assert monitor.flush()
    wait(lambda: first.feature_counts() == {"x": 200}, first.feature_counts)  # from the evaluation that follows
    wait(lambda: forwarding(first, "pending") == 12, lambda: forwarding(first, "pending"))
    first.stop()
    second = sandwich.start_processor(folder)
    assert forwarding(second, "pending") == 12
    sandwich.start_again()
    wait(lambda: forwarding(second, "pending") == 0, lambda: forwarding(second, "pending"), seconds=60)
    names = [f"order {i}" for i in range(4)]
    wait(lambda: sorted(spans(sandwich.backend.arrived())) == names, sandwich.backend.arrived)
    wait(lambda: sorted(logs(sandwich.backend.arrived())) == names, sandwich.backend.arrived)
    wait(lambda: sandwich.prometheus.query("shop_orders_total == 4"), "the metric")
    assert second.feature_counts() == {"x": 200}
    assert forwarding(second, "requests_total") == 12
