"""OTLP over HTTP: the real SDK's exporters, and what only raw requests can do."""

from __future__ import annotations

import gzip
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otel_mlmon_processor.http import HttpServer
from otel_mlmon_processor.ingest import Ingest, IngestSettings
from otel_mlmon_processor.otlp_http import JSON, PROTOBUF, make_otlp_application

from otel_mlmon import Monitor, Profile, semconv

RESOURCE = Resource({"service.name": "svc", "service.instance.id": "a"})
MODEL = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: "1", semconv.ML_REFERENCE_HASH: "h"}


@pytest.fixture
def serve(tmp_path):
    """Starts servers; everything is closed at the end."""
    started = []

    def start(settings=None, **options):
        ingest = Ingest(tmp_path / f"data{len(started)}", settings=settings)
        server = HttpServer(make_otlp_application(ingest, **options), "127.0.0.1:0")
        server.start()
        started.append((server, ingest))
        return ingest, f"http://127.0.0.1:{server.port}"

    yield start
    for server, ingest in started:
        server.stop(10)
        ingest.close()


@pytest.fixture
def send(serve):
    """Posts to a server of its own: the answer. `send.ingest` is what takes it in."""
    ingest, url = serve(message_bytes=100_000)

    def post(body, kind=PROTOBUF, path="/v1/metrics", **headers):
        return httpx.post(url + path, content=body, headers={"content-type": kind, **headers}, timeout=20)

    post.ingest = ingest
    return post


def seen(ingest):
    (view,) = ingest.views()
    return {key.name: counts.seen for key, counts in view.totals.items()}


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
@pytest.mark.parametrize("temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE])
def test_what_the_sdk_recorded_is_what_is_counted(serve, compression, temporality):
    ingest, url = serve()
    exporter = OTLPMetricExporter(
        f"{url}/v1/metrics", compression=compression, preferred_temporality={Counter: temporality}
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], RESOURCE)
    counter = provider.get_meter("test").create_counter(semconv.METRIC_ML_FEATURE_COUNT.name)
    for batch in (3, 4):
        counter.add(batch, {**MODEL, semconv.ML_FEATURE_NAME: "x"})
        assert provider.force_flush()
    provider.shutdown()
    assert seen(ingest) == {"x": 7}
    assert ingest.counters().received["metrics"] >= 2  # cumulative sums are sent again at the end


def test_a_monitor_and_its_profile_arrive(serve, monkeypatch):
    ingest, url = serve()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    profile = Profile.build({"x": [1.0, 2.0, 3.0, 4.0] * 10}, model="m", version="1")
    monitor = Monitor(profile)
    monitor.observe({"x": [1.0, 2.5, None]})
    monitor.close()
    (sent,) = ingest.profiles().values()
    assert sent[0].hash == profile.hash
    assert seen(ingest) == {"x": 3}


def test_spans_and_logs_are_taken(serve):
    ingest, url = serve()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    provider.get_tracer("test").start_span("one").end()
    provider.shutdown()
    OTLPLogExporter(f"{url}/v1/logs").shutdown()
    assert ingest.counters().received == {"traces": 1}


def test_json_as_the_specification_writes_it(send):
    """64-bit integers as strings, enumerations as numbers, ids in hex, fields that nobody knows."""
    point = {
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in {**MODEL, "ml.feature.name": "x"}.items()
        ],
        "startTimeUnixNano": "60000000000",
        "timeUnixNano": "120000000000",
        "asInt": "11",
        "exemplars": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "asInt": "1"}],
        "fromTheFuture": {"a": [1]},
    }
    metric = {
        "name": semconv.METRIC_ML_FEATURE_COUNT.name,
        "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [point]},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "svc"}}]}
    document = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}
    answer = send(json.dumps(document), "application/json; charset=utf-8")
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, JSON, {})
    assert seen(send.ingest) == {"x": 11}


def test_json_is_what_the_same_in_protobuf_is(serve, otlp):
    sender = otlp.Sender()
    body = sender.request(sender.histogram([1, 2, 3, 4], 0, 1, total=12.0), sender.count(11, 0, 1))
    message = ExportMetricsServiceRequest.FromString(body)
    views = []
    for content, kind in ((body, PROTOBUF), (json_format.MessageToJson(message), JSON)):
        ingest, url = serve()
        answer = httpx.post(f"{url}/v1/metrics", content=content, headers={"content-type": kind})
        assert answer.status_code == 200
        views.append({key: (c.seen, c.cells.tolist(), c.sum) for key, c in next(ingest.views()).totals.items()})
    assert views[0] == views[1]


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_what_can_never_be_used_is_a_partial_success(send, otlp, kind):
    sender = otlp.Sender(model={})
    body = sender.request(sender.count(5, 0, 1))
    if kind == JSON:
        body = json_format.MessageToJson(ExportMetricsServiceRequest.FromString(body))
    answer = send(body, kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    read = json_format.Parse if kind == JSON else lambda text, message: message.FromString(text)
    partial = read(answer.content, ExportMetricsServiceResponse()).partial_success
    assert partial.rejected_data_points == 1
    assert "no_model: 1" in partial.error_message


BAD = {
    "no content-type": (b"", {"kind": ""}, 415, "content_type"),
    "another content-type": (b"x", {"kind": "text/plain"}, 415, "content_type"),
    "no protobuf": (b"\xff\xff\xff", {}, 400, "malformed"),
    "no JSON": (b"{", {"kind": JSON}, 400, "not_json"),
    "JSON of another form": (b'{"resourceMetrics": 3}', {"kind": JSON}, 400, "not_json"),
    "JSON that is no object": (b"[1]", {"kind": JSON}, 400, "not_json"),
    "JSON too deep": (b"[" * 50_000, {"kind": JSON}, 400, "not_json"),
    "an id that is no hex": (b'{"traceId": "xyz"}', {"kind": JSON}, 400, "not_json"),
    "another encoding": (b"x", {"content-encoding": "br"}, 415, "content_encoding"),
    "no gzip": (b"x", {"content-encoding": "gzip"}, 400, "not_gzip"),
    "gzip cut off": (gzip.compress(b"x" * 1_000)[:-9], {"content-encoding": "gzip"}, 400, "not_gzip"),
    "too large": (b"x" * 100_001, {}, 413, "too_large"),
    "too large unpacked": (gzip.compress(bytes(50_000_000)), {"content-encoding": "gzip"}, 413, "too_large"),
    "too large in members": (gzip.compress(bytes(60_000)) * 2, {"content-encoding": "gzip"}, 413, "too_large"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_request_that_can_never_succeed_is_refused_and_counted(send, case):
    body, options, code, reason = BAD[case]
    answer = send(body, **options)
    assert answer.status_code == code
    message = answer.json()["message"] if options.get("kind") == JSON else Status.FromString(answer.content).message
    assert message
    assert send.ingest.counters().refused == {("metrics", reason): 1}
    assert "retry-after" not in answer.headers


def test_a_processor_that_is_full_says_when_to_come_again(serve, otlp):
    """The database is held, as a backup might, so that one request waits and the next is one too many."""
    ingest, url = serve(IngestSettings(pending=1, retry_after=1.5))
    sender, headers = otlp.Sender(), {"content-type": PROTOBUF}
    other = sqlite3.connect(ingest.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        body = sender.request(sender.count(1, 0, 1))
        first = pool.submit(httpx.post, f"{url}/v1/metrics", content=body, headers=headers, timeout=30)
        while not ingest.counters().waiting:
            pass
        answer = httpx.post(f"{url}/v1/metrics", content=sender.request(sender.count(2, 1, 2)), headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert Status.FromString(answer.content).code == 8  # RESOURCE_EXHAUSTED
        other.execute("ROLLBACK")
        other.close()
        assert first.result().status_code == 200
    assert seen(ingest) == {"x": 1}


def test_a_processor_that_ends_says_to_come_again(send, otlp):
    """To a request that came too late, on a connection that was there before."""
    send.ingest.close()
    answer = send(otlp.Sender().request(otlp.Sender().count(1, 0, 1)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert Status.FromString(answer.content).code == 14  # UNAVAILABLE


def test_other_methods_and_paths_are_not_there(serve):
    _, url = serve()
    assert httpx.get(f"{url}/v1/metrics").status_code == 405
    assert httpx.post(f"{url}/v1/metric").status_code == 404
    assert httpx.post(url).status_code == 404
