"""Where each count of a model has its place: one integer vector holds all of them, so that adding is one operation."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.room import BUCKETS
from otel_mlmon_processor.windows import Role, VariableKey

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

SEEN: Final = "seen"
INVALID: Final = "invalid"
CATEGORY: Final = "category"
CELLS: Final = "cells"
EXPONENTIAL: Final = "exponential"
ROLES: Final[tuple[Role, ...]] = ("feature", "value", "class", "score")


class Place(NamedTuple):
    """What is counted: a kind of count of a variable; `detail` is the reason, the label or the bounds' bytes."""

    variable: VariableKey
    kind: str
    detail: str | bytes = ""

    @property
    def size(self) -> int:
        """Integers of it, beside the one for values whose sum is unknown."""
        if self.kind == CELLS:
            return len(self.detail) // 8 + 1
        return 0 if self.kind == EXPONENTIAL else 1

    @property
    def nbytes(self) -> int:
        """What it takes in a tally."""
        return BUCKETS if self.kind == EXPONENTIAL else 8 * (self.size + 2 * (self.kind == CELLS))


class Slot(NamedTuple):
    """Where it is counted.

    Histograms have their cells at [offset, offset + size) and behind them, at offset + size, the values whose sum is
    unknown; `total` is the place of their sum in the float vector (-1 where there is none). An exponential histogram
    has one such integer only (size 0).
    """

    number: int
    place: Place
    offset: int
    size: int
    total: int


class Layout:
    """Places of a model's counts in its vectors. It only grows."""

    __slots__ = ("floats", "held", "nbytes", "places", "slots", "variables", "width")

    def __init__(self) -> None:
        self.places: dict[Place, Slot] = {}
        self.variables: set[VariableKey] = set()
        self.held: Counter[tuple[VariableKey, str]] = Counter()  # places of a variable by kind
        self.slots: list[Slot] = []
        self.width = 0  # of the integer vector
        self.floats = 0  # of the vector of sums
        self.nbytes = 0  # of a tally in which all is counted

    def place(self, place: Place) -> Slot:
        """The slot of a place, made on first sight."""
        slot = self.places.get(place)
        if slot is None:
            summed = place.kind in (CELLS, EXPONENTIAL)
            slot = Slot(len(self.slots), place, self.width, place.size, self.floats if summed else -1)
            self.width += place.size + summed
            self.floats += summed
            self.nbytes += place.nbytes
            self.slots.append(slot)
            self.places[place] = slot
            self.variables.add(place.variable)
            self.held[place.variable, place.kind] += 1
        return slot

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [[*slot.place.variable, slot.place.kind, slot.place.detail] for slot in self.slots]

    @classmethod
    def load(cls, plain: list[Any]) -> Layout:
        """What `dump` gave."""
        layout = cls()
        for role, name, kind, detail in plain:
            layout.place(Place(VariableKey(_role(role), name), kind, detail))
        return layout


class Tally:
    """Counts in a layout, mutable: integers, sums, and exponential histograms by slot.

    Vectors may be shorter than the layout, which has grown since; what is missing is zero. A packed tally keeps only
    the integers that are not zero. A shared one has given what it holds to a copy or a dump, and takes a copy of its
    own before it changes: there may be thousands, of which few change soon.
    """

    __slots__ = ("exponentials", "index", "ints", "shared", "sums")

    def __init__(self, width: int = 0, floats: int = 0) -> None:
        self.ints: Counts = np.zeros(width, dtype=np.int64)
        self.sums: Floats = np.zeros(floats, dtype=np.float64)
        self.index: NDArray[np.int32] | None = None
        self.exponentials: dict[int, ExponentialSum] = {}
        self.shared = False

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.ints.nbytes + self.sums.nbytes + BUCKETS * len(self.exponentials)

    def add(self, other: Tally) -> None:
        """Add what is not packed."""
        self.unpack()
        self._own()
        self.ints = _fit(self.ints, other.ints.size)
        self.ints[: other.ints.size] += other.ints
        self.sums = _fit(self.sums, other.sums.size)
        self.sums[: other.sums.size] += other.sums
        for slot, exponential in other.exponentials.items():
            mine = self.exponentials.get(slot)
            if mine is None:
                self.exponentials[slot] = exponential.copy()
            else:
                mine.merge(exponential)

    def accumulate(self, other: Tally, sign: int) -> None:
        """Add or take out the integers and exponential histograms, not the sums; `other` may be packed."""
        self._own()
        if other.index is None:
            self.ints = _fit(self.ints, other.ints.size)
            self.ints[: other.ints.size] += sign * other.ints
        elif other.index.size:
            self.ints = _fit(self.ints, int(other.index[-1]) + 1)
            self.ints[other.index] += sign * other.ints
        for slot, exponential in other.exponentials.items():
            mine = self.exponentials.setdefault(slot, ExponentialSum())
            if sign > 0:
                mine.merge(exponential)
            else:
                mine.subtract(exponential)
                if not mine.count:
                    del self.exponentials[slot]  # so that the next may be finer again

    def pack(self) -> None:
        """Keep only what is not zero, where that is smaller."""
        if self.index is None:
            index = np.flatnonzero(self.ints)
            if index.size * 2 < self.ints.size:
                self.ints = self.ints[index]
                self.index = index.astype(np.int32)

    def unpack(self) -> None:
        """Back to a whole vector."""
        if self.index is not None:
            ints = np.zeros(int(self.index[-1]) + 1 if self.index.size else 0, dtype=np.int64)
            ints[self.index] = self.ints
            self.ints, self.index = ints, None

    def copy(self) -> Tally:
        """An independent tally of the same counts; takes no time, whatever its size."""
        copied = Tally.__new__(Tally)
        copied.ints, copied.sums, copied.index = self.ints, self.sums, self.index
        copied.exponentials = self.exponentials
        copied.shared = self.shared = True
        return copied

    def _own(self) -> None:
        if self.shared:
            self.ints, self.sums = self.ints.copy(), self.sums.copy()
            self.exponentials = {slot: exponential.copy() for slot, exponential in self.exponentials.items()}
            self.shared = False

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint; they stay as they are."""
        self.shared = True
        return [self.ints, self.sums, self.index, [[slot, e.dump()] for slot, e in self.exponentials.items()]]

    @classmethod
    def load(cls, plain: list[Any]) -> Tally:
        """What `dump` gave."""
        tally = cls()
        tally.ints, tally.sums, tally.index, exponentials = plain
        tally.exponentials = {slot: ExponentialSum.load(e) for slot, e in exponentials}
        return tally


def _fit(vector: Any, size: int) -> Any:
    if vector.size >= size:
        return vector
    grown = np.zeros(size, dtype=vector.dtype)
    grown[: vector.size] = vector
    return grown


def _role(text: str) -> Role:
    for role in ROLES:
        if text == role:
            return role
    raise ValueError(f"no role of a variable: {text!r}")
