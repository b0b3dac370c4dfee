"""Bodies of requests: those that a Monitor exports, with the times, names and counts of many replicas put into them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

# Of the same length as what takes their places.
INSTANCE, INCARNATION, MODEL, DIGEST = "replica-#####", "################", "model-####", "%%%%%%%%%%%%%%%%"
_MARK = 0x1122334455667788  # a time
START, END = struct.pack("<Q", _MARK), struct.pack("<Q", _MARK + 1)


class Names(NamedTuple):
    """Of a model."""

    model: str
    digest: str  # of its profile


@dataclass(frozen=True)
class Load:
    """What a client sends.

    Args:
        export: an OTLP request with the feature histograms of one replica, all of one length, with the names above.
        whole: an OTLP request with all that one replica sends, instead of those; deltas.
        points: of features in a request. The points of all replicas follow one another and are cut into requests, as a
            collector cuts its batches.
        replicas: their numbers; those of a model are those that leave the same remainder.
        cumulative: counts that grow, else deltas.
        models: what is served.
        flight: requests on their way at once, at most; those of one replica follow one another.
        step: s of event time of an interval, of which the first began `back` s ago; 0: the time that passes.
    """

    export: bytes
    points: int
    replicas: range
    cumulative: bool
    models: tuple[Names, ...]
    flight: int = 16
    whole: bytes = b""
    step: float = 0.0
    back: float = 0.0


def mark_times(points: Iterable[Any]) -> None:
    """Put START and END where a client puts its times."""
    for point in points:
        point.start_time_unix_nano, point.time_unix_nano = _MARK, _MARK + 1


class Piece:
    """Points of some features of one replica, as a request: protobuf joins those that are put after one another."""

    def __init__(self, load: Load, first: int, last: int) -> None:
        request = ExportMetricsServiceRequest.FromString(load.export)
        histogram = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram
        kind = AggregationTemporality
        histogram.aggregation_temporality = (
            kind.AGGREGATION_TEMPORALITY_CUMULATIVE if load.cumulative else kind.AGGREGATION_TEMPORALITY_DELTA
        )
        points = histogram.data_points
        del points[last:], points[:first]
        mark_times(points)
        plain = request.SerializeToString()
        one = points[0].SerializeToString()
        self._grows = load.cumulative
        self._blank = np.frombuffer(plain, np.uint8)
        self._texts = [(plain.index(text.encode()), len(text)) for text in (INSTANCE, INCARNATION)]
        self._begin, self._width = plain.index(one), len(one) + 3  # tag and length of the next
        self._end = self._begin + len(points) * self._width
        assert {point.ByteSize() for point in points} == {len(one)}, "all points have the same length"
        self._places = [(one.index(mark), len(mark)) for mark in (START, END, MODEL.encode(), DIGEST.encode())]
        counts = np.array([point.bucket_counts for point in points], "<u8")
        numbers = np.array([[point.count] for point in points], "<u8")
        sums = np.array([[point.sum] for point in points], "<f8")
        self._growing = [(one.index(values[0].tobytes()), values) for values in (numbers, sums, counts)]

    def fill(self, instance: int, names: Names, start: int, end: int, times: int) -> bytes:
        """The request of a replica: its interval, and how many times the counts where they grow."""
        data = np.empty(self._blank.size + 3, np.uint8)  # the last row has no next one
        data[:-3] = self._blank
        texts = (f"replica-{instance:05}", f"{instance:016x}")
        for (at, size), text in zip(self._texts, texts, strict=True):
            data[at : at + size] = np.frombuffer(text.encode(), np.uint8)
        rows = data[self._begin : self._end].reshape(-1, self._width)
        values = (struct.pack("<Q", start), struct.pack("<Q", end), names.model.encode(), names.digest.encode())
        for (at, size), value in zip(self._places, values, strict=True):
            rows[:, at : at + size] = np.frombuffer(value, np.uint8)
        if self._grows:
            for at, base in self._growing:
                grown = (base * base.dtype.type(times)).view(np.uint8)
                rows[:, at : at + grown.shape[1]] = grown
        return data[:-3].tobytes()


class Whole:
    """All points of one replica, as a request; slower than a Piece, and for points of any kind."""

    def __init__(self, load: Load) -> None:
        self._blank = load.whole

    def fill(self, instance: int, names: Names, start: int, end: int, times: int) -> bytes:
        """The request of a replica; its counts are the same each time."""
        del times
        body = self._blank
        for mark, value in (
            (INSTANCE.encode(), f"replica-{instance:05}".encode()),
            (INCARNATION.encode(), f"{instance:016x}".encode()),
            (MODEL.encode(), names.model.encode()),
            (DIGEST.encode(), names.digest.encode()),
            (START, struct.pack("<Q", start)),
            (END, struct.pack("<Q", end)),
        ):
            body = body.replace(mark, value)
        return body


class Requests:
    """The requests of some replicas, one after the other, without end."""

    def __init__(self, load: Load, replicas: range) -> None:
        self._load, self._replicas = load, replicas
        export = ExportMetricsServiceRequest.FromString(load.export)
        self.features = len(export.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points)
        self._pieces: dict[tuple[int, int], Piece | Whole] = {}
        if load.whole:
            self._pieces[0, self.features] = Whole(load)
        self._points = self._walk()
        self.round = -(-len(replicas) * self.features // load.points)  # requests until all replicas have sent

    def _walk(self) -> Iterator[tuple[int, int, int, int]]:
        """Replica, interval and its number, endlessly."""
        started, step = time.time_ns() - round(self._load.back * 1e9), round(self._load.step * 1e9)
        ends = dict.fromkeys(self._replicas, started)
        times = 0
        while True:
            times += 1
            for replica in self._replicas:
                start = started if self._load.cumulative else ends[replica]
                ends[replica] = ends[replica] + step if step else max(time.time_ns(), ends[replica] + 1)
                yield replica, start, ends[replica], times

    def make(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """Bodies, and the features [first, last) of each part of it."""
        parts: list[bytes] = []
        ranges: list[tuple[int, int]] = []
        left = self._load.points
        for replica, start, end, times in self._points:
            names = self._load.models[replica % len(self._load.models)]
            first = 0
            while first < self.features:
                last = min(first + left, self.features)
                piece = self._pieces.get((first, last))
                if piece is None:
                    piece = self._pieces[first, last] = Piece(self._load, first, last)
                parts.append(piece.fill(replica, names, start, end, times))
                ranges.append((first, last))
                left -= last - first
                first = last
                if not left:
                    yield parts[0] if len(parts) == 1 else b"".join(parts), ranges
                    parts, ranges, left = [], [], self._load.points
