"""Windows in, hits out: every scale and test of all variables of a model at once, with bounded state."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.effect import VALUES_PER_CELL, effect
from otel_mlmon.numerics.scales import HOUR, SCALES, Scale
from otel_mlmon.numerics.scan import cell_statistic, combine, deviance, project, smooth_statistic, surprise
from otel_mlmon.numerics.season import UNIT, expect
from otel_mlmon_processor.core.nulls import Nulls
from otel_mlmon_processor.core.slow import SlowDetector

SMOOTH, CELLS, RATES, SLOW = "smooth", "cells", "rates", "slow"
HOLD: Final = 0.5  # of the evidence that raises an alarm is enough to hold it


class Hit(NamedTuple):
    """One test of one variable that is beyond what is normal.

    Args:
        window: the last of those it rests on.
        scale: how many windows it rests on.
        variable: its place.
        test: smooth, cells, rates or slow.
        part: the cell, the rate, or the order of the basis function that says most.
        evidence: statistic over threshold, 1 and more raises an alarm, HOLD and more holds one.
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


class Scanner:
    """Mutable state of a model's tests; not thread-safe.

    Args:
        nulls: what is normal.
        tolerance: smallest effect D worth hearing of.
        slow: detector of slow drift; None where the reference is too short for it.
        least_rows: values of a variable that a look must hold.
    """

    def __init__(
        self, nulls: Nulls, *, tolerance: float = 0.005, slow: SlowDetector | None = None, least_rows: int = 0
    ) -> None:
        self.nulls, self.tolerance, self.slow = nulls, tolerance, slow
        self.least = np.maximum(VALUES_PER_CELL * nulls.cells, least_rows)[:, np.newaxis]
        _, self.width, self.size = nulls.basis.shape
        self.rates = nulls.allowed.shape[0]
        rows = 2 * self.width + self.rates + 1
        self._rings = [np.zeros((rows, self.size, s.pieces - 1), dtype=np.int64) for s in SCALES]
        self._parts = [np.zeros((rows, self.size), dtype=np.int64) for _ in SCALES]
        self.next: int | None = None
        self.held: NDArray[np.bool_] = np.zeros(self.size, dtype=np.bool_)  # variables whose alarm is on

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
        if self.next is not None and start < self.next:
            raise ValueError(f"windows must come in order: {start} after {self.next - 1}")
        if self.next is not None and start > self.next:
            gap = min(start - self.next, 2 * SCALES[-1].length)
            self._skip(start - gap, gap)
        self.next = start + counts.shape[-1]
        return self._take(start, counts, rates, seen)

    def _skip(self, start: int, gap: int) -> None:
        """Windows without a value: sums move on; nothing is looked at, as there is nothing new."""
        empty = np.zeros((self._parts[0].shape[0], self.size, gap), dtype=np.int64)
        for k, scale in enumerate(SCALES):
            self._sum(k, scale, np.arange(start, start + gap), empty)

    def _take(self, start: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        numbers = np.arange(start, start + counts.shape[-1])
        rows = counts.sum(axis=0)
        stack = np.concatenate([counts, expect(rows, self.nulls.table, numbers), rates, seen[np.newaxis]])
        hits: list[Hit] = []
        for k, scale in enumerate(SCALES):
            ends, sums = self._sum(k, scale, numbers, stack)
            if ends.size:
                hits += self._look(k, scale, ends, sums)
        return hits

    def _sum(self, k: int, scale: Scale, numbers: Counts, stack: Counts) -> tuple[Counts, Counts]:
        """Sums over the windows of each look that is due, and the looks' last windows."""
        at = np.flatnonzero((numbers + 1) % scale.hop == 0)
        if scale.hop == 1:
            pieces = stack
        else:
            total = np.cumsum(stack, axis=-1)
            reached = total[..., at]
            pieces = np.diff(reached, axis=-1, prepend=0)
            if at.size:
                pieces[..., 0] += self._parts[k]
                self._parts[k] = total[..., -1] - reached[..., -1]
            else:
                self._parts[k] = self._parts[k] + total[..., -1]
        if scale.pieces == 1:
            return numbers[at], pieces
        pieces = np.concatenate([self._rings[k], pieces], axis=-1)
        if at.size:
            self._rings[k] = pieces[..., pieces.shape[-1] - scale.pieces + 1 :].copy()
        sums = pieces[..., : at.size].copy()
        for i in range(1, scale.pieces):
            sums += pieces[..., i : i + at.size]
        return numbers[at], sums

    def _look(self, k: int, scale: Scale, ends: Counts, sums: Counts) -> list[Hit]:
        b, null = self.width, self.nulls
        counts, expected = sums[:b].astype(np.float64), sums[b : 2 * b] * (1 / UNIT)
        rows = counts[0].copy()
        for cell in counts[1:]:
            rows += cell
        apart = counts - expected
        typical, doubt = null.typical[k][:, np.newaxis], null.doubt[k][:, np.newaxis]
        enough = rows >= self.least
        slots = null.sampling.shape[-1]
        sampling = null.sampling[:, :, ((ends - scale.length // 2) // HOUR) % slots] if slots > 1 else null.sampling
        scores = project(apart, null.basis)
        covariance = combine(rows, sampling, null.spread[k][..., np.newaxis], typical, doubt)
        q, white = smooth_statistic(scores, rows, covariance)
        freedom = null.freedom[k][:, np.newaxis]
        q = np.where(enough, q, 0.0)
        z = np.where(enough, cell_statistic(apart, expected, rows, null.ratio[k][..., np.newaxis], typical, doubt), 0.0)
        hits: list[Hit] = []
        least, part_of = null.least[k][:, np.newaxis], np.where(self.held, HOLD, 1.0)[:, np.newaxis]
        for f, w in zip(*np.nonzero(q >= part_of * least), strict=True):
            evidence = float(surprise(q[f, w], freedom[f]).item() / surprise(least[f], freedom[f]).item())
            part = int(np.argmax([abs(p[f, w]) for p in white]))
            hits += self._judge(ends[w], scale, f, SMOOTH, part, evidence, counts[:, f, w], expected[:, f, w])
        for f, w in zip(*np.nonzero(z >= part_of * null.screen[0, k][:, np.newaxis]), strict=True):
            part, evidence = self._exact(
                counts[:, f, w], expected[:, f, w], rows[f, w], null.ratio[k, :, f], k, f, two_sided=True
            )
            hits += self._judge(ends[w], scale, f, CELLS, part, evidence, counts[:, f, w], expected[:, f, w])
        hits += self._look_at_rates(k, scale, ends, sums[2 * b :])
        if self.slow is not None and scale.length == HOUR:
            for w in np.flatnonzero((ends + 1) % HOUR == 0):
                hits += self._look_slowly(int(ends[w]), [s[:, w] for s in scores], rows[:, w], counts[..., w], expected[..., w])
        return hits

    def _exact(
        self, counts: Floats, expected: Floats, rows: float, ratio: Floats, k: int, f: int, *, two_sided: bool
    ) -> tuple[int, float]:
        """The cell or rate whose exact tail is smallest, and its evidence: both bounds must be met."""
        null, kind = self.nulls, 0 if two_sided else 1
        larger = max(rows, float(null.typical[k, f]))
        factor = 1 + (larger - null.typical[k, f]) * null.doubt[k, f] + larger * ratio
        above, p = counts > expected, np.clip(expected / rows, 1e-300, 1)
        g = deviance(counts, expected, np.asarray(rows)) / factor
        hit, rest = counts / factor, (rows - counts) / factor
        tail = np.where(
            above, special.betainc(np.maximum(hit, 1e-9), rest + 1, p), special.betainc(np.maximum(rest, 1e-9), hit + 1, 1 - p)
        )
        freedom = null.freedom[k, f]  # the variance is known from as many degrees of freedom
        exact, g = surprise(-2 * np.log(np.maximum(tail, 1e-300)), freedom), surprise(2 * g, freedom)
        evidence = np.minimum(exact / null.exact[kind, k, f], g / np.maximum(null.surprises[kind, k, f], 1e-9))
        evidence = np.where((above | two_sided) & ((expected > 0) | (counts > 0)), evidence, 0.0)
        part = int(np.argmax(evidence))
        return part, float(evidence[part])

    def _judge(
        self, window: int, scale: Scale, f: int, test: str, part: int, evidence: float, counts: Floats, expected: Floats
    ) -> list[Hit]:
        """The hit, if its effect is worth hearing of."""
        if evidence < self._needed(f):
            return []
        used = slice(0, int(self.nulls.cells[f]))
        counts, expected = counts[used], expected[used]
        lower = self._lower(int(f), counts, expected)
        if not lower > self.tolerance:
            return []
        both = tuple(counts.tolist()), tuple(expected.tolist())
        return [Hit(int(window), scale.length, int(f), test, part, evidence, lower, *both)]

    def _needed(self, f: int) -> float:
        return HOLD if self.held[f] else 1.0

    def _lower(self, f: int, counts: Floats, expected: Floats) -> float:
        """Lower bound of D against the expected shares, which the reference's rows at this season know."""
        reference = expected * (self.nulls.rows[f] / max(expected.sum(), 1.0))
        return float(effect(counts, reference).lower)

    def _look_at_rates(self, k: int, scale: Scale, ends: Counts, sums: Counts) -> list[Hit]:
        null = self.nulls
        seen = sums[-1].astype(np.float64)
        typical, doubt = null.typical[k][:, np.newaxis], null.doubt[k][:, np.newaxis]
        hits: list[Hit] = []
        screen = (np.where(self.held, HOLD, 1.0) * null.screen[1, k])[:, np.newaxis]
        larger = np.maximum(seen, typical)
        certain = 1 + (larger - typical) * doubt
        found: NDArray[np.bool_] = np.zeros(seen.shape, dtype=np.bool_)
        for count, share, rho in zip(sums[:-1], null.allowed, null.rates[k], strict=True):
            expected = seen * share[:, np.newaxis]
            apart = count - expected
            found |= (apart > 0) & (apart * apart >= screen * expected * (certain + larger * rho[:, np.newaxis]))
        for f, w in zip(*np.nonzero(found), strict=True):
            counts, total = sums[:-1, f, w].astype(np.float64), float(seen[f, w])
            part, evidence = self._exact(
                counts, total * null.allowed[:, f], total, null.rates[k, :, f], k, f, two_sided=False
            )
            if evidence < self._needed(f):
                continue
            lower, q = special.betaincinv(counts[part], total - counts[part] + 1, 0.05), null.allowed[part, f]
            size = float((lower - q) ** 2 / (q * (1 - q))) if lower > q else 0.0
            if size > self.tolerance:
                both = (float(counts[part]), total), (float(q * total), total)
                hits.append(Hit(int(ends[w]), scale.length, int(f), RATES, part, evidence, size, *both))
        return hits

    def _look_slowly(
        self, window: int, scores: list[Floats], rows: Floats, counts: Floats, expected: Floats
    ) -> list[Hit]:
        assert self.slow is not None  # noqa: S101 -- asked for only then
        hits: list[Hit] = []
        for f, order, evidence in self.slow.advance(scores, rows):
            hits += self._judge(window, SCALES[3], f, SLOW, order, evidence, counts[:, f], expected[:, f])
        return hits

    def dump(self) -> dict[str, Any]:
        """As plain values, for the checkpoint."""
        slow = None if self.slow is None else self.slow.dump()
        return {"next": self.next, "rings": self._rings, "parts": self._parts, "slow": slow}

    def load(self, plain: dict[str, Any]) -> None:
        """What `dump` gave, of a scanner with the same nulls."""
        self.next, self._rings, self._parts = plain["next"], list(plain["rings"]), list(plain["parts"])
        if self.slow is not None and plain["slow"] is not None:
            self.slow.load(plain["slow"])
