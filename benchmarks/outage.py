"""A model process while its receiver is away, silent, slow, refuses, or resets connections: calls, memory, counts.

    make bench-outage

One process for each case and temporality, one after the other on the same machine, with a healthy one before and after
each, in rounds of all: 35 features, one row a call, a scikit-learn model and `Monitor` with real OTLP over gRPC, in
some cases over HTTP. An hour of the default interval is 60 intervals, so the outage lasts 60 of 50 ms, and in the last
case 150. Then the receiver is back and must have every count exactly. Writes outage.json and .md beside this file;
--json writes elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from outage_page import Cases, render
from outage_receiver import HttpReceiver, Receiver
from outage_way import Way
from outage_worker import FEATURES
from recorder import machine

from otel_mlmon import semconv
from otel_mlmon.export import PENDING_REQUESTS

HERE = Path(__file__).resolve().parent
HOUR, LONG = 60, 150
INTERVAL, TIMEOUT = 0.05, 0.1  # seconds
RETRY_INFO = RetryInfo(retry_delay=Duration(nanos=20_000_000)).SerializeToString()


class Place(NamedTuple):
    """Where a model process sends to."""

    receiver: Receiver
    way: Way


@contextlib.contextmanager
def healthy(place: Place) -> Iterator[int]:
    yield place.receiver.port


@contextlib.contextmanager
def away(place: Place) -> Iterator[int]:
    place.receiver.stop()
    yield place.receiver.port
    place.receiver.start()


@contextlib.contextmanager
def silent(place: Place) -> Iterator[int]:
    place.way.silent = True
    yield place.way.port
    place.way.silent = False
    place.way.reset()


@contextlib.contextmanager
def slow(place: Place) -> Iterator[int]:
    back = Event()
    place.receiver.after = lambda _: back.wait(2 * TIMEOUT)  # type: ignore[assignment, return-value]
    yield place.receiver.port
    place.receiver.after = lambda _: None
    back.set()


@contextlib.contextmanager
def refusing(place: Place) -> Iterator[int]:
    def refuse(context: grpc.ServicerContext) -> None:
        if random.random() < 0.5:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        context.set_trailing_metadata((("google.rpc.retryinfo-bin", RETRY_INFO),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")

    place.receiver.before = refuse
    yield place.receiver.port
    place.receiver.before = lambda _: None


@contextlib.contextmanager
def resetting(place: Place) -> Iterator[int]:
    """A third of the requests before they are taken, a third afterwards: the acknowledgement is lost."""

    def before(context: grpc.ServicerContext) -> None:
        if random.random() < 1 / 3:
            place.way.reset()
            context.abort(grpc.StatusCode.ABORTED, "reset")

    def after(_: grpc.ServicerContext) -> None:
        if random.random() < 1 / 2:
            place.way.reset()

    place.receiver.before, place.receiver.after = before, after
    yield place.way.port
    place.receiver.before = place.receiver.after = lambda _: None


CASES: dict[str, tuple[Any, int]] = {
    "healthy": (healthy, HOUR),
    "away": (away, HOUR),
    "black hole": (silent, HOUR),
    "slow": (slow, HOUR),
    "refusing": (refusing, HOUR),
    "resetting": (resetting, HOUR),
    "away for longer": (away, LONG),
}
# By name: temporality, protocol, receiver, cases.
KINDS: dict[str, tuple[str, str, type[Receiver], tuple[str, ...]]] = {
    "delta": ("delta", "grpc", Receiver, tuple(CASES)),
    "cumulative": ("cumulative", "grpc", Receiver, tuple(CASES)),
    "delta over http/protobuf": ("delta", "http/protobuf", HttpReceiver, ("healthy", "away", "refusing")),
}


def totals(requests: list[Any], temporality: str) -> dict[tuple[str, str], int]:
    """What a receiver makes of requests, by metric and feature: a delta is known by its interval, a total the last."""
    found: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
    metrics = (m for request in requests for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)
    for metric in metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            names = [a.value.string_value for a in point.attributes if a.key == semconv.ML_FEATURE_NAME]
            count = getattr(point, "count", 0) or getattr(point, "as_int", 0)
            cells = sum(getattr(point, "bucket_counts", [])) or count
            assert cells == count, (metric.name, cells, count)
            key = (point.start_time_unix_nano, point.time_unix_nano)
            known = found.setdefault((metric.name, "".join(names)), {})
            others = metric.name in (
                semconv.METRIC_ML_INFERENCE_DURATION.name,
                semconv.METRIC_MLMON_RECORDER_UNSENT.name,
            )
            if names or others or metric.name == semconv.METRIC_ML_PREDICTION_SCORE.name:
                assert known.setdefault(key, count) == count, (metric.name, key)
    if temporality == "delta":
        return {name: sum(known.values()) for name, known in found.items()}
    return {name: known[max(known, key=lambda key: key[1])] for name, known in found.items() if known}


def check(requests: list[Any], temporality: str, calls: int, intervals: int) -> dict[str, int]:
    """That every call is there once; where more intervals passed than are kept, what is missing was told of."""
    found = totals(requests, temporality)
    metrics = semconv.METRIC_ML_FEATURE_COUNT, semconv.METRIC_ML_FEATURE_VALUE
    counted = [found.get((m.name, f"x{i}"), 0) for i in range(FEATURES) for m in metrics]
    counted.append(found.get((semconv.METRIC_ML_PREDICTION_SCORE.name, ""), 0))
    timed = found.get((semconv.METRIC_ML_INFERENCE_DURATION.name, ""), 0)
    unsent = found.get((semconv.METRIC_MLMON_RECORDER_UNSENT.name, ""), 0)
    assert len(set(counted)) == 1, counted
    if temporality == "delta" and intervals > PENDING_REQUESTS:
        assert counted[0] < calls
        assert unsent > 0
        # An interval's durations are collected a moment after its features: calls between are lost with one, not both.
        assert abs(timed - counted[0]) < 20, (timed, counted[0])
    else:
        assert (counted[0], timed, unsent) == (calls, calls, 0), (counted[0], timed, calls, unsent)
    return {"arrived": counted[0], "unsent_points": unsent}


def measure(case: str, kind: str) -> dict[str, Any]:
    """One process."""
    fault, intervals = CASES[case]
    temporality, protocol, receive, _ = KINDS[kind]
    receiver = receive()
    place = Place(receiver, Way(receiver.port))
    with contextlib.ExitStack() as until:
        port = until.enter_context(fault(place))
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": str(TIMEOUT),
            "OTEL_METRIC_EXPORT_INTERVAL": str(INTERVAL * 1000),
        }
        command = [sys.executable, HERE / "outage_worker.py", str(intervals), temporality]
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "mend\n"
    said, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(said)
    found.update(check(receiver.requests, temporality, found["calls"], intervals))
    receiver.stop()
    place.way.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="besides healthy")
    parser.add_argument("--rounds", type=int, default=3, help="of all cases")
    parser.add_argument("--json", type=Path, default=HERE / "outage.json", help="where to write; .md beside it")
    options = parser.parse_args()
    random.seed(1)
    found: dict[str, Cases] = {
        kind: {case: [] for case in CASES if case in taken and case in ("healthy", *options.cases)}
        for kind, (_, _, _, taken) in KINDS.items()
    }
    for number in range(options.rounds):
        for kind, cases in found.items():
            healthy, *others = cases
            cases[healthy].append(measure(healthy, kind))
            for case in others:
                print(f"round {number + 1}: {case}, {kind}", file=sys.stderr)
                one = measure(case, kind)
                cases[healthy].append(measure(healthy, kind))
                one["beside"] = [each["us"] for each in cases[healthy][-2:]]
                cases[case].append(one)
    about = {"machine": machine(), "interval_s": INTERVAL, "timeout_s": TIMEOUT, "intervals": HOUR}
    result = {**about, "rounds": options.rounds, "found": found}
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    options.json.with_suffix(".md").write_text(render(result))
    print(render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
