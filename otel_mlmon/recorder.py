"""Rows in, counts out: copied on the call, counted later, off the call.

`observe` copies rows into the active block. A block that is full, or followed by one of another window, waits until the
export thread, which `on_full` wakes, counts it; where that thread cannot keep up (a caller that never lets it run), the
caller that finds too many full blocks counts one of them itself, so memory is bounded and no row is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.columns import UnreadableError, is_pandas, names_of, read_columns, read_few
from otel_mlmon.copying import copy_column
from otel_mlmon.numerics.binning import Floats
from otel_mlmon.outputs import read_outputs
from otel_mlmon.profile.document import Plan
from otel_mlmon.schema import Batch, Schema, Tallies, add_tallies

BLOCK_ROWS: Final = 4096
WAITING_BLOCKS: Final = 4
MAX_LEARNT: Final = 1000  # columns of a model without profile
FEW_ROWS: Final = 8  # a DataFrame of more is copied and its columns are read later
_SCALARS: Final = frozenset({float, int, str, bool, type(None), np.float64, np.float32, np.int64, np.int32, np.bool_})
_NUMERIC_KINDS: Final = "fiub"

Window = tuple[int, int]  # start and end, ns since 1970


def ignore(_: Exception) -> None:
    """For those who do not want to know."""


class Block:
    """Rows that wait to be counted, all of one window (None: live) and schema."""

    __slots__ = ("answers", "batches", "filled", "frames", "matrix", "outputs", "row_times", "rows", "tuples", "window")

    def __init__(self, width: int, window: Window | None) -> None:
        self.window = window
        self.rows = self.answers = 0
        self.matrix: Floats | None = np.empty((BLOCK_ROWS, width)) if width else None
        self.filled = 0
        self.tuples: list[Sequence[Any]] = []  # one row each, of whatever kind
        self.row_times: list[float] = []  # of these rows, where a variable wants it
        self.batches: list[Batch] = []
        self.frames: list[tuple[Any, float]] = []  # of pandas, each with the time of its call
        self.outputs: list[dict[str, Any]] = []


class Recorder:
    """Counts of one model in this process.

    Args:
        plan: what the profile counts; None learns columns from the first rows and counts without cells.
        clock: seconds since 1970; for ages.
        on_full: called when a block is full; must not block.
        on_error: called with what made a column uncountable; its values are then of a wrong type.
    """

    def __init__(
        self,
        plan: Plan | None,
        clock: Callable[[], float],
        on_full: Callable[[], None],
        on_error: Callable[[Exception], None] = ignore,
    ) -> None:
        self._clock, self._on_full, self._on_error = clock, on_full, on_error
        self._plan = plan
        self._schema: Schema | None = Schema(plan.variables, on_error=on_error) if plan is not None else None
        self._roles = frozenset(v.role for v in plan.variables if v.role != "feature") if plan else frozenset()
        self.restart()

    def restart(self) -> None:
        """Forget everything and make new locks: for the child of a fork."""
        self._lock = threading.Lock()
        self._totals_lock = threading.Lock()
        self._counting = threading.Lock()
        self._full: deque[Block] = deque()
        self._totals: dict[Window | None, Tallies] = {}
        self.extra_columns = 0
        self._active = self._make_block(None)

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns; none are known before the first rows where there is no plan."""
        return self._schema.columns if self._schema else ()

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
        try:
            return self.observe_rows(X, window) if X is not None else 0
        finally:  # outputs are counted where rows cannot be read, too
            if y is not None:
                self.observe_outputs(y, window, classes)

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
                    return self._take_rows((row,), window)
        if is_pandas(X) and (order := schema.order_of(X.columns)) is not None:
            if len(X) > FEW_ROWS or not order:
                return self._take_frame(X, window)
            values = read_few(X, order)
            return self._take_rows(values, window) if isinstance(values, list) else self._take_matrix(values, window)
        return self._take_batch(X, schema, window)

    def observe_outputs(self, y: Any, window: Window | None = None, classes: Sequence[Any] | None = None) -> None:
        """Take outputs over, see `read_outputs`."""
        outputs = read_outputs(y, self._roles, classes)
        with self._lock:
            block = self._active
            if full := block.window != window:
                block = self._rotate(window)
            block.outputs.append(outputs)
            for values in outputs.values():
                block.answers += len(values)
            if block.answers >= BLOCK_ROWS:
                self._rotate(window)
                full = True
        if full:
            self._relieve()

    def _take_matrix(self, X: NDArray[Any], window: Window | None) -> int:
        rows: int = X.shape[0]
        done, full = 0, False
        while True:
            with self._lock:
                block = self._active
                if block.window != window:
                    block, full = self._rotate(window), True
                at = block.filled
                take = min(rows - done, BLOCK_ROWS - at)
                assert block.matrix is not None  # noqa: S101 -- the schema has columns
                block.rows += take  # first: never fewer than are filled, whatever strikes in between
                block.matrix[at : at + take] = X if take == rows else X[done : done + take]
                block.filled = at + take
                if block.rows >= BLOCK_ROWS:
                    self._rotate(window)
                    full = True
            done += take
            if full:
                self._relieve()
            if done >= rows:
                return rows

    def _take_rows(self, rows: Sequence[Sequence[Any]], window: Window | None) -> int:
        def put(block: Block) -> None:
            block.tuples += rows
            if self._schema is not None and self._schema.needs_time:
                block.row_times += [self._now(window)] * len(rows)

        return self._put(len(rows), window, put)

    def _take_frame(self, X: Any, window: Window | None) -> int:
        frame = X.copy()  # its columns one by one would take much longer; they are read with those of the others
        now = self._now(window)
        return self._put(len(frame), window, lambda block: block.frames.append((frame, now)))

    def _take_batch(self, X: Any, schema: Schema, window: Window | None) -> int:
        columns = read_columns(X, schema.columns)
        copies = {name: copy_column(column) for name, column in columns.columns.items()}
        batch = Batch(copies, columns.rows, self._now(window))

        def put(block: Block) -> None:
            block.batches.append(batch)
            self.extra_columns += columns.extra

        return self._put(columns.rows, window, put)

    def _put(self, rows: int, window: Window | None, put: Callable[[Block], None]) -> int:
        """Put so many rows into the active block; counts, or has counted, what is full."""
        with self._lock:
            block = self._active
            if full := block.window != window:
                block = self._rotate(window)
            put(block)
            block.rows += rows
            if block.rows >= BLOCK_ROWS:
                self._rotate(window)
                full = True
        if full:
            self._relieve()
        return rows

    def _now(self, window: Window | None) -> float:
        return window[1] / 1e9 if window else self._clock()

    def _learn(self, X: Any) -> Schema:
        """Columns of the first rows; the model has no profile."""
        names = names_of(X)
        if not names:
            raise UnreadableError(f"no columns can be learnt from an empty {type(X).__name__}")
        if len(names) > MAX_LEARNT:
            raise UnreadableError(f"{len(names)} columns and no profile: no more than {MAX_LEARNT} are learnt")
        schema = Schema((), names, on_error=self._on_error)
        with self._lock:
            if self._schema is None:
                self._schema = schema
                self._rotate(self._active.window)
            return self._schema

    def _rotate(self, window: Window | None) -> Block:
        """Put the active block aside and begin another. The lock is held."""
        # A signal that strikes in between must not leave one block in both places.
        block, self._active = self._active, self._make_block(window)
        if block.rows or block.outputs:
            self._full.append(block)
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
        with self._totals_lock:
            totals, self._totals = self._totals, {}
        return totals

    def take_extra_columns(self) -> int:
        """Columns nobody knows that came since the last time."""
        with self._lock:
            extra, self.extra_columns = self.extra_columns, 0
        return extra

    def _count_next(self) -> bool:
        """Count a full block; False where there is none, and then nobody is counting one any more."""
        with self._counting:  # one at a time: two that ask for the interpreter's lock in turn take twice as long
            try:
                block = self._full.popleft()
            except IndexError:
                return False
            tallies = self._count_block(block)
            with self._totals_lock:
                add_tallies(self._totals.setdefault(block.window, {}), tallies)
            return True

    def _count_block(self, block: Block) -> Tallies:
        tallies: Tallies = {}
        schema = self._schema or Schema((), (), on_error=self._on_error)
        if block.filled and block.matrix is not None:
            schema.count_matrix(block.matrix[: block.filled], self._now(block.window), tallies)
        if block.tuples:
            schema.count_rows(block.tuples, block.row_times, tallies)
        if block.batches:
            schema.count_batches(block.batches, tallies)
        if block.frames:
            extra = schema.count_frames(block.frames, tallies)
            with self._lock:
                self.extra_columns += extra
        schema.count_outputs(block.outputs, tallies)
        return tallies
