"""What a hostile client may send, over the real servers: it is refused or counted, takes little memory, harms none."""

from __future__ import annotations

import contextlib
import gzip
import math
import runpy
import select
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otel_mlmon_processor.decode import MalformedError, decode_metrics
from otel_mlmon_processor.http import HttpServer, make_application
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.otlp_http import make_otlp_application
from otel_mlmon_processor.receiver import build_server

from otel_mlmon import semconv

pytestmark = pytest.mark.endurance
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
MEBIBYTE = 1 << 20
CORPUS = Path(__file__).parent / "corpus"
TARGETS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fuzz_targets.py"))["TARGETS"]


@pytest.fixture
def servers(tmp_path):
    """Over one directory: the ingest, gRPC's target, HTTP's URL and port."""
    ingest = Ingest(tmp_path / "data")
    receiver = build_server(ingest, "127.0.0.1:0")
    receiver.start()
    http = HttpServer(make_otlp_application(ingest), "127.0.0.1:0")
    http.start()
    yield ingest, f"127.0.0.1:{receiver.port}", f"http://127.0.0.1:{http.port}"
    http.stop(5)
    receiver.stop(0).wait()
    ingest.close()


def call(target: str, body: bytes, method: str = EXPORT, compression=None) -> grpc.StatusCode:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options) as channel:
        try:
            channel.unary_unary(method)(body, timeout=60, compression=compression)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def post(url: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, body, {"content-type": "application/x-protobuf", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def is_unharmed(servers, otlp) -> bool:
    """Whether another client is served as before."""
    ingest, target, _ = servers
    sender = otlp.Sender("good", "g", service="good")
    assert call(target, sender.request(sender.count(7, 0, 1))) is grpc.StatusCode.OK
    return [view.totals[otlp.X].seen for view in ingest.views() if view.key.service == "good"] == [7]


def peak() -> int:
    """Bytes that this process held at most."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def test_a_hundred_megabytes_of_attributes(servers, otlp):
    ingest, target, url = servers
    sender = otlp.Sender(extra={f"k{i}": "x" * MEBIBYTE for i in range(100)})
    body = sender.request(sender.count(1, 0, 1))
    assert call(target, body) is grpc.StatusCode.RESOURCE_EXHAUSTED
    with contextlib.suppress(urllib.error.URLError):  # it may still be sending when the connection is closed
        assert post(f"{url}/v1/metrics", body) == 413
    assert ingest.counters().refused == {("metrics", "too_large"): 1}  # gRPC tells nobody
    below = otlp.Sender(extra={f"k{i}": "x" * MEBIBYTE for i in range(15)})  # of a size that is let in
    assert call(target, below.request(below.count(1, 0, 1))) is grpc.StatusCode.OK
    assert is_unharmed(servers, otlp)


def field(number: int, body: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    length, sizes = len(body), bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *sizes, length]) + body


def make_histogram(cells: int) -> bytes:
    """A request with one histogram of so many cells, all but the last empty."""
    point = field(7, np.arange(cells - 1, dtype="<f8").tobytes())
    point += field(6, bytes(8 * (cells - 1)) + (2).to_bytes(8, "little"))
    point += b"".join(bytes([n << 3 | 1]) + v.to_bytes(8, "little") for n, v in ((3, 10**18), (4, 2)))
    names = {semconv.ML_MODEL_NAME: "m", semconv.ML_FEATURE_NAME: "x"}
    point += b"".join(field(9, field(1, k.encode()) + field(2, field(1, v.encode()))) for k, v in names.items())
    metric = field(1, semconv.METRIC_ML_FEATURE_VALUE.name.encode()) + field(9, field(1, point) + bytes([2 << 3, 1]))
    return field(1, field(2, field(2, metric)))


def test_ten_million_buckets(servers, otlp):
    ingest, target, _ = servers
    assert call(target, make_histogram(1_000)) is grpc.StatusCode.OK  # such a request is right
    assert (ingest.counters().fold.streams, ingest.counters().fold.dropped) == (1, {})
    assert call(target, make_histogram(900_000)) is grpc.StatusCode.OK  # of a size that is let in: a partial success
    assert ingest.counters().fold.dropped == {"too_many_cells": 1}
    assert call(target, make_histogram(10_000_000)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (ingest.counters().fold.streams, ingest.counters().fold.dropped) == (1, {"too_many_cells": 1})
    assert [view.totals[otlp.X].seen for view in ingest.views()] == [2]
    assert is_unharmed(servers, otlp)


def test_an_exponential_histogram_that_says_it_has_buckets_everywhere(servers, otlp):
    _, target, _ = servers
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=semconv.METRIC_ML_FEATURE_VALUE.name)
    metric.exponential_histogram.aggregation_temporality = 1
    for scale, offset in ((20, 2**31 - 5), (-10, -(2**31)), (20, 0), (2**31 - 1, 0)):
        point = metric.exponential_histogram.data_points.add(scale=scale, count=3, time_unix_nano=otlp.at(1))
        point.positive.offset = offset
        point.positive.bucket_counts.extend([1, 1, 1])
        point.negative.offset = -offset - 1
    assert call(target, request.SerializeToString()) is grpc.StatusCode.OK
    assert is_unharmed(servers, otlp)


HOSTILE_POINTS = {
    "bounds unsorted": ("explicit_bounds", [1.0, 0.0, 2.0], "bounds"),
    "bounds twice": ("explicit_bounds", [0.0, 0.0, 2.0], "bounds"),
    "a bound that is no number": ("explicit_bounds", [0.0, math.nan, 2.0], "bounds"),
    "an infinite bound": ("explicit_bounds", [0.0, 1.0, math.inf], "bounds"),
    "counts that do not add up": ("count", 11, "counts"),
    "a count near the end of 64 bits": ("count", 2**64 - 1, "too_large"),
    "a sum that is no number": ("sum", math.nan, "sum"),
    "an infinite sum": ("sum", -math.inf, "sum"),
    "the time 0": ("time_unix_nano", 0, "time"),
    "the last of all times": ("time_unix_nano", 2**64 - 1, "time"),
    "the last of all start times": ("start_time_unix_nano", 2**64 - 1, "time"),
}


@pytest.mark.parametrize("case", HOSTILE_POINTS)
def test_a_point_that_makes_no_sense_is_counted_by_reason(servers, otlp, case):
    ingest, target, _ = servers
    name, value, reason = HOSTILE_POINTS[case]
    sender = otlp.Sender()
    metric = sender.histogram([1, 2, 3, 4], 0, 1, total=1.0)
    point = metric.histogram.data_points[0]
    if isinstance(value, list):
        getattr(point, name)[:] = value
    else:
        setattr(point, name, value)
    assert call(target, sender.request(metric, sender.count(3, 0, 1))) is grpc.StatusCode.OK
    (view,) = ingest.views()
    assert view.totals[otlp.X].seen == 3
    assert ingest.counters().fold.dropped == {reason: 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.5, -(2**63), 2**63 - 1])
def test_a_count_that_is_none_is_counted_by_reason(servers, otlp, value):
    ingest, target, _ = servers
    sender = otlp.Sender()
    metric = sender.count(1, 0, 1)
    point = metric.sum.data_points[0]
    if isinstance(value, float):
        point.as_double = value
    else:
        point.as_int = value
    assert call(target, sender.request(metric, sender.histogram([1, 0, 0, 0], 0, 1))) is grpc.StatusCode.OK
    assert sum(ingest.counters().fold.dropped.values()) == 1
    assert next(ingest.views()).totals[otlp.X].seen == 1


def test_times_beyond_now_open_no_windows_and_do_not_advance_event_time(servers, otlp):
    ingest, target, _ = servers
    sender = otlp.Sender()
    call(target, sender.request(sender.count(3, 0, 1)))
    far = sender.count(1, 0, 1)
    far.sum.data_points[0].time_unix_nano = 2**63 - 1
    call(target, sender.request(far))
    (view,) = ingest.views()
    assert (view.totals[otlp.X].seen, view.watermark) == (4, otlp.at(1) / 1e9)


def test_text_that_is_no_utf_8(servers, otlp):
    _, target, url = servers
    sender = otlp.Sender(service="PLACE")
    body = sender.request(sender.count(1, 0, 1))
    for broken in (
        body.replace(b"PLACE", b"\xff\xfe\xfd\xfc\xfb"),
        body.replace(b"ml.model.name", b"ml.model.nam\xff"),
    ):
        assert call(target, broken) is grpc.StatusCode.INVALID_ARGUMENT
        assert post(f"{url}/v1/metrics", broken) == 400
    assert is_unharmed(servers, otlp)


def nest(depth: int) -> bytes:
    """An attribute whose value is a list in a list in a list ..."""
    inner = b""
    for _ in range(depth):
        for field in (1, 5):  # ArrayValue.values, AnyValue.array_value
            size, length = [], len(inner)
            while length > 127:
                size.append(length & 127 | 128)
                length >>= 7
            inner = bytes([field << 3 | 2, *size, length]) + inner
    return inner


@pytest.mark.parametrize("depth", [20, 90, 5_000])
def test_values_nested_deeply(servers, otlp, depth):
    _, target, _ = servers
    sender = otlp.Sender()
    metric = sender.count(1, 0, 1)
    body = sender.request(metric)
    request = ExportMetricsServiceRequest.FromString(body)
    hostile = request.resource_metrics[0].resource.attributes.add(key="deep")
    try:
        hostile.value.MergeFromString(nest(depth))
        bodies = [request.SerializeToString()]
    except Exception:  # deeper than this side would build
        bodies = [b"\x0a" + nest(depth)[:200_000]]
    for one in bodies:
        assert call(target, one) in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    with contextlib.suppress(MalformedError):
        decode_metrics(nest(depth))
    deep = b'{"resourceMetrics": ' + b"[" * depth + b"]" * depth + b"}"
    assert post(f"{servers[2]}/v1/metrics", deep, **{"content-type": "application/json"}) == 400
    assert is_unharmed(servers, otlp)


def test_a_profile_that_is_a_compression_bomb(servers, otlp):
    ingest, target, _ = servers
    packed = gzip.compress(bytes(300 * MEBIBYTE), 1)
    before = reset_peak()
    assert call(target, otlp.Sender().profile("h" * 16, {1: packed}, 1), LOGS) is grpc.StatusCode.OK
    assert peak() - before < 150 * MEBIBYTE  # twice what a profile may have
    assert not ingest.profiles()
    assert is_unharmed(servers, otlp)


# ------------------------------------------------------------------ HTTP itself


def ask(url: str, text: bytes, seconds: float = 30.0) -> bytes:
    """What is answered to these bytes until the connection is closed."""
    host, port = url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as client:
        client.sendall(text)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65_536):
                answer += part
    return answer


@pytest.mark.parametrize(
    "path", ["/v1/metrics/", "//v1/metrics", "/v1/../v1/metrics", "/v1/metrics%00", "/v1/%2e%2e/x", "*"]
)
def test_paths_have_no_tricks(servers, path):
    answer = ask(
        servers[2],
        f"POST {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode(),
    )
    status, headers, _ = answer.partition(b" ")[2].partition(b"\r\n")
    assert status.startswith((b"404", b"400")), answer
    assert b"location" not in answer.lower()
    del headers


def send_until_answered(url: str, head: bytes, part: bytes, most: int) -> tuple[bytes, int]:
    """The answer to a request that goes on and on, and how many of its parts were taken until it came or the connection
    ended; what hangs instead fails.
    """
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(head)
        for sent in range(most):
            if select.select([client], [], [], 0.01)[0]:
                return client.recv(65_536), sent
            client.sendall(part)
        return client.recv(65_536), most


def test_headers_without_end_are_refused(servers, otlp):
    header = b"x: %s\r\n" % (b"y" * 10_000)
    answer, sent = send_until_answered(servers[2], b"POST /v1/metrics HTTP/1.1\r\n", header, 1_000)
    assert answer.startswith(b"HTTP/1.1 400")
    assert sent < 100  # a megabyte
    assert is_unharmed(servers, otlp)


def test_a_body_larger_than_it_said_or_than_is_allowed_ends_the_connection(servers, otlp):
    ingest, _, url = servers
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    chunk = b"%x\r\n" % MEBIBYTE + bytes(MEBIBYTE) + b"\r\n"
    answer, sent = send_until_answered(url, head + b"transfer-encoding: chunked\r\n\r\n", chunk, 100)
    assert answer.startswith(b"HTTP/1.1 413")
    assert 16 <= sent < 40
    assert ingest.counters().refused == {("metrics", "too_large"): 1}
    assert is_unharmed(servers, otlp)


@pytest.fixture
def pages():
    """The port of the pages; /metrics is larger than what a system keeps for a client that does not read."""
    server = HttpServer(make_application(lambda: (65_535 * "#" + "\n" for _ in range(32)), lambda: True), "127.0.0.1:0")
    server.start()
    yield server.port
    server.stop(5)


@contextlib.contextmanager
def connected(port: int, said: bytes):
    """Nearly as many clients of a port as there may be, each of which has said something."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(60)]
        for client in clients:
            client.sendall(said)
        yield clients


@contextlib.contextmanager
def dripping(clients: list[socket.socket]):
    """One byte from each of them every 0.2 s, as long as their connections last."""
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.2):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


REQUEST_LINE, HEADERS = b"POST /v1/met", b"GET /metrics HTTP/1.1\r\nhost: x\r\n"
BODY = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n["
SLOW = {
    **{f"otlp {name}": said for name, said in (("nothing", b""), ("line", REQUEST_LINE), ("body", BODY))},
    **{f"pages {name}": said for name, said in (("nothing", b""), ("line", REQUEST_LINE), ("headers", HEADERS))},
}


@pytest.mark.parametrize("case", SLOW)
def test_who_sends_slowly_is_cut_off_and_keeps_nobody_out(servers, pages, otlp, monkeypatch, case):
    """Slowloris: a byte every 0.2 s, so that no pause is as long as the patience."""
    monkeypatch.setattr("otel_mlmon_processor.http.PATIENCE", 1.0)
    port = pages if case.startswith("pages") else int(servers[2].rpartition(":")[2])
    with connected(port, SLOW[case]) as clients:
        began = time.monotonic()
        with dripping(clients):
            for client in clients:
                client.settimeout(max(began + 3.0 - time.monotonic(), 0.001))
                with contextlib.suppress(ConnectionError):
                    assert client.recv(1) == b""  # it has been closed, without an answer
    sender = otlp.Sender()
    assert post(f"{servers[2]}/v1/metrics", sender.request(sender.count(1, 0, 1))) == 200
    assert get(pages, "/readyz") == b"ready\n"


def test_who_asks_without_end_and_reads_nothing_is_cut_off_and_keeps_nobody_out(pages, monkeypatch):
    """Answers wait in the processor until they are taken: at most one for each connection, and not for long."""
    monkeypatch.setattr("otel_mlmon_processor.http.PATIENCE", 1.0)
    ends = select.poll()
    with connected(pages, HEADERS + b"\r\n") as clients:
        for client in clients:
            client.setblocking(False)
            client.send((HEADERS + b"\r\n") * 20_000)  # as much of it as is taken
            ends.register(client, 0)  # to be told of the end of the connection, and not to read
        assert get(pages, "/readyz") == b"ready\n"
        assert len(get(pages, "/metrics")) > MEBIBYTE
        assert not ends.poll(0)  # all of them were there meanwhile
        left = {client.fileno() for client in clients}
        while left:
            ended = {number for number, _ in ends.poll(10_000)}
            assert ended, f"{len(left)} connections stay"
            left -= ended
            for number in ended:
                ends.unregister(number)
    assert get(pages, "/readyz") == b"ready\n"


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return response.read()


# ------------------------------------------------------------------ what fuzzing has found worth keeping


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_corpus_of_fuzzing_keeps_every_promise(target):
    files = sorted((CORPUS / target).iterdir())
    assert files
    for file in files:
        TARGETS[target](file.read_bytes())
