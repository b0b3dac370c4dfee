"""Exact counts of variables over data that comes in blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from otel_mlmon.encoding import encode
from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis
from otel_mlmon.numerics.buckets import Buckets
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.profile.document import Reference, Variable
from otel_mlmon.profile.moments import bounded, sum_of
from otel_mlmon.profile.physical import read_physical
from otel_mlmon.profile.window_tally import Minutes, WindowTally, find_reasons


class Tally:
    """Counts of one variable so far.

    The mean and the squared deviations are merged block by block by the formula of Chan, Golub and LeVeque
    (doi:10.1007/978-3-642-51461-6_3), which loses no digits where the mean is large.
    """

    def __init__(self, variable: Variable, windows: WindowTally | None = None) -> None:
        self.variable = variable
        self.windows = windows
        self._counts: Counts = np.zeros(variable.axis.cells, dtype=np.int64)
        self._buckets = Buckets(variable.axis) if isinstance(variable.axis, NumericAxis) else None
        self._invalid = Invalid()
        self._sums: list[float] = []
        self._n = 0
        self._mean = self._m2 = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, column: Any, rows: int, time: Floats | None, minutes: Minutes | None = None) -> None:
        """Count a block.

        Args:
            column: the values; None where the block has no such column.
            rows: their number.
            time: of the rows, in seconds since 1970.
            minutes: of the time, where windows are counted.
        """
        values, invalid = np.zeros(0), Invalid(missing=rows)
        if column is not None:
            values, invalid = _encode(self.variable, column, self.variable.origin or 0.0)
            if self.variable.transform == "age" and self.variable.origin is None:
                values, invalid = _ages(values, invalid, column, time)
        self._invalid += invalid
        if self.windows is not None and time is not None and minutes is not None:
            self.windows.add(minutes, values, find_reasons(self.variable, column, time, values, invalid))
        if self._buckets is not None:
            self._add_numbers(self._buckets, values)
        elif values.size:
            self._counts += self.variable.axis.count(values)

    def _add_numbers(self, buckets: Buckets, values: Floats) -> None:
        if not values.size:
            return
        values = np.ascontiguousarray(values)
        self._counts += buckets.count(values)
        self._min, self._max = min(self._min, float(values.min())), max(self._max, float(values.max()))
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(values.sum())
            mean = total / values.size
            apart = values - mean
            m2 = float(np.square(apart, out=apart).sum())
        self._add_moments(values.size, mean, m2)
        self._sums.append(total)

    def _add_moments(self, size: int, mean: float, m2: float) -> None:
        n = self._n + size
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.float64(mean - self._mean)
            self._m2 += float(m2 + apart * apart * (self._n * size / n))
            self._mean += float(apart * (size / n))
        self._n = n

    def absorb(self, other: Tally) -> None:
        """Add what another tally of the same variable has counted."""
        self._counts += other._counts
        self._invalid += other._invalid
        self._sums += other._sums
        self._min, self._max = min(self._min, other._min), max(self._max, other._max)
        if other._n:
            self._add_moments(other._n, other._mean, other._m2)

    def finish(self, importance: float | None) -> Reference:
        """What was counted."""
        histogram = Histogram(self.variable.axis, self._counts, self._invalid, sum_of(self._sums), self._min, self._max)
        return Reference(self.variable, histogram, bounded(self._m2), importance)


def _encode(variable: Variable, column: Any, now: float) -> tuple[Floats, Invalid]:
    """As `encoding.encode`, faster for Arrow's columns."""
    module = type(column).__module__.split(".")[0]
    if module == "polars":
        column = column.to_arrow()
    if module in ("polars", "pyarrow"):
        from otel_mlmon.profile.arrow import encode_arrow

        return encode_arrow(variable, column, now)
    return encode(variable, column, now)


def _ages(values: Floats, invalid: Invalid, column: Any, time: Floats | None) -> tuple[Floats, Invalid]:
    """Ages at the times of the rows, from ages at 1970; without a time there is no age.

    Raises:
        ValueError: the plan says that every row has a time, and no time column is given.
    """
    if time is None:
        raise ValueError("the plan was made with a time column, so building needs time_column too")
    ages = values + time[read_physical(column).valid]
    known = np.isfinite(ages)
    return ages[known], invalid + Invalid(missing=ages.size - int(known.sum()))
