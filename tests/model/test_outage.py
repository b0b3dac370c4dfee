"""What can happen to a receiver and the way to it: counts are right once it is back, and nobody waits meanwhile.

One that is away, so that connections are refused: `test_export.py`.
"""

from __future__ import annotations

import contextlib
import runpy
import threading
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

from otel_mlmon import semconv
from otel_mlmon.config import Settings

WAY = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "outage_way.py"))["Way"]


@contextlib.contextmanager
def black_hole(way):
    way.silent = True
    yield
    way.silent = False
    way.reset()


@contextlib.contextmanager
def slow(way):
    """Takes a request and does not answer in time."""
    back = threading.Event()
    way.collector.after = lambda _: back.wait(60)
    yield
    way.collector.after = lambda _: None
    back.set()


@contextlib.contextmanager
def before(way, act):
    """What the collector does when a request has come, before it takes it."""
    way.collector.before = act
    yield
    way.collector.before = lambda _: None


def unavailable(way):
    return before(way, lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "not now"))


def overloaded(way):
    delay = RetryInfo(retry_delay=Duration(nanos=50_000_000)).SerializeToString()

    def refuse(context):
        context.set_trailing_metadata((("google.rpc.retryinfo-bin", delay),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")

    return before(way, refuse)


def reset_before(way):
    """The connection is reset when a request has come, which nobody takes."""

    def reset(context):
        way.reset()
        context.abort(grpc.StatusCode.ABORTED, "gone")

    return before(way, reset)


@contextlib.contextmanager
def reset_after(way):
    """The connection is reset when a request was taken: the acknowledgement is lost."""
    way.collector.after = lambda _: way.reset()
    yield
    way.collector.after = lambda _: None


@pytest.fixture
def way(grpc_collector):
    made = WAY(grpc_collector.port)
    made.collector = grpc_collector
    yield made
    made.close()


def rows_arrived(collector, temporality):
    """Rows of x, by the rule of whoever receives: a delta is known by its interval, the last total holds all."""
    points = [p.point for p in collector.of(semconv.METRIC_ML_FEATURE_COUNT, name="x")]
    if temporality == "cumulative":
        return max(points, key=lambda point: point.time_unix_nano).as_int
    deltas = {(point.start_time_unix_nano, point.time_unix_nano): point.as_int for point in points}
    assert all(deltas[point.start_time_unix_nano, point.time_unix_nano] == point.as_int for point in points)
    return sum(deltas.values())


@pytest.mark.parametrize(
    "fault", [black_hole, slow, unavailable, overloaded, reset_before, reset_after], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_counts_are_right_once_the_receiver_is_back(fault, temporality, way, make_monitor, wait):
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{way.port}", insecure=True, timeout=0.4)
    monitor = make_monitor("m", exporter=exporter, temporality=temporality, settings=Settings(interval=86_400.0))

    def predict(rows):
        for _ in range(rows):
            with monitor.inference({"x": 1.0}) as call:
                call.record([1.0])

    predict(3)
    wait(monitor.flush, "the receiver to be found")
    with fault(way):
        for rows in (10, 20, 30):
            predict(rows)
            assert not monitor.flush()
    predict(100)
    wait(monitor.flush, "the receiver to be found again")
    assert rows_arrived(way.collector, temporality) == 163
    exporter.shutdown()


def test_calls_are_not_held_up_by_an_export_that_nobody_answers(way, make_monitor, wait):
    way.silent = True
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{way.port}", insecure=True, timeout=60)
    monitor = make_monitor("m", exporter=exporter, temporality="delta", settings=Settings(interval=86_400.0))
    ended = threading.Event()
    monitor.observe({"x": 1.0})
    waiting = threading.Thread(target=lambda: (monitor.flush(), ended.set()))
    waiting.start()
    assert way.taken.wait(30)
    for _ in range(100):
        with monitor.inference({"x": 1.0}) as call:
            call.record([1.0])
    assert not ended.is_set()  # all of that while the export stood still
    assert way.collector.metrics == []
    way.silent = False
    way.reset()
    waiting.join(60)
    wait(monitor.flush, "the receiver to be found")
    assert rows_arrived(way.collector, "delta") == 101
    exporter.shutdown()
