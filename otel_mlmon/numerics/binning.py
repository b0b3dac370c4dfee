"""Cells of a variable: where a value is counted.

A numeric axis follows OTLP: with edges e0 < e1 < ... the cells are (-inf, e0], (e0, e1], ..., (e_last, inf). The profile
makes the edges once; the model process and the processor only use them, so that counts of all replicas add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

OTHER: Final = "_OTHER_"
UNSEEN: Final = "_UNSEEN_"


@dataclass(frozen=True, slots=True, eq=False)
class NumericAxis:
    """Cells of a number.

    Args:
        edges: strictly increasing finite bounds, shape (k,), k >= 1; the axis has k + 1 cells.
        low: index of the edge at the lower end of the reference's range: cells 0..low lie below it.
        high: index of the edge at its upper end: cells high+1..k lie above it.

    Raises:
        ValueError: edges are not finite and strictly increasing, or low and high do not name a range in them.
    """

    edges: Floats
    low: int
    high: int

    def __post_init__(self) -> None:
        edges = np.array(self.edges, dtype=np.float64)
        if edges.ndim != 1 or not edges.size or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise ValueError(f"edges must be finite and strictly increasing, got {edges!r}")
        if not 0 <= self.low <= self.high < edges.size:
            raise ValueError(f"need 0 <= low <= high < {edges.size}, got low={self.low}, high={self.high}")
        edges.setflags(write=False)
        object.__setattr__(self, "edges", edges)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NumericAxis):
            return NotImplemented
        return (self.low, self.high) == (other.low, other.high) and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash((self.low, self.high, self.edges.tobytes()))

    @property
    def cells(self) -> int:
        return self.edges.size + 1

    def locate(self, values: ArrayLike) -> NDArray[np.intp]:
        """Cell of each value, same shape; NaN is located in the last cell, so take it out first."""
        return np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="left")

    def count(self, values: ArrayLike) -> Counts:
        """Values in each cell, shape (cells,). Infinite values and NaN must have been taken out."""
        ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
        return self.count_sorted(ordered)

    def count_sorted(self, ordered: Floats) -> Counts:
        """The same for ascending values: edges are searched in the values, k log n instead of n log k."""
        below = np.searchsorted(ordered, self.edges, side="right")
        return np.diff(below, prepend=0, append=ordered.size).astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True)
class CategoryAxis:
    """Cells of a category: one for each name, then OTHER, then UNSEEN.

    Args:
        names: listed categories, most frequent first.
        others: further categories the reference is known to hold; they are counted as OTHER.
        closed: True where `names` and `others` are all that the reference held, so that anything else is UNSEEN;
            False where there were too many to keep: then anything else is OTHER.

    Raises:
        ValueError: a name occurs twice or is one of the two reserved ones.
    """

    names: tuple[str, ...]
    others: tuple[str, ...] = ()
    closed: bool = True

    def __post_init__(self) -> None:
        every = (*self.names, *self.others)
        if len(set(every)) != len(every) or OTHER in every or UNSEEN in every:
            raise ValueError(f"categories must be distinct and not {OTHER} or {UNSEEN}, got {every[:20]!r}")

    @property
    def cells(self) -> int:
        return len(self.names) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each cell, shape (cells,)."""
        return (*self.names, OTHER, UNSEEN)

    @property
    def codes(self) -> dict[str, int]:
        """Cell of each known category; what is not in it belongs to `default`."""
        table = dict.fromkeys(self.others, len(self.names))
        table.update((name, code) for code, name in enumerate(self.names))
        return table

    @property
    def default(self) -> int:
        """Cell of a category that is in neither list."""
        return len(self.names) + (1 if self.closed else 0)

    def count(self, codes: ArrayLike) -> Counts:
        """Values in each cell from their cell numbers, shape (cells,)."""
        return np.bincount(np.asarray(codes).astype(np.intp), minlength=self.cells).astype(np.int64, copy=False)


Axis = NumericAxis | CategoryAxis
