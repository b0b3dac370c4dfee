"""Counts over the cells of an axis, apart from what has no cell. Frozen values; merging returns a new one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from otel_mlmon.numerics.binning import Axis, Counts


@dataclass(frozen=True, slots=True)
class Invalid:
    """Values that are in no cell, by reason."""

    missing: int = 0
    nan: int = 0
    inf: int = 0
    type: int = 0

    def __add__(self, other: Invalid) -> Invalid:
        return Invalid(self.missing + other.missing, self.nan + other.nan, self.inf + other.inf, self.type + other.type)

    @property
    def total(self) -> int:
        """Values in no cell, whatever the reason."""
        return self.missing + self.nan + self.inf + self.type


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of a variable.

    Args:
        axis: the cells.
        counts: values in each cell, shape (axis.cells,), not negative.
        invalid: values in no cell.
        sum, min, max: of the valid values of a numeric axis; 0, inf and -inf where there are none, and for categories.

    Raises:
        ValueError: the counts do not fit the axis.
    """

    axis: Axis
    counts: Counts
    invalid: Invalid = field(default_factory=Invalid)
    sum: float = 0.0
    min: float = float("inf")
    max: float = float("-inf")

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int64)
        if counts.shape != (self.axis.cells,) or (counts < 0).any():
            raise ValueError(f"need {self.axis.cells} counts, none negative, got {counts!r}")
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    @classmethod
    def empty(cls, axis: Axis) -> Histogram:
        """The identity of merging."""
        return cls(axis, np.zeros(axis.cells, dtype=np.int64))

    @property
    def valid(self) -> int:
        """Values in cells."""
        return int(self.counts.sum())

    @property
    def seen(self) -> int:
        """Values seen, valid or not."""
        return self.valid + self.invalid.total

    @property
    def missing(self) -> float:
        """Share of the values seen that are missing or NaN; 0 where nothing was seen."""
        return (self.invalid.missing + self.invalid.nan) / max(self.seen, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (
            self.axis == other.axis
            and np.array_equal(self.counts, other.counts)
            and (self.invalid, self.sum, self.min, self.max) == (other.invalid, other.sum, other.min, other.max)
        )

    __hash__ = None  # type: ignore[assignment]

    def merge(self, other: Histogram) -> Histogram:
        """Counts of both.

        Raises:
            ValueError: the axes differ; both are named.
        """
        if self.axis != other.axis:
            raise ValueError(f"cannot merge histograms over different cells: {self.axis!r} and {other.axis!r}")
        return Histogram(
            self.axis,
            self.counts + other.counts,
            self.invalid + other.invalid,
            self.sum + other.sum,
            min(self.min, other.min),
            max(self.max, other.max),
        )
