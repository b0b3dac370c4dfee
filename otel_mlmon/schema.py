"""How each column of a model's rows is counted: over the cells of its profile, or learnt where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from otel_mlmon.columns import as_array
from otel_mlmon.encoding import Encoded, Encoder, make_encoder
from otel_mlmon.numerics.binning import Floats, NumericAxis, count_columns
from otel_mlmon.profile.document import Variable
from otel_mlmon.tallies import CellTally, LearntTally, Tally, VariableKey

Tallies = dict[VariableKey, Tally]
_JOINED_KINDS: Final = "fiubOU"


class Batch(NamedTuple):
    """Columns by name, their rows, and the time of the call in seconds since 1970."""

    columns: Mapping[str, Any]
    rows: int
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A variable with what is needed to count it.

    Args:
        key: of its counts.
        column: its place in the row; -1 for outputs.
        variable: of the plan; None where it is learnt.
        encode: see `make_encoder`.
        is_number: whether a column of floats is counted as it is.
        is_age: whether the time of the call matters.
    """

    key: VariableKey
    column: int
    variable: Variable | None = None
    encode: Encoder | None = None
    is_number: bool = False
    is_age: bool = False

    @classmethod
    def of_plan(cls, variable: Variable, column: int) -> Counted:
        """A variable of a plan."""
        name = variable.name if variable.role == "feature" else variable.role
        is_number = variable.transform == "identity" and isinstance(variable.axis, NumericAxis)
        encode, is_age = make_encoder(variable), variable.transform == "age"
        return cls(VariableKey(variable.role, name), column, variable, encode, is_number, is_age)

    def tally(self, tallies: Tallies) -> Tally:
        """Its counts, made where there are none yet."""
        tally = tallies.get(self.key)
        if tally is None:
            tally = LearntTally() if self.variable is None else CellTally(self.variable.axis)
            tallies[self.key] = tally
        return tally


_Column = tuple[Counted, Any, float]  # and the time of the call, seconds since 1970


class Schema:
    """The columns of a model's rows.

    Args:
        variables: of the plan, outputs too.
        learnt: names of the columns, where there is no plan.
        on_error: called with what made a column uncountable; its values are then of a wrong type.
    """

    def __init__(
        self,
        variables: Iterable[Variable],
        learnt: Sequence[str] | None = None,
        *,
        on_error: Callable[[Exception], None],
    ) -> None:
        variables = tuple(variables)
        features = [variable for variable in variables if variable.role == "feature"]
        self.columns = tuple(learnt) if learnt is not None else tuple(dict.fromkeys(v.column for v in features))
        self.width = len(self.columns)
        self._at = {name: i for i, name in enumerate(self.columns)}
        if learnt is not None:
            self.features = [Counted(VariableKey("feature", name), i) for i, name in enumerate(learnt)]
        else:
            self.features = [Counted.of_plan(variable, self._at[variable.column]) for variable in features]
        self._outputs: dict[str, Counted] = {v.role: Counted.of_plan(v, -1) for v in variables if v.role != "feature"}
        self._numbers = [feature for feature in self.features if feature.is_number]
        self._axes = [feature.variable.axis for feature in self._numbers if feature.variable is not None]
        self._others = [feature for feature in self.features if not feature.is_number]
        self._on_error = on_error
        self._last: tuple[Any, Sequence[int]] = None, ()
        self.needs_time = any(feature.is_age for feature in self.features)
        getter = itemgetter(*self.columns) if self.columns else None
        if self.width == 1 and getter is not None:
            self.row_of: Callable[[Mapping[str, Any]], tuple[Any, ...]] = lambda X: (getter(X),)
        else:
            self.row_of = getter or (lambda _: (None,))

    def order_of(self, labels: Any) -> Sequence[int] | None:
        """Where each column stands in a DataFrame; empty where others are there too, None where some have no name."""
        last, order = self._last  # most have the labels of the one before, and looking at each label takes long
        if labels is last or (last is not None and labels.equals(last)):
            return order
        at = {name: i for i, name in enumerate(labels)}
        if not all(isinstance(name, str) for name in at):
            return None
        exact = len(labels) == self.width and at.keys() == self._at.keys()
        order = [at[name] for name in self.columns] if exact else ()
        self._last = labels, order
        return order

    def count_matrix(self, matrix: Floats, now: float, tallies: Tallies) -> None:
        """Count rows of numbers, shape (rows, width)."""
        if self._numbers:
            block = matrix[:, [feature.column for feature in self._numbers]] if self._others else matrix
            for feature, counted in zip(self._numbers, count_columns(block, self._axes), strict=True):
                tally = feature.tally(tallies)
                assert isinstance(tally, CellTally)  # noqa: S101 -- a number of a plan has cells
                tally.add_column(counted, len(matrix))
        self._count([(feature, matrix[:, feature.column], now) for feature in self._others], tallies)

    def count_rows(self, rows: list[Sequence[Any]], times: list[float], tallies: Tallies) -> None:
        """Count rows of values of any kind; `times` has one for each where `needs_time`."""
        columns = list(zip(*rows, strict=True))
        found: list[_Column] = []
        for feature in self.features:
            column = columns[feature.column]
            if feature.is_age:
                found += [(feature, [value], now) for value, now in zip(column, times, strict=True)]
            else:
                found.append((feature, column, 0.0))
        self._count(found, tallies)

    def count_batches(self, batches: Sequence[Batch], tallies: Tallies) -> None:
        """Count columns by name; one that is absent is missing in every row."""
        found: list[_Column] = []
        for feature in self.features:
            name = self.columns[feature.column]
            held = [batch for batch in batches if name in batch.columns]
            feature.tally(tallies).missing += sum(b.rows for b in batches) - sum(b.rows for b in held)
            if feature.is_age:
                found += [(feature, batch.columns[name], batch.now) for batch in held]
            else:
                found += [(feature, column, 0.0) for column in join(batch.columns[name] for batch in held)]
        self._count(found, tallies)

    def count_frames(self, frames: Sequence[tuple[Any, float]], tallies: Tallies) -> int:
        """Count pandas DataFrames, each with the time of its call; how many columns there were that nobody knows."""
        extra = 0
        for same in group_frames(frames):
            frame = (
                same[0][0] if len(same) == 1 else sys.modules["pandas"].concat([f for f, _ in same], ignore_index=True)
            )
            names = set(frame.columns)
            extra += len(same) * (len(frame.columns) - len(names & self._at.keys()))
            found: list[_Column] = []
            for feature in self.features:
                name = self.columns[feature.column]
                if name not in names:
                    feature.tally(tallies).missing += len(frame)
                elif feature.is_age:
                    found += [(feature, one[name], now) for one, now in same]
                else:
                    found.append((feature, as_array(frame[name]), 0.0))
            self._count(found, tallies)
        return extra

    def count_outputs(self, outputs: list[dict[str, Any]], tallies: Tallies) -> None:
        """Count what the model said."""
        by_role: dict[str, list[Any]] = {}
        for output in outputs:
            for role, values in output.items():
                by_role.setdefault(role, []).append(values)
        for role, parts in by_role.items():
            counted = self._outputs.get(role) or Counted(VariableKey(role, role), -1)  # type: ignore[arg-type]  # of `read_outputs`
            self._count([(counted, column, 0.0) for column in join(parts)], tallies)

    def _count(self, columns: Iterable[_Column], tallies: Tallies) -> None:
        """Count columns; numbers together, which takes less time and fewer turns of the interpreter's lock."""
        numbers: dict[int, list[tuple[CellTally, Encoded]]] = {}
        for counted, column, now in columns:
            tally = counted.tally(tallies)
            try:
                if isinstance(tally, LearntTally):
                    tally.count(column, counted.key.role)
                elif isinstance(tally, CellTally) and counted.encode is not None:
                    encoded = counted.encode(column, now)
                    if counted.is_number:
                        numbers.setdefault(encoded.values.size, []).append((tally, encoded))
                    else:
                        tally.count(encoded)
            except Exception as error:
                tally.wrong_type += len(column)
                self._on_error(error)
        for size, same in numbers.items():
            block = np.array([encoded.values for _, encoded in same]).T
            for (tally, encoded), found in zip(same, count_columns(block, [t.axis for t, _ in same]), strict=True):
                tally.add_column(found, size)
                tally.set_apart(encoded)


def add_tallies(totals: Tallies, more: Tallies) -> None:
    """Add counts to totals; `more` is given away."""
    for key, tally in more.items():
        if (known := totals.get(key)) is None:
            totals[key] = tally
        else:
            known.add(tally)


def group_frames(frames: Iterable[tuple[Any, float]]) -> list[list[tuple[Any, float]]]:
    """Frames of the same columns and types together, so that joining them changes no value."""
    groups: list[tuple[Any, list[Any], list[tuple[Any, float]]]] = []
    for frame, now in frames:
        labels, dtypes = frame.columns, list(frame.dtypes)
        for known, types, same in groups:
            if dtypes == types and labels.equals(known):
                same.append((frame, now))
                break
        else:
            groups.append((labels, dtypes, [(frame, now)]))
    return [same for *_, same in groups]


def join(parts: Iterable[Any]) -> list[Any]:
    """Parts of a column as few columns: arrays of a type together, lists together, anything else as it is."""
    arrays: dict[Any, list[Any]] = {}
    lists: list[Any] = []
    others = []
    for part in map(as_array, parts):
        if type(part) is np.ndarray and part.dtype.kind in _JOINED_KINDS:
            arrays.setdefault((part.dtype, part.shape[1:]), []).append(part)
        elif isinstance(part, list):
            lists += part
        else:
            others.append(part)
    joined = [same[0] if len(same) == 1 else np.concatenate(same) for same in arrays.values()]
    return [*joined, *([lists] if lists else []), *others]
