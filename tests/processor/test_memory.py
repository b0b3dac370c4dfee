"""What a hostile request takes at most, of a real processor: its peak is read from the system."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from otel_mlmon import Profile, semconv

pytestmark = [pytest.mark.server, pytest.mark.endurance, pytest.mark.timeout(120)]

MEBIBYTE = 1 << 20
LARGEST = 16 * MEBIBYTE  # a request
ROOM = 64 * MEBIBYTE  # `limits.bytes`
SERVICE = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"
METHODS = {
    "metrics": SERVICE.format("metrics", "Metrics"),
    "logs": SERVICE.format("logs", "Logs"),
    "traces": SERVICE.format("trace", "Trace"),
}
REFUSED = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Watched:
    """A processor, and how much memory it took for something."""

    def __init__(self, server) -> None:
        self.server = server
        self._process = Path(f"/proc/{server.process.pid}")

    def peak(self) -> int:
        """Bytes that it held at most since `reset`."""
        return self._read("VmHWM")

    def reset(self) -> int:
        """Bytes that it holds now."""
        (self._process / "clear_refs").write_text("5")
        return self._read("VmHWM")

    def _read(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    def refused(self, reason: str) -> float:
        samples = self.server.samples("mlmon_processor_refused_total")
        return sum(value for labels, value in samples if labels["mlmon_reason"] == reason)

    def call(self, body: bytes, signal: str = "metrics", compression=None) -> grpc.StatusCode:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.server.otlp}", options) as channel:
            try:
                channel.unary_unary(METHODS[signal])(body, timeout=60, compression=compression, wait_for_ready=True)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    def post(self, body: bytes, kind: str = "application/x-protobuf", **headers: str) -> int:
        url = f"http://127.0.0.1:{self.server.otlp_http}/v1/metrics"
        request = urllib.request.Request(url, body, {"content-type": kind, **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def watched(real, tmp_path_factory):
    server = real.Processor(tmp_path_factory.mktemp("watched"))
    yield Watched(server)
    server.stop()


def field(number: int, body: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    length, sizes = len(body), bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *sizes, length]) + body


def nest(numbers: str, body: bytes) -> bytes:
    """Fields in each other, the outermost first."""
    for number in reversed(numbers.split()):
        body = field(int(number), body)
    return body


NAME = field(1, semconv.METRIC_ML_FEATURE_VALUE.name.encode())
# Signal, fields around, and two to six bytes of which the request is full.
MANY = {
    "resources": ("metrics", "1", b"\x0a\0"),
    "resources, not empty": ("metrics", "1", b"\x0a\2\x78\0"),
    "resources, lengths longer than needed": ("metrics", "1", b"\x0a\x80\0"),
    "metrics": ("metrics", "1 2", b"\x12\0"),
    "points of histograms": ("metrics", "1 2 2 9", b"\x0a\0"),
    "points of exponential histograms": ("metrics", "1 2 2 10", b"\x0a\0"),
    "attributes of a point": ("metrics", "1 2 2 9 1", b"\x4a\0"),
    "attributes of a resource": ("metrics", "1 1", b"\x0a\0"),
    "values in a list": ("metrics", "1 1 1 2 5", b"\x0a\0"),
    "quantiles of summaries": ("metrics", "1 2 2 11 1", b"\x32\0"),
    "keys of entities": ("logs", "1 1 3", b"\x1a\0"),
    "spans": ("traces", "1 2", b"\x12\0"),
    "events of a span": ("traces", "1 2 2", b"\x5a\0"),
    "log records": ("logs", "1 2", b"\x12\0"),
}


@pytest.mark.parametrize("case", MANY)
def test_a_request_of_nothing_but_small_messages_is_refused_before_they_are_made(watched, case):
    signal, around, small = MANY[case]
    body = small * ((LARGEST - 64) // len(small))
    body = nest(around, body) if around != "1" else body
    before, count = watched.reset(), watched.refused("too_many_messages")
    assert watched.call(body, signal) is REFUSED
    assert watched.peak() - before < 100 * MEBIBYTE  # the request, some times
    assert watched.refused("too_many_messages") == count + 1


def test_a_large_request_of_honest_points_is_let_in(watched, otlp):
    """Counters, which have the most messages in the fewest bytes, with the attributes of HTTP servers."""
    labels = {"http.request.method": "GET", "url.scheme": "https", "http.route": "/", "network.protocol.version": "1.1"}
    sender = otlp.Sender(model={})
    point = sender.count(1, 0, 1, name="http.server.requests", labels=labels).sum.data_points[0]
    entry = field(1, point.SerializeToString())
    points = entry * ((LARGEST - 200) // len(entry))
    assert watched.call(nest("1 2 2", field(1, b"http.server.requests") + field(7, points))) is grpc.StatusCode.OK


OTHER = field(1, b"http.server.requests")
ACCEPTED = grpc.StatusCode.OK
# As many messages as are parsed, and the kinds of which each takes most.
DENSE = {
    "points of histograms": ("metrics", "1 2 2", OTHER + field(9, b"\x0a\0" * 1_500_000), ACCEPTED),
    "points of exponential histograms": ("metrics", "1 2 2", OTHER + field(10, b"\x0a\0" * 1_500_000), ACCEPTED),
    "points of ours": ("metrics", "1 2 2", NAME + field(9, b"\x0a\0" * 1_500_000), REFUSED),
    "spans": ("traces", "1 2", b"\x12\x08\x2a\x06a span" * 1_500_000, ACCEPTED),
    "buckets": ("metrics", "1 2 2", NAME + nest("10 1 8 2", bytes(LARGEST - 200)), ACCEPTED),
}


@pytest.mark.parametrize("case", DENSE)
def test_the_densest_request_that_is_let_in_takes_a_bounded_memory(watched, case):
    signal, around, inner, status = DENSE[case]
    body, before = nest(around, inner), watched.reset()
    with ThreadPoolExecutor(2) as pool:  # as many as one client may have waiting
        assert set(pool.map(watched.call, [body] * 3, [signal] * 3)) == {status}
    assert watched.peak() - before < 512 * MEBIBYTE


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_a_compression_bomb_takes_no_more_than_a_request(watched, way):
    before, bomb = watched.reset(), bytes(200 * MEBIBYTE)
    if way == "grpc":
        assert watched.call(bomb, compression=grpc.Compression.Gzip) is EXHAUSTED
    else:
        assert watched.post(gzip.compress(bomb, 1), **{"content-encoding": "gzip"}) == 413
    assert watched.peak() - before < 50 * MEBIBYTE


JSON = {
    "larger than JSON may be": (b'{"resourceMetrics":[' + b"{}," * 5_000_000 + b"{}]}", 413, "too_large"),
    "objects": (b'{"resourceMetrics":[' + b"{}," * 1_300_000 + b"{}]}", 400, "too_many_messages"),
    "lists": (b'{"resourceMetrics":[' + b"[]," * 1_300_000 + b"[]]}", 400, "too_many_messages"),
    "as many as may be": (b'{"resourceMetrics":[' + b"{}," * 390_000 + b"{}]}", 200, None),
    "numbers": (b'{"x":[' + b"1," * 2_000_000 + b"1]}", 200, None),
}


@pytest.mark.parametrize("case", JSON)
def test_json_takes_a_bounded_memory(watched, case):
    body, status, reason = JSON[case]
    before, count = watched.reset(), watched.refused(reason) if reason else 0
    packed = gzip.compress(body, 1)  # else the answer may come while it is being sent
    assert watched.post(packed, "application/json", **{"content-encoding": "gzip"}) == status
    assert watched.peak() - before < 200 * MEBIBYTE
    assert reason is None or watched.refused(reason) == count + 1


def begin(watched, size: int, sent: bytes) -> socket.socket:
    """A client that has sent some bytes of a request."""
    client = socket.create_connection(("127.0.0.1", watched.server.otlp_http), timeout=30)
    head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    client.sendall(f"{head}content-length: {size}\r\n\r\n".encode() + sent)
    return client


def test_large_requests_over_http_have_a_room_together_and_small_ones_get_in_beside(watched, otlp, wait):
    sender = otlp.Sender(service="small")
    small = sender.request(sender.count(3, 0, 1))
    before, count = watched.reset(), watched.refused("overload")
    clients = [begin(watched, LARGEST, bytes(LARGEST - 1)) for _ in range(20)]
    try:
        wait(lambda: watched.refused("overload") >= count + 12, "those for which there is no room")
        assert watched.post(small) == 200
        assert watched.peak() - before < 2 * ROOM + 100 * MEBIBYTE  # of 320 MiB that were sent
        answers = [client for client in clients if _is_answered(client)]
        assert len(answers) >= 12
        response = http.client.HTTPResponse(answers[0])
        response.begin()
        assert (response.status, response.headers["retry-after"]) == (429, "1")
    finally:
        for client in clients:
            client.close()
    wait(lambda: watched.post(bytes(LARGEST)) != 429, "the room to be free again")


def _is_answered(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except (TimeoutError, ConnectionError):
        return False


# ------------------------------------------------------------------ profiles


def make_large(features: int) -> bytes:
    """A profile with so many features, each whole and right."""
    document = json.loads(Profile.build({"x": [0.0, 1.0, 2.0] * 10}, model="m", version="1").to_bytes())
    (reference,) = document["references"]
    before, _, after = json.dumps({**reference, "name": "MANY"}).partition("MANY")
    document["references"] = ["ALL"]
    whole = ",".join(f"{before}x{i}{after}" for i in range(features))
    return json.dumps(document).replace('"ALL"', whole).encode()


def test_a_profile_of_a_million_features_in_the_folder_is_refused_by_name_in_bounds(real, tmp_path, wait):
    folder = tmp_path / "profiles"
    folder.mkdir()
    server = real.Processor(tmp_path, "--profiles", folder)
    try:
        watched = Watched(server)
        before = watched.reset()
        some = make_large(1_000)
        with (folder / "large.part").open("wb") as file:  # a thousand times: as large, and no more memory to make
            for _ in range(1_000):
                file.write(some)
        (folder / "large.part").rename(folder / "large.json")
        (folder / "many.json").write_bytes(b'{"references": [' + b'{"name": "x"},' * 1_000_000 + b"{}]}")
        wait(lambda: server.log.read_text().count("profile left out") >= 2, "both to be refused")
        said = server.log.read_text()
        assert "large.json: not a profile: more than 67108864 bytes" in said
        assert 'many.json: not a profile: field "format" must be' in said
        assert watched.peak() - before < 500 * MEBIBYTE
        Profile.build({"x": [0.0, 1.0, 2.0] * 10}, model="m", version="1").save(folder / "good.json")
        wait(lambda: "profile read: m 1" in server.log.read_text(), "another profile to be read")
    finally:
        server.stop()


def send_profile(watched, otlp, document: bytes) -> grpc.StatusCode:
    packed = gzip.compress(document, 1)
    parts = [packed[at : at + MEBIBYTE] for at in range(0, len(packed), MEBIBYTE)]
    bodies = [otlp.Sender().profile("h" * 16, {n: part}, len(parts)) for n, part in enumerate(parts, start=1)]
    return [watched.call(body, "logs") for body in bodies][-1]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (lambda: make_large(60_000), "profile_too_large"),  # as many as 50 MiB hold
        (lambda: b'{"references":[' + b"{}," * 5_000_000 + b"{}]}", "profile_invalid"),
        (lambda: b"{" + b",".join(b'"k%d":0' % (i % 999_999) for i in range(1_000_000)) + b"}", "profile_invalid"),
    ],
    ids=["too many features", "too many objects", "a million fields, one twice"],
)
def test_a_profile_that_is_sent_is_refused_by_reason_in_bounds(watched, otlp, document, reason):
    def dropped() -> float:
        samples = watched.server.samples("mlmon_processor_dropped_total")
        return sum(value for labels, value in samples if labels["mlmon_reason"] == reason)

    body = document()
    before, count = watched.reset(), dropped()
    assert send_profile(watched, otlp, body) is grpc.StatusCode.OK
    assert dropped() == count + 1
    assert watched.peak() - before < 300 * MEBIBYTE


def test_counts_stay_within_their_memory_whatever_is_sent(real, otlp, tmp_path, wait):
    """Wide histograms of new features, lives, models and replicas, each in many windows."""
    settings = f"evaluate: {{interval: 1s}}\nalarms: {{learn: false}}\nlimits: {{memory: {64 * MEBIBYTE}}}\n"
    server = real.Processor(tmp_path, settings=settings)
    try:
        watched = Watched(server)
        good, edges = otlp.Sender(service="good"), [float(edge) for edge in range(4_000)]
        assert watched.call(good.request(good.count(7, 0, 1))) is grpc.StatusCode.OK
        before = watched.reset()
        for number in range(60):
            name = {semconv.ML_FEATURE_NAME: f"x{number % 30}"}
            who = {
                "features": otlp.Sender(),
                "replicas": otlp.Sender(f"r{number}", f"r{number}"),
                "models": otlp.Sender(service=f"s{number}"),
            }
            for sender in who.values():
                wide = [
                    sender.histogram([1] * 4_001, minute - span, minute, edges=edges, labels=name)
                    for minute in range(number, number + 20)
                    for span in (1, 4)
                ]
                assert watched.call(sender.request(*wide)) is grpc.StatusCode.OK
            lives = [
                who["features"].histogram([1] * 4_001, number / 100 + life / 1e4, 9, edges=edges, temporality=2)
                for life in range(20)
            ]
            assert watched.call(who["features"].request(*lives)) is grpc.StatusCode.OK
        assert watched.peak() - before < (64 + 16 + 150) * MEBIBYTE  # 150: requests of 3 MB, read and evaluated
        dropped = {labels["mlmon_reason"] for labels, _ in server.samples("mlmon_processor_dropped_total")}
        assert "memory" in dropped
        assert watched.call(good.request(good.count(5, 1, 2))) is grpc.StatusCode.OK

        def count() -> float:
            samples = server.samples("ml_feature_count_total")
            return sum(value for labels, value in samples if labels["service_name"] == "good")

        wait(lambda: count() == 12, "all that the quiet one sent")
    finally:
        server.stop()


def test_all_that_was_sent_here_has_harmed_nobody(watched, otlp, wait):
    sender = otlp.Sender(service="good")
    assert watched.call(sender.request(sender.count(7, 0, 1))) is grpc.StatusCode.OK
    wait(
        lambda: any(
            labels["service_name"] == "good" and value == 7
            for labels, value in watched.server.samples("ml_feature_count_total")
        ),
        "its count",
    )
