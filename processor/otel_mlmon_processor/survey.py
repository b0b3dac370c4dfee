"""Which cells a model without a profile is counted over, from its first day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from otel_mlmon.numerics.binning import OTHER, UNSEEN, Axis, CategoryAxis, Counts, Floats
from otel_mlmon.numerics.coarse import COARSE_CELLS, decision_starts
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.numerics.nesting import count_over, cut_axis, merge_cells
from otel_mlmon.numerics.scales import DAY, HOUR
from otel_mlmon.numerics.windows import REASONS
from otel_mlmon.profile.document import Profile, Reference, Variable
from otel_mlmon_processor.learnt import NOTE, middles, say_time
from otel_mlmon_processor.windows import ModelKey, VariableCounts, VariableKey, Window

HOURS: Final = 12  # that must have had traffic
VALUES: Final = 500  # of a variable; fewer say little about where to cut
NAMES: Final = 1_000  # categories that are known by name
_BASE, _NAME = 1_000, 100  # bytes of a variable, and of a name beside its characters
_NOTHING: Final = np.zeros(0), np.zeros(1, dtype=np.int64)


class Seen:
    """What a variable held so far, mutable."""

    def __init__(self) -> None:
        self.cells: tuple[Floats, Counts] = _NOTHING
        self.names: Counter[str] = Counter()
        self.invalid: Counter[str] = Counter()
        self.sum: float | None = 0.0

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return _BASE + 16 * self.cells[0].size + sum(_NAME + len(name) for name in self.names)

    def add(self, counts: VariableCounts) -> None:
        """Take in a window."""
        self.invalid.update(counts.invalid)
        self.names.update(counts.categories or {})
        if len(self.names) > 2 * NAMES:  # too many to keep, so what is left out is not unseen
            kept = dict(self.names.most_common(NAMES))
            rest = self.names.total() - sum(kept.values())
            self.names = Counter(kept)
            self.names[OTHER] += rest
        if counts.edges is None or counts.cells is None or not counts.cells.any():
            return
        more = counts.edges, counts.cells
        self.cells = merge_cells(self.cells, more) if self.cells[0].size else more
        self.sum = None if self.sum is None or counts.sum is None else self.sum + counts.sum

    def make_reference(self, key: VariableKey) -> Reference | None:
        """Its cells and what they held; None where that is too little."""
        invalid = Invalid(**{reason: self.invalid[reason] for reason in REASONS})
        edges, fine = self.cells
        if fine.sum() >= VALUES and (axis := cut_axis(edges, fine)) is not None:
            counts, middle = count_over(axis.edges, edges, fine), middles(edges)
            total = float(fine @ middle) if self.sum is None else self.sum
            m2 = float(fine @ (middle - total / fine.sum()) ** 2)
            ends = float(axis.edges[0]), float(axis.edges[-1])
            return Reference(_name(key, axis, counts), Histogram(axis, counts, invalid, total, *ends), m2)
        if self.names.total() < VALUES:
            return None
        categories, counts = self._list_names()
        return Reference(_name(key, categories, counts), Histogram(categories, counts, invalid))

    def _list_names(self) -> tuple[CategoryAxis, Counts]:
        """The most frequent ones have cells of their own; whatever was not there is unseen, if all could be kept."""
        names = {name: n for name, n in self.names.items() if name not in (OTHER, UNSEEN)}
        ranked = sorted(names, key=lambda name: (-names[name], name))
        listed, others = ranked[:COARSE_CELLS], ranked[COARSE_CELLS:NAMES]
        closed = len(ranked) <= NAMES and not self.names[OTHER]
        own = [names[name] for name in listed]
        rest = self.names.total() - sum(own)
        return CategoryAxis(tuple(listed), tuple(others), closed), np.array([*own, rest, 0])

    def dump(self) -> list[Any]:
        """As plain values."""
        return [*self.cells, dict(self.names), dict(self.invalid), self.sum]

    @classmethod
    def load(cls, plain: list[Any]) -> Seen:
        """What `dump` gave."""
        seen = cls()
        seen.cells, seen.names, seen.invalid, seen.sum = (
            (plain[0], plain[1]),
            Counter(plain[2]),
            Counter(plain[3]),
            plain[4],
        )
        return seen


def _name(key: VariableKey, axis: Axis, counts: Counts) -> Variable:
    dtype = "string" if isinstance(axis, CategoryAxis) else "float"
    decision = tuple(decision_starts(counts, axis).tolist())
    return Variable(key.name or key.role, "", key.role, dtype, "identity", axis, decision)  # type: ignore[arg-type]


class Survey:
    """The first day of a model, mutable; not thread-safe.

    Numbers come in exponential buckets, which nest: all windows are added over the finest bounds at which that is
    exact, and the cells are cut at some of these, about 20 with equal shares. So each window of the day is counted over
    them exactly. Of categories the 20 most frequent have cells of their own.
    """

    def __init__(self) -> None:
        self.next = -1  # window that is wanted next; -1: any
        self._from = -1
        self._hours: set[int] = set()
        self._variables: dict[VariableKey, Seen] = {}

    def advance(self, windows: Iterable[Window]) -> None:
        """Windows in order; those before `next` are left out."""
        for window in windows:
            if window.number < self.next:
                continue
            if self.done:
                return
            self.next = window.number + 1
            self._from = window.number if self._from < 0 else self._from
            self._hours.add(window.number // HOUR)
            for key, counts in window.variables.items():
                self._variables.setdefault(key, Seen()).add(counts)

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return sum(seen.size for seen in self._variables.values())

    @property
    def done(self) -> bool:
        """Whether a day is over and was long enough."""
        return self.next - self._from >= DAY and len(self._hours) >= HOURS and self._from >= 0

    def make_profile(self, key: ModelKey) -> Profile:
        """What the day held."""
        each = ((name, seen.make_reference(name)) for name, seen in sorted(self._variables.items()))
        found = tuple(reference for _, reference in each if reference is not None)
        rows = max((r.histogram.seen for r in found), default=0)
        return Profile(key.model, key.version, found, rows, say_time(self.next * 60.0), notes=(NOTE,))

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        variables = [[*key, seen.dump()] for key, seen in self._variables.items()]
        return {"next": self.next, "from": self._from, "hours": sorted(self._hours), "variables": variables}

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave."""
        self.next, self._from, self._hours = plain["next"], plain["from"], set(plain["hours"])
        self._variables = {VariableKey(role, name): Seen.load(seen) for role, name, seen in plain["variables"]}
