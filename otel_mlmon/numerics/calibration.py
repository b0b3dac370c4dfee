"""What is normal for a variable, learnt from the reference's own windows: season, spread between windows, tails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.expectation import Blocks, Expectation, expect_windows
from otel_mlmon.numerics.jumps import fit_jumps
from otel_mlmon.numerics.scales import DAY, HOUR, SCALES, Scale
from otel_mlmon.numerics.scan import (
    TRIANGLE,
    basis_covariance,
    combine,
    deviance,
    order_statistic,
    project,
    smooth_statistic,
    weigh,
)
from otel_mlmon.numerics.smooth import ORDERS, smooth_basis

KEPT_DAYS: Final = 56  # the newest; a year ago is another season
PEAKS: Final = 8
TESTS: Final = 4  # by order, smooth, cells, rates
SLACK, FLOOR = 1.1, 1e-4  # a rate may be so many times the reference's, and so much above
_RIDGE: Final = 0.05
_LEAST_FREEDOM: Final = 4.5
_NEAR: Final = 3.0
_NONE: Final = 1e-9


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
        jumps: degrees of freedom by what may come together by chance, see `jumps`, (5,).
        cells: rho, overdispersion of each cell's share per row, (5, cells).
        seen: values, valid or not.
        invalid: counts of the rates, (rates,).
        rates: their overdispersion per row, (5, rates).
        peaks: largest statistic in each block, out of sample, the greatest first: of one order, of all orders together,
            twice the deviance over the overdispersion of a cell and of a rate, (4, 5, PEAKS).
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
    jumps: Floats
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
        return int(self.shares.shape[0])

    @property
    def overall(self) -> Floats:
        """Shares over all slots, (cells,)."""
        return _overall(self.shares, self.rows)

    @property
    def basis(self) -> Floats:
        """Neyman's basis under the overall shares, (cells, 4)."""
        return smooth_basis(self.overall)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Calibration):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

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

    Each block of time (a day; four hours where there are fewer than five days) is judged by what all others say, so
    that what is stored has seen its own mistakes: errors of the season, of the spread, of the tails.

    Args:
        numbers: of the windows that held values, minutes since 1970, ascending, (windows,).
        counts: over the decision's cells, (windows, cells).
        rates: of what the rate tests count (missing, ...), (windows, rates).
        seen: values, valid or not, (windows,).

    Raises:
        ValueError: there is no window.
    """
    if not numbers.size:
        raise ValueError("nothing to calibrate on: there is no window with values")
    kept = numbers > numbers[-1] - KEPT_DAYS * DAY
    known = expect_windows(*(a[kept] for a in (numbers, counts, rates, seen)))
    basis = smooth_basis(_overall(known.shares, known.slotted.sum(axis=(0, 2))))
    scales = [_fit_scale(known, basis, scale) for scale in SCALES]
    spread, typical = (np.array([getattr(s, name) for s in scales]) for name in ("spread", "typical"))
    held = known.rows > 0
    scores = (known.counts[held] - known.expected[held]) @ basis / np.sqrt(known.rows[held])[:, np.newaxis]
    daily, days = _fit_days(known, basis)
    return Calibration(
        windows=int(held.sum()),
        blocks=known.blocks.number,
        block=known.blocks.length,
        shares=_round(known.shares, 7),
        rows=known.slotted.sum(axis=(0, 2)).astype(np.float64),
        spread=_round(spread),
        typical=_round(typical),
        freedom=_round(np.array([s.freedom for s in scales])),
        jumps=_round(fit_jumps(scores, spread, typical)),
        cells=_round(np.array([s.cells for s in scales])),
        seen=int(known.seen.sum()),
        invalid=known.rates.sum(axis=0),
        rates=_round(np.array([s.rates for s in scales])),
        peaks=_round(np.array([s.peaks for s in scales]).transpose(1, 0, 2)),
        daily=_round(daily),
        days=days,
    )


def _overall(shares: Floats, rows: Any) -> Floats:
    """Shares over all slots."""
    weights = rows if rows.sum() else np.ones(len(rows))
    return np.asarray(weights @ shares / weights.sum())


def _round(values: Floats, digits: int = 5) -> Floats:
    """To significant digits, so that the document is small."""
    with np.errstate(divide="ignore"):
        size = np.where(values == 0, 1.0, 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values)))))
    return np.asarray(np.round(values * size) / size)


class _AtScale(NamedTuple):
    """What one scale says; see Calibration."""

    spread: Floats
    typical: float
    freedom: float
    cells: Floats
    rates: Floats
    peaks: tuple[Floats, ...]


class _Looks(NamedTuple):
    """Sums at one scale: counts, expected counts (looks, k), and what they are of (looks,)."""

    counts: Floats
    expected: Floats
    rows: Floats
    blocks: Blocks


def _fit_scale(known: Expectation, basis: Floats, scale: Scale) -> _AtScale:
    ends = known.ends(scale)
    values = known.counts, known.expected, known.rows, known.rates, known.likely, known.seen
    counts, expected, rows, rates, likely, seen = (_sums(a, ends, scale.length) for a in values)
    blocks = known.blocks.take(ends)
    sampling = basis_covariance(basis, known.shares)
    slots = ((known.numbers[ends] - scale.length // 2) // HOUR) % known.slots
    spread, (typical, freedom), smooth = _fit_smooth(_Looks(counts, expected, rows, blocks), basis, sampling[slots])
    cells, cell_peaks = _fit_counts(_Looks(counts, expected, rows, blocks), typical, two_sided=True)
    ratio, rate_peaks = _fit_counts(_Looks(rates, likely, seen, blocks), typical, two_sided=False)
    return _AtScale(spread, typical, freedom, cells, ratio, (*smooth, cell_peaks, rate_peaks))


def _sums(values: Any, ends: NDArray[np.intp], length: int) -> Floats:
    """Sums over the `length` windows that end with each of `ends`."""
    total = np.cumsum(values, axis=0, dtype=np.float64)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    return total[ends + 1] - total[ends + 1 - length]


def _fit_smooth(
    looks: _Looks, basis: Floats, sampling: Floats
) -> tuple[Floats, tuple[float, float], tuple[Floats, Floats]]:
    """T, nbar and nu, and the peaks of the statistics: of one order, of all.

    T = (sum S S' - n C) / sum n^2 over the looks, positive, with a ridge. Each block's Q is by the others' T.
    nu = 2 blocks / the largest relative variance of the blocks' mean squares: few or dependent blocks, heavy tails.
    """
    counts, expected, rows, blocks = looks
    scores = (counts - expected) @ basis
    products = np.stack([scores[:, i] * scores[:, j] for i, j in TRIANGLE], axis=1) - rows[:, np.newaxis] * sampling
    sums, squares, total = blocks.sum(products), blocks.sum(rows**2), blocks.sum(rows)
    if not total.sum():
        return np.zeros(len(TRIANGLE)), (1.0, _LEAST_FREEDOM), (np.zeros(PEAKS), np.zeros(PEAKS))
    typical = float(squares.sum() / total.sum())
    others = _positive(blocks.others(sums) / np.maximum(blocks.others(squares), _NONE)[:, np.newaxis])
    weight = weigh(rows[np.newaxis], np.full((1, 1), typical), np.zeros((1, 1)))
    covariance = combine(weight, sampling.T[:, np.newaxis], others[blocks.at].T[:, np.newaxis])
    projected = project((counts - expected).T[:, np.newaxis], basis.T[..., np.newaxis])
    q, white = smooth_statistic(projected, weight.rows, covariance)
    held = blocks.sum((rows > 0) * 1.0)
    whole = held > held.max() / 2
    varied = [_NONE]
    for part in white:
        means = blocks.sum(part[0] ** 2 / np.maximum(rows, 1))[whole] / held[whole]
        if whole.sum() > 1 and means.any():
            varied.append(float(means.var(ddof=1) / means.mean() ** 2))
    freedom = 2.0 * whole.sum() / max(varied) if len(varied) > 1 else _LEAST_FREEDOM
    freedom = float(np.clip(freedom, _LEAST_FREEDOM, max(held.sum(), _LEAST_FREEDOM)))
    spread = _positive(sums.sum(axis=0, keepdims=True) / squares.sum())[0]
    one, _ = order_statistic(projected, weight.rows, covariance)
    return spread, (typical, freedom), (_find_peaks(one[0], blocks), _find_peaks(q[0], blocks))


def _fit_counts(looks: _Looks, typical: float, *, two_sided: bool) -> tuple[Floats, Floats]:
    """Overdispersion per row of each count, and the peaks of the largest deviance of any."""
    counts, expected, rows, blocks = looks
    n = np.maximum(rows, 1)[:, np.newaxis]
    variance = expected - expected**2 / n
    over, scale = blocks.sum((counts - expected) ** 2 - variance), blocks.sum(variance * n)
    ratio = np.maximum(over.sum(axis=0), 0) / np.maximum(scale.sum(axis=0), _NONE)
    others = np.maximum(blocks.others(over), 0) / np.maximum(blocks.others(scale), _NONE)
    factor = 1 + np.maximum(n, typical) * others[blocks.at]
    if not two_sided:
        expected = np.minimum(SLACK * expected + FLOOR * n, n)
    far = (counts - expected) ** 2 > _NEAR * np.maximum(variance, _NONE) * factor  # else their deviance is below _NEAR
    if not two_sided:
        far &= counts > expected
    found = np.zeros(counts.shape)
    found[far] = deviance(counts[far], expected[far], np.broadcast_to(n, far.shape)[far]) / factor[far]
    return ratio, _find_peaks(2 * found.max(axis=1, initial=0.0), blocks)


def _find_peaks(values: Floats, blocks: Blocks) -> Floats:
    """The largest of each block, the greatest PEAKS of them, then zeros."""
    ordered = np.sort(blocks.largest(values)[blocks.held])[::-1][:PEAKS]
    return np.append(ordered, np.zeros(PEAKS - ordered.size))


def _fit_days(known: Expectation, basis: Floats) -> tuple[Floats, int]:
    """Variance of daily means beyond sampling, and over how many days; none where blocks are shorter."""
    if known.blocks.length != DAY:
        return np.zeros(ORDERS), 0
    held = known.blocks.held
    scores, rows = (known.blocks.sum(a)[held] for a in ((known.counts - known.expected) @ basis, known.rows * 1.0))
    variance = ((scores**2).sum(axis=0) - rows.sum()) / max(float((rows**2).sum()), _NONE)
    return np.maximum(variance, 0.0), known.blocks.number


def _positive(packed: Floats) -> Floats:
    """The nearest positive semidefinite matrices, with a ridge: no direction is quieter than 1/20 of the loudest."""
    full = np.zeros((packed.shape[0], ORDERS, ORDERS))
    for k, (i, j) in enumerate(TRIANGLE):
        full[:, i, j] = full[:, j, i] = packed[:, k]
    values, vectors = np.linalg.eigh(full)
    values = np.maximum(values, 0)
    values = values + _RIDGE * values.max(axis=1, keepdims=True)
    full = np.einsum("kia,ka,kja->kij", vectors, values, vectors)
    return np.stack([full[:, i, j] for i, j in TRIANGLE], axis=1)
