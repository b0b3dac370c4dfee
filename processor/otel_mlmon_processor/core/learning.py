"""Where the profile says nothing of windows, what is normal is learnt from production. A pure state machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.calibration import Calibration, fit_calibration
from otel_mlmon.numerics.effect import effect, wilson_lower
from otel_mlmon.numerics.scales import DAY, HOUR
from otel_mlmon_processor.core.budget import CELLS, RATES
from otel_mlmon_processor.core.scanner import Hit

Phase = Literal["learning", "provisional", "learnt"]
LEAST_DAYS: Final = 7
MOST_DAYS: Final = 14
# What no null explains: a distribution farther off than one whose mean moved by 0.8 standard deviations, or half of the
# values gone that were there.
GROSS_EFFECT: Final = 1.0
GROSS_RATE: Final = 0.5
_HOURS: Final = 12  # of a day that must have been learnt for it to count
_ROWS: Final = 500  # values of an hour on which it can be called broken


class Learning:
    """Windows of the first days, mutable; not thread-safe. Memory: 4 bytes for each window, cell and variable.

    Args:
        cells: decision cells of each variable, (F,).
        rates: how many rates there are.
        reference: shares of the decision's cells (B, F) in the profile; None where there is none: then the first day
            that was learnt takes its place.
        allowed: shares of the rates in the profile (R, F); None as above.
    """

    def __init__(
        self, cells: Sequence[int], rates: int, reference: Floats | None = None, allowed: Floats | None = None
    ) -> None:
        self.cells, self.rates = list(cells), rates
        self.reference, self.allowed = reference, allowed
        self.refused = np.zeros(len(self.cells), dtype=np.int64)  # hours of each variable that were not learnt
        self._hours: list[tuple[int, NDArray[np.uint32]]] = []  # number of the first window; counts, rates, seen
        self._hour: list[Counts] = []
        self._at: int | None = None  # hour that is being filled
        self._good: dict[int, int] = {}  # hours learnt by day
        self._today = -1

    @property
    def days(self) -> int:
        """Days that are over and were learnt."""
        return sum(hours >= _HOURS for day, hours in self._good.items() if day < self._today)

    @property
    def phase(self) -> Phase:
        """Learning; provisional from seven days on (calibrated, and again each day); learnt from fourteen."""
        return "learning" if self.days < LEAST_DAYS else "provisional" if self.days < MOST_DAYS else "learnt"

    def advance(self, window: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        """One window, in order; what has been learnt is enough when `phase` says so.

        Args:
            window: its number.
            counts: over the decision's cells, (B, F).
            rates: (R, F).
            seen: (F,).

        Returns:
            Once an hour what no null could explain; those hours are not learnt.
        """
        hits: list[Hit] = []
        if self._at is not None and window // HOUR != self._at:
            hits = self._finish()
        self._today = max(self._today, window // DAY)
        if self.phase == "learnt":
            return hits
        if self._at is None:
            self._at, self._hour = window // HOUR, []
        row = np.concatenate([counts, rates, seen[np.newaxis]]).astype(np.int64)
        offset = window % HOUR
        while len(self._hour) < offset:
            self._hour.append(np.zeros_like(row))
        self._hour.append(row)
        return hits

    def _finish(self) -> list[Hit]:
        """Judge the hour that is complete, and keep what is sound of it."""
        assert self._at is not None  # noqa: S101 -- an hour is being filled
        block = np.stack(self._hour, axis=-1)  # (B + R + 1, F, windows)
        first, self._at = self._at * HOUR, None
        width = block.shape[0] - self.rates - 1
        total = block.sum(axis=-1)
        hits = self._find_gross(first + HOUR - 1, total[:width], total[width:-1], total[-1])
        broken = sorted({hit.variable for hit in hits})
        self.refused[broken] += 1
        block[:, broken] = 0
        if total[-1].any() and 2 * len(broken) <= len(self.cells):  # else it is no time to learn from
            self._hours.append((first, block.astype(np.uint32)))
            day = first // DAY
            self._good[day] = self._good.get(day, 0) + 1
            if self.reference is None and self.days:
                self._take_reference(width)
        return hits

    def _take_reference(self, width: int) -> None:
        total: Counts = np.array([block.sum(axis=-1) for _, block in self._hours], dtype=np.int64).sum(axis=0)
        self.reference = total[:width] / np.maximum(total[:width].sum(axis=0), 1)
        self.allowed = total[width:-1] / np.maximum(total[-1], 1)

    def _find_gross(self, window: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        hits: list[Hit] = []
        known = np.zeros(rates.shape) if self.allowed is None else self.allowed
        lower = wilson_lower(rates, np.maximum(seen, 1))
        enough = seen >= _ROWS
        for part, f in zip(*np.nonzero((lower > known + GROSS_RATE) & enough), strict=True):
            both = (float(rates[part, f]), float(seen[f])), (float(known[part, f] * seen[f]), float(seen[f]))
            hits.append(Hit(window, HOUR, int(f), RATES, int(part), 1.0, float(lower[part, f]), *both))
        if self.reference is None:
            return hits
        rows = counts.sum(axis=0)
        expected = self.reference * rows
        far = effect(counts.T, (self.reference * 1e9).T).lower
        for f in np.flatnonzero((far > GROSS_EFFECT) & (rows >= _ROWS)).tolist():
            part = int(np.abs(counts[:, f] - expected[:, f]).argmax())
            used = slice(0, self.cells[f])
            both = tuple(counts[used, f].tolist()), tuple(expected[used, f].tolist())
            hits.append(Hit(window, HOUR, f, CELLS, part, 1.0, float(far[f]), *both))
        return hits

    def calibrate(self) -> list[Calibration | None]:
        """What was learnt, by variable; None where a variable had no values."""
        width = self._hours[0][1].shape[0] - self.rates - 1 if self._hours else 0
        found: list[Calibration | None] = []
        for f, cells in enumerate(self.cells):
            numbers = [first + np.arange(block.shape[-1]) for first, block in self._hours]
            rows = np.concatenate([block[:, f].T for _, block in self._hours]).astype(np.int64) if numbers else None
            if rows is None or not rows[:, :cells].any():
                found.append(None)
                continue
            every = np.concatenate(numbers)
            held = rows[:, -1] > 0
            parts = (every[held], rows[held, :cells], rows[held, width:-1], rows[held, -1])
            found.append(fit_calibration(*parts))
        return found

    def dump(self) -> dict[str, Any]:
        """As plain values, for the checkpoint."""
        return {
            "reference": self.reference,
            "allowed": self.allowed,
            "refused": self.refused,
            "hours": self._hours,
            "hour": self._hour,
            "at": self._at,
            "good": list(self._good.items()),
            "today": self._today,
        }

    def load(self, plain: dict[str, Any]) -> None:
        """What `dump` gave."""
        self.reference, self.allowed, self.refused = plain["reference"], plain["allowed"], plain["refused"]
        self._hours = [(first, block) for first, block in plain["hours"]]
        self._hour, self._at, self._good = list(plain["hour"]), plain["at"], dict(plain["good"])
        self._today = plain["today"]
