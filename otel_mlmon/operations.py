"""Duration, batch size and calls in progress of a model, counted by us.

The SDK's own instruments would count twice what a parent had counted before a fork.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

SECONDS: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ROWS: Final = tuple(float(2**i) for i in range(0, 21, 2))
Drop: TypeAlias = Literal["unreadable"]  # why rows are not counted


class Call(NamedTuple):
    """What a call is counted under."""

    operation: str
    framework: str
    error: str


@dataclass(slots=True)
class Sizes:
    """An explicit-bucket histogram that only grows."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0
    min: float = float("inf")
    max: float = float("-inf")

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.min, self.max = min(self.min, value), max(self.max, value)

    def merge(self, other: Sizes) -> None:
        """Add what another of the same bounds has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)


@dataclass(slots=True)
class OperationTotals:
    """What `Operations.collect` gives."""

    durations: dict[Call, Sizes] = field(default_factory=dict)
    batches: dict[Call, Sizes] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    extra_columns: int = 0
    unsent: int = 0

    def merge(self, other: OperationTotals) -> None:
        """Add what another has counted."""
        for mine, theirs in ((self.durations, other.durations), (self.batches, other.batches)):
            for call, sizes in theirs.items():
                if call in mine:
                    mine[call].merge(sizes)
                else:
                    mine[call] = sizes
        self.dropped.update(other.dropped)
        self.errors.update(other.errors)
        self.extra_columns += other.extra_columns
        self.unsent += other.unsent


class Operations:
    """Thread-safe counts of a model's calls in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = OperationTotals()
        self._active: set[object] = set()

    @property
    def active(self) -> int:
        """Calls that have begun and not ended."""
        return len(self._active)

    def begin(self, key: object) -> None:
        """A call has begun, known by any object of its own."""
        with self._lock:
            self._active.add(key)

    def end(self, key: object, call: Call, seconds: float, rows: int | None) -> None:
        """A call has ended, and is not counted where it already had; rows is None where the input could not be read."""
        with self._lock:
            if key not in self._active:
                return
            self._active.remove(key)
            totals = self._totals
            durations = totals.durations.get(call)
            if durations is None:
                durations = totals.durations[call] = Sizes(SECONDS)
            durations.add(seconds)
            if rows is not None:
                key = call._replace(error="") if call.error else call
                batches = totals.batches.get(key)
                if batches is None:
                    batches = totals.batches[key] = Sizes(ROWS)
                batches.add(rows)

    def drop(self, reason: Drop, rows: int = 1) -> None:
        """Rows that are not counted."""
        with self._lock:
            self._totals.dropped[reason] += rows

    def give_up(self, points: int) -> None:
        """Points that will not be sent."""
        with self._lock:
            self._totals.unsent += points

    def collect(self) -> OperationTotals:
        """What was counted since the last time."""
        with self._lock:
            totals, self._totals = self._totals, OperationTotals()
        return totals
