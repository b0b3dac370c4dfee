"""Counts leave over real OTLP in every way, and none is lost or counted twice while the collector is away."""

from __future__ import annotations

import gzip
import itertools
import logging
import threading
from collections import Counter

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_mlmon import Monitor, semconv
from otel_mlmon.config import Settings
from otel_mlmon.export import PART_BYTES, PENDING_REQUESTS, MonitoredExporter
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.numerics.histogram import Histogram
from otel_mlmon.profile.document import Profile, Reference, Variable
from otel_mlmon.recorder import BLOCK_ROWS, WAITING_BLOCKS

PROTOCOLS = ["grpc", "http/protobuf"]
TEMPORALITIES = ["delta", "cumulative"]
NUMBER = {"delta": 1, "cumulative": 2}  # of AggregationTemporality in OTLP
RNG = np.random.default_rng(11)
TRAIN = {"x": RNG.normal(size=1000), "city": RNG.choice(["Rome", "Oslo"], 1000)}
PROFILE = Profile.build(TRAIN, model="flights", version="3", predictions=RNG.random(1000))
EDGES = {r.variable.name: r.variable.axis.edges.tolist() for r in PROFILE.references if r.variable.name != "city"}
FAR = 86_400.0  # seconds to the next export by itself
FIRST, LATER = {"x": np.array([0.1, -0.2, np.nan]), "city": ["Rome", "Rome", "Bonn"]}, {"x": [3.0], "city": ["Oslo"]}
X_VALUES = [0.1, -0.2, 3.0]


def make_exporter(protocol, collector, **options):
    if protocol == "grpc":
        return GrpcExporter(collector.endpoint, insecure=True, **options)
    return HttpExporter(f"{collector.endpoint}/v1/metrics", **options)


def cells(values, edges):
    return [sum(sum(v > e for e in edges) == i for v in values) for i in range(len(edges) + 1)]


def check_arrived(collector, temporality):
    """FIRST and LATER, sent apart, are what the collector has."""
    x = collector.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")
    assert [p.data.aggregation_temporality for p in x] == [NUMBER[temporality]] * 2
    assert len({p.incarnation for p in collector.points if p.scope}) == 1
    assert x[0].attributes[semconv.ML_MODEL_NAME] == "flights"
    assert x[0].attributes[semconv.ML_MODEL_VERSION] == "3"
    assert x[0].attributes[semconv.ML_REFERENCE_HASH] == PROFILE.hash
    first, later = (p.point for p in x)
    if temporality == "delta":
        parts = [X_VALUES[:2], X_VALUES[2:]]
        assert first.time_unix_nano == later.start_time_unix_nano
    else:
        parts = [X_VALUES[:2], X_VALUES]
        assert first.start_time_unix_nano == later.start_time_unix_nano
        assert first.time_unix_nano < later.time_unix_nano
    for point, values in zip((first, later), parts, strict=True):
        assert list(point.explicit_bounds) == EDGES["x"]
        assert list(point.bucket_counts) == cells(values, EDGES["x"])
        assert (point.count, point.min, point.max) == (len(values), min(values), max(values))
        assert point.sum == pytest.approx(sum(values))

    def counted(metric, key, **attributes):
        points = collector.of(metric, **attributes)
        if temporality == "delta":
            return sum((Counter({p.attributes[key]: p.point.as_int}) for p in points), Counter())
        return {p.attributes[key]: p.point.as_int for p in points}

    assert counted(semconv.METRIC_ML_FEATURE_COUNT, semconv.ML_FEATURE_NAME) == {"x": 4, "city": 4}
    assert counted(semconv.METRIC_ML_FEATURE_INVALID, semconv.ML_FEATURE_INVALID_REASON) == {"nan": 1}
    categories = {"Rome": 2, "Oslo": 1, "_UNSEEN_": 1}
    assert counted(semconv.METRIC_ML_FEATURE_CATEGORY, semconv.ML_FEATURE_CATEGORY) == categories
    scores = [p.point.count for p in collector.of(semconv.METRIC_ML_PREDICTION_SCORE)]
    assert scores == ([3, 1] if temporality == "delta" else [3, 4])


def record(monitor, send):
    monitor.observe(FIRST, [0.1, 0.2, 0.3])
    send()
    monitor.observe(LATER, [0.4])
    send()


@pytest.mark.parametrize("temporality", TEMPORALITIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_an_exporter_made_from_the_environment(protocol, temporality, collectors, make_monitor, monkeypatch):
    collector = collectors[protocol]
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality.upper(),
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue,authorization=Bearer%20abc",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=production,service.namespace=travel",
        "OTEL_SERVICE_NAME": "flights-api",
    }.items():
        monkeypatch.setenv(name, value)
    monitor = make_monitor(PROFILE)
    record(monitor, lambda: monitor.flush() or pytest.fail("not acknowledged"))
    check_arrived(collector, temporality)
    for point in collector.points:
        assert point.resource["service.name"] == "flights-api"
        assert point.resource["service.namespace"] == "travel"
        assert point.resource["deployment.environment.name"] == "production"
        assert point.resource["service.instance.id"] == monitor.resource.attributes["service.instance.id"]
    for headers in collector.headers:
        assert (headers["x-tenant"], headers["authorization"]) == ("blue", "Bearer abc")
    if protocol == "http/protobuf":
        assert {headers["content-encoding"] for headers in collector.headers} == {"gzip"}


@pytest.mark.parametrize("temporality", TEMPORALITIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_an_exporter_and_a_resource_given_to_the_monitor(protocol, temporality, collectors, make_monitor):
    collector = collectors[protocol]
    exporter = make_exporter(protocol, collector)
    resource = Resource({"service.name": "svc", "service.instance.id": "replica-1"})
    monitor = make_monitor(PROFILE, exporter=exporter, resource=resource, temporality=temporality)
    record(monitor, lambda: monitor.flush() or pytest.fail("not acknowledged"))
    monitor.close()
    assert exporter.export(MetricsData([])).name == "SUCCESS"  # it is the caller's, and still open
    exporter.shutdown()
    collector.metrics.pop()
    last = [p for p in collector.points if p.metric == semconv.METRIC_ML_MODEL_INFO.name][-1]
    assert last.resource == {"service.name": "svc", "service.instance.id": "replica-1"}
    collector.metrics[2:] = []  # what the monitor sent when it was closed
    check_arrived(collector, temporality)


@pytest.mark.parametrize("temporality", TEMPORALITIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_within_the_exports_of_the_applications_reader(protocol, temporality, collectors, make_monitor):
    collector = collectors[protocol]
    monitor = make_monitor(PROFILE, settings=Settings(disabled=True, interval=0.01))
    exporter = MonitoredExporter(
        make_exporter(protocol, collector), monitor, temporality=AggregationTemporality[temporality.upper()]
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=FAR * 1000)
    provider = MeterProvider([reader], resource=Resource({"service.name": "svc"}))
    provider.get_meter("app").create_counter("requests").add(5)
    record(monitor, lambda: provider.force_flush() or pytest.fail("not acknowledged"))
    points = collector.points
    check_arrived(collector, temporality)
    assert {p.resource["service.name"] for p in points} == {"svc"}
    assert [p.point.as_int for p in points if p.metric == "requests"] == [5, 5]
    monitor.observe({"x": [1.0], "city": ["Rome"]})
    provider.shutdown()
    last = collector.of(semconv.METRIC_ML_FEATURE_COUNT, name="x")[-1]
    assert last.point.as_int == (1 if temporality == "delta" else 5)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("cumulative", "cumulative", "Histogram")),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}, ("delta", "delta", "Histogram")),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "lowmemory"}, ("delta", "cumulative", "Histogram")),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"},
            ("cumulative", "cumulative", "ExponentialHistogram"),
        ),
    ],
)
def test_the_applications_metrics_keep_the_temporality_and_aggregation_of_the_environment(
    variables, expected, grpc_collector, sink, monkeypatch
):
    """As the OTLP exporter would have them without us; the wrapper stands in its place."""
    from opentelemetry.metrics import Observation

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monitor = Monitor("m", settings=Settings(disabled=True))

    def kinds(exporter, received):
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=FAR * 1000)])
        meter = provider.get_meter("app")
        meter.create_counter("counter").add(1)
        meter.create_up_down_counter("level").add(1)
        meter.create_observable_counter("observed", [lambda _: [Observation(1)]])
        meter.create_histogram("histogram").record(1)
        monitor.observe({"x": 1.0})
        provider.force_flush()
        provider.shutdown()
        return {p.metric: (type(p.data).__name__, int(p.data.aggregation_temporality)) for p in received()[:4]}

    # The sink is handed to the wrapper; the real exporter alone says what is right, as its receiver sees it.
    ours = kinds(MonitoredExporter(sink, monitor), lambda: sink.points)
    theirs = kinds(GrpcExporter(grpc_collector.endpoint, insecure=True), lambda: grpc_collector.points)
    assert ours == theirs
    counter, observed, histogram = expected
    assert ours["counter"] == ("Sum", NUMBER[counter])
    assert ours["observed"] == ("Sum", NUMBER[observed])
    assert ours["level"] == ("Sum", NUMBER["cumulative"])
    assert ours["histogram"] == (histogram, NUMBER[counter])
    (mine,) = {int(p.data.aggregation_temporality) for p in sink.of(semconv.METRIC_ML_FEATURE_COUNT)[:1]}
    assert mine == NUMBER[counter]
    monitor.close()


@pytest.mark.parametrize(
    "variables", [{"OTEL_METRICS_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}], ids=["none", "disabled"]
)
def test_nothing_is_sent_where_the_environment_says_so(variables, grpc_collector, make_monitor, monkeypatch):
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": grpc_collector.endpoint, **variables}.items():
        monkeypatch.setenv(name, value)
    monitor = make_monitor(PROFILE)
    record(monitor, lambda: monitor.flush() or pytest.fail("there is nothing that could fail"))
    monitor.close()
    assert (grpc_collector.metrics, grpc_collector.logs) == ([], [])


def test_the_interval_of_the_environment_is_kept_without_a_flush(grpc_collector, make_monitor, monkeypatch, wait):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", grpc_collector.endpoint)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    make_monitor(PROFILE).observe(FIRST)
    wait(lambda: len(grpc_collector.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")) >= 2, "two exports")


def test_calls_leave_although_no_row_was_ever_read(grpc_collector, make_monitor, monkeypatch, wait):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", grpc_collector.endpoint)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with make_monitor("m").inference():
        pass
    wait(lambda: grpc_collector.of(semconv.METRIC_ML_INFERENCE_DURATION), "the duration")


def test_the_console_is_an_exporter_too(run_script):
    done = run_script(
        "from otel_mlmon import Monitor; Monitor('m').observe({'x': 1.0})", OTEL_METRICS_EXPORTER="console"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert semconv.METRIC_ML_FEATURE_COUNT.name in done.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exports_are_not_traced_by_instrumented_clients(protocol, sink, make_monitor):
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    enabled = []
    monitor = make_monitor("m", exporter=sink)
    export = sink.export
    sink.export = lambda *args, **kwargs: (enabled.append(is_instrumentation_enabled()), export(*args, **kwargs))[1]
    monitor.observe({"x": 1.0})
    assert monitor.flush()
    assert enabled == [False]
    assert is_instrumentation_enabled()


def test_many_features_go_in_requests_that_a_receiver_takes(grpc_collector, make_monitor):
    columns = 6000
    axis = NumericAxis(np.linspace(-3, 3, 60), 5, 54)
    histogram = Histogram(axis, np.ones(axis.cells, dtype=np.int64), min=-3.0, max=3.0)
    variables = [Variable(f"x{i}", f"x{i}", "feature", "float", "identity", axis, (0,)) for i in range(columns)]
    references = tuple(Reference(variable, histogram) for variable in variables)
    profile = Profile("m", "1", references, axis.cells, "2025-01-01T00:00:00Z")
    exporter = GrpcExporter(grpc_collector.endpoint, insecure=True)
    monitor = make_monitor(profile, exporter=exporter, temporality="delta")
    monitor.observe(np.random.default_rng(1).normal(size=(400, columns)))
    assert monitor.flush()
    sizes = [request.ByteSize() for request in grpc_collector.metrics]
    assert len(sizes) > 1
    assert max(sizes) < 4 << 20
    for metric, value in ((semconv.METRIC_ML_FEATURE_VALUE, "count"), (semconv.METRIC_ML_FEATURE_COUNT, "as_int")):
        points = grpc_collector.of(metric)
        assert [getattr(p.point, value) for p in points] == [400] * columns
        assert {p.attributes[semconv.ML_FEATURE_NAME] for p in points} == {f"x{i}" for i in range(columns)}
    exporter.shutdown()


# The profile.


def large_profile():
    """One whose gzipped document takes more than two parts."""
    rng = np.random.default_rng(5)
    references = []
    for i in range(400):
        axis = NumericAxis(np.sort(rng.normal(size=700)), 10, 600)
        counts = rng.integers(0, 10**9, axis.cells)
        variable = Variable(f"x{i}", f"x{i}", "feature", "float", "identity", axis, (0,))
        references.append(Reference(variable, Histogram(axis, counts, sum=float(rng.normal()), min=-3.0, max=3.0)))
    return Profile("flights", "3", tuple(references), 1000, "2025-01-01T00:00:00Z")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_profile_goes_out_once_in_parts_that_make_the_document(protocol, collectors, make_monitor, monkeypatch):
    collector, profile = collectors[protocol], large_profile()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "svc")
    monitor = make_monitor(profile)
    assert monitor.flush()
    assert monitor.flush()
    records = collector.records
    parts = [record.body.bytes_value for record in records]
    assert len(parts) > 2
    assert max(map(len, parts)) <= PART_BYTES == 1 << 20
    assert Profile.from_bytes(gzip.decompress(b"".join(parts))) == profile
    attributes = [{pair.key: pair.value for pair in record.attributes} for record in records]
    assert [a[semconv.ML_REFERENCE_PART].int_value for a in attributes] == list(range(1, len(parts) + 1))
    assert {a[semconv.ML_REFERENCE_PARTS].int_value for a in attributes} == {len(parts)}
    assert {a[semconv.ML_REFERENCE_HASH].string_value for a in attributes} == {profile.hash}
    assert {a[semconv.ML_MODEL_NAME].string_value for a in attributes} == {"flights"}
    assert {a[semconv.ML_MODEL_VERSION].string_value for a in attributes} == {"3"}
    assert {record.event_name for record in records} == {semconv.EVENT_ML_REFERENCE_PROFILE}
    assert all(request.ByteSize() < 4 << 20 for request in collector.logs)
    senders = [resource.resource.attributes for request in collector.logs for resource in request.resource_logs]
    assert all(("service.name", "svc") in [(p.key, p.value.string_value) for p in sender] for sender in senders)


def test_the_profile_is_sent_again_until_it_is_acknowledged_and_then_hourly(grpc_collector, make_monitor, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", grpc_collector.endpoint)
    now = [1000.0]
    monkeypatch.setattr("otel_mlmon.export.time.monotonic", lambda: now[0])
    monitor = make_monitor(PROFILE)
    grpc_collector.refuse = True
    assert not monitor.flush()
    grpc_collector.refuse = False
    assert monitor.flush()
    assert len(grpc_collector.records) == 1
    now[0] += 0.9 * 3600 - 1
    assert monitor.flush()
    assert len(grpc_collector.records) == 1
    now[0] += 0.2 * 3600 + 2
    assert monitor.flush()
    assert len(grpc_collector.records) == 2


def test_the_profile_goes_past_the_log_pipeline_of_the_application(grpc_collector, run_script, tmp_path):
    PROFILE.save(tmp_path / "m.json")
    done = run_script(
        """
        import logging, sys
        from opentelemetry._logs import set_logger_provider
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
        from otel_mlmon import Monitor, Profile

        kept, provider = InMemoryLogRecordExporter(), LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
        set_logger_provider(provider)
        handled = []
        handler = logging.Handler()
        handler.emit = handled.append
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        monitor = Monitor(Profile.load(sys.path[0] + "/m.json"))
        assert monitor.flush()
        assert not kept.get_finished_logs(), kept.get_finished_logs()
        assert not handled, handled
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(grpc_collector.records) == 1


# A collector that is away.


def test_rows_are_taken_while_an_export_stands_still_and_all_arrive(sink, make_monitor, wait):
    sink.gate.clear()
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=0.01))
    row = np.ones((1, 1))
    monitor.observe(row)
    assert sink.entered.wait(30)
    rows = (WAITING_BLOCKS + 2) * BLOCK_ROWS  # more than may wait, and nobody else counts them
    for _ in range(rows):
        monitor.observe(row)
    with monitor.inference(row) as call:
        call.record([1.0])
    assert sink.requests == []  # all the while
    sink.gate.set()
    wait(lambda: sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 1, "the last call")
    assert sink.total(semconv.METRIC_ML_FEATURE_VALUE, name="x0") == rows + 2


def refuse_and_take(collector, monitor, times):
    """Record and send `times` times in vain, then once with success."""
    collector.refuse = True
    for number in range(times):
        monitor.observe({"x": float(number)})
        assert not monitor.flush()
    collector.refuse = False
    monitor.observe({"x": float(times)})
    assert monitor.flush()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_delta_that_was_refused_is_sent_again_unchanged_before_newer_ones(protocol, collectors, make_monitor):
    collector = collectors[protocol]
    exporter = make_exporter(protocol, collector)
    monitor = make_monitor("m", exporter=exporter, temporality="delta", settings=Settings(interval=FAR))
    refuse_and_take(collector, monitor, 3)
    refused = [request.SerializeToString(deterministic=True) for request in collector.refused]
    taken = [request.SerializeToString(deterministic=True) for request in collector.metrics]
    assert refused == [taken[0]] * 3  # the same bytes, and nothing else before it was taken
    assert len(taken) == 4
    points = [p.point for p in collector.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")]
    assert [(p.count, p.sum) for p in points] == [(1, 0.0), (1, 1.0), (1, 2.0), (1, 3.0)]
    for earlier, later in itertools.pairwise(points):
        assert earlier.time_unix_nano == later.start_time_unix_nano
    exporter.shutdown()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cumulative_total_is_superseded_and_holds_everything(protocol, collectors, make_monitor):
    collector = collectors[protocol]
    exporter = make_exporter(protocol, collector)
    monitor = make_monitor("m", exporter=exporter, temporality="cumulative", settings=Settings(interval=FAR))
    refuse_and_take(collector, monitor, 3)
    assert len(collector.metrics) == 1
    (point,) = [p.point for p in collector.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")]
    assert (point.count, point.sum) == (4, 6.0)
    exporter.shutdown()


@pytest.mark.parametrize("temporality", TEMPORALITIES)
def test_a_collector_that_stops_and_comes_back_has_every_count(temporality, grpc_collector, make_monitor, wait, caplog):
    exporter = GrpcExporter(grpc_collector.endpoint, insecure=True, timeout=0.5)
    monitor = make_monitor("m", exporter=exporter, temporality=temporality, settings=Settings(interval=FAR))
    monitor.observe({"x": 1.0})
    assert monitor.flush()
    grpc_collector.stop()
    monitor.observe({"x": 2.0})
    assert not monitor.flush()
    monitor.observe({"x": 4.0})
    grpc_collector.start()
    wait(monitor.flush, "the collector to be found again")
    points = [p.point for p in grpc_collector.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")]
    if temporality == "delta":
        assert [point.sum for point in points] == [1.0, 2.0, 4.0]
    else:
        assert (points[-1].sum, points[-1].count) == (7.0, 3)
    exporter.shutdown()


def request_sums(requests):
    """Sum of x in each request."""
    return [
        point.sum
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == semconv.METRIC_ML_FEATURE_VALUE.name
        for point in metric.data.data_points
    ]


def points_in(request):
    return sum(
        len(metric.data.data_points) for scope in request.resource_metrics[0].scope_metrics for metric in scope.metrics
    )


def ways(kind, sink, monitor):
    """Send by the monitor itself, or as the application's reader does."""
    if kind == "monitor":
        return monitor.flush
    exporter = MonitoredExporter(sink, monitor, temporality=AggregationTemporality.DELTA)
    return lambda: exporter.export(MetricsData([])).name == "SUCCESS"


@pytest.mark.parametrize("kind", ["monitor", "reader"])
def test_of_too_many_deltas_that_wait_the_oldest_are_given_up_and_counted(kind, sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=FAR))
    send = ways(kind, sink, monitor)
    sink.failing = True
    more = 5
    for number in range(PENDING_REQUESTS + more):
        monitor.observe({"x": float(number)})
        assert not send()
    sink.failing = False
    assert send()  # of which the first goes to make room for what has been counted since
    sums = request_sums(sink.requests)
    assert sums == [float(number) for number in range(len(sums) and int(sums[0]), PENDING_REQUESTS + more)]
    assert len(sums) in (PENDING_REQUESTS - 1, PENDING_REQUESTS)
    tried = {id(request): request for request in sink.failed if request not in sink.requests}
    given_up = [request for request in tried.values() if request_sums([request])]
    assert len(given_up) == PENDING_REQUESTS + more - len(sums)
    assert send()
    assert sink.total(semconv.METRIC_MLMON_RECORDER_UNSENT) == sum(points_in(request) for request in given_up)


@pytest.mark.parametrize("kind", ["monitor", "reader"])
def test_intervals_without_a_row_take_nobodys_place_while_the_collector_is_away(kind, sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=FAR))
    send = ways(kind, sink, monitor)
    sink.failing = True
    monitor.observe({"x": 1.0})
    for _ in range(PENDING_REQUESTS + 5):
        assert not send()
    sink.failing = False
    assert send()
    assert request_sums(sink.requests) == [1.0]
    assert sink.of(semconv.METRIC_MLMON_RECORDER_UNSENT) == []


def test_an_exporter_that_raises_is_logged_and_asked_again(sink, make_monitor, wait, caplog):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=0.01))
    export, raised = sink.export, threading.Event()

    def broken(*args, **kwargs):
        if raised.is_set():
            return export(*args, **kwargs)
        raised.set()
        raise RuntimeError("no route")

    sink.export = broken
    with caplog.at_level(logging.ERROR, "otel_mlmon"):
        monitor.observe({"x": 1.0})
        wait(lambda: sink.total(semconv.METRIC_ML_FEATURE_VALUE, name="x") == 1, "the row to arrive")
    assert "no route" in caplog.text


def test_a_flush_with_an_exporter_that_raises_says_no_and_counts_the_error(sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=FAR))
    export = sink.export
    sink.export = lambda *args, **kwargs: 1 / 0
    monitor.observe({"x": 1.0})
    assert monitor.flush() is False
    sink.export = export
    assert monitor.flush() is True
    assert sink.total(semconv.METRIC_ML_FEATURE_VALUE, name="x") == 1
    assert sink.total(semconv.METRIC_MLMON_RECORDER_ERRORS, reason="ZeroDivisionError") == 1
