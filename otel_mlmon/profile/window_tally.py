"""Counts of the reference by minute, from which `numerics.calibration` learns what is normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.encoding import category_name, is_missing
from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis
from otel_mlmon.numerics.histogram import Invalid
from otel_mlmon.numerics.scales import DAY
from otel_mlmon.numerics.windows import ABOVE, BELOW, RATES, REASONS, UNSEEN
from otel_mlmon.profile.document import Variable
from otel_mlmon.profile.physical import read_physical
from otel_mlmon.profile.sources import take_rows
from otel_mlmon.profile.windows import Windows, spread_windows

MINUTE: Final = 60  # seconds
_MISSING, _NAN, _INF, _TYPE = range(len(REASONS))
_UNSEEN, _BELOW, _ABOVE = (RATES.index(name) for name in (UNSEEN, BELOW, ABOVE))


class Minutes(NamedTuple):
    """The minutes of a block's rows.

    Args:
        numbers: distinct ones since 1970, ascending, shape (k,); number i is the time (60 i, 60 (i + 1)], as the
            processor cuts it.
        at: place of each row's among them, shape (rows,); -1 where a row has no time.
    """

    numbers: Counts
    at: NDArray[np.intp]


def find_minutes(time: Floats) -> Minutes:
    """Minutes of times in seconds since 1970."""
    at = np.full(time.size, -1, dtype=np.intp)
    known = np.isfinite(time)
    numbers, at[known] = np.unique(np.ceil(time[known] / MINUTE).astype(np.int64) - 1, return_inverse=True)
    return Minutes(numbers, at)


class WindowTally:
    """Counts of one variable by minute so far, of the newest days that have rows."""

    def __init__(self, variable: Variable, days: int) -> None:
        self._variable = variable
        self._most = days
        self._cells = len(variable.decision)
        self._days: dict[int, NDArray[np.int32]] = {}
        axis, starts = variable.axis, np.array(variable.decision, dtype=np.intp)
        if isinstance(axis, NumericAxis):
            self._bounds = axis.edges[starts[1:] - 1]
        else:
            self._coarse = np.searchsorted(starts, np.arange(axis.cells), side="right") - 1

    def add(self, minutes: Minutes, values: Floats, reasons: NDArray[np.int8]) -> None:
        """Count a block.

        Args:
            minutes: of its rows.
            values: the valid ones: numbers, or cell numbers of categories.
            reasons: for each row why it is not valid, as its place in REASONS; -1 where it is.
        """
        width = self._cells + len(RATES)
        timed = minutes.at >= 0
        valid = reasons < 0
        at = minutes.at[timed & valid] * width
        values = values[timed[valid]]
        axis = self._variable.axis
        faults = [minutes.at[timed & ~valid] * width + self._cells + reasons[timed & ~valid]]
        if isinstance(axis, NumericAxis):
            cells = self._bounds.searchsorted(values, side="left")
            faults.append(at[values <= axis.edges[axis.low]] + self._cells + _BELOW)
            faults.append(at[values > axis.edges[axis.high]] + self._cells + _ABOVE)
        else:
            codes = values.astype(np.intp)
            cells = self._coarse[codes]
            faults.append(at[codes == axis.cells - 1] + self._cells + _UNSEEN)
        where = np.concatenate([at + cells, *faults])
        counts = np.bincount(where, minlength=minutes.numbers.size * width).reshape(-1, width)
        self._keep(minutes.numbers, counts)

    def _keep(self, numbers: Counts, counts: Counts) -> None:
        days = numbers // DAY
        for day in np.unique(days).tolist():
            if len(self._days) >= self._most and day < min(self._days):
                continue
            if day not in self._days:
                self._days[day] = np.zeros((DAY, counts.shape[1]), dtype=np.int32)
            of_day = slice(*np.searchsorted(days, [day, day + 1]))
            self._days[day][numbers[of_day] % DAY] += counts[of_day].astype(np.int32)
            if len(self._days) > self._most:
                del self._days[min(self._days)]

    def finish(self) -> tuple[Counts, NDArray[np.int32]]:
        """Minutes that have rows, and their counts."""
        numbers = [day * DAY + np.flatnonzero(self._days[day].any(axis=1)) for day in sorted(self._days)]
        if not numbers:
            return np.zeros(0, np.int64), np.zeros((0, self._cells + len(RATES)), np.int32)
        held = [self._days[part[0] // DAY][part % DAY] for part in numbers]
        return np.concatenate(numbers), np.concatenate(held)


def join_windows(tallies: Sequence[WindowTally]) -> Windows:
    """What the tallies of all variables have counted."""
    found = [tally.finish() for tally in tallies]
    numbers = np.unique(np.concatenate([part for part, _ in found]))
    return Windows(numbers, tuple(spread_windows(counts, part, numbers) for part, counts in found))


# ---------------------------------------------------------------- rows that are not valid


def find_reasons(variable: Variable, column: Any, time: Floats, values: Floats, invalid: Invalid) -> NDArray[np.int8]:
    """For each row why `encoding.encode` did not take it, as its place in REASONS; -1 where it did.

    Args:
        variable: what is counted.
        column: its values; None where the block has none.
        time: of the rows.
        values: those that `encode` took.
        invalid: what it said of the others.
    """
    reasons = np.full(time.size, -1, dtype=np.int8)
    if not invalid.total:
        return reasons
    if column is None:
        reasons[:] = _MISSING
        return reasons
    timed = np.isfinite(time) if variable.transform == "age" else np.ones(time.size, dtype=np.bool_)
    physical = read_physical(column)
    valid = physical.valid & timed
    if physical.values.dtype == np.float64:
        valid &= np.isfinite(physical.values)
    if int(valid.sum()) != values.size:  # a mixture of types: one by one
        valid = np.zeros(time.size, dtype=np.bool_)
    looked = np.flatnonzero(~valid)
    part = take_rows(column, looked)
    plain = part.to_pylist() if hasattr(part, "to_pylist") else part.tolist() if hasattr(part, "tolist") else part
    reasons[looked] = [_reason(variable, value) for value in plain]
    reasons[~timed] = _MISSING
    return reasons


def _reason(variable: Variable, value: Any) -> int:
    if is_missing(value):
        return _MISSING
    number = variable.transform == "identity" and isinstance(variable.axis, NumericAxis)
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        if math.isnan(value):
            return _NAN if number else _MISSING
        return _INF if variable.transform == "identity" else _TYPE
    if number:
        return _reason_of_number(value)
    if variable.transform == "length":
        return -1 if isinstance(value, str) else _TYPE
    if variable.transform == "identity":
        return -1 if category_name(value) is not None else _TYPE
    return -1 if hasattr(value, "year") or isinstance(value, np.datetime64) else _TYPE


def _reason_of_number(value: Any) -> int:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        return _TYPE
    try:
        float(value)
    except OverflowError:
        return _INF
    except Exception:  # it has __float__, which says it is none
        return _TYPE
    return -1
