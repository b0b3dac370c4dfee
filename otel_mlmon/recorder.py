"""Rows in, counts out: copied on the call, counted later, off the call.

`observe` copies rows into the active block. A full block waits until the export thread, which `on_full` wakes, counts
it; where that thread cannot keep up (a caller that never lets it run), the caller that finds too many full blocks
counts one of them itself, so memory is bounded and no row is lost. Counting works on blocks nobody else has; only
adding to the totals takes a lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.columns import Encoded, Encoder, make_encoder, read_columns
from otel_mlmon.numerics.binning import Floats
from otel_mlmon.outputs import read_outputs
from otel_mlmon.profile.document import Plan, Variable
from otel_mlmon.tallies import CellTally, LearntTally, Tally, VariableKey

BLOCK_ROWS: Final = 4096
WAITING_BLOCKS: Final = 4
_SCALARS: Final = frozenset({float, int, str, bool, type(None), np.float64, np.float32, np.int64, np.int32, np.bool_})
_NUMERIC_KINDS: Final = "fiub"

Window = tuple[int, int]  # start and end, ns since 1970
Tallies = dict[VariableKey, Tally]


class Copyable(Protocol):
    """A column that can be copied."""

    def copy(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A variable of the plan with what is needed to count it."""

    key: VariableKey
    variable: Variable
    column: int
    encode: Encoder

    @property
    def takes_numbers(self) -> bool:
        """Whether a column of floats is counted as it is."""
        return self.variable.transform == "identity" and hasattr(self.variable.axis, "edges")


class Block:
    """Rows that wait to be counted, all of one window (None: live) and schema."""

    __slots__ = ("batches", "filled", "matrix", "outputs", "row_times", "rows", "tuples", "window")

    def __init__(self, width: int, window: Window | None) -> None:
        self.window = window
        self.rows = 0
        self.matrix: Floats | None = np.empty((BLOCK_ROWS, width)) if width else None
        self.filled = 0
        self.tuples: list[tuple[Any, ...]] = []  # one row each, from mappings
        self.row_times: list[float] = []  # of these rows, where a variable wants it
        self.batches: list[tuple[Mapping[str, Any], int, float]] = []  # columns, rows, time
        self.outputs: list[dict[str, Any]] = []


class Recorder:
    """Counts of one model in this process.

    Args:
        plan: what the profile counts; None learns columns from the first rows and counts without cells.
        clock: seconds since 1970; for ages.
        on_full: called when a block is full; must not block.
    """

    def __init__(self, plan: Plan | None, clock: Callable[[], float], on_full: Callable[[], None]) -> None:
        self._clock, self._on_full = clock, on_full
        self._plan = plan
        self._schema: Schema | None = Schema(plan.variables) if plan is not None else None
        self._roles = frozenset(v.role for v in plan.variables if v.role != "feature") if plan else frozenset()
        self.restart()

    def restart(self) -> None:
        """Forget everything and make new locks: for the child of a fork."""
        self._lock = threading.Lock()
        self._totals_lock = threading.Lock()
        self._idle = threading.Condition(threading.Lock())
        self._counting = 0
        self._full: deque[Block] = deque()
        self._totals: dict[Window | None, Tallies] = {}
        self.extra_columns = 0
        self._active = self._make_block(None)

    def _make_block(self, window: Window | None) -> Block:
        return Block(len(self._schema.columns) if self._schema else 0, window)

    # Recording, on the caller's thread.

    def observe(
        self, X: Any, y: Any = None, *, window: Window | None = None, classes: Sequence[Any] | None = None
    ) -> int:
        """Take rows and outputs over; the number of rows.

        Raises:
            UnreadableError: X has no columns that can be read; it is untouched.
        """
        rows = self.observe_rows(X, window) if X is not None else 0
        if y is not None:
            self.observe_outputs(y, window, classes)
        return rows

    def observe_rows(self, X: Any, window: Window | None = None) -> int:
        """Take the features of rows over; the number of rows."""
        schema = self._schema
        if schema is None:
            schema = self._learn(X)
        if type(X) is np.ndarray and X.ndim == 2 and X.shape[1] == schema.width and X.dtype.kind in _NUMERIC_KINDS:
            return self._take_matrix(X, window)
        if type(X) is dict and len(X) == schema.width:
            try:
                row = schema.row_of(X)
            except KeyError:
                pass
            else:
                if type(row[0]) in _SCALARS:
                    return self._take_row(row, window)
        return self._take_batch(X, schema, window)

    def observe_outputs(self, y: Any, window: Window | None = None, classes: Sequence[Any] | None = None) -> None:
        """Take outputs over, see `read_outputs`."""
        outputs = read_outputs(y, self._roles, classes)
        with self._lock:
            block = self._active
            if block.window != window:
                block = self._rotate(window)
            block.outputs.append(outputs)
            full = len(block.outputs) >= BLOCK_ROWS
            if full:
                self._rotate(window)
        if full:
            self._relieve()

    def _take_matrix(self, X: NDArray[Any], window: Window | None) -> int:
        rows: int = X.shape[0]
        done, full = 0, False
        while True:
            with self._lock:
                block = self._active
                if block.window != window:
                    block = self._rotate(window)
                at = block.filled
                take = min(rows - done, BLOCK_ROWS - at)
                assert block.matrix is not None  # noqa: S101 -- the schema has columns
                block.matrix[at : at + take] = X if take == rows else X[done : done + take]
                block.filled = at + take
                block.rows += take
                if block.rows >= BLOCK_ROWS:
                    self._rotate(window)
                    full = True
            done += take
            if full:
                self._relieve()
            if done >= rows:
                return rows

    def _take_row(self, row: tuple[Any, ...], window: Window | None) -> int:
        with self._lock:
            block = self._active
            if block.window != window:
                block = self._rotate(window)
            block.tuples.append(row)
            if self._schema is not None and self._schema.needs_time:
                block.row_times.append(window[1] / 1e9 if window else self._clock())
            block.rows += 1
            full = block.rows >= BLOCK_ROWS
            if full:
                self._rotate(window)
        if full:
            self._relieve()
        return 1

    def _take_batch(self, X: Any, schema: Schema, window: Window | None) -> int:
        columns = read_columns(X, schema.columns)
        now = window[1] / 1e9 if window else self._clock()
        copies = {name: _copy(column) for name, column in columns.columns.items()}
        with self._lock:
            block = self._active
            if block.window != window:
                block = self._rotate(window)
            block.batches.append((copies, columns.rows, now))
            block.rows += columns.rows
            self.extra_columns += columns.extra
            full = block.rows >= BLOCK_ROWS
            if full:
                self._rotate(window)
        if full:
            self._relieve()
        return columns.rows

    def _learn(self, X: Any) -> Schema:
        """Columns of the first rows; the model has no profile."""
        schema = Schema.of_rows(X)
        with self._lock:
            if self._schema is None:
                self._schema = schema
                self._rotate(self._active.window)
            return self._schema

    def _rotate(self, window: Window | None) -> Block:
        """Put the active block aside and begin another. The lock is held."""
        if self._active.rows or self._active.outputs:
            self._full.append(self._active)
        self._active = self._make_block(window)
        return self._active

    def _relieve(self) -> None:
        if len(self._full) > WAITING_BLOCKS:
            self._count_next()
        else:
            self._on_full()

    # Counting, on whatever thread.

    def count_waiting(self) -> None:
        """Count the blocks that are full."""
        while self._count_next():
            pass

    def collect(self) -> dict[Window | None, Tallies]:
        """All that was recorded before the call and not yet collected: by window (None: live), by variable."""
        with self._lock:
            self._rotate(None)
        self.count_waiting()
        with self._idle:
            self._idle.wait_for(lambda: not self._counting, timeout=10.0)
        with self._totals_lock:
            totals, self._totals = self._totals, {}
        return totals

    def take_extra_columns(self) -> int:
        """Columns nobody knows that came since the last time."""
        with self._lock:
            extra, self.extra_columns = self.extra_columns, 0
        return extra

    def _count_next(self) -> bool:
        with self._idle:
            self._counting += 1
        try:
            try:
                block = self._full.popleft()
            except IndexError:
                return False
            tallies = self._count_block(block)
            with self._totals_lock:
                add_tallies(self._totals.setdefault(block.window, {}), tallies)
            return True
        finally:
            with self._idle:
                self._counting -= 1
                self._idle.notify_all()

    def _count_block(self, block: Block) -> Tallies:
        tallies: Tallies = {}
        schema = self._schema
        if schema is not None:
            if block.filled and block.matrix is not None:
                schema.count_matrix(block.matrix[: block.filled], block.window, self._clock, tallies)
            if block.tuples:
                schema.count_tuples(block.tuples, block.row_times, tallies)
            for columns, rows, now in block.batches:
                schema.count_columns(columns, rows, now, tallies)
        count_outputs(block.outputs, schema, tallies)
        return tallies


def add_tallies(totals: Tallies, more: Tallies) -> None:
    """Add counts to totals; `more` is given away."""
    for key, tally in more.items():
        if (known := totals.get(key)) is None:
            totals[key] = tally
        else:
            known.add(tally)


class Schema:
    """The columns of a model's rows and how each variable is counted; without a plan all are learnt."""

    def __init__(self, variables: Iterable[Variable], learnt: Sequence[str] | None = None) -> None:
        variables = tuple(variables)
        features = [variable for variable in variables if variable.role == "feature"]
        self.columns = tuple(learnt) if learnt is not None else tuple(dict.fromkeys(v.column for v in features))
        self.width = len(self.columns)
        at = {name: i for i, name in enumerate(self.columns)}
        self.features = [Counted(VariableKey("feature", v.name), v, at[v.column], make_encoder(v)) for v in features]
        self.outputs = {
            v.role: Counted(VariableKey(v.role, v.role), v, -1, make_encoder(v))
            for v in variables
            if v.role != "feature"
        }
        self.learnt = learnt is not None
        self.needs_time = any(feature.variable.transform == "age" for feature in self.features)
        getter = itemgetter(*self.columns) if self.columns else None
        if self.width == 1 and getter is not None:
            self.row_of: Callable[[Mapping[str, Any]], tuple[Any, ...]] = lambda X: (getter(X),)
        else:
            self.row_of = getter or (lambda _: ())

    @classmethod
    def of_rows(cls, X: Any) -> Schema:
        """Learn the columns from the first rows."""
        from otel_mlmon.columns import names_of

        return cls((), names_of(X))

    def count_matrix(self, matrix: Floats, window: Window | None, clock: Callable[[], float], tallies: Tallies) -> None:
        """Count rows of numbers, shape (rows, width)."""
        if self.learnt:
            for i, name in enumerate(self.columns):
                _learnt(tallies, VariableKey("feature", name)).count(matrix[:, i], "feature")
            return
        now = window[1] / 1e9 if window else clock()
        for feature in self.features:
            column = matrix[:, feature.column]
            encoded = Encoded(column) if feature.takes_numbers else feature.encode(column, now)
            _cells(tallies, feature).count(encoded)

    def count_tuples(self, rows: list[tuple[Any, ...]], times: list[float], tallies: Tallies) -> None:
        """Count rows that came one by one as mappings."""
        columns = list(zip(*rows, strict=True))
        if self.learnt:
            for name, column in zip(self.columns, columns, strict=True):
                _learnt(tallies, VariableKey("feature", name)).count(column, "feature")
            return
        for feature in self.features:
            column = columns[feature.column]
            if feature.variable.transform == "age":
                for value, now in zip(column, times, strict=True):
                    _cells(tallies, feature).count(feature.encode([value], now))
            else:
                _cells(tallies, feature).count(feature.encode(column, 0.0))

    def count_columns(self, columns: Mapping[str, Any], rows: int, now: float, tallies: Tallies) -> None:
        """Count columns by name; one that is absent is missing in every row."""
        if self.learnt:
            for name in self.columns:
                tally = _learnt(tallies, VariableKey("feature", name))
                if name in columns:
                    tally.count(columns[name], "feature")
                else:
                    tally.missing += rows
            return
        for feature in self.features:
            column = columns.get(self.columns[feature.column])
            tally_ = _cells(tallies, feature)
            if column is None:
                tally_.missing += rows
            else:
                tally_.count(feature.encode(column, now))


def count_outputs(outputs: list[dict[str, Any]], schema: Schema | None, tallies: Tallies) -> None:
    """Count what the model said; outputs of one kind together."""
    by_role: dict[str, list[Any]] = {}
    for output in outputs:
        for role, values in output.items():
            by_role.setdefault(role, []).append(values)
    for role, parts in by_role.items():
        counted = schema.outputs.get(role) if schema else None  # type: ignore[call-overload]
        for column in _joined(parts):
            if counted is not None:
                _cells(tallies, counted).count(counted.encode(column, 0.0))
            else:
                _learnt(tallies, VariableKey(role, role)).count(column, role)  # type: ignore[arg-type]


def _joined(parts: list[Any]) -> list[Any]:
    """Arrays of numbers as one column; anything else as it is."""
    arrays = [part for part in parts if isinstance(part, np.ndarray) and part.dtype.kind in _NUMERIC_KINDS]
    joined = [np.concatenate(arrays)] if arrays else []
    lists = [value for part in parts if isinstance(part, list) for value in part]
    others = [
        p
        for p in parts
        if not isinstance(p, list) and not (isinstance(p, np.ndarray) and p.dtype.kind in _NUMERIC_KINDS)
    ]
    return [*joined, *([lists] if lists else []), *others]


def _cells(tallies: Tallies, counted: Counted) -> CellTally:
    tally = tallies.get(counted.key)
    if tally is None:
        tally = tallies[counted.key] = CellTally(counted.variable.axis)
    assert isinstance(tally, CellTally)  # noqa: S101 -- a plan's variables have cells
    return tally


def _learnt(tallies: Tallies, key: VariableKey) -> LearntTally:
    tally = tallies.get(key)
    if tally is None:
        tally = tallies[key] = LearntTally()
    assert isinstance(tally, LearntTally)  # noqa: S101 -- without a plan all are learnt
    return tally


def _copy(column: Any) -> Any:
    """A column the caller cannot change any more."""
    if isinstance(column, np.ndarray):
        return column.copy()
    if isinstance(column, list):
        return list(column)
    copy = getattr(column, "copy", None)  # pandas; polars and arrow are immutable
    return copy() if copy is not None else column
