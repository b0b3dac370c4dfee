"""From what a column holds to the variables that are counted of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.encoding import category_name
from otel_mlmon.numerics.binning import OTHER, UNSEEN, Axis, CategoryAxis, Counts, fit_axis
from otel_mlmon.numerics.coarse import decision_starts
from otel_mlmon.profile.document import Dtype, Role, Variable
from otel_mlmon.profile.fields import MAX_TEXT, is_unicode
from otel_mlmon.profile.physical import Kind, Physical
from otel_mlmon.profile.sources import SourceError

Type = Literal["numeric", "category", "boolean", "datetime", "text"]
TYPES: Final[tuple[Type, ...]] = ("numeric", "category", "boolean", "datetime", "text")

FEW: Final = 20  # distinct integers up to which they are categories
KEPT: Final = 1_000  # further categories that are known by name
LONG: Final = 40  # characters; strings of that mean length, most of them distinct, are text
NO_NUMBER: Final = (np.inf, -np.inf)

_FITTING: Final[dict[Type, tuple[Kind, ...]]] = {
    "numeric": ("boolean", "integer", "float"),
    "category": ("boolean", "integer", "float", "string"),
    "boolean": ("boolean", "integer", "float"),
    "datetime": ("datetime",),
    "text": ("string",),
}
Output = Literal["value", "class", "score", "prediction"]  # "prediction": which of them is found from the values


@dataclass(slots=True)
class Scan:
    """What all rows of a column say: exact where a sample is not.

    Args:
        limit: distinct categories up to which they are kept; beyond, `names` is None.
        least, greatest: of the finite numbers, or of the times in seconds.
        names: distinct categories so far.
        lengths: least and greatest length of the strings.
        ages: least and greatest of the row's time less the value.
    """

    limit: int
    least: float = np.inf
    greatest: float = -np.inf
    names: set[str] | None = field(default_factory=set)
    lengths: tuple[float, float] = NO_NUMBER
    ages: tuple[float, float] = NO_NUMBER

    def update(self, column: Physical, time: NDArray[np.float64] | None, *, categories: bool) -> None:
        """Take in a piece of the column, and the times of its rows."""
        values = column.present
        if column.kind in ("boolean", "integer", "float", "datetime"):
            self.least, self.greatest = _widen((self.least, self.greatest), values)
        if column.kind == "datetime" and time is not None:
            self.ages = _widen(self.ages, time[column.valid] - values)
        if column.kind == "string":  # looking at each holds Python's lock, so at each distinct one
            distinct: set[Any] = set(values.tolist())
            self.lengths = _widen(self.lengths, np.fromiter(map(len, distinct), dtype=np.float64))
            self._collect(column.kind, distinct)
        elif self.names is not None and (categories or column.kind == "integer"):
            self._collect(column.kind, set(values.tolist()) if column.kind == "other" else np.unique(values).tolist())

    def _collect(self, kind: str, distinct: Iterable[Any]) -> None:
        if self.names is None:
            return
        for value in distinct:
            name = name_of(kind, value)
            if name is None:
                continue
            self.names.add(name)
            if len(self.names) > self.limit or not listable(name):
                self.names = None
                return


def _widen(bounds: tuple[float, float], values: NDArray[np.float64]) -> tuple[float, float]:
    if not values.size:
        return bounds
    least, most = float(values.min()), float(values.max())
    if np.isfinite(least) and np.isfinite(most):
        return min(bounds[0], least), max(bounds[1], most)
    return _widen(bounds, values[np.isfinite(values)])


def name_of(kind: str, value: Any) -> str | None:
    """Category of a physical value: booleans and integers are kept as floats there."""
    return category_name(bool(value)) if kind == "boolean" else category_name(value)


def listable(name: str) -> bool:
    """Whether a category can stand in a profile."""
    return len(name) <= MAX_TEXT and name not in (OTHER, UNSEEN) and is_unicode(name)


@dataclass(frozen=True, slots=True)
class Column:
    """One input: its name, what it is for, the sample and the scan of it.

    Args:
        name: of the column; of an output's column it may be "".
        output: None for features.
        sample: some rows, in their order.
        time: times of the sampled rows in seconds, or None.
        scan: of all rows.
        type: how it shall be counted; None: find out.
    """

    name: str
    output: Output | None
    sample: Physical
    time: NDArray[np.float64] | None
    scan: Scan
    type: Type | None = None


def plan_column(column: Column, categories: int) -> list[Variable]:
    """Variables of a column; at least one.

    Args:
        column: what is known of it.
        categories: how many are listed, the most frequent ones.

    Raises:
        SourceError: its values are not of the type that is asked for.
    """
    kind = column.sample.kind
    if column.output is not None:
        return [_plan_output(column, categories)]
    found = column.type or find_type(column.sample, column.scan)
    if column.type is not None and kind != "empty" and kind not in _FITTING[column.type]:
        raise SourceError(
            f"types: column {column.name!r} holds values of kind {kind}, which cannot be counted as {column.type}"
        )
    if found is None or kind not in _FITTING[found]:
        return [_feature(column, "empty", NOTHING)]
    if found == "datetime":
        return _plan_datetime(column)
    if found == "text":
        lengths = np.fromiter(map(len, column.sample.present), dtype=np.float64)
        cells = _cut_numbers(lengths, column.scan.lengths)
        return [Variable(f"{column.name}.length", column.name, "feature", "text", "length", *cells)]
    if found == "boolean":
        return [_feature(column, "boolean", _list_booleans(column.sample))]
    if found == "category":
        return [_feature(column, kind, _list_categories(column, categories))]
    if not np.isfinite(column.scan.least):  # nothing but infinite values
        return [_feature(column, "empty", NOTHING)]
    return [_feature(column, kind, _cut_numbers(column.sample.present, (column.scan.least, column.scan.greatest)))]


def find_type(sample: Physical, scan: Scan) -> Type | None:
    """Type of a column from its values; None where there are none that could be counted."""
    kind = sample.kind
    if kind == "boolean":
        return "boolean"
    if kind == "integer":
        return "category" if scan.names is not None and len(scan.names) <= FEW else "numeric"
    if kind == "float":
        return "numeric"
    if kind == "datetime":
        return "datetime"
    if kind == "string":
        return "text" if _is_text(sample.present) else "category"
    return None


def _is_text(strings: NDArray[Any]) -> bool:
    many = len(set(strings)) > max(FEW, len(strings) / 5)
    return many and sum(map(len, strings)) / len(strings) > LONG


class Cells(NamedTuple):
    """Where a variable's values are counted, see Variable."""

    axis: Axis
    decision: tuple[int, ...]


def choose_cells(axis: Axis, counts: Counts) -> Cells:
    """With the decision's cells that counts over the axis give."""
    return Cells(axis, tuple(decision_starts(counts, axis).tolist()))


NOTHING: Final = Cells(CategoryAxis(()), (0,))


def _feature(column: Column, dtype: Dtype | Kind, cells: Cells) -> Variable:
    return Variable(column.name, column.name, "feature", "empty" if dtype == "other" else dtype, "identity", *cells)


def _cut_numbers(values: NDArray[np.float64], bounds: tuple[float, float]) -> Cells:
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:  # the sample has none, but the rest has
        finite = np.array(sorted(set(bounds)))
    axis = fit_axis(finite, minimum=bounds[0], maximum=bounds[1])
    return choose_cells(axis, axis.count_sorted(finite))


def _plan_datetime(column: Column) -> list[Variable]:
    values = column.sample.present
    hours = Counter(((values // 3600) % 24).astype(int).tolist())
    if column.time is None:
        origin: float | None = column.scan.greatest
        ages = column.scan.greatest - values
        bounds = (0.0, column.scan.greatest - column.scan.least)
    else:
        origin, bounds = None, column.scan.ages
        ages = (column.time - column.sample.values)[column.sample.valid]
    if not np.isfinite(bounds).all():
        return [_feature(column, "empty", NOTHING)]
    age = _cut_numbers(ages, bounds)
    of_day = _list_names(sorted(range(24), key=lambda hour: (-hours[hour], hour)), hours)
    return [
        Variable(f"{column.name}.age", column.name, "feature", "datetime", "age", *age, origin),
        Variable(f"{column.name}.hour", column.name, "feature", "datetime", "hour", *of_day),
    ]


def _list_names(names: Iterable[Any], sizes: Mapping[Any, int]) -> Cells:
    """A cell for each name; the sample has no other."""
    names = list(names)
    return choose_cells(CategoryAxis(tuple(map(str, names))), np.array([*(sizes[name] for name in names), 0, 0]))


def _list_booleans(sample: Physical) -> Cells:
    true = int(np.count_nonzero(sample.present))
    sizes = {"false": sample.present.size - true, "true": true}
    return _list_names(sorted(sizes, key=lambda name: (-sizes[name], name)), sizes)


def _list_categories(column: Column, categories: int) -> Cells:
    """The most frequent ones by name, some more that are known, and whether that is all."""
    sizes: Counter[str] = Counter()
    for value, size in Counter(column.sample.present.tolist()).items():
        name = name_of(column.sample.kind, value)
        if name is not None and listable(name):
            sizes[name] += size
    scanned = column.scan.names
    known = {*sizes, *(scanned or ())}
    ranked = sorted(known, key=lambda name: (-sizes[name], name))
    closed = scanned is not None and len(known) <= categories + KEPT
    listed, others = ranked[:categories], ranked[categories : categories + KEPT]
    axis = CategoryAxis(tuple(listed), tuple(others), closed)
    rest = sizes.total() - sum(sizes[name] for name in listed)
    return choose_cells(axis, np.array([*(sizes[name] for name in listed), rest, 0]))


def _plan_output(column: Column, categories: int) -> Variable:
    role = find_role(column)
    kind = column.sample.kind
    if role == "class":
        cells = NOTHING
        if kind == "boolean":
            cells = _list_booleans(column.sample)
        elif kind not in ("empty", "other", "datetime"):
            cells = _list_categories(column, categories)
        return Variable(role, "", role, _dtype_of_class(kind), "identity", *cells)
    if kind not in ("boolean", "integer", "float") or not np.isfinite(column.scan.least):
        return Variable(role, "", role, "empty", "identity", *NOTHING)
    cells = _cut_numbers(column.sample.present, (column.scan.least, column.scan.greatest))
    return Variable(role, "", role, kind, "identity", *cells)


def _dtype_of_class(kind: str) -> Dtype:
    return kind if kind in ("boolean", "integer", "float", "string") else "empty"  # type: ignore[return-value]


def find_role(column: Column) -> Role:
    """Floats in [0, 1] are a score, other floats and many different integers a value, all else a class."""
    if column.output != "prediction":
        return column.output or "value"
    if column.sample.kind == "float":
        return "score" if column.scan.least >= 0 and column.scan.greatest <= 1 else "value"
    if column.sample.kind == "integer" and (column.scan.names is None or len(column.scan.names) > FEW):
        return "value"
    return "class"
