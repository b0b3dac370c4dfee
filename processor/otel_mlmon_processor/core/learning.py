"""Where the profile says nothing of windows, what is normal is learnt from production. A pure state machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.calibration import Calibration, fit_calibration
from otel_mlmon.numerics.effect import effect, wilson_lower
from otel_mlmon.numerics.scales import HOUR, LEAST_DAYS, MOST_DAYS
from otel_mlmon.numerics.windows import REASONS
from otel_mlmon_processor.core.archive import Archive
from otel_mlmon_processor.core.mixture import SESSION

Phase = Literal["learning", "provisional", "learnt", "rolling"]
# An hour is broken where its distribution is farther off than one whose mean moved by 0.8 standard deviations, or half
# of the values are gone that were there.
GROSS_EFFECT: Final = 1.0
GROSS_RATE: Final = 0.5
HOURS: Final = 24
_HOURS: Final = 12  # of a day that must have been learnt for it to count
_ROWS: Final = 10 * SESSION  # values of an hour on which it can be called broken


class Learnt(NamedTuple):
    """What sound hours held of a variable: counts over the decision's cells and rates (B + R,), values seen, sum."""

    counts: Counts
    seen: int
    sum: float


class Learning:
    """Windows of some days, mutable; not thread-safe.

    What is broken is found each midnight, when every hour can be compared with all the others. An hour is not learnt of
    a variable where it is far from all other hours together and from the same hour of the other days; of no variable
    where that is so of most. What comes back each day is a season, and one that has been seen on one day only is not.

    Args:
        cells: decision cells of each variable, (F,).
        rates: how many rates there are.
        most: days that are learnt.
        rolling: whether the newest of them are kept from then on.
    """

    def __init__(self, cells: Sequence[int], rates: int, *, most: int = MOST_DAYS, rolling: bool = False) -> None:
        self.cells, self.rates, self.most, self.rolling = list(cells), rates, most, rolling
        size = len(self.cells)
        self._width = max(self.cells, default=1)
        self._archive = Archive(self._width + rates, size)
        self._hour = np.zeros((self._width + rates, size, HOUR), dtype=np.uint32)
        self._at = -1  # hour that is being filled
        self._sums: dict[int, Floats] = {}  # by hour, sums of the values
        self._told: dict[int, Counts] = {}  # by hour, variables of which it is known not to be sound
        self._broken: NDArray[np.bool_] = np.zeros((0, size), dtype=np.bool_)  # hours, variables
        self._days = 0

    @property
    def days(self) -> int:
        """Days that are over and were learnt."""
        return self._days

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return self._archive.size + self._hour.nbytes + 8 * len(self._sums) * len(self.cells)

    @property
    def refused(self) -> Counts:
        """Hours of each variable that are not learnt, (F,)."""
        return np.asarray(self._broken.sum(axis=0))

    @property
    def span(self) -> tuple[int, int]:
        """First and last hour that are held; -1 where there is none."""
        hours = self._archive.hours
        return (hours[0], hours[-1]) if hours else (-1, -1)

    @property
    def phase(self) -> Phase:
        """Learning; from seven days on provisional or rolling, calibrated each day; learnt from `most` days on."""
        if self._days < LEAST_DAYS:
            return "learning"
        if self.rolling:
            return "rolling"
        return "provisional" if self._days < self.most else "learnt"

    def tell(self, window: int, variables: Collection[int]) -> None:
        """The hour of a window shall not be learnt of these variables."""
        hour = window // HOUR
        if len(variables):
            self._told[hour] = np.union1d(self._told.get(hour, []), list(variables)).astype(np.int64)

    def advance(self, window: int, counts: Counts, rates: Counts, sums: Floats | None = None) -> bool:
        """One window, in order; what has been learnt is enough when `phase` says so.

        Args:
            window: its number.
            counts: over the decision's cells, (B, F).
            rates: (R, F).
            sums: of the values, (F,).

        Returns:
            Whether a day was over before it, so that there is more to learn from.
        """
        hour, over = window // HOUR, False
        if hour != self._at:
            over = self._finish(hour)
            self._at = hour
        self._hour[:, :, window % HOUR] = np.concatenate([counts, rates])
        if sums is not None:
            self._sums[hour] = self._sums.get(hour, 0) + sums
        return over

    def _finish(self, following: int) -> bool:
        """Keep the hour that is complete; whether its day is."""
        if self._hour.any():
            self._archive.add(self._at, self._hour)
            self._hour[:] = 0
        if self._at < 0 or following // HOURS == self._at // HOURS:
            return False
        self._archive.seal()
        self._forget()
        self._judge()
        hours = np.array(self._archive.hours, dtype=np.int64)
        sound = hours[2 * self._broken.sum(axis=1) <= max(len(self.cells), 1)]
        _, number = np.unique(sound // HOURS, return_counts=True)
        self._days = int((number >= _HOURS).sum())
        return True

    def _forget(self) -> None:
        """The days before the newest `most`."""
        days = sorted({hour // HOURS for hour in self._archive.hours})
        if len(days) > self.most:
            self._archive.forget(days[-self.most] * HOURS)
            first = days[-self.most] * HOURS
            self._sums = {hour: sums for hour, sums in self._sums.items() if hour >= first}
            self._told = {hour: told for hour, told in self._told.items() if hour >= first}

    def _judge(self) -> None:
        """Find the hours that are broken."""
        hours = np.array(self._archive.hours, dtype=np.int64)
        broken = np.zeros((hours.size, len(self.cells)), dtype=np.bool_)
        held = np.zeros_like(broken)
        for f in range(len(self.cells)):
            total = self._archive.read(f).sum(axis=-1).T  # (hours, B + R)
            held[:, f] = total.any(axis=1)
            broken[:, f] = find_broken(hours, total[:, : self._width], total[:, self._width :])
        for row, hour in enumerate(hours.tolist()):
            broken[row, self._told.get(hour, [])] = True
        most = 2 * (broken & held).sum(axis=1) > held.sum(axis=1)
        self._broken = broken | most[:, np.newaxis]

    def calibrate(self) -> list[Calibration | None]:
        """What was learnt, by variable; None where most of the hours of a variable are not sound, or held nothing."""
        hours, found = np.array(self._archive.hours, dtype=np.int64), list[Calibration | None]()
        numbers = (hours[:, np.newaxis] * HOUR + np.arange(HOUR)).ravel()
        for f, cells in enumerate(self.cells):
            each = self._archive.read(f)
            each[:, self._unsound(f)] = 0
            rows = each.reshape(each.shape[0], -1).T
            seen = count_seen(rows, self._width)
            held = seen > 0
            enough = 2 * each.any(axis=(0, 2)).sum() >= hours.size and rows[:, :cells].any()
            parts = numbers[held], rows[held, :cells], rows[held, self._width :], seen[held]
            found.append(fit_calibration(*parts) if enough else None)
        return found

    def total(self) -> list[Learnt]:
        """What was learnt, by variable, over all hours."""
        hours, found = self._archive.hours, []
        for f in range(len(self.cells)):
            unsound = self._unsound(f)
            each = self._archive.read(f).sum(axis=-1)
            each[:, unsound] = 0
            sums = [
                float(self._sums[h][f]) for h, out in zip(hours, unsound, strict=True) if not out and h in self._sums
            ]
            counts = each.sum(axis=1)
            found.append(Learnt(counts, int(count_seen(counts, self._width)), sum(sums)))
        return found

    def _unsound(self, f: int) -> NDArray[np.bool_]:
        """Of each hour, (hours,); those of the day that is not over are not yet learnt."""
        out = np.ones(len(self._archive.hours), dtype=np.bool_)
        out[: self._broken.shape[0]] = self._broken[:, f]
        return out

    def dump(self) -> dict[str, Any]:
        """As plain values, for the checkpoint."""
        return {
            "most": [self.most, self.rolling],
            "archive": self._archive.dump(),
            "hour": [self._at, self._hour],
            "sums": list(self._sums.items()),
            "told": list(self._told.items()),
            "broken": self._broken.astype(np.int64),
            "days": self._days,
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave."""
        self.most, self.rolling = plain["most"]
        self._archive.load(plain["archive"])
        self._at, self._hour = plain["hour"][0], np.array(plain["hour"][1])
        self._sums, self._told = dict(plain["sums"]), dict(plain["told"])
        self._broken, self._days = plain["broken"].astype(np.bool_), plain["days"]


def count_seen(rows: Counts, width: int) -> Counts:
    """Values seen, (...), of counts over `width` cells and the rates (..., B + R): in cells, and invalid."""
    return np.asarray(rows[..., : width + len(REASONS)].sum(axis=-1))


def find_broken(hours: Counts, counts: Counts, rates: Counts) -> NDArray[np.bool_]:
    """Which hours are far from all others together, and from the same hour of the other days: (hours,).

    Far is an effect D above GROSS_EFFECT, by its lower bound, or a rate GROSS_RATE above, likewise; SESSION values may
    be alike, so that a sum counts as that many fewer. Hours of fewer than 500 values cannot be told.

    Args:
        hours: their numbers, (hours,).
        counts: over the cells, (hours, B).
        rates: (hours, R).
    """
    seen = count_seen(np.concatenate([counts, rates], axis=1), counts.shape[1])
    far = np.ones(hours.size, dtype=np.bool_)
    for group in (np.zeros_like(hours), hours % HOURS):
        _, at = np.unique(group, return_inverse=True)
        others = []
        for each in (counts, rates, seen[:, np.newaxis]):
            pooled = np.zeros((int(at.max(initial=-1)) + 1, each.shape[1]), dtype=np.int64)
            np.add.at(pooled, at, each)
            others.append(pooled[at] - each)
        rest = others[2][:, 0]
        distance = effect(counts / SESSION, others[0] / SESSION).lower > GROSS_EFFECT
        lower = wilson_lower(rates / SESSION, np.maximum(seen, 1)[:, np.newaxis] / SESSION)
        known = others[1] / np.maximum(rest, 1)[:, np.newaxis]
        gone = (lower > known + GROSS_RATE).any(axis=1)
        far &= distance | gone | (rest == 0)  # of the same hour on no other day nothing is known
    return np.asarray(far & (seen >= _ROWS))
