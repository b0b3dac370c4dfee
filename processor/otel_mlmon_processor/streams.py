"""What each producer has sent before, so that everything is counted once, and of cumulative points only the increase.

A delta point is known by its interval (start, end]. A cumulative point is known by its start time and how far it got;
with another start time it is another count from zero, so a restart can come late or out of order. What nobody can tell
from the points alone, docs/operations.md lists.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.pack import Table
from otel_mlmon_processor.points import Producer
from otel_mlmon_processor.reading import Change, Measured, Reading

NEW: Final = "new"
DUPLICATE: Final = "duplicate"
TOO_OLD: Final = "too_old"  # within what is settled: whether it was counted is no longer known
BOUNDS_CHANGED: Final = "bounds_changed"


class Spans:
    """Disjoint times (start, end], bounded in number: the two oldest become one, with the gap between them."""

    __slots__ = ("ends", "limit", "starts")

    def __init__(self, limit: int, starts: list[int] | None = None, ends: list[int] | None = None) -> None:
        self.limit = limit
        self.starts: list[int] = starts or []
        self.ends: list[int] = ends or []

    def cover(self, start: int, end: int) -> bool:
        """Whether (start, end] lies in one span."""
        at = bisect_right(self.starts, start) - 1
        return at >= 0 and end <= self.ends[at]

    def add(self, start: int, end: int) -> None:
        """Add (start, end], joined with what it touches."""
        first = bisect_right(self.starts, start)
        if first and self.ends[first - 1] >= start:
            first -= 1
            start = self.starts[first]
        last = first
        while last < len(self.starts) and self.starts[last] <= end:
            end = max(end, self.ends[last])
            last += 1
        self.starts[first:last], self.ends[first:last] = [start], [end]
        if len(self.starts) > self.limit:
            del self.starts[1], self.ends[0]


class Intervals:
    """Delta intervals that a producer's streams have sent.

    The newest are kept exactly, each with the set of streams that sent it as a bit mask, because all streams of a
    producer share their intervals. Older ones are settled: only the time they cover is kept, for all streams together,
    and a point within it is refused, as nobody knows any more whether it was counted.
    """

    __slots__ = ("known", "settled")

    def __init__(self, spans: int = 1024) -> None:
        self.known: dict[tuple[int, int], int] = {}  # in order of first sight
        self.settled = Spans(spans)

    def take(self, start: int, end: int, stream: int) -> Literal["new", "duplicate", "too_old"]:
        """Note that a stream sent (start, end]; NEW, DUPLICATE or TOO_OLD."""
        interval = (start, end)
        bit = 1 << stream
        streams = self.known.get(interval)
        if streams is not None:
            if streams & bit:
                return DUPLICATE
            self.known[interval] = streams | bit
            return NEW
        if self.settled.starts and self.settled.cover(*_extent(start, end)):
            return TOO_OLD
        self.known[interval] = bit
        return NEW

    def take_all(self, start: int, end: int, streams: Iterable[int]) -> bool:
        """Note that streams sent (start, end], where it is new for all of them; otherwise nothing is noted."""
        sent = 0
        for stream in streams:
            sent |= 1 << stream
        before = self.known.get((start, end))
        if before is None:
            if self.settled.starts and self.settled.cover(*_extent(start, end)):
                return False
            before = 0
        if before & sent:
            return False
        self.known[start, end] = before | sent
        return True

    def settle(self, limit: int) -> None:
        """Keep at most `limit` exactly."""
        while len(self.known) > limit:
            oldest = next(iter(self.known))
            del self.known[oldest]
            self.settled.add(*_extent(*oldest))

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        known = [[start, end, hex(streams)] for (start, end), streams in self.known.items()]
        return [self.settled.limit, self.settled.starts, self.settled.ends, known]

    @classmethod
    def load(cls, plain: list[Any]) -> Intervals:
        """What `dump` gave."""
        limit, starts, ends, known = plain
        intervals = cls(limit)
        intervals.settled = Spans(limit, starts, ends)
        intervals.known = {(start, end): int(streams, 16) for start, end, streams in known}
        return intervals


def _extent(start: int, end: int) -> tuple[int, int]:
    """Time that an interval covers: none before its end where the start is unknown or a clock went back."""
    return (start, end) if 0 < start < end else (end, end)


class Increase(NamedTuple):
    """What a point adds, and since when (0: since an unknown time)."""

    since: int
    reading: Reading


class Cumulative:
    """The farthest point of a cumulative stream with one start time; all of it has been counted.

    `end` is the newest time of all points so far, `floor` that when the counter last began again under this start.
    """

    __slots__ = ("end", "floor", "reading", "start")

    def __init__(self, start: int, end: int, reading: Reading, floor: int = 0) -> None:
        self.start = start
        self.end = end
        self.reading = reading
        self.floor = floor

    def advance(self, end: int, reading: Reading, change: Change) -> Increase | Literal["duplicate", "bounds_changed"]:
        """What a further point adds: an Increase, or why it adds nothing (DUPLICATE, BOUNDS_CHANGED).

        A cell that fell says that the counter began again from zero, so all of the point is new; or that the point is
        an earlier one, if its time is no later. Counts only grow, so more of them at an earlier time say that the clock
        was set back, and at the same time that they are the rest of it.

        Args:
            end: time of the point.
            reading: its counts.
            change: from `self.reading` to them, see `compare`.
        """
        earlier, since = self.reading, self.end
        if end <= self.floor:
            return DUPLICATE
        if change is None:
            if end < since:
                return DUPLICATE
            self.end, self.reading, self.floor = end, reading, since
            return BOUNDS_CHANGED
        fell, difference = change
        if end <= since:
            if fell or difference is None:
                return DUPLICATE
            since = self.start if end == since else end
        elif fell:
            self.floor = since
        self.end, self.reading = max(self.end, end), reading
        if fell:
            return Increase(since, reading)
        total = None if reading.sum is None or earlier.sum is None else reading.sum - earlier.sum
        if difference is None:
            difference = _zero(reading.counts)
        return Increase(since, Reading(difference, reading.bounds, total))


def dump_streams(streams: Sequence[Cumulative], bounds: Table[bytes]) -> list[Any]:
    """As plain values, for the checkpoint: by column, as they are many. Bounds go to the table."""
    readings = [stream.reading for stream in streams]
    others = [
        reading.counts.dump() if isinstance(reading.counts, ExponentialSum) else reading.counts
        for reading in readings
        if not isinstance(reading.counts, bytes)
    ]
    return [
        np.array([stream.start for stream in streams], dtype=np.int64),
        np.array([stream.end for stream in streams], dtype=np.int64),
        np.array([stream.floor for stream in streams], dtype=np.int64),
        np.array([math.nan if r.sum is None else r.sum for r in readings], dtype=np.float64),
        np.array([bounds.place(r.bounds) if isinstance(r.counts, bytes) else -1 for r in readings], dtype=np.int64),
        b"".join([reading.counts for reading in readings if isinstance(reading.counts, bytes)]),
        others,
    ]


def load_streams(plain: list[Any], bounds: list[bytes]) -> Iterator[Cumulative]:
    """What `dump_streams` gave."""
    *columns, cells, others = plain
    first, rest = 0, iter(others)
    for start, end, floor, total, place in zip(*[column.tolist() for column in columns], strict=True):
        edges = bounds[place] if place >= 0 else b""
        counts: Measured
        if place >= 0:
            counts = cells[first : first + len(edges) + 8]
            first += len(edges) + 8
        else:
            other = next(rest)
            counts = ExponentialSum.load(other) if isinstance(other, list) else other
        yield Cumulative(start, end, Reading(counts, edges, None if math.isnan(total) else total), floor)


def _zero(counts: Measured) -> Measured:
    if isinstance(counts, ExponentialSum):
        return ExponentialSum()
    return bytes(len(counts)) if isinstance(counts, bytes) else 0


def identify(producer: Producer) -> tuple[str, ...]:
    """What makes a producer the same one again: nothing that collectors add on the way.

    An incarnation is random, so a namespace that one path adds need not tell it apart. Where neither an instance nor an
    incarnation is known, the environment must tell processes apart.
    """
    namespace = "" if producer.incarnation else producer.namespace
    bare = not producer.instance and not producer.incarnation
    environment = producer.environment if bare else ""
    return (namespace, producer.service, producer.instance, producer.incarnation, environment)
