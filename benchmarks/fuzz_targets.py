"""What must hold for any bytes at all: each function takes some and fails where a promise is broken."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otel_mlmon_processor.batch import Batch
from otel_mlmon_processor.config import ConfigError, read_config
from otel_mlmon_processor.decode import MalformedError, decode_logs, decode_metrics, decode_traces
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import Caps, FoldSettings
from otel_mlmon_processor.forms import Forms
from otel_mlmon_processor.http import make_application
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.otlp_http import make_otlp_application
from otel_mlmon_processor.security import Tokens

import otel_mlmon.profile.codec  # noqa: F401 -- which else would be imported when called, too late to be looked into
from otel_mlmon import Profile, semconv
from otel_mlmon.profile.document import ProfileError

NOW: Final = 1_780_000_000 * 10**9
MINUTE: Final = 60 * 10**9
DECODERS: Final = (decode_metrics, decode_logs, decode_traces)
FORMS: Final = Forms()
SMALL: Final = FoldSettings(caps=Caps(models=4, producers=8, streams=64, variables=16, categories=16, places=128))


def fuzz_decode(data: bytes) -> None:
    """The first byte chooses the signal. Only MalformedError may come out; what is read can be folded and kept; of what
    comes again alike it is the same as in full.
    """
    if not data:
        return
    try:
        batch = DECODERS[data[0] % 3](data[1:])
    except MalformedError:
        return
    if not data[0] % 3:
        for _ in range(3):
            again = decode_metrics(data[1:], forms=FORMS)
            assert _say(again) == _say(batch)
    used = sum(group.items for group in batch.groups)
    assert used + sum(batch.refused.values()) + sum(batch.ignored.values()) == batch.items
    fold = Fold(SMALL)
    for _ in range(2):
        fold.apply(NOW, batch)
    views = fold.views()
    assert len(views) <= SMALL.caps.models
    loaded = Fold.load(fold.dump(), SMALL)
    assert loaded.counters() == fold.counters()


def _say(batch: Batch) -> object:
    groups = [(g.producer, g.block.points() if g.block is not None else g.points) for g in batch.groups]
    return [repr(groups), batch.items, batch.refused, batch.ignored]  # as text: NaN is not equal to itself


def fuzz_profile(data: bytes) -> None:
    """Only ProfileError may come out; what is read is written and read again as the same."""
    try:
        profile = Profile.from_bytes(data)
    except ProfileError:
        return
    written = profile.to_bytes()
    assert Profile.from_bytes(written).to_bytes() == written


@functools.cache
def scratch() -> Path:
    """A folder of this process, in memory where there is one: each request is synced."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="mlmon-fuzz-", dir=memory if memory.is_dir() else None))


def fuzz_config(data: bytes) -> None:
    """Only ConfigError may come out."""
    path = scratch() / "mlmon.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        read_config(path)


PATHS: Final = ("/v1/metrics", "/v1/logs", "/v1/traces", "/metrics", "/healthz", "/readyz", "/")
KINDS: Final = ("application/x-protobuf", "application/json", "text/plain", "")
ALLOWED: Final = {200, 400, 401, 404, 405, 413, 415, 429, 503}


@functools.cache
def applications() -> tuple[Any, Any, Any]:
    """Of OTLP, of the pages, and of OTLP for those with a token; over one directory."""
    ingest, tokens = Ingest(scratch() / "data", SMALL), scratch() / "tokens"
    tokens.write_text("secret\n")
    return (
        make_otlp_application(ingest, message_bytes=100_000),
        make_application(lambda: (line for line in ("nothing 0\n",)), lambda: True),
        make_otlp_application(ingest, message_bytes=100_000, tokens=Tokens(tokens)),
    )


def fuzz_http(data: bytes) -> None:
    """Four bytes choose path, method, headers and how the body is cut; no answer is an error of ours, and nobody is
    let in without the token.
    """
    if len(data) < 4:
        return
    path, kind = PATHS[data[0] % len(PATHS)], KINDS[data[1] % len(KINDS)]
    method = ("POST", "GET", "PUT", "HEAD")[data[1] // 4 % 4]
    encoding = (b"", b"gzip", b"identity", b"br")[data[2] % 4]
    body = gzip.compress(data[4:], mtime=0) if data[2] & 4 and encoding == b"gzip" else data[4:]
    if data[2] & 8:
        path += data[4:40].decode("latin-1")
    headers = [(b"content-type", kind.encode()), (b"content-encoding", encoding), (b"accept", data[4:60])]
    guarded = bool(data[2] & 32) and path.startswith("/v1/")
    if guarded:
        headers.append((b"authorization", data[4:40]))
    half = len(body) * data[3] // 255
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.disconnect"} if data[2] & 16 else {"type": "http.request", "body": body[half:]},
    ]
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode("latin-1"), "query_string": data[4:30], "root_path": "",
        "headers": [(name, value) for name, value in headers if value], "client": ("10.0.0.7", 4242),
        "server": ("127.0.0.1", 4318), "state": {},
    }  # fmt: skip
    application = applications()[2 if guarded else 0 if path.startswith("/v1/") else 1]
    loop().run_until_complete(application(scope, receive, send))
    assert answers[0]["status"] in ALLOWED, answers
    assert not guarded or answers[0]["status"] != 200 or b"secret" in data[4:40], answers


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """One for all: making one costs more than an answer."""
    return asyncio.new_event_loop()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "decode": fuzz_decode,
    "profile": fuzz_profile,
    "config": fuzz_config,
    "http": fuzz_http,
}


# ------------------------------------------------------------------ where it begins


def make_metrics() -> ExportMetricsServiceRequest:
    """Every kind of point."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "s"
    scope = resource.scope_metrics.add()
    scope.scope.attributes.add(key=semconv.ML_PRODUCER_INCARNATION).value.string_value = "i"
    value = scope.metrics.add(name=semconv.METRIC_ML_FEATURE_VALUE.name)
    value.histogram.aggregation_temporality = 1
    point = value.histogram.data_points.add(count=3, sum=1.5, bucket_counts=[1, 2], explicit_bounds=[0.5])
    spread = scope.metrics.add(name=semconv.METRIC_ML_PREDICTION_VALUE.name)
    spread.exponential_histogram.aggregation_temporality = 2
    other = spread.exponential_histogram.data_points.add(count=3, sum=2.0, scale=3, zero_count=1)
    other.positive.offset = 2
    other.positive.bucket_counts.extend([1, 1])
    count = scope.metrics.add(name=semconv.METRIC_ML_FEATURE_CATEGORY.name)
    count.sum.aggregation_temporality, count.sum.is_monotonic = 2, True
    third = count.sum.data_points.add(as_int=4)
    third.attributes.add(key=semconv.ML_FEATURE_CATEGORY).value.string_value = "a"
    for one in (point, other, third):
        one.start_time_unix_nano, one.time_unix_nano = NOW - MINUTE, NOW
        one.attributes.add(key=semconv.ML_MODEL_NAME).value.string_value = "m"
        one.attributes.add(key=semconv.ML_FEATURE_NAME).value.string_value = "x"
    return request


def make_traces() -> ExportTraceServiceRequest:
    """Two spans."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(name="a", trace_id=bytes(16), span_id=bytes(8)).events.add(name="e")
    spans.add(name="b").attributes.add(key="k").value.array_value.values.add(int_value=1)
    return request


def make_logs(profile: Profile) -> ExportLogsServiceRequest:
    """A profile in one part."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.event_name = semconv.EVENT_ML_REFERENCE_PROFILE
    record.body.bytes_value = gzip.compress(profile.to_bytes(), mtime=0)
    names = {semconv.ML_MODEL_NAME: "m", semconv.ML_REFERENCE_HASH: profile.hash, semconv.ML_REFERENCE_PART: 1}
    for name, given in {**names, semconv.ML_REFERENCE_PARTS: 1}.items():
        pair = record.attributes.add(key=name)
        if isinstance(given, int):
            pair.value.int_value = given
        else:
            pair.value.string_value = given
    return request


SETTINGS: Final = b"""
listen: 127.0.0.1:4317
listen_http: off
http: "[::1]:9464"
data: mlmon-data
profiles: .
window: {size: 60s, display: 1h, idle: 5m, ahead: 300}
evaluate: {interval: 10s, tolerance: 0.005}
alarms: {budget: 2, least_rows: 5, learn: false, memory: 1000, models: {m: {budget: 1, muted: {x: 2030-01-01}}}}
checkpoint: {size: 1000, age: 1m}
limits: {requests: 2, bytes: 2000000, models: 5, producers: 5, streams: 5, features: 5, categories: 5}
show: {measures: [], distribution: true}
export:
- {endpoint: "http://localhost:1", protocol: http, headers: {a: b}, compression: none, interval: 5s, timeout: 1s}
- {endpoint: "https://elsewhere:1/", tls: {}, insecure: true}
instance: i
forward: {endpoint: "http://localhost:1", size: 10, age: 1d}
retire: 1d
shutdown: 10
insecure: true
"""


def list_seeds(target: str) -> list[bytes]:
    """Inputs that go far, from which others are made."""
    rows = {"x": [0.0, 1.0, 2.0] * 30, "c": ["a", "b"] * 45}
    at = np.datetime64("2025-01-01", "us") + np.arange(90) * np.timedelta64(1, "m")
    plain, timed, part = (
        Profile.build(rows, model="m", version="1", created="2025-01-01T00:00:00Z"),
        *(
            Profile.build({"x": rows["x"], "t": at}, model="m", time_column="t", created="2025-01-01T00:00:00Z", part=p)
            for p in (False, True)
        ),
    )
    metrics, logs = make_metrics().SerializeToString(), make_logs(plain).SerializeToString()
    if target == "decode":
        return [b"\x00" + metrics, b"\x01" + logs, b"\x02" + make_traces().SerializeToString()]
    if target == "profile":
        return [profile.to_bytes() for profile in (plain, timed, part)]
    if target == "config":
        return [
            SETTINGS,
            b"export: [{endpoint: 'http://localhost:1', headers: {a: b}}]\n",
            b"a: &a [x, x]\nb: &b [*a, *a]\n",
        ]
    return [
        bytes([0, 0, 0, 9]) + metrics,
        bytes([1, 0, 5, 255]) + logs,
        bytes([0, 1, 0, 128]) + json_format.MessageToJson(make_metrics(), indent=None).encode(),
        bytes([1, 1, 1, 200]) + b'{"resourceLogs": []}',
        bytes([3, 4, 8, 0]) + b"../",
        bytes([0, 0, 32, 0]) + b"Bearer secret",
    ]
