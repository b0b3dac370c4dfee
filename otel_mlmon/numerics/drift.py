"""Drift of many variables at once: the processor's gauges and the comparison of two files are computed here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts, Floats, NumericAxis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen, decision_starts
from otel_mlmon.numerics.effect import sufficient
from otel_mlmon.numerics.measures import MEASURES, cell_bounds
from otel_mlmon.semconv import DriftMeasure


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A variable in two samples, counted over the reference's cells.

    Args:
        axis: the cells.
        current, reference: counts, shape (axis.cells,) each.
        starts: the coarse cells that are shown, see `coarse_starts`.
        decision: those that the effect is measured over, see `decision_starts`.
        std: of the reference's values; NaN where it is 0 or not known, and for categories.
        minimum, maximum: of the reference's values.
        mean_difference: mean of the current less mean of the reference's values; NaN where it is not known.
    """

    axis: Axis
    current: Counts
    reference: Counts
    starts: NDArray[np.intp]
    decision: NDArray[np.intp]
    std: float = np.nan
    minimum: float = np.nan
    maximum: float = np.nan
    mean_difference: float = np.nan

    @classmethod
    def of(
        cls,
        axis: Axis,
        current: Counts,
        reference: Counts,
        *,
        decision: Sequence[int] | None = None,
        std: float = np.nan,
        minimum: float = np.nan,
        maximum: float = np.nan,
        mean_difference: float = np.nan,
    ) -> Pair:
        """With the coarse cells that the reference's counts give; those of the decision may have been chosen before."""
        starts = coarse_starts(reference, axis)
        decided = decision_starts(reference, axis) if decision is None else np.array(decision, dtype=np.intp)
        return cls(axis, current, reference, starts, decided, std or np.nan, minimum, maximum, mean_difference)

    @property
    def sufficient(self) -> bool:
        """Whether there are enough current values to decide."""
        return bool(sufficient(self.current.sum(), self.decision.size))

    @property
    def shown(self) -> tuple[Counts, Counts]:
        """Current and reference counts over the coarse cells."""
        return coarsen(self.current, self.starts), coarsen(self.reference, self.starts)

    @property
    def decided(self) -> tuple[Counts, Counts]:
        """Current and reference counts over the cells of the decision."""
        return coarsen(self.current, self.decision), coarsen(self.reference, self.decision)


def measure_pairs(pairs: Sequence[Pair], measures: Collection[str]) -> list[dict[str, float]]:
    """Drift measures of each variable, all variables at once.

    Args:
        pairs: of samples that are not empty.
        measures: which, by their names (`DriftMeasure`).

    Returns:
        By measure; those of numbers are absent for categories, and the other way round. Wasserstein and the shift of
        the mean are in standard deviations of the reference, NaN where it has none.
    """
    found: list[dict[str, float]] = [{} for _ in pairs]
    if not pairs:
        return found
    coarse = [_pad(side) for side in zip(*(pair.shown for pair in pairs), strict=True)]
    decided = [_pad(side) for side in zip(*(pair.decided for pair in pairs), strict=True)]
    every = range(len(pairs))
    numbers = [i for i in every if isinstance(pairs[i].axis, NumericAxis)]
    categories = [i for i in every if isinstance(pairs[i].axis, CategoryAxis)]

    def keep(name: str, values: Floats, rows: Sequence[int]) -> None:
        for row, value in zip(rows, np.atleast_1d(values).tolist(), strict=True):
            found[row][name] = value

    for name in measures:
        if name == DriftMeasure.LINF:
            keep(name, MEASURES[name].compute(*(side[categories] for side in coarse)), categories)
        elif name in (DriftMeasure.EFFECT, DriftMeasure.EFFECT_LOWER):
            keep(name, MEASURES[name].compute(*decided), every)
        elif name in MEASURES and not MEASURES[name].ordered:
            keep(name, MEASURES[name].compute(*coarse), every)
    if numbers:
        _measure_numbers([pairs[i] for i in numbers], measures, lambda name, values: keep(name, values, numbers))
    return found


def _measure_numbers(pairs: Sequence[Pair], measures: Collection[str], keep: Callable[[str, Floats], None]) -> None:
    """Measures of ordered cells, over all of them."""
    p, q = _pad([pair.current for pair in pairs]), _pad([pair.reference for pair in pairs])
    std, shift = np.array([[pair.std, pair.mean_difference] for pair in pairs]).T
    if DriftMeasure.KS in measures:
        keep(DriftMeasure.KS, MEASURES[DriftMeasure.KS].compute(p, q))
    if DriftMeasure.WASSERSTEIN in measures:
        bounds = _pad_bounds([_bounds(pair) for pair in pairs])
        distance = MEASURES[DriftMeasure.WASSERSTEIN].compute(p, q, bounds, mean_difference=shift)
        keep(DriftMeasure.WASSERSTEIN, distance / std)
    if DriftMeasure.MEAN_SHIFT in measures:
        keep(DriftMeasure.MEAN_SHIFT, shift / std)


def _bounds(pair: Pair) -> Floats:
    assert isinstance(pair.axis, NumericAxis)  # noqa: S101 -- asked of numbers only
    return cell_bounds(pair.axis.edges, pair.minimum, pair.maximum)


def _pad(rows: Sequence[Counts]) -> Counts:
    """Rows of different lengths as one array, filled with zeros."""
    padded = np.zeros((len(rows), max(row.size for row in rows)), dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : row.size] = row
    return padded


def _pad_bounds(rows: Sequence[Floats]) -> Floats:
    """The same for bounds, filled with the last."""
    width = max(row.size for row in rows)
    return np.array([np.append(row, np.full(width - row.size, row[-1])) for row in rows])


@dataclass(frozen=True, slots=True)
class Shift:
    """Which way a variable has moved.

    Args:
        mean: difference of the means in standard deviations of the reference; None for categories or where unknown.
        distance: Wasserstein distance in the same unit; None where unknown.
        spread: standard deviation over the reference's; None where unknown.
        category: the category whose share moved most; None for numbers.
        before, after: its shares.
    """

    mean: float | None = None
    distance: float | None = None
    spread: float | None = None
    category: str | None = None
    before: float = 0.0
    after: float = 0.0


def find_shift(pair: Pair, *, distance: float = np.nan, spread: float = np.nan) -> Shift:
    """Which way the current sample has moved from the reference; `distance` and `spread` as far as they are known."""
    if isinstance(pair.axis, NumericAxis):
        return Shift(_known(pair.mean_difference / pair.std), _known(distance), _known(spread))
    after, before = pair.current / max(pair.current.sum(), 1), pair.reference / max(pair.reference.sum(), 1)
    at = int(np.abs(after - before).argmax())
    return Shift(category=pair.axis.labels[at], before=float(before[at]), after=float(after[at]))


def _known(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
