"""What is normal for a variable, learnt from the reference's own windows: season, spread between windows, tails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.scales import DAY, HOUR, SCALES, WEEK, Scale
from otel_mlmon.numerics.scan import (
    TRIANGLE,
    basis_covariance,
    combine,
    deviance,
    project,
    smooth_statistic,
    surprise,
)
from otel_mlmon.numerics.season import UNIT, expect, quantize, slot_counts, slot_shares
from otel_mlmon.numerics.smooth import ORDERS, smooth_basis

KEPT_DAYS: Final = 56  # the newest; a year ago is another season
PEAKS: Final = 8
RIDGE: Final = 0.05
SLACK, FLOOR = 1.1, 1e-4
_SHORT: Final = 240  # windows of a block where there are too few days
_FEW_DAYS: Final = 5
_DIAGONAL: Final = tuple(k for k, (i, j) in enumerate(TRIANGLE) if i == j)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What is normal for a variable. Arrays are over the five scales first where they have five rows.

    Args:
        windows: that held values.
        blocks: of time that were left out in turn, and their length in windows.
        block: length of one, in windows.
        shares: of the decision's cells by slot, (1, 24 or 168, cells).
        rows: values in each slot, (slots,).
        spread: T, covariance between windows of the mean basis functions beyond sampling, packed, (5, 10).
        typical: nbar, rows of a look, (5,).
        freedom: nu, degrees of freedom of T by how much it differs from block to block, (5,).
        cells: rho, overdispersion of each cell's share per row, (5, cells).
        seen: values, valid or not.
        invalid: counts of the rates, (rates,).
        rates: their overdispersion per row, (5, rates).
        peaks: largest surprise in each block, out of sample, the greatest first: smooth, cells, rates; (3, 5, PEAKS).
        daily: variance of the basis functions' daily means beyond sampling, (4,).
        days: over which that was measured.
    """

    windows: int
    blocks: int
    block: int
    shares: Floats
    rows: Floats
    spread: Floats
    typical: Floats
    freedom: Floats
    cells: Floats
    seen: int
    invalid: Counts
    rates: Floats
    peaks: Floats
    daily: Floats
    days: int

    @property
    def slots(self) -> int:
        """1 without a season, 24 hours of the day, 168 hours of the week."""
        return self.shares.shape[0]

    @property
    def overall(self) -> Floats:
        """Shares over all slots, (cells,)."""
        weights = self.rows if self.rows.sum() else np.ones_like(self.rows)
        return np.asarray(weights @ self.shares / weights.sum())

    @property
    def basis(self) -> Floats:
        """Neyman's basis under the overall shares, (cells, 4)."""
        return smooth_basis(self.overall)

    def to_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in plain.items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Calibration:
        """What `to_plain` gave."""
        integers = ("windows", "blocks", "block", "seen", "days")
        made: dict[str, Any] = {name: int(plain[name]) for name in integers}
        made["invalid"] = np.array(plain["invalid"], dtype=np.int64)
        for f in fields(cls):
            if f.name not in made:
                made[f.name] = np.array(plain[f.name], dtype=np.float64)
        return cls(**made)


def fit_calibration(numbers: Counts, counts: Counts, rates: Counts, seen: Counts) -> Calibration:
    """Learn what is normal.

    Each block of time (a day; four hours where there are fewer than five days) is judged by what all others say, so that
    what is stored has seen its own mistakes: errors of the season, of the spread, of the tails.

    Args:
        numbers: of the windows that held values, minutes since 1970, ascending, shape (windows,).
        counts: over the decision's cells, (windows, cells).
        rates: of what the rate tests count (missing, ... ), (windows, rates).
        seen: values, valid or not, (windows,).
    """
    kept = numbers > numbers[-1] - KEPT_DAYS * DAY
    fit = _Fit(*(a[kept] for a in (numbers, counts, rates, seen)))
    scales = [fit.scale(scale) for scale in SCALES]
    daily, days = fit.daily()
    return Calibration(
        windows=int((fit.rows > 0).sum()),
        blocks=fit.blocks,
        block=fit.block,
        shares=_round(slot_shares(fit.slotted.sum(axis=0), fit.cells), 7),
        rows=fit.slotted.sum(axis=(0, 2)).astype(np.float64),
        spread=_round(np.array([s["spread"] for s in scales])),
        typical=_round(np.array([s["typical"] for s in scales])),
        freedom=_round(np.array([s["freedom"] for s in scales])),
        cells=_round(np.array([s["cells"] for s in scales])),
        seen=int(fit.seen.sum()),
        invalid=fit.rates.sum(axis=0),
        rates=_round(np.array([s["rates"] for s in scales])),
        peaks=_round(np.array([[s["peaks"][kind] for s in scales] for kind in range(3)])),
        daily=_round(daily),
        days=days,
    )


def _round(values: Floats, digits: int = 5) -> Floats:
    """To significant digits, so that the document is small and the same whatever made it."""
    with np.errstate(divide="ignore"):
        size = np.where(values == 0, 1.0, 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values)))))
    return np.round(values * size) / size


class _Fit:
    """Work of one fit: windows laid out without gaps, expectations out of sample."""

    def __init__(self, numbers: Counts, counts: Counts, rates: Counts, seen: Counts) -> None:
        first, last = int(numbers[0]), int(numbers[-1])
        self.numbers = np.arange(first, last + 1)
        at = numbers - first
        self.counts, self.rates = _lay(counts, at, self.numbers.size), _lay(rates, at, self.numbers.size)
        self.seen = _lay(seen, at, self.numbers.size)
        self.rows = self.counts.sum(axis=1)
        self.cells = counts.shape[1]
        days = np.unique(numbers // DAY).size
        self.block = DAY if days >= _FEW_DAYS else _SHORT
        _, self.block_of = np.unique(self.numbers // self.block, return_inverse=True)
        self.size = int(self.block_of.max()) + 1
        self.held = _by(self.block_of, self.size, self.rows) > 0
        self.blocks = int(self.held.sum())
        self.hourly = self._by_hour()
        self.slots = self._choose_slots()
        self.slotted = self._slotted(self.slots)
        total = self.slotted.sum(axis=0)
        self.basis = smooth_basis(slot_shares(total.sum(axis=0, keepdims=True), 0)[0])
        self.expected, self.likely = self._expect(), self._expect_rates()
        shares = slot_shares(total, self.cells)
        self.sampling = basis_covariance(self.basis, shares)  # by slot

    def _by_hour(self) -> tuple[Counts, NDArray[np.intp], Counts]:
        """Hours since 1970, their blocks and their counts."""
        hours = self.numbers // HOUR
        starts = np.flatnonzero(np.append(True, np.diff(hours) != 0))
        return hours[starts], self.block_of[starts], np.add.reduceat(self.counts, starts, axis=0)

    def _slotted(self, slots: int) -> Counts:
        """Counts by block and slot, (blocks, slots, cells)."""
        total = np.zeros((self.size, slots, self.cells), dtype=np.int64)
        if slots == 1:
            total[:, 0] = _by(self.block_of, self.size, self.counts)
        else:
            hour, block, sums = self.hourly
            np.add.at(total, (block, hour % slots), sums)
        return total

    def _choose_slots(self) -> int:
        """The finest season that explains something of the days that were left out."""
        if self.block != DAY:
            return 1
        chosen, best = 1, self._losses(1)
        for slots, least in ((24, _FEW_DAYS * DAY), (WEEK // HOUR, 4 * WEEK)):
            if self.numbers.size < least - DAY:
                continue
            losses = self._losses(slots)
            gain = (best - losses)[self.held]
            if gain.mean() > 2 * gain.std(ddof=1) / gain.size**0.5 > 0:
                chosen, best = slots, losses
        return chosen

    def _losses(self, slots: int) -> Floats:
        """Sum over the hours of chi-square against what the other blocks say, by block."""
        hours, block, sums = self.hourly
        hourly = np.zeros((self.size, 24, self.cells))
        hourly[block, hours % 24] = sums
        slotted = self._slotted(slots)
        shares = slot_shares(slotted.sum(axis=0) - slotted, self.cells)  # (blocks, slots, cells)
        if slots > 24:
            day = (np.arange(hourly.shape[0]) + self.numbers[0] // DAY) % 7
            shares = shares.reshape(-1, 7, 24, self.cells)[np.arange(day.size), day]
        rows = hourly.sum(axis=-1, keepdims=True)
        expected = rows * shares
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.where(rows > 0, (hourly - expected) ** 2 / np.maximum(expected, 1e-9), 0.0)
        return np.asarray(loss.sum(axis=(1, 2)))

    def _expect(self) -> Floats:
        """Expected counts of each window from the other blocks, (windows, cells)."""
        total = self.slotted.sum(axis=0)
        expected = np.empty(self.counts.shape)
        starts = np.flatnonzero(np.append(True, np.diff(self.block_of) != 0)).tolist()
        for k, (start, end) in enumerate(zip(starts, [*starts[1:], self.numbers.size], strict=True)):
            others = total - self.slotted[k] if self.blocks > 1 else total
            table = quantize(slot_shares(others, self.cells))[..., np.newaxis]
            part = expect(self.rows[np.newaxis, start:end], table, self.numbers[start:end])
            expected[start:end] = part[:, 0].T / UNIT
        return expected

    def _expect_rates(self) -> Floats:
        """Expected share of each rate from the other blocks, (windows, rates)."""
        hits, seen = (_by(self.block_of, self.size, a) for a in (self.rates, self.seen))
        share = (hits.sum(axis=0) - hits) / np.maximum(seen.sum() - seen, 1)[:, np.newaxis]
        return share[self.block_of]

    def scale(self, scale: Scale) -> dict[str, Any]:
        """What one scale says."""
        ends = np.flatnonzero((self.numbers + 1) % scale.hop == 0)
        ends = ends[ends >= scale.length - 1]
        counts, expected, rows = (_sums(a, ends, scale.length) for a in (self.counts, self.expected, self.rows))
        rates, likely, seen = (
            _sums(a, ends, scale.length) for a in (self.rates, self.likely * self.seen[:, None], self.seen)
        )
        block = self.block_of[ends]
        used = rows > 0
        spread, typical, freedom, peaks = self._smooth(counts, expected, rows, self._sampling(ends, scale), block, used)
        cells, cell_peaks = self._counts(counts, expected, rows, block, (typical, freedom), two_sided=True)
        overs, rate_peaks = self._counts(rates, likely, seen, block, (typical, freedom), two_sided=False)
        return {
            "spread": spread,
            "typical": typical,
            "freedom": freedom,
            "cells": cells,
            "rates": overs,
            "peaks": (peaks, cell_peaks, rate_peaks),
        }

    def _sampling(self, ends: NDArray[np.intp], scale: Scale) -> Floats:
        """Covariance of the basis by look, (looks, 10)."""
        slot = ((self.numbers[ends] - scale.length // 2) // HOUR) % self.slots
        return self.sampling[slot]

    def _smooth(
        self, counts: Floats, expected: Floats, rows: Floats, sampling: Floats, block: NDArray[np.intp], used: Any
    ) -> tuple[Floats, float, float, Floats]:
        size = self.size
        scores = (counts - expected) @ self.basis
        n = rows[:, np.newaxis]
        products = np.stack([scores[:, i] * scores[:, j] for i, j in TRIANGLE], axis=1) - n * sampling
        sums, squares, total = (_by(block, size, a) for a in (products, rows.astype(np.float64) ** 2, rows * 1.0))
        if not total.sum():
            return np.zeros(len(TRIANGLE)), 1.0, 1.0, np.zeros(PEAKS)
        typical = squares.sum() / total.sum()
        rest = np.maximum(squares.sum() - squares, 1e-9)[:, np.newaxis]
        others = _positive((sums.sum(axis=0) - sums) / rest)
        spread = _positive(sums.sum(axis=0, keepdims=True) / squares.sum())[0]
        zero = np.zeros((1, 1))
        covariance = combine(
            rows[np.newaxis].astype(np.float64),
            sampling.T[:, np.newaxis],
            others[block].T[:, np.newaxis],
            np.full((1, 1), typical),
            zero,
        )
        q, white = smooth_statistic(
            project((counts - expected).T[:, np.newaxis], self.basis.T[..., np.newaxis]),
            rows[np.newaxis].astype(np.float64),
            covariance,
        )
        looks = _by(block, size, used * 1.0)
        whole = looks > 0.5 * looks.max()
        varied = []
        for part in white:
            means = _by(block, size, part[0] ** 2 / np.maximum(rows, 1))[whole] / looks[whole]
            if whole.sum() > 1 and means.var() > 0:
                varied.append(means.var(ddof=1) / means.mean() ** 2)
        freedom = 2 * whole.sum() / max(varied) if varied else 2.0
        freedom = float(np.clip(freedom, 4.5, used.sum()))
        return spread, typical, freedom, self._peaks(surprise(q[0], np.array(freedom)), block, used)

    def _counts(
        self,
        counts: Floats,
        expected: Floats,
        rows: Floats,
        block: NDArray[np.intp],
        known: tuple[float, float],
        *,
        two_sided: bool,
    ) -> tuple[Floats, Floats]:
        """Overdispersion per row of each count, and the peaks of the largest deviance."""
        n = np.maximum(rows, 1)[:, np.newaxis].astype(np.float64)
        variance = expected - expected**2 / n
        over = _by(block, self.size, (counts - expected) ** 2 - variance)
        scale = _by(block, self.size, variance * n)
        ratio = np.maximum(over.sum(axis=0), 0) / np.maximum(scale.sum(axis=0), 1e-9)
        others = np.maximum(over.sum(axis=0) - over, 0) / np.maximum(scale.sum(axis=0) - scale, 1e-9)
        typical, freedom = known
        factor = 1 + np.maximum(n, typical) * others[block]
        if not two_sided:
            expected = np.minimum(SLACK * expected + FLOOR * n, n)
        found = deviance(counts.astype(np.float64), expected, n) / factor
        if not two_sided:
            found = np.where(counts > expected, found, 0.0)
        largest = surprise(2 * found.max(axis=1, initial=0.0), np.array(freedom))
        return ratio, self._peaks(largest, block, rows > 0)

    def _peaks(self, values: Floats, block: NDArray[np.intp], used: NDArray[np.bool_]) -> Floats:
        """The largest of each block, the greatest PEAKS of them."""
        largest = np.zeros(self.size)
        block, values = block[used], values[used]
        if block.size:
            starts = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
            largest[block[starts]] = np.maximum.reduceat(values, starts)
        ordered = np.sort(largest[self.held])[::-1][:PEAKS]
        return np.append(ordered, np.zeros(PEAKS - ordered.size))

    def daily(self) -> tuple[Floats, int]:
        """Variance of daily means beyond sampling, and over how many days."""
        if self.block != DAY:
            return np.zeros(ORDERS), 0
        scores = _by(self.block_of, self.size, self.counts - self.expected) @ self.basis
        rows = _by(self.block_of, self.size, self.rows)
        scores, rows = scores[self.held], rows[self.held]
        variance = ((scores**2).sum(axis=0) - rows.sum()) / (rows**2).sum()
        return np.maximum(variance, 0.0), self.blocks


def _by(block: NDArray[np.intp], size: int, values: Any) -> Any:
    """Sums by block of values (looks, ...) whose blocks ascend, (size, ...)."""
    total = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
    if block.size:
        starts = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
        total[block[starts]] = np.add.reduceat(values, starts, axis=0)
    return total


def _lay(values: Counts, at: Counts, size: int) -> Counts:
    laid = np.zeros((size, *values.shape[1:]), dtype=np.int64)
    laid[at] = values
    return laid


def _sums(values: Any, ends: NDArray[np.intp], length: int) -> Any:
    """Sums over the `length` windows that end with each of `ends`."""
    total = np.cumsum(values, axis=0)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    return total[ends + 1] - total[ends + 1 - length]


def _positive(packed: Floats) -> Floats:
    """The nearest positive semidefinite matrices, with a ridge: no direction is quieter than 1/20 of the loudest."""
    full = np.zeros((packed.shape[0], ORDERS, ORDERS))
    for k, (i, j) in enumerate(TRIANGLE):
        full[:, i, j] = full[:, j, i] = packed[:, k]
    values, vectors = np.linalg.eigh(full)
    values = np.maximum(values, 0)
    values = values + RIDGE * values.max(axis=1, keepdims=True)
    full = np.einsum("kia,ka,kja->kij", vectors, values, vectors)
    return np.stack([full[:, i, j] for i, j in TRIANGLE], axis=1)


def fit_each(parts: Sequence[tuple[Counts, Counts, Counts, Counts]]) -> list[Calibration]:
    """Of several variables."""
    return [fit_calibration(*part) for part in parts]
