"""The calibrations of a model's variables side by side in arrays, and the thresholds that the budget gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.calibration import FLOOR, SLACK, Calibration
from otel_mlmon.numerics.scales import DAY, SCALES
from otel_mlmon.numerics.scan import basis_covariance, surprise, surprise_inverse
from otel_mlmon.numerics.season import quantize
from otel_mlmon.numerics.smooth import ORDERS
from otel_mlmon_processor.core.budget import PERIOD_DAYS, Budget

_OWN: Final = 1.25  # times the largest surprise that the variable's own reference showed
_FREEDOM: Final = 3.0  # times a variable's own degrees of freedom are the most that those of all others give it
_NORMAL: Final = 1.5  # a threshold that is so many times that of a normal null is still one of a normal null
_TAIL: Final = 0.1  # share of all blocks' peaks that are called the tail
_LEAST_TAIL: Final = 5
_TELLING: Final = 20  # peaks in the tail from which on they say how it goes on
_HEAVY: Final = 15.0  # degrees of freedom: a tail of fewer is heavy
_FREEDOMS: Final = np.geomspace(6, 100, 64)
_CHERNOFF: Final = 5.0  # at most so much is an exact tail's -log above Chernoff's bound, where it matters


@dataclass(frozen=True, slots=True, eq=False)
class Nulls:
    """What is normal, and from where on it is an alarm. B cells at most, R rates, F variables.

    Args:
        cells: of each variable, (F,).
        slots: of each variable's season, (F,).
        basis: (4, B, F).
        shares: over all slots, (B, F); rows of the reference, (F,).
        table: (slots, B, F), see `season`.
        sampling: C by slot, (10, F, slots).
        heavy: by how much more than that of a normal null the largest sums over four hours vary, as the variances of
            blocks say it, >= 1; slow drift goes by it, (F,).
        spread: T, (5, 10, F); the long scale's heavy tails are the short ones' too, though sampling hides them.
        typical, freedom: (5, F).
        doubt: what is not known of the variance of one more row than typical, at least what sampling has: what a null
            does beneath the noise of the reference's rows, bursts of other users too, no reference can say, (5, F).
        clump: rows of a session, that are alike, (F,).
        ratio: rho of the cells, (5, B, F).
        allowed: share of each rate, (R, F).
        rates: rho of the rates, (5, R, F).
        least: statistic of one order and of all from where on there is an alarm, (2, 5, F).
        surprises: of cells and rates, likewise, (2, 5, F).
        exact: -log of the exact tail of one cell or rate from where on there is an alarm, (2, 5, F).
    """

    cells: NDArray[np.int64]
    slots: NDArray[np.int64]
    basis: Floats
    shares: Floats
    rows: Floats
    table: NDArray[np.int64]
    sampling: Floats
    heavy: Floats
    spread: Floats
    typical: Floats
    freedom: Floats
    doubt: Floats
    clump: Floats
    ratio: Floats
    allowed: Floats
    rates: Floats
    daily: Floats
    days: NDArray[np.int64]
    least: Floats
    surprises: Floats
    exact: Floats

    @property
    def screen(self) -> Floats:
        """(c - e)^2 / variance from where on cells and rates are looked at closely, (2, 5, F)."""
        least = np.maximum(self.surprises, self.exact - _CHERNOFF)
        return surprise_inverse(least, self.freedom) / 2


def prepare_nulls(calibrations: Sequence[Calibration], budget: Budget) -> Nulls:
    """Arrays and thresholds of a model's variables, in their order."""
    width, slots = max(c.shares.shape[1] for c in calibrations), max(c.slots for c in calibrations)
    basis = np.stack([_pad(c.basis, width, 0).T for c in calibrations], axis=-1)
    table = np.stack([_pad(_tile(quantize(c.shares), slots), width, 1) for c in calibrations], axis=-1)
    sampling = np.stack([_tile(basis_covariance(c.basis, c.shares), slots).T for c in calibrations], axis=1)
    typical = np.stack([c.typical for c in calibrations], axis=-1)
    own = np.stack([c.freedom for c in calibrations], axis=-1)
    # Of one variable it is known badly, and those that seem to have light tails by chance would raise false alarms.
    steady = np.minimum(np.median(own, axis=-1, keepdims=True), _FREEDOM * own)
    freedom = np.minimum(steady, np.stack([c.jumps for c in calibrations], axis=-1))
    clump = np.array([_clump(c) for c in calibrations])
    hits = np.stack([c.invalid for c in calibrations], axis=-1) / clump
    seen = np.array([c.seen for c in calibrations]) / clump
    upper = special.betaincinv(hits + 1, np.maximum(seen - hits, 1e-9), 0.95)
    smooth = np.stack([_find_least(calibrations, budget, k, freedom[k]) for k in range(len(SCALES))], axis=1)
    surprises, exact = _find_surprises(calibrations, budget, freedom)
    heavy = _weigh_tails(smooth[0, -1], budget)
    # Of cells and rates the surprise is bounded: with so few degrees of freedom it would never be enough.
    wild = np.minimum(freedom[-1], _tail_freedom(calibrations))
    smooth[:, -1] = np.maximum(smooth[:, -1], _find_least(calibrations, budget, -1, wild))
    more = np.ones((len(SCALES), 1, len(calibrations)))
    more[:-1] = _weigh_tails(smooth[0, -1], budget)
    return Nulls(
        cells=np.array([c.shares.shape[1] for c in calibrations]),
        slots=np.array([c.slots for c in calibrations]),
        basis=basis,
        shares=np.stack([_pad(c.overall, width, 0) for c in calibrations], axis=-1),
        rows=np.array([c.rows.sum() for c in calibrations]),
        table=table,
        sampling=sampling,
        heavy=heavy,
        spread=np.stack([c.spread for c in calibrations], axis=-1) * more,
        typical=typical,
        freedom=freedom,
        doubt=np.maximum(2 * np.sqrt(2 / steady), 1.0) / typical,
        clump=clump,
        ratio=np.stack([_pad(c.cells, width, 1) for c in calibrations], axis=-1) * more,
        allowed=np.minimum(SLACK * upper + FLOOR, 1.0),
        rates=np.stack([c.rates for c in calibrations], axis=-1),
        daily=np.stack([c.daily for c in calibrations], axis=-1),
        days=np.array([c.days for c in calibrations]),
        least=smooth,
        surprises=surprises,
        exact=exact,
    )


def _tail_freedom(calibrations: Sequence[Calibration]) -> float:
    """Degrees of freedom of the F whose tail all variables' peaks over four hours have, if it is heavy; else infinity.

    How much blocks differ in their mean squares tells tails like a normal's from heavy ones, and not how heavy these
    are: the variance of a square is not finite below four degrees of freedom. Over four hours sampling hides nothing.
    The likelihood of the tail's excess says it; as a reference holds few wild days, the lower end of the one standard
    error about the best is taken.
    """
    peaks = np.sort(np.stack([c.peaks[0, -1] for c in calibrations]), axis=None)[::-1]
    tail = int(_TAIL * sum(c.blocks for c in calibrations))
    if tail < _TELLING or tail >= peaks.size:
        return np.inf
    start, above, nu = peaks[tail], peaks[:tail], _FREEDOMS[:, np.newaxis]
    excess = surprise(above, nu) - surprise(start, nu)
    likelihood = (-np.log1p(above / nu) - excess).sum(axis=-1)
    if _FREEDOMS[np.argmax(likelihood)] > _HEAVY:
        return np.inf
    return float(_FREEDOMS[np.argmax(likelihood >= likelihood.max() - 0.5)])


def _clump(calibration: Calibration) -> float:
    """Rows of a session: what the counts of single minutes vary more than alone, and those of five minutes as well.

    What wanders varies more the more rows there are, sessions do not: over - 1 = (sessions - 1) + rows * wander.
    """
    one, five = calibration.typical[:2, np.newaxis] * calibration.cells[:2]
    length = SCALES[1].length
    return 1 + max(float(np.median(length * one - five)) / (length - 1), 0.0)


def _pad(values: Any, width: int, axis: int) -> Any:
    more = [(0, 0)] * values.ndim
    more[axis] = (0, width - values.shape[axis])
    return np.pad(values, more)


def _tile(values: Any, slots: int) -> Any:
    return np.tile(values, (slots // values.shape[0], *[1] * (values.ndim - 1)))


def _find_least(calibrations: Sequence[Calibration], budget: Budget, scale: int, freedom: Floats) -> Floats:
    """Statistics of one order and of all at a scale: what theory says, or the reference if that is more, (2, F)."""
    level = budget.per_look[:2, scale]
    one = _f_quantile(level[0] / ORDERS, 1, freedom)
    every = ORDERS * _f_quantile(level[1], ORDERS, freedom)
    seen = np.stack([_tail_threshold(calibrations, budget, test, scale, freedom) for test in range(2)])
    return np.maximum(np.stack([one, every]), surprise_inverse(seen, freedom))


def _find_surprises(calibrations: Sequence[Calibration], budget: Budget, freedom: Floats) -> tuple[Floats, Floats]:
    """Surprises of cells and rates as the reference has them, and -log of exact tails by theory, (2, 5, F) each."""
    scales = range(len(SCALES))
    seen = [[_tail_threshold(calibrations, budget, k + 2, s, freedom[s]) for s in scales] for k in range(2)]
    sizes = (
        np.array([2.0 * c.shares.shape[1] for c in calibrations]),
        np.full(len(calibrations), max(calibrations[0].rates.shape[1], 1)),
    )
    return np.array(seen), np.stack([-np.log(budget.per_look[k + 2] / sizes[k]) for k in range(2)])


def _weigh_tails(least: Floats, budget: Budget) -> Floats:
    """How far beyond that of a normal null the threshold of one order over four hours is, >= 1, (F,)."""
    normal = special.chdtri(1, budget.per_look[0, -1] / ORDERS)
    return np.asarray(np.maximum(least / normal / _NORMAL, 1.0))


def _f_quantile(tail: Floats, numerator: int, freedom: Floats) -> Floats:
    """What an F variable exceeds with probability `tail`, exactly; scipy.stats takes a second to import."""
    share = special.betaincinv(freedom / 2, numerator / 2, tail)
    quantile: Floats = freedom * (1 - share) / (numerator * share)
    return quantile


def _tail_threshold(
    calibrations: Sequence[Calibration], budget: Budget, test: int, scale: int, freedom: Floats
) -> Floats:
    """Surprise that the budget allows a test at a scale, as the peaks of all variables' blocks go on, (F,).

    The blocks' largest surprises, each judged by the other blocks, are pooled over the variables. Above their 90 %
    quantile u they are taken to fall as exp(-(x - u) / b), b the mean excess but at least 1 as in theory (peaks over a
    threshold). A variable's own largest one times 1.25 is exceeded too.
    """
    blocks = sum(c.blocks for c in calibrations)
    days = PERIOD_DAYS * DAY / np.array([c.block for c in calibrations])  # blocks in 30 days
    each = surprise(np.stack([c.peaks[test, scale] for c in calibrations], axis=-1), freedom)
    peaks = np.sort(each, axis=None)[::-1]
    tail = int(np.clip(_TAIL * blocks, min(_LEAST_TAIL, blocks), peaks.size))
    start = peaks[tail - 1]
    excess = max((peaks[:tail].mean() - start) * tail / max(tail - 1, 1), 1.0) * (1 + tail**-0.5)
    allowed = budget.tests[test, scale] / days
    beyond = excess * np.log(np.maximum(tail / blocks / allowed, 1.0))
    return np.asarray(np.maximum(start + beyond, _OWN * each[0]))
