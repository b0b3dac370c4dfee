"""What no null with the reference's shares could explain: the only test while what is normal is not yet known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.effect import Z95, effect
from otel_mlmon.numerics.scales import HOUR, SCALES, WEEK
from otel_mlmon.numerics.scan import deviance
from otel_mlmon_processor.core.budget import CELLS, PERIOD_DAYS, RATES
from otel_mlmon_processor.core.scanner import HOLD, Hit

LENGTHS: Final = tuple(2**k for k in range(13))  # windows of a look: a minute to three days
SESSION: Final = 50  # values that may be alike, in production
BUSIER: Final = 2.0  # times the mean of the rows so far, that of a week may be
_HELD: Final = 16  # windows of a look that holds
_SHARE: Final = 0.5  # of the budget for the looks; a tenth of it for the reference's own shares
_SURE: Final = float(special.ndtr(-Z95))


class Mixture:
    """A season, a wander, sessions may put the values of some minutes anywhere, but not more of them than there are.

    A reference is a mixture of all its times. What a share w of its rows held has been counted in the whole, so a cell
    (or a rate) with the share q in the reference has at most q / w there, whatever depends on what. The test takes w
    as half the part of a week that a look is, or of a week's rows at the mean so far, whichever is less: the rarest
    thing that returns is one of an hour of the week, and a week may have twice the rows that the mean so far says. q is
    the upper bound that the reference's counts allow. A hit is a share p in n values with n / SESSION times
    KL(p, q / w) beyond what the budget allows over all looks. It is held while the share of a quarter of an hour is
    beyond the q / w that it was beyond.

    So what the reference never held alarms at once, one that it held in a hundredth of its values when it has been
    everything for three and a half hours, and what half of the week could look like never.

    Args:
        cells: decision cells of each variable, (F,).
        counts: of the reference over the decision's cells and then the rates, (B + R, F).
        totals: values that these are of: valid ones, and all that were seen, (2, F).
        budget: false alarms in 30 days.
        growing: whether hours without a hit are added to the reference.
    """

    def __init__(self, cells: Counts, counts: Counts, totals: Counts, budget: float, *, growing: bool) -> None:
        self._cells, self._growing = np.asarray(cells), growing
        self._width = int(self._cells.max(initial=1))
        self.counts, self.totals = counts.astype(np.int64), totals.astype(np.int64)
        tests = 2 * counts.size
        looks = sum(PERIOD_DAYS * 24 * HOUR / max(length // 2, 1) for length in LENGTHS)
        self._least = float(np.log(looks * tests / (_SHARE * budget)))
        self._doubt = 0.1 * _SHARE * budget / tests
        self.held: NDArray[np.bool_] = np.zeros(self._cells.size, dtype=np.bool_)
        shape = (len(LENGTHS), counts.shape[0] + 2, self._cells.size)
        self._now, self._before = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self._pieces = [-1] * len(LENGTHS)  # number of the piece of each length that is being filled
        self._hour, self._fresh = -1, np.zeros(shape[1:], dtype=np.int64)
        self._hit: NDArray[np.bool_] = np.zeros(self._cells.size, dtype=np.bool_)  # variables, in this hour
        self._rows, self._from = np.zeros(self._cells.size, dtype=np.int64), -1
        self._beyond: dict[int, tuple[int, float]] = {}  # by variable, the part and the share that it was beyond
        self._bound()

    def _bound(self) -> None:
        """Upper bound q of each share."""
        total = self._of(self.totals)
        known = np.minimum(self.counts, total)
        self._upper = special.betaincinv(known + 1, np.maximum(total - known, 1e-9), 1 - self._doubt)
        self._upper[np.isnan(self._upper) | (total == 0)] = 1.0

    def _of(self, totals: Any) -> Any:
        """What each part is a share of, from totals (2, F): (B + R, F)."""
        rates = self.counts.shape[0] - self._width
        return np.concatenate([np.repeat(totals[:1], self._width, axis=0), np.repeat(totals[1:], rates, axis=0)])

    def advance(self, window: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        """One window, in order; a look is taken when a later window comes.

        Args:
            window: its number.
            counts: over the decision's cells, (B, F).
            rates: (R, F).
            seen: (F,).
        """
        row = np.concatenate([counts, rates, counts.sum(axis=0)[np.newaxis], seen[np.newaxis]])
        if self._from < 0:
            self._from = window
        hits: list[Hit] = []
        for k, length in enumerate(LENGTHS):
            half = max(length // 2, 1)
            piece = window // half
            if piece != self._pieces[k]:
                if self._pieces[k] >= 0:
                    total = self._now[k] + (self._before[k] if length > 1 else 0)
                    hits += self._look(length, (self._pieces[k] + 1) * half - 1, total)
                self._before[k] = self._now[k] if piece == self._pieces[k] + 1 else 0
                self._now[k], self._pieces[k] = 0, piece
            self._now[k] += row
        self._learn(window, row, hits)
        self._rows += seen
        return hits

    def _learn(self, window: int, row: Counts, hits: list[Hit]) -> None:
        self._hit[[hit.variable for hit in hits]] = True  # also while it is held
        if window // HOUR != self._hour:
            if self._growing and self._hour >= 0:
                self._fresh[:, self._hit] = 0
                self.counts, self.totals = self.counts + self._fresh[:-2], self.totals + self._fresh[-2:]
                self._bound()
            self._hour, self._fresh = window // HOUR, np.zeros_like(self._fresh)
            self._hit[:] = False
        self._fresh += row

    def _look(self, length: int, end: int, total: Counts) -> list[Hit]:
        parts, each = total[:-2].astype(np.float64), self._of(total[-2:].astype(np.float64))
        usual = self._rows / max(end + 1 - self._from, 1) * WEEK  # rows of a week, at the mean so far
        weight = np.minimum(length / WEEK, total[-1] / np.maximum(usual, 1)) / BUSIER
        most = np.minimum(self._upper / np.maximum(weight, 1e-12), 1.0)
        found = (parts > most * each) & (most < 1)
        hits = self._hold((length, end), parts, each) if length == _HELD else []
        if not found.any():
            return hits
        statistic = np.where(found, deviance(parts, most * each, each) / SESSION, 0.0) / self._least
        for f in np.flatnonzero(statistic.max(axis=0) >= 1).tolist():
            part = int(statistic[:, f].argmax())
            self._beyond.setdefault(f, (part, float(most[part, f])))
            hits.append(self._make_hit((length, end), f, part, float(statistic[part, f]), total[:, f]))
        return hits

    def _hold(self, look: tuple[int, int], parts: Floats, each: Floats) -> list[Hit]:
        """Of what was beyond its bound: is it still?"""
        hits: list[Hit] = []
        for f, (part, share) in list(self._beyond.items()):
            if parts[part, f] > share * each[part, f]:
                total = np.append(parts[:, f], [each[0, f], each[-1, f]])
                hits.append(self._make_hit(look, f, part, HOLD, total)._replace(scale=1))
            elif not self.held[f]:
                del self._beyond[f]
        return hits

    def _make_hit(self, look: tuple[int, int], f: int, part: int, evidence: float, total: Counts) -> Hit:
        length, end = look
        scale = next((s.length for s in SCALES if s.length >= length), SCALES[-1].length)
        if part >= self._width:
            rate, seen = part - self._width, float(total[-1])
            q = float(self.counts[part, f] + 0.5) / float(self.totals[1, f] + 1)
            lower = float(special.betaincinv(total[part], seen - total[part] + 1, _SURE))
            size = (lower - q) ** 2 / (q * (1 - q))
            return Hit(end, scale, f, RATES, rate, evidence, size, (float(total[part]), seen), (q * seen, seen))
        used = slice(0, int(self._cells[f]))
        counts, known = total[used], self.counts[used, f]
        expected = known / max(known.sum(), 1) * counts.sum()
        lower = float(effect(counts, known).lower)
        return Hit(end, scale, f, CELLS, part, evidence, lower, tuple(counts.tolist()), tuple(expected.tolist()))

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "counts": [self.counts, self.totals],
            "sums": [self._now, self._before, self._pieces],
            "hour": [self._hour, self._fresh, np.flatnonzero(self._hit)],
            "rows": [self._rows, self._from],
            "beyond": list(self._beyond.items()),
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave."""
        self.counts, self.totals = map(np.array, plain["counts"])
        self._now, self._before = map(np.array, plain["sums"][:2])
        self._pieces = list(plain["sums"][2])
        self._hour, self._fresh = plain["hour"][0], np.array(plain["hour"][1])
        self._hit[:] = False
        self._hit[plain["hour"][2]] = True
        self._rows, self._from = np.array(plain["rows"][0]), plain["rows"][1]
        self._beyond = {f: (part, share) for f, (part, share) in plain["beyond"]}
        self._bound()
