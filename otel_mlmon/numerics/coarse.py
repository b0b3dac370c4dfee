"""Coarse cells: about 20 made of the fine ones, on which drift is decided. They depend on the reference alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts, NumericAxis

COARSE_CELLS: Final = 20
# Below a quarter of an equal share a cell is merged on, so that no cell of the decision rests on a handful of values.
_LEAST_SHARE: Final = 1 / (4 * COARSE_CELLS)
# Names that have a cell of their own in a decision are chosen by the reference's own counts: of so few values the most
# frequent ones would owe their place to chance, and all others would seem to have become more frequent since.
_LEAST_NAMED: Final = 20


def coarse_starts(counts: Counts, axis: Axis) -> NDArray[np.intp]:
    """First fine cell of each coarse cell, ascending from 0; at most COARSE_CELLS.

    Numbers: what lies below the reference's range is one cell, what lies above it another. Inside, the lightest cell is
    joined to its lighter neighbour until COARSE_CELLS - 2 remain and none has less than 1/80 of the values; so a heavy
    atom stays alone and the others get about equal shares.

    Categories: each a cell, the rare ones (names are most frequent first) one cell, OTHER and UNSEEN one.

    Args:
        counts: of the reference, shape (axis.cells,).
        axis: its cells.
    """
    counts = np.asarray(counts)
    if counts.shape != (axis.cells,):
        raise ValueError(f"need {axis.cells} counts, got shape {counts.shape}")
    if isinstance(axis, CategoryAxis):
        return _category_starts(counts)
    return _number_starts(counts, axis)


def decision_starts(counts: Counts, axis: Axis) -> NDArray[np.intp]:
    """The same with every cell that holds less than 1/80 of the reference joined to its lighter neighbour; of
    categories those with at least 20 values have cells of their own, and all else is one.

    The effect D is measured over these. A cell that the reference hardly filled (beyond its range, categories it never
    saw) would make the lower bound of D useless: a few values in it add little to D and very much to its variance. D
    over joined cells is at most D over all, so a lower bound over them holds for both. What the reference never saw has
    a test of its own, on its rate.
    """
    counts = np.asarray(counts)
    starts = coarse_starts(counts, axis).tolist()
    least = _LEAST_SHARE * float(counts.sum())
    if isinstance(axis, CategoryAxis):
        least = max(least, _LEAST_NAMED)
        alone = int((counts[: len(axis.names)] >= least).cumprod().sum())
        starts = list(range(min(alone, COARSE_CELLS - 2) + 1))
    masses = coarsen(counts, np.array(starts)).tolist()
    while len(masses) > 1 and min(masses) < least:
        _join_lightest(starts, masses)
    return np.array(starts, dtype=np.intp)


def coarsen(counts: Counts, starts: NDArray[np.intp]) -> Counts:
    """Counts over the coarse cells: shape (..., cells) becomes (..., starts.size)."""
    coarse: Counts = np.add.reduceat(np.asarray(counts), starts, axis=-1)
    return coarse


def _category_starts(counts: Counts) -> NDArray[np.intp]:
    names = counts.size - 2
    frequent = int((counts[:names] >= _LEAST_SHARE * max(int(counts.sum()), 1)).cumprod().sum())
    alone = names if names < COARSE_CELLS and frequent >= names - 1 else min(frequent, COARSE_CELLS - 2)
    return np.unique(np.append(np.arange(alone + (alone < names)), names)).astype(np.intp)


def _number_starts(counts: Counts, axis: NumericAxis) -> NDArray[np.intp]:
    starts = list(range(axis.low + 1, axis.high + 1))
    masses = counts[axis.low + 1 : axis.high + 1].tolist()
    least = _LEAST_SHARE * sum(masses)
    while len(masses) > 1:
        if len(masses) <= COARSE_CELLS - 2 and min(masses) >= least:
            break
        _join_lightest(starts, masses)
    return np.array([0, *starts, axis.high + 1], dtype=np.intp)


def _join_lightest(starts: list[int], masses: list[int]) -> None:
    """Join the lightest cell to its lighter neighbour, in place."""
    at = min(range(len(masses)), key=masses.__getitem__)
    right = at == 0 or (at + 1 < len(masses) and masses[at + 1] < masses[at - 1])
    at += right  # now `at` is joined to the cell before it
    masses[at - 1] += masses.pop(at)
    del starts[at]
