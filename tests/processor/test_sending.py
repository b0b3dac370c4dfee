"""What is sent on: by the client over real gRPC and HTTP, as exports, and from the journal."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import random
import shutil
import sqlite3
import ssl
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otel_mlmon_processor.alarm_store import AlarmStore, Saved
from otel_mlmon_processor.config import EndpointSection
from otel_mlmon_processor.core.alarm import Alarm, AlarmEvent
from otel_mlmon_processor.exporters.events import BATCH, EVENTS, EventRecord
from otel_mlmon_processor.exporters.families import Family, Sample
from otel_mlmon_processor.exporters.otlp import OtlpExporter
from otel_mlmon_processor.forward import Forwarder, strip
from otel_mlmon_processor.ingest import Ingest, IngestSettings
from otel_mlmon_processor.journal import pack_body
from otel_mlmon_processor.otlp_client import UnsentError, connect
from otel_mlmon_processor.sending import back_off
from otel_mlmon_processor.services import SERVICES
from otel_mlmon_processor.windows import ModelKey

from otel_mlmon import Monitor, Profile, semconv

HOUR = 3_600 * 10**9


class Far:
    """An endpoint: what arrived, and what is answered next (a refusal, or the bytes of an answer)."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, dict, bytes]] = []
        self.answers: deque = deque()
        self.always: object = b""

    def answer(self, signal: str, headers: dict, body: bytes):
        said = self.answers.popleft() if self.answers else self.always
        if isinstance(said, bytes):
            self.arrived.append((signal, headers, body))
        return said


def serve_grpc(far: Far, credentials=None, port: int = 0):
    def handle(signal: str):
        def export(body: bytes, context):
            said = far.answer(signal, dict(context.invocation_metadata()), body)
            if isinstance(said, bytes):
                return said
            code, after = said
            if after is not None:
                status = Status(code=code.value[0])
                status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=after)))
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            return context.abort(code, "no")

        return {"Export": grpc.unary_unary_rpc_method_handler(export)}

    server = grpc.server(ThreadPoolExecutor(4))
    for service in SERVICES:
        handler = grpc.method_handlers_generic_handler(service.name, handle(service.signal))
        server.add_generic_rpc_handlers((handler,))
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return port, lambda: server.stop(0).wait()


def serve_http(far: Far, context=None):
    signals = {service.path: service.signal for service in SERVICES}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            said = far.answer(signals[self.path.removeprefix("/base")], headers, body)
            code, after = (200, None) if isinstance(said, bytes) else said
            self.send_response(code)
            if after is not None:
                self.send_header("retry-after", str(after))
            answer = said if isinstance(said, bytes) else Status(message="no").SerializeToString()
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return server.server_address[1], stop


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture
def far(protocol):
    far = Far()
    port, stop = serve_grpc(far) if protocol == "grpc" else serve_http(far)
    far.endpoint = f"http://127.0.0.1:{port}{'/base' if protocol == 'http' else ''}"
    yield far
    stop()


@pytest.fixture
def client(protocol):
    """Clients of an endpoint; closed at the end."""
    opened = []

    def make(endpoint: str, **options):
        opened.append(connect(EndpointSection(endpoint=endpoint, protocol=protocol, **options)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


# ---------------------------------------------------------------- the client


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_bytes_arrive_as_they_are(far, client, protocol, compression):
    sender = client(far.endpoint, compression=compression, headers={"Authorization": "Bearer t", "x-scope": "a"})
    bodies = {service.signal: random.Random(0).randbytes(1_000) + bytes(9_000) for service in SERVICES}
    for signal, body in bodies.items():
        assert sender.send(signal, body) == (0, "")
    for (signal, headers, body), (sent, expected) in zip(far.arrived, bodies.items(), strict=True):
        packed = protocol == "http" and compression == "gzip"
        assert (signal, gzip.decompress(body) if packed else body) == (sent, expected)
        assert (headers["authorization"], headers["x-scope"]) == ("Bearer t", "a")
        assert headers["user-agent"].startswith("otel-mlmon/")
        if protocol == "http":
            assert headers["content-type"] == "application/x-protobuf"
            assert headers.get("content-encoding") == ("gzip" if packed else None)


def test_no_environment_variable_takes_part(far, client, monkeypatch):
    for name, value in (
        ("ENDPOINT", "http://127.0.0.1:1"), ("HEADERS", "x-leak=1"), ("CERTIFICATE", "/nowhere"), ("TIMEOUT", "0"),
        ("COMPRESSION", "odd"), ("INSECURE", "false"), ("CLIENT_KEY", "/nowhere"), ("PROTOCOL", "odd"),
    ):  # fmt: skip
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_METRICS_{name}", value)
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client(far.endpoint).send("metrics", b"")
    ((_, headers, _),) = far.arrived
    assert not [name for name in headers if "leak" in name]


GRPC_FAILURES = [
    ((grpc.StatusCode.UNAVAILABLE, None), "unavailable", True, None),
    ((grpc.StatusCode.UNAVAILABLE, 3), "unavailable", True, 3.0),
    ((grpc.StatusCode.DEADLINE_EXCEEDED, None), "deadline_exceeded", True, None),
    ((grpc.StatusCode.RESOURCE_EXHAUSTED, None), "resource_exhausted", False, None),  # the specification's own words
    ((grpc.StatusCode.RESOURCE_EXHAUSTED, 2), "resource_exhausted", True, 2.0),
    ((grpc.StatusCode.INVALID_ARGUMENT, None), "invalid_argument", False, None),
    ((grpc.StatusCode.UNAUTHENTICATED, None), "unauthenticated", True, None),
    ((grpc.StatusCode.UNIMPLEMENTED, None), "unimplemented", False, None),
]
HTTP_FAILURES = [
    ((429, None), "http_429", True, None),
    ((503, 4), "http_503", True, 4.0),
    ((502, None), "http_502", True, None),
    ((504, "Wed, 21 Oct 2026 07:28:00 GMT"), "http_504", True, None),
    ((400, None), "http_400", False, None),
    ((401, None), "http_401", True, None),
    ((404, None), "http_404", False, None),
    ((307, None), "http_307", False, None),  # never followed: headers may hold a token
    ((500, None), "http_500", False, None),
]


@pytest.mark.parametrize(
    ("protocol", "said", "told"),
    [("grpc", said, told) for said, *told in GRPC_FAILURES] + [("http", said, told) for said, *told in HTTP_FAILURES],
    indirect=["protocol"],
)
def test_which_failures_may_pass(far, client, said, told):
    far.answers.append(said)
    sender = client(far.endpoint)
    with pytest.raises(UnsentError, match="no") as caught:
        sender.send("metrics", b"")
    assert [caught.value.reason, caught.value.passing, caught.value.after] == told
    assert sender.send("metrics", b"") == (0, "")


def test_what_an_endpoint_does_not_take_is_told(far, client):
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points, answer.partial_success.error_message = 7, "too old"
    far.answers.append(answer.SerializeToString())
    assert client(far.endpoint).send("metrics", b"") == (7, "too old")
    far.answers.append(b"\xff\xff no answer of OTLP")
    assert client(far.endpoint).send("metrics", b"") == (0, "")


def test_nobody_there_may_pass(client, real):
    with pytest.raises(UnsentError) as caught:
        client(f"http://127.0.0.1:{real.free_port()}").send("metrics", b"")
    assert caught.value.passing
    assert caught.value.reason in ("unavailable", "unreachable")


def test_an_endpoint_that_does_not_answer_holds_nothing_for_longer_than_the_timeout(far, client):
    held = threading.Event()
    far.answer = lambda *_: held.wait(30) and b""
    began = time.monotonic()
    try:
        with pytest.raises(UnsentError) as caught:
            client(far.endpoint, timeout=0.2).send("metrics", b"")
    finally:
        held.set()
    assert caught.value.passing
    assert caught.value.reason in ("deadline_exceeded", "timeout")
    assert time.monotonic() - began < 10


@pytest.fixture
def secured(protocol, tmp_path):
    """An endpoint with TLS that asks for a certificate, and the files of a client."""
    authority, stranger = trustme.CA(), trustme.CA()
    server, mine = authority.issue_cert("127.0.0.1"), authority.issue_cert("processor")
    paths = {name: tmp_path / name for name in ("ca", "other", "certificate", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    stranger.cert_pem.write_to_path(paths["other"])
    mine.cert_chain_pems[0].write_to_path(paths["certificate"])
    mine.private_key_pem.write_to_path(paths["key"])
    far = Far()
    if protocol == "grpc":
        pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
        port, stop = serve_grpc(far, grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True))
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        port, stop = serve_http(far, context)
    far.endpoint, far.paths = f"https://127.0.0.1:{port}", paths
    yield far
    stop()


@pytest.fixture
def stranger(secured):
    """Files of an authority that the endpoint knows nothing of."""
    authority = trustme.CA()
    issued = authority.issue_cert("processor")
    return {
        "ca": authority.cert_pem.bytes(),
        "certificate": issued.cert_chain_pems[0].bytes(),
        "key": issued.private_key_pem.bytes(),
    }


def test_tls_in_both_directions(secured, client):
    paths = secured.paths
    mine = {name: paths[name] for name in ("certificate", "key")}
    assert client(secured.endpoint, tls={"ca": paths["ca"], **mine}).send("metrics", b"") == (0, "")
    for tls in ({"ca": paths["other"], **mine}, mine, {"ca": paths["ca"]}):
        with pytest.raises(UnsentError) as caught:
            client(secured.endpoint, tls=tls, timeout=2).send("metrics", b"")
        assert caught.value.passing  # certificates are renewed
    assert len(secured.arrived) == 1


@pytest.mark.parametrize("names", [("ca",), ("certificate", "key")], ids=["theirs", "ours"])
def test_certificates_that_are_replaced_count_for_the_next_request(secured, stranger, client, names):
    """In turn with those of a stranger, of whom the endpoint or we want to know nothing."""
    paths, right = secured.paths, {name: secured.paths[name].read_bytes() for name in names}
    sender = client(secured.endpoint, tls={name: paths[name] for name in ("ca", "certificate", "key")}, timeout=2)
    for contents, works in ((right, True), (stranger, False), (right, True), (stranger, False)):
        for name in names:
            paths[name].write_bytes(contents[name])
        if works:
            assert sender.send("metrics", b"") == (0, "")
        else:
            with pytest.raises(UnsentError) as caught:
                sender.send("metrics", b"")
            assert caught.value.passing
    assert len(secured.arrived) == 2


def test_a_certificate_without_its_key_leaves_what_was_there_and_is_logged_once(secured, stranger, client, caplog):
    paths = secured.paths
    sender = client(secured.endpoint, tls={name: paths[name] for name in ("ca", "certificate", "key")}, timeout=2)
    paths["certificate"].write_bytes(stranger["certificate"])
    for _ in range(3):
        assert sender.send("metrics", b"") == (0, "")
    paths["ca"].unlink()
    assert sender.send("metrics", b"") == (0, "")
    first, second = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert f"key {paths['key']} does not fit certificate {paths['certificate']}" in first
    assert f"ca {paths['ca']} cannot be read: No such file or directory" in second


def test_a_token_is_read_from_its_file_and_again_when_that_has_changed(secured, client, caplog):
    caplog.set_level(logging.INFO)
    paths, file = secured.paths, secured.paths["ca"].with_name("token")
    file.write_text("# of the backend\nfirst~+/==\n")
    tls = {name: paths[name] for name in ("ca", "certificate", "key")}
    sender = client(secured.endpoint, tls=tls, token=file, headers={"x-scope": "a"})
    sender.send("metrics", b"")
    file.write_text("second\nfirst~+/==\n")  # the new one before the old one
    sender.send("metrics", b"")
    for text in ("", "# none yet\n"):  # what was there before stays
        file.write_text(text)
        sender.send("metrics", b"")
        sender.send("metrics", b"")
    file.write_text("third\n")
    sender.send("metrics", b"")
    sent = [(headers["authorization"], headers["x-scope"]) for _, headers, _ in secured.arrived]
    assert sent == [(f"Bearer {token}", "a") for token in ("first~+/==", *["second"] * 5, "third")]
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 2
    assert all(f"{file} holds no token" in said for said in warned)
    assert not [token for token in ("first", "second", "third") if token in caplog.text]


def test_attempts_are_spread_and_bounded():
    waits = [[back_off(attempt, random.Random(seed)) for seed in range(50)] for attempt in (1, 2, 3, 6, 99)]
    for held, middle in zip(waits, (1, 2, 4, 30, 30), strict=True):
        assert 0.8 * middle <= min(held) < max(held) <= 1.2 * middle


# ---------------------------------------------------------------- exports


@pytest.fixture
def export(far, client):
    """Runs exporters of one gauge to the endpoint."""
    started = []

    def make(interval: float, clock=time.time):
        family = Family(semconv.METRIC_MLMON_PROCESSOR_MODELS, [Sample(None, {}, 3)])
        exporter = OtlpExporter(
            client(far.endpoint), far.endpoint, lambda now: [family], instance="i", interval=interval, clock=clock,
            rng=random.Random(0),
        )  # fmt: skip
        started.append(exporter)
        exporter.start()
        return exporter

    yield make
    for one in started:
        one.stop(10)


def times(far) -> list[int]:
    bodies = [
        gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body for _, headers, body in far.arrived
    ]
    found = [ExportMetricsServiceRequest.FromString(body) for body in bodies]
    return [r.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].time_unix_nano for r in found]


def test_exports_go_out_at_once_then_every_interval_and_once_more_at_the_end(far, export, wait):
    exporter = export(0.05)
    wait(lambda: len(far.arrived) > 3, "some exports")
    seen = times(far)
    assert min(later - earlier for earlier, later in itertools.pairwise(seen)) >= 0.049e9
    exporter.stop(10)
    assert exporter.counters().acknowledged == {"metrics": len(far.arrived)}
    rare = export(3_600)
    wait(lambda: rare.counters().acknowledged, "the first")
    before = len(far.arrived)
    rare.stop(10)
    assert len(far.arrived) == before + 1


def test_an_export_that_fails_comes_again_before_its_interval_and_says_how_far_behind_it_is(
    far, export, wait, protocol
):
    now = [1_000.0]
    refusal = (grpc.StatusCode.UNAVAILABLE, None) if protocol == "grpc" else (503, None)
    far.answers.extend([refusal, refusal])
    exporter = export(3_600, lambda: now[0])
    wait(lambda: sum(exporter.counters().failed.values()) == 1, "a failure")
    assert (exporter.counters().acknowledged, exporter.counters().oldest) == ({}, 1_000)
    now[0] = 1_030.0
    wait(lambda: exporter.counters().acknowledged == {"metrics": 1}, "an export")
    reason = "unavailable" if protocol == "grpc" else "http_503"
    assert exporter.counters().failed == {("metrics", reason): 2}
    assert exporter.counters().oldest == 1_030
    assert times(far) == [1_030 * 10**9]  # the newest, not what failed


def test_an_endpoint_that_is_away_holds_back_no_end(far, export, wait, protocol):
    far.always = (grpc.StatusCode.UNAVAILABLE, 3_600) if protocol == "grpc" else (503, 3_600)
    exporter = export(3_600)
    wait(lambda: exporter.counters().failed, "a failure")
    began = time.monotonic()
    exporter.stop(10)
    assert time.monotonic() - began < 5
    assert exporter.counters().acknowledged == {}


# ---------------------------------------------------------------- events of alarms

KEY = ModelKey("", "svc", "", "m", "1")
DAY = 1_735_689_600.0  # 1 January 2025, UTC


def make_event(second: int, text: str = "x: mean up 1 sd") -> AlarmEvent:
    return AlarmEvent("raise", second, Alarm(second, second, text, ()))


def records(far) -> list:
    """Of the events that arrived, in their order; the endpoint's answers go on meanwhile."""
    requests = [ExportLogsServiceRequest.FromString(body) for signal, _, body in list(far.arrived) if signal == "logs"]
    resources = [resource for request in requests for resource in request.resource_logs]
    return [record for resource in resources for scope in resource.scope_logs for record in scope.log_records]


def seconds(far) -> list[int]:
    return [record.time_unix_nano // 10**9 for record in records(far)]


@pytest.mark.parametrize("protocol", ["grpc"])
def test_events_wait_for_an_endpoint_that_is_away_and_of_too_many_the_newest_are_kept(far, export, wait):
    far.always = (grpc.StatusCode.UNAVAILABLE, None)
    exporter = export(3_600)
    wait(lambda: exporter.counters().failed, "a failure")
    for second in range(EVENTS + 3):
        exporter.events.tell(KEY, make_event(second))
    assert exporter.counters().dropped == {("logs", "full"): 3}
    far.always = b""
    wait(lambda: exporter.counters().acknowledged.get("metrics"), "the events, and what follows")
    assert exporter.counters().acknowledged["logs"] == EVENTS / BATCH
    assert seconds(far) == list(range(3, EVENTS + 3))
    assert exporter.events.unsent() == []


@pytest.mark.parametrize("protocol", ["grpc"])
@pytest.mark.parametrize(
    ("said", "arrived"),
    [(b"", [*range(5), *range(8, EVENTS + 8)]), ((grpc.StatusCode.UNAVAILABLE, None), [*range(8, EVENTS + 8)])],
    ids=["taken", "refused"],
)
def test_events_that_are_told_while_others_are_sent_arrive_or_are_counted(far, export, wait, said, arrived):
    """Five are under way when more come than may wait."""
    sending, go_on, answer = threading.Event(), threading.Event(), far.answer

    def hold(name: str, headers: dict, body: bytes):
        if name == "logs" and not sending.is_set():
            sending.set()
            go_on.wait(30)
            if not isinstance(said, bytes):
                return said
        return answer(name, headers, body)

    far.answer = hold
    exporter = export(0.05)
    exporter.events.restore([EventRecord(KEY, "raise", second, "x") for second in range(5)])
    assert sending.wait(30)
    for second in range(5, EVENTS + 8):
        exporter.events.tell(KEY, make_event(second))
    assert [record.time for record in exporter.events.unsent()[:6]] == [0, 1, 2, 3, 4, 8]
    go_on.set()
    wait(lambda: not exporter.events.unsent(), "the others")
    assert seconds(far) == arrived
    assert exporter.counters().dropped == {("logs", "full"): EVENTS + 8 - len(arrived)}


@pytest.mark.parametrize("protocol", ["grpc"])
def test_an_event_that_cannot_be_encoded_holds_back_nothing_and_is_counted(far, export, wait):
    exporter = export(0.05)
    exporter.events.tell(KEY, make_event(1, "\ud800"))  # no text that UTF-8 could hold
    wait(lambda: exporter.counters().dropped, "the end of it")
    exporter.events.tell(KEY, make_event(2))
    wait(lambda: seconds(far) == [2], "the next one")
    before = exporter.counters().acknowledged["metrics"]
    wait(lambda: exporter.counters().acknowledged["metrics"] > before, "metrics")
    assert exporter.counters().dropped == {("logs", "internal"): 1}


@pytest.fixture
def run_exporting(real, tmp_path):
    """Runs processors, one after the other, over one directory that export to an endpoint."""
    with contextlib.ExitStack() as ending:

        def run(*endpoints: str):
            sections = [f"{{endpoint: {endpoint}, interval: 50ms, compression: none}}" for endpoint in endpoints]
            settings = f"window: {{hold: 50ms}}\nevaluate: {{interval: 50ms}}\nexport: [{', '.join(sections)}]\n"
            server = real.Processor(tmp_path, settings=settings)
            ending.callback(server.stop)
            return server

        yield run


@pytest.fixture
def raise_alarm(monkeypatch):
    """Sends a processor the rows of an hour that are as in the profile, and of some minutes that are not."""
    rng = np.random.default_rng(75)

    def draw(minutes: int, start: float, mean: float = 0.0) -> dict[str, np.ndarray]:
        time = start + 60 * np.repeat(np.arange(minutes), 100) + 30.0
        return {"x": rng.normal(mean, 1, time.size), "time": time}

    def send(server) -> None:
        profile = Profile.build(draw(1_000, DAY - 60_000), model="m", version="1", time_column="time")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.otlp}")
        with contextlib.closing(Monitor(profile)) as monitor:
            for minute in range(70):
                rows = draw(1, DAY + 60 * minute, 0.0 if minute < 60 else 1.0)
                monitor.observe({"x": rows["x"]}, time=rows["time"][0])
            assert monitor.flush()

    return send


@pytest.mark.server
@pytest.mark.parametrize("ways", [*itertools.product(("refuses", "away"), ("stopped", "killed"))], ids="-".join)
def test_an_event_that_was_not_taken_is_sent_after_a_restart(real, run_exporting, raise_alarm, wait, ways):
    how, end = ways
    far, port = Far(), real.free_port()
    far.always = (grpc.StatusCode.UNAVAILABLE, None)
    with contextlib.ExitStack() as ending:
        if how == "refuses":
            ending.callback(serve_grpc(far, port=port)[1])
        first = run_exporting(f'"http://127.0.0.1:{port}"')
        raise_alarm(first)
        wait(lambda: ": alarm: x: mean up" in first.log.read_text(), first.log.read_text)
        if end == "stopped":
            first.stop()
            assert first.process.returncode == 0
        else:  # perhaps before the state is on the disk: then it is raised again
            first.process.kill()
            first.process.wait(20)
    said = first.log.read_text().partition(": alarm: ")[2].partition("\n")[0]
    assert far.arrived == []

    far.always = b""
    _, stop = serve_grpc(far, port=port)
    try:
        second = run_exporting(f'"http://127.0.0.1:{port}"')
        wait(lambda: records(far), second.log.read_text)
        second.stop()
        arrived = [record.body.string_value for record in records(far)]
        assert arrived.count(f"alarm: {said}") >= 1
        assert end == "killed" or arrived == [f"alarm: {said}"]
        metrics = len(far.arrived) - len(arrived)
        third = run_exporting(f'"http://127.0.0.1:{port}"')
        wait(lambda: len(far.arrived) > metrics + len(arrived) + 2, "more exports")
        third.stop()
        assert [record.body.string_value for record in records(far)] == arrived  # once it was taken, not again
    finally:
        stop()


@pytest.mark.server
def test_events_of_an_endpoint_that_is_removed_are_dropped_and_counted(run_exporting, tmp_path, wait):
    """Those of two endpoints with one name go to each its own."""
    far = Far()
    port, stop = serve_grpc(far)
    here, gone = f"http://127.0.0.1:{port}", "http://127.0.0.1:1"
    each = [[EventRecord(KEY, "raise", 60.0 * number, f"event {number}")] for number in range(5)]
    (tmp_path / "data").mkdir()
    store = AlarmStore(tmp_path / "data")
    store.save(Saved({}, [(here, each[0]), (gone, each[1] + each[2]), (here, each[3]), (here, each[4])]))
    try:
        server = run_exporting(*(f'"{here}", headers: {{x-scope: {scope}}}' for scope in "ab"))
        wait(lambda: len(records(far)) == 2, server.log.read_text)
        dropped = server.samples("mlmon_processor_send_dropped_total")
        wait(lambda: not store.read().unsent, "that it is saved")
        server.stop()
    finally:
        stop()
    logs = [(headers["x-scope"], body) for signal, headers, body in far.arrived if signal == "logs"]
    said = {scope: b"event 0" in body for scope, body in logs}
    assert said == {"a": True, "b": False}
    assert sorted(record.body.string_value for record in records(far)) == ["event 0", "event 3"]
    labels = {"mlmon_purpose": "export", "mlmon_endpoint": "", "mlmon_signal": "logs", "mlmon_reason": "no_export"}
    assert dropped == [(labels, 3.0)]
    assert f"2 events of alarms waited for {gone}, which is not in `export` any more" in server.log.read_text()


# ---------------------------------------------------------------- forwarding


def log_request(text: str) -> bytes:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = text
    return request.SerializeToString()


def texts(far) -> list[str]:
    bodies = [
        gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body for _, headers, body in far.arrived
    ]
    requests = [ExportLogsServiceRequest.FromString(body) for body in bodies]
    return [request.resource_logs[0].scope_logs[0].log_records[0].body.string_value for request in requests]


def mixed(otlp) -> bytes:
    """A request with a metric of ours in two scopes, and others in two of three scopes and resources."""
    request = ExportMetricsServiceRequest.FromString(otlp.Sender().request(otlp.Sender().histogram([1, 2, 3, 4], 0, 1)))
    for names in (("http.server.duration", "ml.training.loss"), ()):
        resource = request.resource_metrics.add()
        for name in names:
            resource.resource.attributes.add(key="service.name").value.string_value = "other"
            scope = resource.scope_metrics.add()
            scope.metrics.add(name=name).gauge.data_points.add(as_double=1.0)
            scope.metrics.add(name="ml.feature.drift").gauge.data_points.add(as_double=1.0)
    last = request.resource_metrics[0].scope_metrics.add()
    last.metrics.add(name="http.client.duration").gauge.data_points.add(as_double=1.0)
    return request.SerializeToString()


def test_ours_is_taken_out_and_nothing_else(otlp):
    rest = ExportMetricsServiceRequest.FromString(strip("metrics", mixed(otlp)))
    held = [[[m.name for m in scope.metrics] for scope in r.scope_metrics] for r in rest.resource_metrics]
    assert held == [[["http.client.duration"]], [["http.server.duration"], ["ml.training.loss"]]]
    whole = ExportMetricsServiceRequest.FromString(mixed(otlp))
    assert rest.resource_metrics[1].resource == whole.resource_metrics[1].resource
    assert rest.resource_metrics[1].scope_metrics[0].metrics[0] == whole.resource_metrics[1].scope_metrics[0].metrics[0]
    assert strip("metrics", otlp.Sender().request(otlp.Sender().count(1, 0, 1))) == b""
    assert strip("logs", otlp.Sender().profile("h", {1: b"x"}, 1)) == b""
    for signal, body in (("logs", log_request("a") + b"\xa2\x1f\x01x"), ("traces", b"\xa2\x1f\x01x"), ("metrics", b"")):
        assert strip(signal, body) is body  # fields that we do not know stay too


@pytest.fixture
def rig(far, client, tmp_path, wait):
    """Ingest over a folder, and forwarders from it to the endpoint."""

    class Rig:
        def __init__(self):
            self.now = [1_735_689_600 * 10**9]
            self.folder = tmp_path / "data"
            self.ingest = self.forwarder = None

        def open(self, folder=None, *, forwarding=True, age=1e6):
            settings = IngestSettings(checkpoint_age=age)
            self.ingest = Ingest(
                folder or self.folder, settings=settings, clock=lambda: self.now[0], forwarding=forwarding
            )
            return self.ingest

        def forward(self, to=None, most_bytes=1 << 20, most_age=3_600.0):
            endpoint = (to or far).endpoint
            self.forwarder = Forwarder(
                self.ingest, client(endpoint), endpoint, most_bytes=most_bytes, most_age=most_age,
                clock=lambda: self.now[0], rng=random.Random(0),
            )  # fmt: skip
            self.forwarder.start()
            return self.forwarder

        def close(self):
            if self.forwarder is not None:
                self.forwarder.stop(10)
            if self.ingest is not None:
                self.ingest.close()
            self.forwarder = self.ingest = None

    rig = Rig()
    yield rig
    rig.close()


def rows(ingest) -> int:
    with sqlite3.connect(ingest.path) as database:
        (count,) = database.execute("SELECT count(*) FROM journal").fetchone()
    database.close()
    return count


def test_what_is_acknowledged_waits_and_goes_in_order(far, rig, wait):
    ingest = rig.open()
    for i in range(5):
        ingest.submit("logs", log_request(str(i)))
    assert ingest.outbox_size()[0] == rows(ingest) == 5
    ingest.checkpoint()
    assert rows(ingest) == 5  # folded, and not forwarded yet
    forwarder = rig.forward()
    wait(lambda: rows(ingest) == 0, "them to go")
    ingest.submit("logs", log_request("5"))
    wait(lambda: len(far.arrived) == 6, "the last")
    assert texts(far) == list("012345")
    wait(lambda: forwarder.counters().acknowledged == {"logs": 6}, "the last answer")
    assert forwarder.counters().dropped == {}
    wait(lambda: forwarder.counters().pending == 0, "nothing to wait")
    assert ingest.counters().ignored == {}  # nothing was dropped


def test_what_is_forwarded_and_not_folded_yet_stays_and_goes_no_second_time(far, rig, wait, otlp, tmp_path):
    ingest = rig.open()
    rig.forward()
    ingest.submit("metrics", mixed(otlp))
    wait(lambda: len(far.arrived) == 1, "the rest of it")
    wait(lambda: ingest.outbox_size() == (0, 0), "it to be settled")
    rig.forwarder.stop(10)
    wait(lambda: rows_that_wait(ingest) == 0, "that to be written")
    assert rows(ingest) == 1
    crashed = tmp_path / "crashed"
    shutil.copytree(ingest.path.parent, crashed)
    rig.close()
    again = rig.open(crashed)
    rig.forward()
    again.submit("logs", log_request("next"))
    wait(lambda: len(far.arrived) == 2, "the next")
    assert far.arrived[1][0] == "logs"
    assert [view.totals[otlp.X].seen for view in again.views()] == [10]


def rows_that_wait(ingest) -> int:
    with sqlite3.connect(ingest.path) as database:
        (count,) = database.execute("SELECT count(*) FROM journal WHERE waits").fetchone()
    database.close()
    return count


def test_after_a_crash_before_it_was_sent_it_is_sent_and_counted_once(far, rig, wait, otlp, tmp_path):
    ingest = rig.open()
    ingest.submit("metrics", mixed(otlp))
    ingest.submit("traces", ExportTraceServiceRequest().SerializeToString())  # holds nothing
    crashed = tmp_path / "crashed"
    shutil.copytree(ingest.path.parent, crashed)
    rig.close()
    again = rig.open(crashed)
    assert again.outbox_size()[0] == 1
    rig.forward()
    wait(lambda: len(far.arrived) == 1, "it")
    again.submit("metrics", mixed(otlp))
    assert [view.totals[otlp.X].seen for view in again.views()] == [10]


def test_the_oldest_are_given_up_beyond_the_size_and_the_age(far, rig, wait, protocol):
    far.always = (grpc.StatusCode.UNAVAILABLE, 0) if protocol == "grpc" else (503, 0)
    ingest = rig.open()
    bodies = [log_request(f"{i}" + "x" * 1_000) for i in range(10)]
    for body in bodies:
        ingest.submit("logs", body)
    forwarder = rig.forward(most_bytes=sum(len(pack_body(body).body) for body in bodies[-4:]))
    wait(lambda: forwarder.counters().dropped.get(("logs", "size")) == 6, forwarder.counters)
    wait(lambda: sum(forwarder.counters().failed.values()) > 1, "attempts")
    assert forwarder.counters().dropped == {("logs", "size"): 6}  # and no more
    assert (forwarder.counters().pending, forwarder.counters().oldest) == (4, rig.now[0] / 1e9)
    rig.now[0] += 2 * HOUR
    ingest.submit("logs", log_request("new"))
    wait(lambda: forwarder.counters().dropped.get(("logs", "age")) == 4, forwarder.counters)
    far.always = b""
    wait(lambda: far.arrived, "the one that is left")
    assert texts(far) == ["new"]


@pytest.fixture
def absent(real, monkeypatch):
    """An endpoint over gRPC at which there is nobody until `arrive` is called. It is tried again at once."""
    monkeypatch.setattr("otel_mlmon_processor.forward.LONGEST", 0.05)
    far, stops, port = Far(), [], real.free_port()
    far.endpoint = f"http://127.0.0.1:{port}"
    far.arrive = lambda: stops.append(serve_grpc(far, port=port)[1])
    yield far
    for stop in stops:
        stop()


@pytest.fixture
def day(rig, otlp, tmp_path):
    """A day in which nobody takes anything: a request of each signal in turn every six minutes, checkpoints, a crash at
    noon. What is to be passed on, by signal, and how many bytes each takes in the journal.
    """
    sender, sent, sizes = otlp.Sender(), [], []
    ingest = rig.open()
    for i in range(240):
        signal = ("logs", "metrics", "traces")[i % 3]
        body = {"logs": log_request, "metrics": metric_request, "traces": span_request}[signal](f"{i}" + "x" * 100)
        sent.append((signal, body))
        if signal == "metrics":
            body = sender.request(sender.count(1, i, i + 1)) + body  # of which one part is ours
        ingest.submit(signal, body)
        sizes.append(len(pack_body(body).body))
        rig.now[0] += HOUR // 10
        if i % 50 == 49:
            ingest.checkpoint()
        if i == 120:
            shutil.copytree(ingest.path.parent, tmp_path / "crashed")
            rig.close()
            ingest = rig.open(tmp_path / "crashed")
    assert ingest.outbox_size() == (240, sum(sizes))
    return sent, sizes


@pytest.mark.parametrize("protocol", ["grpc"])
@pytest.mark.parametrize("bound", ["none", "size", "age"])
def test_a_backend_that_was_away_for_a_day(absent, rig, day, wait, bound):
    """Within the bounds all of it arrives, once and in order; beyond them the newest do, and the others are counted."""
    (sent, sizes), lost = day, 0 if bound == "none" else 180
    bounds = {"most_bytes": sum(sizes[lost:] if bound == "size" else sizes)}
    bounds["most_age"] = 3_600.0 * (6 if bound == "age" else 24)  # of which the oldest that is left is no older
    forwarder = rig.forward(absent, **bounds)
    wait(lambda: sum(forwarder.counters().failed.values()) > 2, "attempts")
    assert rig.ingest.outbox_size() == (240 - lost, sum(sizes[lost:]))
    absent.arrive()
    wait(lambda: forwarder.counters().pending == 0, forwarder.counters)
    assert [(signal, body) for signal, _, body in absent.arrived] == sent[lost:]
    assert forwarder.counters().dropped == ({(signal, bound): lost // 3 for signal, _ in sent} if lost else {})
    assert [held.seen for view in rig.ingest.views() for held in view.totals.values()] == [
        80
    ]  # what is ours, whatever is dropped
    rig.ingest.checkpoint()
    wait(lambda: rows(rig.ingest) == 0, "the journal to be empty")


def metric_request(name: str) -> bytes:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name=name).gauge.data_points.add(as_int=1)
    return request.SerializeToString()


def span_request(name: str) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name)
    return request.SerializeToString()


def test_what_an_endpoint_never_takes_is_dropped_and_holds_up_nothing(far, rig, wait, protocol):
    far.answers.append((grpc.StatusCode.INVALID_ARGUMENT, None) if protocol == "grpc" else (400, None))
    ingest = rig.open()
    ingest.submit("logs", log_request("bad"))
    ingest.submit("logs", log_request("good"))
    forwarder = rig.forward()
    wait(lambda: far.arrived, "the second")
    assert texts(far) == ["good"]
    reason = "invalid_argument" if protocol == "grpc" else "http_400"
    assert forwarder.counters().dropped == forwarder.counters().failed == {("logs", reason): 1}


def test_without_forward_nothing_of_others_is_written(rig, otlp):
    ingest = rig.open(forwarding=False)
    ingest.submit("logs", log_request("a"))
    assert rows(ingest) == 0
    assert ingest.counters().ignored == {"not_ml": 1}
    ingest.submit("metrics", mixed(otlp))
    ingest.checkpoint()
    assert rows(ingest) == 0


def test_a_start_without_forward_gives_up_what_waited_and_says_so(rig, caplog):
    ingest = rig.open()
    ingest.submit("logs", log_request("a"))
    rig.close()
    ingest = rig.open(forwarding=False)
    assert "1 requests that waited to be passed on are dropped: there is no `forward`" in caplog.text
    assert ingest.abandoned == {"logs": 1}
    assert rows(ingest) == 0
    rig.close()
    assert rig.open(forwarding=False).abandoned == {}  # counted once


def test_a_journal_that_cannot_be_read_and_a_request_that_cannot_be_taken_apart_end_nothing(
    far, rig, wait, monkeypatch
):
    """The table is away for a while, as on a disk that fails; and the body of a request is damaged."""
    monkeypatch.setattr("otel_mlmon_processor.forward.LONGEST", 0.01)
    ingest = rig.open()
    for text in ("damaged", "whole"):
        ingest.submit("logs", log_request(text))

    def change(statement):
        with sqlite3.connect(ingest.path) as database:
            database.execute(statement)
        database.close()

    change("UPDATE journal SET body = x'ff' WHERE seq = 1")
    change("ALTER TABLE journal RENAME TO away")
    forwarder = rig.forward()
    change("ALTER TABLE away RENAME TO journal")
    wait(lambda: far.arrived, "the second")
    assert texts(far) == ["whole"]
    assert forwarder.counters().dropped == {("logs", "internal"): 1}
