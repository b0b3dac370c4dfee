"""What has been counted so far of one variable: over the cells of its profile, or learnt where it has none."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from otel_mlmon.encoding import Encoded, category_name, is_missing, to_numbers, to_plain
from otel_mlmon.numerics.binning import OTHER, Axis, CategoryAxis, ColumnCounts, Floats, count_column
from otel_mlmon.numerics.exponential import Exponential, count_exponential

Role = Literal["feature", "value", "class", "score"]
LABELS: Final = 50  # categories listed of a variable without profile
LABEL_LENGTH: Final = 128  # longer ones are text, which is nobody's category and must not be sent


class VariableKey(NamedTuple):
    """A feature by name, or an output of the model (role and name are then the same)."""

    role: Role
    name: str


class Tally:
    """Counts that only grow. Not thread-safe: the recorder adds under its lock."""

    __slots__ = ("inf", "max", "min", "missing", "nan", "sum", "valid", "wrong_type")

    def __init__(self) -> None:
        self.valid = self.missing = self.nan = self.inf = self.wrong_type = 0
        self.sum = 0.0
        self.min, self.max = np.inf, -np.inf

    @property
    def seen(self) -> int:
        """Values seen, valid or not."""
        return self.valid + self.missing + self.nan + self.inf + self.wrong_type

    def add(self, other: Tally) -> None:
        """Add what another of the same kind has counted."""
        self.valid += other.valid
        self.missing += other.missing
        self.nan += other.nan
        self.inf += other.inf
        self.wrong_type += other.wrong_type
        self.sum += other.sum
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)

    def set_apart(self, encoded: Encoded) -> None:
        """Take over what an encoded column says was not valid."""
        self.missing += encoded.missing
        self.wrong_type += encoded.wrong_type
        self.inf += encoded.inf


class CellTally(Tally):
    """Counts over the cells of a profile's axis."""

    __slots__ = ("axis", "counts")

    def __init__(self, axis: Axis) -> None:
        super().__init__()
        self.axis = axis
        self.counts = np.zeros(axis.cells, dtype=np.int64)

    def count(self, encoded: Encoded) -> None:
        """Count an encoded column."""
        self.add_column(count_column(encoded.values, self.axis), encoded.values.size)
        self.set_apart(encoded)

    def add_column(self, column: ColumnCounts, rows: int) -> None:
        """Add a column of so many values that has been counted over the same cells."""
        self.counts += column.counts
        self.valid += rows - column.nan - column.inf
        self.nan += column.nan
        self.inf += column.inf
        self.sum += column.sum
        self.min, self.max = min(self.min, column.min), max(self.max, column.max)

    def add(self, other: Tally) -> None:
        """Add what another of the same cells has counted."""
        super().add(other)
        self.counts += other.counts  # type: ignore[attr-defined]  # the recorder adds like to like

    @property
    def labels(self) -> dict[str, int]:
        """Counts by category label, those above 0; for a category axis."""
        assert isinstance(self.axis, CategoryAxis)  # noqa: S101 -- asked of categories only
        return {label: int(n) for label, n in zip(self.axis.labels, self.counts.tolist(), strict=True) if n}


class LearntTally(Tally):
    """Counts of a variable without profile: numbers exponentially, anything else by the labels seen first."""

    __slots__ = ("exponential", "labels")

    def __init__(self) -> None:
        super().__init__()
        self.exponential = Exponential()
        self.labels: Counter[str] = Counter()

    def count(self, column: Any, role: Role) -> None:
        """Count a column: numbers of a feature, value or score, labels of anything else."""
        plain, missing = to_plain(column)
        self.missing += missing
        if role != "class":
            numbers = to_numbers(plain)
            if not numbers.wrong_type or np.isfinite(numbers.values).any():  # NaN is often a text that is missing
                self._count_numbers(numbers)
                return
        values = plain.tolist() if isinstance(plain, np.ndarray) else plain
        for value in values:
            if is_missing(value):
                self.missing += 1
            elif isinstance(value, (float, np.floating)) and not math.isfinite(value):
                self.missing += math.isnan(value)
                self.inf += math.isinf(value)
            elif (name := category_name(value)) is None:
                self.wrong_type += 1
            else:
                self.valid += 1
                self._count_label(name, 1)

    def _count_numbers(self, numbers: Encoded) -> None:
        ordered: Floats = np.sort(numbers.values)
        finite = ordered[np.isfinite(ordered)]
        nan = int(np.isnan(ordered).sum())
        self.set_apart(numbers)
        self.nan += nan
        self.inf += ordered.size - finite.size - nan
        if finite.size:
            self.valid += finite.size
            self.sum += float(finite.sum())
            self.min, self.max = min(self.min, float(finite[0])), max(self.max, float(finite[-1]))
            self.exponential = self.exponential.merge(count_exponential(finite))

    def _count_label(self, name: str, count: int) -> None:
        known = name in self.labels or (len(self.labels) < LABELS and len(name) <= LABEL_LENGTH)
        self.labels[name if known else OTHER] += count

    def add(self, other: Tally) -> None:
        """Add what another has counted; labels beyond the limit become OTHER."""
        super().add(other)
        assert isinstance(other, LearntTally)  # noqa: S101 -- the recorder adds like to like
        self.exponential = self.exponential.merge(other.exponential)
        for name, count in other.labels.items():
            self._count_label(name, count)
