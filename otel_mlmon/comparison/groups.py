"""Counts of the rows of each period or segment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.comparison.rows import take_block
from otel_mlmon.comparison.survey import DAY
from otel_mlmon.profile.build import count_block
from otel_mlmon.profile.counting import Tally
from otel_mlmon.profile.document import Reference, Variable
from otel_mlmon.profile.parallel import Run
from otel_mlmon.profile.physical import read_physical
from otel_mlmon.profile.planning import name_of
from otel_mlmon.profile.roles import Block

MOST_PERIODS: Final = 100  # then days become weeks, and weeks months
MOST_SEGMENTS: Final = 20
UNITS: Final = ("day", "week", "month")
_EPOCH: Final = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One period or segment: its rows, and its counts in the order of the plan's variables."""

    rows: int
    references: tuple[Reference, ...]


class Groups:
    """Tallies of groups so far, by key."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._variables = variables
        self._tallies: dict[Any, list[Tally]] = {}
        self._rows: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: Any, block: Block, run: Run) -> None:
        """Count a block of one group."""
        if key not in self._tallies:
            self._tallies[key], self._rows[key] = [Tally(variable) for variable in self._variables], 0
        run(count_block(block, self._tallies[key]))
        self._rows[key] += block.rows

    def rename(self, name: Callable[[Any], Any]) -> None:
        """Give every group another key; those that then share one become one."""
        tallies, rows = self._tallies, self._rows
        self._tallies, self._rows = {}, {}
        for key in sorted(tallies):
            to = name(key)
            if to in self._tallies:
                for mine, other in zip(self._tallies[to], tallies[key], strict=True):
                    mine.absorb(other)
            else:
                self._tallies[to] = tallies[key]
            self._rows[to] = self._rows.get(to, 0) + rows[key]

    def finish(self) -> dict[Any, Group]:
        """The groups by ascending key."""
        return {
            key: Group(self._rows[key], tuple(tally.finish(None) for tally in self._tallies[key]))
            for key in sorted(self._tallies)
        }


class Periods:
    """Groups by day, by week (from Monday) once there are more than MOST_PERIODS, then by month; UTC."""

    def __init__(self, variables: Sequence[Variable], unit: str | None = None) -> None:
        self._groups = Groups(variables)
        self._fixed = unit is not None
        self.unit = unit or "day"

    def add(self, block: Block, run: Run) -> None:
        """Count the rows that have a time."""
        if block.time is None:
            return
        for day, rows in _split(np.where(np.isfinite(block.time), np.floor(block.time / DAY), np.nan)):
            self._groups.add(self._key(int(day)), take_block(block, rows), run)
        while len(self._groups) > MOST_PERIODS and self.unit != "month" and not self._fixed:
            self.unit = UNITS[UNITS.index(self.unit) + 1]
            self._groups.rename(self._key)

    def _key(self, day: int) -> int:
        """Weeks are cut where a month begins, as they may have to become months."""
        return max(start_of(day, self.unit), start_of(day, "month"))

    def finish(self) -> dict[int, Group]:
        """Groups by the day since 1970 that they start with."""
        self._groups.rename(lambda day: start_of(day, self.unit))
        return self._groups.finish()


def start_of(day: int, unit: str) -> int:
    """First day of a day's period, in days since 1970."""
    if unit == "week":
        return day - (day + 3) % 7  # 1970-01-01 was a Thursday
    if unit == "month":
        return (date_of(day).replace(day=1) - _EPOCH).days
    return day


def date_of(day: int) -> dt.date:
    """The date of a day since 1970."""
    return _EPOCH + dt.timedelta(days=day)


class Segments:
    """Groups by the value of a column.

    Args:
        variables: what is counted.
        column: whose values they are.
        names: the segments.
    """

    def __init__(self, variables: Sequence[Variable], column: str, names: Iterable[str]) -> None:
        self._groups = Groups(variables)
        self._column = column
        self._codes = {name: float(code) for code, name in enumerate(names)}

    def add(self, block: Block, run: Run) -> None:
        """Count the rows of the segments."""
        column = block.features.get(self._column)
        if column is None:
            return
        physical = read_physical(column)
        values = physical.values.tolist()
        names = {value: name_of(physical.kind, value) for value in set(values)}
        codes = np.array([self._codes.get(names[value] or "", np.nan) for value in values], dtype=np.float64)
        listed = list(self._codes)
        for code, rows in _split(codes):
            self._groups.add(listed[int(code)], take_block(block, rows), run)

    def finish(self) -> dict[str, Group]:
        """Groups by name."""
        return self._groups.finish()


def _split(keys: NDArray[np.float64]) -> Iterable[tuple[float, NDArray[np.intp]]]:
    """Each key that is not NaN, with the rows that have it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    known = int(np.searchsorted(ordered, np.inf))
    if not known:
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered[:known])) + 1])
    for start, end in zip(starts, np.append(starts[1:], known), strict=True):
        yield float(ordered[start]), order[start:end]
