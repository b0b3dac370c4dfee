"""A reference's windows laid out in time, and what is expected of each by all the other days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.scales import DAY, HOUR, SCALES, WEEK, Scale
from otel_mlmon.numerics.season import UNIT, expect, quantize, slot_shares

FEW_DAYS: Final = 5
_SHORT: Final = SCALES[-1].length  # windows of a block where there are fewer days
_SEASONS: Final = ((DAY // HOUR, FEW_DAYS * DAY), (WEEK // HOUR, 4 * WEEK))  # slots, and windows that they need
_GAIN: Final = 2.0  # standard errors by which a season must be better on days that it has not seen


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Stretches of time that are left out in turn.

    Args:
        length: in windows; a day, or four hours where there are fewer than five days.
        at: block of each item, ascending, (items,).
        size: how many there are.
        held: those with values, (size,).
    """

    length: int
    at: NDArray[np.intp]
    size: int
    held: NDArray[np.bool_]

    @property
    def number(self) -> int:
        """Of those with values."""
        return int(self.held.sum())

    def take(self, items: Any) -> Blocks:
        """Blocks of some of the items."""
        return Blocks(self.length, self.at[items], self.size, self.held)

    def _starts(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.append(True, self.at[1:] != self.at[:-1]))[: self.at.size]

    def sum(self, values: Any) -> Any:
        """Sums of values (items, ...) by block, (size, ...)."""
        total = np.zeros((self.size, *values.shape[1:]), dtype=values.dtype)
        starts = self._starts()
        if starts.size:
            total[self.at[starts]] = np.add.reduceat(values, starts, axis=0)
        return total

    def largest(self, values: Floats) -> Floats:
        """Greatest of values (items,), none negative, by block."""
        most = np.zeros(self.size)
        starts = self._starts()
        if starts.size:
            most[self.at[starts]] = np.maximum.reduceat(values, starts)
        return most

    def others(self, sums: Any) -> Any:
        """Sums over all other blocks, from those by block."""
        return sums.sum(axis=0) - sums if self.number > 1 else sums.sum(axis=0) + np.zeros_like(sums)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Consecutive windows, empty ones too, and what is expected of them out of sample.

    Args:
        numbers: of the windows, (windows,).
        counts: over the decision's cells, (windows, cells); expected: likewise.
        rows: values in cells, (windows,).
        rates: (windows, rates); likely: how many of `seen` (windows,) are expected, (windows, rates).
        blocks: of the windows.
        slotted: counts by block and slot, (blocks, slots, cells).
    """

    numbers: Counts
    counts: Counts
    expected: Floats
    rows: Counts
    rates: Counts
    likely: Floats
    seen: Counts
    blocks: Blocks
    slotted: Counts

    @property
    def slots(self) -> int:
        """1, 24 or 168."""
        return int(self.slotted.shape[1])

    @property
    def prior(self) -> int:
        """Values by which a slot's shares are drawn to the overall ones."""
        return int(self.counts.shape[1])

    @property
    def shares(self) -> Floats:
        """Of the cells, by slot, (slots, cells)."""
        return slot_shares(self.slotted.sum(axis=0), self.prior)

    def ends(self, scale: Scale) -> NDArray[np.intp]:
        """Places of the windows with which a look at this scale ends."""
        ends = np.flatnonzero((self.numbers + 1) % scale.hop == 0)
        return ends[ends >= scale.length - 1]


def expect_windows(numbers: Counts, counts: Counts, rates: Counts, seen: Counts) -> Expectation:
    """Lay out the windows, choose the season, and say what the other blocks expect of each.

    The season (hours of the day from five days on, of the week from four weeks on) is used only where it predicts hours
    of blocks that were left out better than what is coarser, by two standard errors over the blocks.

    Args:
        numbers: of the windows that held values, minutes since 1970, ascending, (windows,).
        counts: over the decision's cells, (windows, cells).
        rates: of what the rate tests count, (windows, rates).
        seen: values, valid or not, (windows,).
    """
    every = np.arange(int(numbers[0]), int(numbers[-1]) + 1)
    counts, rates, seen = (_lay(a, numbers - every[0], every.size) for a in (counts, rates, seen))
    rows = counts.sum(axis=1)
    length = DAY if np.unique(numbers // DAY).size >= FEW_DAYS else _SHORT
    at = every // length - every[0] // length
    blocks = Blocks(length, at, int(at[-1]) + 1, np.zeros(0, dtype=np.bool_))
    blocks = Blocks(length, at, blocks.size, blocks.sum(seen) > 0)
    slotted = _choose_season(every, counts, blocks)
    expected = np.empty(counts.shape)
    tables = quantize(slot_shares(blocks.others(slotted), counts.shape[1]))[..., np.newaxis]
    for block in range(blocks.size):
        part = slice(*np.searchsorted(at, [block, block + 1]))
        expected[part] = expect(rows[np.newaxis, part], tables[block], every[part])[:, 0].T / UNIT
    hits, total = blocks.others(blocks.sum(rates)), blocks.others(blocks.sum(seen))
    share = hits / np.maximum(total, 1)[:, np.newaxis]
    return Expectation(every, counts, expected, rows, rates, share[at] * seen[:, np.newaxis], seen, blocks, slotted)


def _lay(values: Counts, at: Counts, size: int) -> Counts:
    laid = np.zeros((size, *values.shape[1:]), dtype=np.int64)
    laid[at] = values
    return laid


def _choose_season(numbers: Counts, counts: Counts, blocks: Blocks) -> Counts:
    """Counts by block and slot of the finest season that is worth it."""
    chosen: Counts = blocks.sum(counts)[:, np.newaxis]
    if blocks.length != DAY:
        return chosen
    hours = numbers // HOUR
    starts = np.flatnonzero(np.append(True, np.diff(hours) != 0))
    at, block = hours[starts], blocks.at[starts]
    hourly = np.zeros((blocks.size, DAY // HOUR, counts.shape[1]), dtype=np.int64)
    hourly[block, at % (DAY // HOUR)] = np.add.reduceat(counts, starts, axis=0)
    weekday = (numbers[0] // DAY + np.arange(blocks.size)) % 7
    best = _losses(hourly, chosen, blocks, weekday)
    for slots, least in _SEASONS:
        if numbers.size <= least - DAY:
            continue
        slotted = hourly
        if slots > hourly.shape[1]:
            slotted = np.zeros((blocks.size, 7, *hourly.shape[1:]), dtype=np.int64)
            slotted[np.arange(blocks.size), weekday] = hourly
            slotted = slotted.reshape(blocks.size, slots, -1)
        losses = _losses(hourly, slotted, blocks, weekday)
        gain = (best - losses)[blocks.held]
        if gain.mean() > _GAIN * gain.std(ddof=1) / gain.size**0.5:
            chosen, best = slotted, losses
    return chosen


def _losses(hourly: Counts, slotted: Counts, blocks: Blocks, weekday: Counts) -> Floats:
    """Chi-square of each block's hours against what the other blocks say of their slots, (blocks,)."""
    cells = hourly.shape[-1]
    shares = slot_shares(blocks.others(slotted), cells)
    if slotted.shape[1] > hourly.shape[1]:
        shares = shares.reshape(blocks.size, 7, -1, cells)[np.arange(blocks.size), weekday]
    expected = hourly.sum(axis=-1, keepdims=True) * shares
    loss = (hourly - expected) ** 2 / np.maximum(expected, 1e-9)
    return np.asarray(loss.sum(axis=(1, 2)))
