"""Windows in, hits out: every scale and test of all variables of a model at once, with bounded state."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.effect import VALUES_PER_CELL, Z95, effect
from otel_mlmon.numerics.scales import HOUR, Scale
from otel_mlmon.numerics.scan import (
    cell_statistic,
    combine,
    deviance,
    order_statistic,
    project,
    smooth_statistic,
    surprise,
    weigh,
)
from otel_mlmon.numerics.season import UNIT, expect
from otel_mlmon_processor.core.budget import CELLS, ORDER, RATES, SLOW, SMOOTH
from otel_mlmon_processor.core.bursts import Bursts
from otel_mlmon_processor.core.nulls import Nulls
from otel_mlmon_processor.core.slow import SlowDetector
from otel_mlmon_processor.core.sums import Sums, Weeks

HOLD: Final = 0.5  # of the evidence that raises an alarm is enough to hold it
_SURE: Final = float(special.ndtr(-Z95))
_LEAST: Final = 1e-300


class Hit(NamedTuple):
    """One test of one variable that is beyond what is normal.

    Args:
        window: the last of those it rests on.
        scale: how many windows it rests on.
        variable: its place.
        test: one of `budget.TESTS`, or SLOW.
        part: the cell, the rate, or the order of the basis function that says most.
        evidence: how surprising over what the budget allows; 1 and more raises an alarm, HOLD and more holds one.
        lower: lower bound of the effect D over the windows.
        counts: over the cells; of a rate the hits and all that were seen.
        expected: counts of the cells; of a rate the hits that are allowed, and all.
    """

    window: int
    scale: int
    variable: int
    test: str
    part: int
    evidence: float
    lower: float
    counts: tuple[float, ...]
    expected: tuple[float, ...]


class _View(NamedTuple):
    """A look at one scale: counts and expected counts (B, F, looks), rates (R, F, looks), the rest (F, looks).

    Of `alike` rows that came in bursts one says something of its own, see `bursts`.
    """

    place: int
    scale: Scale
    ends: Counts
    counts: Floats
    expected: Floats
    rows: Floats
    rates: Floats
    seen: Floats
    alike: Floats


class Scanner:
    """Mutable state of a model's tests; not thread-safe.

    Args:
        nulls: what is normal.
        tolerance: smallest effect D worth hearing of.
        slow: detector of slow drift; None: not looked for.
        least_rows: values of a variable that a look must hold, beyond five for each cell.
    """

    def __init__(
        self, nulls: Nulls, *, tolerance: float = 0.005, slow: SlowDetector | None = None, least_rows: int = 0
    ) -> None:
        self.nulls, self.tolerance, self.slow = nulls, tolerance, slow
        self.least = np.maximum(VALUES_PER_CELL * nulls.cells, least_rows)[:, np.newaxis]
        self.rates, size = nulls.allowed.shape
        self.width = nulls.basis.shape[1]
        self.held: NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)  # variables whose alarm is on
        self._bursts = Bursts(nulls.typical[0], nulls.clump)
        self._sums = Sums((2 * self.width + self.rates + 2, size))
        self._weeks = Weeks((2, self.width, size))

    def advance(self, start: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        """Look at consecutive windows. Windows that are skipped held nothing.

        Args:
            start: number of the first window (minutes since 1970).
            counts: over the decision's cells, (B, F, windows).
            rates: what the rate tests count, (R, F, windows).
            seen: values, valid or not, (F, windows).

        Raises:
            ValueError: windows are not in order.
        """
        numbers, b = np.arange(start, start + counts.shape[-1]), self.width
        expected = expect(counts.sum(axis=0), self.nulls.table, numbers)
        weighted = self._bursts.advance(start, seen)
        hits: list[Hit] = []
        for place, scale, ends, sums in self._sums.advance(
            start, np.concatenate([counts, expected, rates, seen[np.newaxis], weighted[np.newaxis]])
        ):
            rows = sums[:b].sum(axis=0).astype(np.float64)
            values, likely = sums[:b].astype(np.float64), sums[b : 2 * b].astype(np.float64) / UNIT
            rest = sums[2 * b : -2].astype(np.float64), sums[-2].astype(np.float64)
            alike = np.maximum(sums[-1] / np.maximum(sums[-2], 1), 1.0)
            view = _View(place, scale, ends, values, likely, rows, *rest, alike)
            hits += self._look_at_values(view)
            hits += self._look_at_rates(view)
        return hits

    @property
    def _needed(self) -> Floats:
        """Evidence that makes a hit, (F, 1)."""
        return np.where(self.held, HOLD, 1.0)[:, np.newaxis]

    def _look_at_values(self, view: _View) -> list[Hit]:
        null, k, rows = self.nulls, view.place, view.rows
        typical, doubt = null.typical[k][:, np.newaxis], null.doubt[k][:, np.newaxis]
        enough, apart = rows >= self.least, view.counts - view.expected
        slots = ((view.ends - view.scale.length // 2) // HOUR) % null.sampling.shape[-1]
        sampling = null.sampling if null.sampling.shape[-1] == 1 else null.sampling[:, :, slots]
        scores = project(apart, null.basis)
        weight = weigh(rows, typical, doubt, view.alike)
        covariance = combine(weight, sampling, null.spread[k][..., np.newaxis])
        q, _ = smooth_statistic(scores, rows, covariance)
        z = cell_statistic(apart, view.expected, weight, null.ratio[k][..., np.newaxis])
        one, order = order_statistic(scores, rows, covariance)
        hits: list[Hit] = []
        for test, statistic, least in zip((ORDER, SMOOTH), (one, q), null.least[:, k], strict=True):
            for f, w in _places(enough & (statistic >= self._needed * least[:, np.newaxis])):
                freedom = null.freedom[k, f]
                evidence = float(surprise(statistic[f, w], freedom) / surprise(least[f], freedom))
                hits += self._judge(view, (f, w), test, int(order[f, w]), evidence)
        for f, w in _places(enough & (z >= self._needed * null.screen[0, k][:, np.newaxis])):
            hits += self._judge(view, (f, w), CELLS, *self._evidence(view, (f, w), CELLS))
        if self.slow is not None and view.scale.length == HOUR:
            for w in np.flatnonzero((view.ends + 1) % HOUR == 0).tolist():
                weeks = self._add_hour(view, w)
                for f, j, evidence in self.slow.advance([s[:, w] for s in scores], rows[:, w]):
                    found = self._judge(view, (f, w), SLOW, j, evidence) + self._judge(weeks, (f, 0), SLOW, j, evidence)
                    hits += sorted(found, key=lambda hit: hit.lower)[-1:]
        return hits

    def _add_hour(self, view: _View, w: int) -> _View:
        """A look at this week and the last: few rows show in no single hour how far they have drifted."""
        length, sums = self._weeks.add(int(view.ends[w]), np.stack([view.counts[..., w], view.expected[..., w]]))
        counts, expected = sums[..., np.newaxis]
        scale = Scale(length, HOUR)
        return view._replace(scale=scale, ends=view.ends[w : w + 1], counts=counts, expected=expected)

    def _look_at_rates(self, view: _View) -> list[Hit]:
        null, k, seen = self.nulls, view.place, view.seen
        typical, doubt = null.typical[k][:, np.newaxis], null.doubt[k][:, np.newaxis]
        clump = null.clump[:, np.newaxis]
        _, larger, certain = weigh(seen, typical, doubt, view.alike)
        screen = self._needed * null.screen[1, k][:, np.newaxis]
        found: NDArray[np.bool_] = np.zeros(seen.shape, dtype=np.bool_)
        for count, share, rho in zip(view.rates, null.allowed, null.rates[k], strict=True):
            expected = seen * share[:, np.newaxis]
            apart = count - expected
            factor = np.maximum(certain + larger * rho[:, np.newaxis], certain * clump)
            found |= (apart > 0) & (apart * apart >= screen * expected * factor)
        hits: list[Hit] = []
        for f, w in _places(found):
            counts, total = view.rates[:, f, w], float(seen[f, w])
            part, evidence = self._evidence(view, (f, w), RATES)
            if evidence < self._needed[f, 0]:
                continue
            q = float(null.allowed[part, f])
            alike = max(null.clump[f], view.alike[f, w])
            lower = float(special.betaincinv(counts[part] / alike, (total - counts[part]) / alike + 1, _SURE))
            size = (lower - q) ** 2 / (q * (1 - q)) if lower > q else 0.0
            if size > self.tolerance:
                both = (float(counts[part]), total), (q * total, total)
                hits.append(Hit(int(view.ends[w]), view.scale.length, f, RATES, part, evidence, size, *both))
        return hits

    def _evidence(self, view: _View, at: tuple[int, int], test: str) -> tuple[int, float]:
        """The cell or rate that says most, and its evidence.

        Of the exact binomial tail, overdispersed as the reference showed, and of Chernoff's bound against the
        reference's own largest ones, the weaker counts.
        """
        null, k, (f, w), kind = self.nulls, view.place, at, int(test == RATES)
        rows = float((view.seen if kind else view.rows)[at])
        counts = (view.rates if kind else view.counts)[:, f, w]
        expected = rows * null.allowed[:, f] if kind else view.expected[:, f, w]
        ratio = (null.rates if kind else null.ratio)[k, :, f]
        _, larger, certain = weigh(np.asarray(rows), null.typical[k, f], null.doubt[k, f], view.alike[at])
        factor = np.maximum(certain + larger * ratio, certain * null.clump[f] if kind else 1.0)
        above, p = counts > expected, np.clip(expected / rows, _LEAST, 1)
        hits, rest = np.maximum(counts / factor, 1e-9), np.maximum((rows - counts) / factor, 1e-9)
        tail = np.where(above, special.betainc(hits, rest + 1, p), special.betainc(rest, hits + 1, 1 - p))
        bound = deviance(counts, expected, np.asarray(rows)) / factor
        exact, bound = (surprise(2 * x, null.freedom[k, f]) for x in (-np.log(np.maximum(tail, _LEAST)), bound))
        evidence = np.minimum(exact / null.exact[kind, k, f], bound / np.maximum(null.surprises[kind, k, f], 1e-9))
        evidence = np.where((above | (not kind)) & ((expected > 0) | (counts > 0)), evidence, 0.0)
        part = int(np.argmax(evidence))
        return part, float(evidence[part])

    def _judge(self, view: _View, at: tuple[int, int], test: str, part: int, evidence: float) -> list[Hit]:
        """The hit, if there is evidence enough and its effect is worth hearing of."""
        f, w = at
        if evidence < self._needed[f, 0]:
            return []
        used = slice(0, int(self.nulls.cells[f]))
        counts, expected = view.counts[used, f, w], view.expected[used, f, w]
        # The expected shares are known from the reference's rows at these hours.
        known = self.nulls.rows[f] * min(1.0, (view.scale.length / HOUR + 1) / self.nulls.slots[f])
        estimate, lower = effect(counts, expected * (known / max(expected.sum(), 1.0)))
        if not (estimate if self.held[f] else lower) > self.tolerance:
            return []
        both = tuple(counts.tolist()), tuple(expected.tolist())
        return [Hit(int(view.ends[w]), view.scale.length, f, test, part, evidence, float(lower), *both)]

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        slow = None if self.slow is None else self.slow.dump()
        return [self._sums.dump(), slow, self._weeks.dump(), self._bursts.dump()]

    def load(self, plain: list[Any]) -> None:
        """What `dump` gave, of a scanner with the same nulls."""
        self._sums.load(plain[0])
        if self.slow is not None and plain[1] is not None:
            self.slow.load(plain[1])
        self._weeks.load(plain[2])
        self._bursts.load(plain[3])


def _places(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Variable and look of each hit."""
    return [(f, w) for f, w in np.argwhere(mask).tolist()]
