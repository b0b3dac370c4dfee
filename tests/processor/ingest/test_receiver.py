"""The gRPC server with the real SDK and its exporters, and with raw calls where the SDK cannot misbehave."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from otel_mlmon_processor.ingest import Ingest, IngestSettings
from otel_mlmon_processor.journal import pack_body
from otel_mlmon_processor.receiver import RETRY_INFO, STATUS_DETAILS, build_server

from otel_mlmon import semconv
from otel_mlmon.profile.document import Profile

AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
RESOURCE = Resource({"service.name": "svc", "service.instance.id": "a"})
MODEL = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: "1", semconv.ML_REFERENCE_HASH: "h"}


@pytest.fixture
def serve(tmp_path):
    """Starts servers; everything is closed at the end."""
    started = []

    def start(settings=None, **options):
        ingest = Ingest(tmp_path / f"data{len(started)}", settings=settings)
        server = build_server(ingest, "127.0.0.1:0", **options)
        server.start()
        started.append((server, ingest))
        return ingest, f"127.0.0.1:{server.port}", server

    yield start
    for server, ingest in started:
        server.stop(0).wait()
        ingest.close()


@contextlib.contextmanager
def blocked(ingest):
    """Hold the database, as a backup might: what comes now has to wait."""
    other = sqlite3.connect(ingest.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def connect(address):
    """A channel with a connection of its own."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
def call():
    """One raw call: the response's bytes."""
    channels = []

    def send(address, body, method=EXPORT, compression=None):
        channels.append(grpc.insecure_channel(address))
        return channels[-1].unary_unary(method)(body, timeout=20, compression=compression)

    yield send
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE])
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_what_the_sdk_recorded_is_what_is_counted(serve, otlp, temporality, compression):
    ingest, address, _ = serve()
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(
            f"http://{address}",
            insecure=True,
            compression=compression,
            preferred_temporality={Counter: temporality, Histogram: temporality},
        ),
        export_interval_millis=3_600_000,
    )
    bounds = ExplicitBucketHistogramAggregation([0.0, 1.0, 2.0])
    view = View(instrument_name=semconv.METRIC_ML_FEATURE_VALUE.name, aggregation=bounds)
    provider = MeterProvider([reader], RESOURCE, views=[view])
    meter = provider.get_meter("test", attributes={semconv.ML_PRODUCER_INCARNATION: "i"})
    values = meter.create_histogram(semconv.METRIC_ML_FEATURE_VALUE.name)
    seen = meter.create_counter(semconv.METRIC_ML_FEATURE_COUNT.name)
    other = meter.create_counter("http.requests")
    x = {**MODEL, semconv.ML_FEATURE_NAME: "x"}
    for batch in ([0.0, 0.5, 1.5], [2.5, 2.5], [1.0]):
        for value in batch:
            values.record(value, x)
            seen.add(1, x)
        other.add(1)
        assert provider.force_flush()
    provider.shutdown()
    (view,) = ingest.views()
    assert view.totals[otlp.X].cells.tolist() == [1, 2, 1, 2]
    assert view.totals[otlp.X].seen == 6
    assert view.totals[otlp.X].sum == pytest.approx(8.0)
    assert view.window[otlp.X].cells.tolist() == [1, 2, 1, 2]
    assert view.key.service == "svc"
    counters = ingest.counters()
    assert counters.fold.duplicates >= 0
    assert counters.ignored["not_ml"] >= 3
    assert counters.refused == {}


@pytest.mark.parametrize("temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE])
def test_exponential_histograms_of_the_sdk_lose_no_count(serve, otlp, temporality):
    ingest, address, _ = serve()
    exporter = OTLPMetricExporter(
        f"http://{address}",
        insecure=True,
        preferred_temporality={Histogram: temporality},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)], RESOURCE)
    values = provider.get_meter("test").create_histogram(semconv.METRIC_ML_FEATURE_VALUE.name)
    recorded = [0.0, 1.0, 1.1, 3.0, 3.0, 1e-3, 1e6, 5.0]
    for value in recorded:
        values.record(value, {**MODEL, semconv.ML_FEATURE_NAME: "x"})
        provider.force_flush()
    provider.shutdown()
    counts = next(ingest.views()).totals[otlp.X]
    assert counts.exponential
    assert counts.cells.sum() == counts.seen == len(recorded)
    for bound, below in ((2.0, 4), (4.0, 6)):  # powers of two are bounds at every scale of 0 or more
        assert counts.cells[: counts.edges.searchsorted(bound) + 1].sum() == below
    assert counts.sum == pytest.approx(sum(recorded))


def test_a_real_profile_comes_through_the_log_exporter(serve):
    ingest, address, _ = serve()
    profile = Profile.build({"x": [1.0, 2.0, 3.0] * 50}, model="m", version="1")
    body = gzip.compress(profile.to_bytes())
    half = len(body) // 2
    exporter = OTLPLogExporter(f"http://{address}", insecure=True)
    scope = InstrumentationScope("test", attributes={semconv.ML_PRODUCER_INCARNATION: "i"})
    for number, part in enumerate((body[:half], body[half:]), start=1):
        record = LogRecord(
            timestamp=1,
            severity_number=SeverityNumber.INFO,
            body=part,
            attributes={
                **MODEL,
                semconv.ML_REFERENCE_HASH: profile.hash,
                semconv.ML_REFERENCE_PART: number,
                semconv.ML_REFERENCE_PARTS: 2,
            },
            event_name=semconv.EVENT_ML_REFERENCE_PROFILE,
        )
        assert exporter.export([ReadableLogRecord(record, RESOURCE, scope)]) is LogRecordExportResult.SUCCESS
    exporter.shutdown()
    ((key, (received,)),) = ingest.profiles().items()
    assert (key.model, key.service) == ("m", "svc")
    assert received.to_bytes() == profile.to_bytes()


def test_spans_and_other_logs_are_acknowledged_and_counted(serve):
    ingest, address, _ = serve()
    tracing = TracerProvider(resource=RESOURCE)
    tracing.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://{address}", insecure=True)))
    with tracing.get_tracer("test").start_as_current_span("outer"):
        pass
    tracing.shutdown()
    logging = LoggerProvider(RESOURCE)
    exporter = OTLPLogExporter(f"http://{address}", insecure=True)
    record = ReadableLogRecord(LogRecord(timestamp=1, body="hello"), RESOURCE, InstrumentationScope("test"))
    assert exporter.export([record]) is LogRecordExportResult.SUCCESS
    exporter.shutdown()
    logging.shutdown()
    counters = ingest.counters()
    assert counters.received == {semconv.MonSignal.TRACES: 1, semconv.MonSignal.LOGS: 1}
    assert counters.ignored == {"not_ml": 2}
    assert counters.journal_entries == 0


def test_what_is_no_request_gets_invalid_argument(serve, call):
    ingest, address, _ = serve()
    with pytest.raises(grpc.RpcError) as error:
        call(address, b"\xff\xff\xff")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ExportMetricsServiceRequest" in error.value.details()
    with pytest.raises(grpc.RpcError) as error:
        call(address, b"", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Import")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert ingest.counters().refused == {(semconv.MonSignal.METRICS, "malformed"): 1}
    assert call(address, b"") == b""


def test_points_that_cannot_be_used_are_a_partial_success(serve, call, otlp):
    ingest, address, _ = serve()
    sender = otlp.Sender()
    bad = sender.histogram([1, 1, 1, 1], 0, 1)
    bad.histogram.data_points[0].count = 99
    body = sender.request(bad, sender.count(-1, 0, 1), sender.count(4, 0, 1, labels={semconv.ML_FEATURE_NAME: ""}))
    response = ExportMetricsServiceResponse.FromString(call(address, body))
    assert response.partial_success.rejected_data_points == 3
    assert response.partial_success.error_message == "3 of 3 cannot be used (counts: 1, negative: 1, no_feature: 1)"
    assert call(address, sender.request(sender.count(4, 0, 1))) == b""
    assert next(ingest.views()).totals[otlp.X].seen == 4


def test_the_bytes_that_came_are_the_bytes_that_are_kept(serve, call, otlp):
    ingest, address, _ = serve()
    sender = otlp.Sender()
    body = sender.request(sender.count(4, 0, 1)) + b"\xfa\x7f\x03new"  # a field that this version does not know
    call(address, body, compression=grpc.Compression.Gzip)
    assert ingest.counters().journal_bytes == len(pack_body(body).body)
    with contextlib.closing(sqlite3.connect(f"file:{ingest.path}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT codec, body, crc FROM journal").fetchall() == [pack_body(body)]


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_request_that_is_too_large_unpacked_is_refused(serve, call, compression):
    ingest, address, _ = serve(message_bytes=100_000)
    with pytest.raises(grpc.RpcError) as error:
        call(address, bytes(1_000_000), compression=compression)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ingest.counters().received == {}


def test_when_too_many_wait_the_client_is_told_when_to_come_again(serve, otlp):
    ingest, address, _ = serve(IngestSettings(pending=4, retry_after=0.25))
    sender = otlp.Sender()
    bodies = [sender.request(sender.count(1, minute, minute + 1)) for minute in range(40)]

    def send(body):
        try:
            with connect(address) as channel:
                channel.unary_unary(EXPORT)(body, timeout=20)
        except grpc.RpcError as error:
            return body, error
        return body, None

    with ThreadPoolExecutor(len(bodies)) as pool:
        with blocked(ingest):
            answers = [pool.submit(send, body) for body in bodies]
            until(lambda: sum(answer.done() for answer in answers) == 36)
            assert ingest.counters().waiting == 4
        answers = [answer.result() for answer in answers]
    failed = [(body, error) for body, error in answers if error]
    assert len(failed) == 36
    for _, error in failed:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata())
        delay = RetryInfo.FromString(trailers[RETRY_INFO]).retry_delay
        assert (delay.seconds, delay.nanos) == (0, 250_000_000)
        status = Status.FromString(trailers[STATUS_DETAILS])
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        unpacked = RetryInfo()
        assert status.details[0].Unpack(unpacked)
        assert unpacked.retry_delay == delay
    for body, _ in failed:
        assert send(body)[1] is None
    assert next(ingest.views()).totals[otlp.X].seen == 40
    assert ingest.counters().refused == {(semconv.MonSignal.METRICS, "overload"): 36}


def test_a_connection_that_floods_is_held_back_and_leaves_room_for_others(serve, otlp):
    ingest, address, _ = serve(IngestSettings(pending=4))
    flood, quiet = otlp.Sender("flood", "f"), otlp.Sender("quiet", "q")
    with connect(address) as loud, connect(address) as other:
        loud.unary_unary(EXPORT)(b"", timeout=20)  # a connection learns at its beginning how much it may send
        with blocked(ingest):
            bodies = [flood.request(flood.count(1, minute, minute + 1)) for minute in range(40)]
            calls = [loud.unary_unary(EXPORT).future(body, timeout=30) for body in bodies]
            until(lambda: ingest.counters().waiting == 2)  # half of the room; its HTTP/2 holds back the others
            answer = other.unary_unary(EXPORT).future(quiet.request(quiet.count(7, 0, 1)), timeout=30)
            until(lambda: ingest.counters().waiting == 3)
            assert ingest.counters().refused == {}
        assert answer.result() == b""
        # Its share was less while the other was there, or it opened a stream too many: it comes again, as exporters do.
        failed = [body for body, call in zip(bodies, calls, strict=True) if call.exception() is not None]

        def taken(body):
            again = loud.unary_unary(EXPORT).future(body, timeout=20)
            assert again.exception() is None or again.code() in AGAIN, again.exception()
            return again.exception() is None

        for body in failed:
            until(lambda body=body: taken(body))
    assert sum(view.totals[otlp.X].seen for view in ingest.views()) == 47


def test_the_sdk_comes_again_when_it_is_told_to(serve, otlp):
    ingest, address, _ = serve(IngestSettings(pending=2, retry_after=0.05))
    exporter = OTLPMetricExporter(f"http://{address}", insecure=True, timeout=30)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)], RESOURCE)
    provider.get_meter("test").create_counter(semconv.METRIC_ML_FEATURE_COUNT.name).add(
        5, {**MODEL, semconv.ML_FEATURE_NAME: "x"}
    )
    sender = otlp.Sender()
    with ThreadPoolExecutor(1) as pool, connect(address) as one, connect(address) as two:
        with blocked(ingest):
            held = [
                channel.unary_unary(EXPORT).future(sender.request(sender.count(1, minute, minute + 1)), timeout=30)
                for minute, channel in enumerate((one, two))
            ]
            until(lambda: ingest.counters().waiting == 2)
            flushed = pool.submit(provider.force_flush)
            until(lambda: ingest.counters().refused.get((semconv.MonSignal.METRICS, "overload"), 0) >= 2)
        assert flushed.result()
        assert [call.result() for call in held] == [b"", b""]
    provider.shutdown()
    assert sum(view.totals[otlp.X].seen for view in ingest.views()) == 7


def test_health_follows_the_server(serve):
    _, address, _ = serve()
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "opentelemetry.proto.collector.metrics.v1.MetricsService"):
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_requests_that_run_are_answered_when_the_server_stops_and_new_ones_are_refused(serve, otlp):
    ingest, address, server = serve()
    sender = otlp.Sender()
    with grpc.insecure_channel(address) as channel:
        export = channel.unary_unary(EXPORT)
        with blocked(ingest):
            running = export.future(sender.request(sender.count(3, 0, 1)), timeout=20)
            until(lambda: ingest.counters().waiting)
            stopped = server.stop(10)
            late = sender.request(sender.count(1, 1, 2))
            # CANCELLED until the client has heard of the end, a moment later; exporters come again with both.
            until(lambda: export.future(late, timeout=5).code() is grpc.StatusCode.UNAVAILABLE)
            assert not stopped.is_set()
        assert running.result() == b""
        assert stopped.wait(10)
    assert sum(view.totals[otlp.X].seen for view in ingest.views()) == 3


def test_an_address_in_use_is_named(serve):
    ingest, address, _ = serve()
    with pytest.raises(OSError, match=f"cannot listen on {address} for OTLP"):
        build_server(ingest, address)
