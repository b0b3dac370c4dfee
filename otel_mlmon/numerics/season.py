"""Shares of the cells by hour of the day or of the week, interpolated between the hours' middles.

Expected counts are integers in units of 1 / UNIT, so that their sums are the same in whatever order they are added.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.scales import HOUR

_SHARE: Final = 2**24
UNIT: Final = _SHARE * HOUR


def slot_shares(counts: Floats | Counts, prior: float) -> Floats:
    """Shares of the cells in each slot, drawn to those of all slots as if `prior` more values had them.

    Args:
        counts: shape (..., slots, cells).
        prior: values.

    Returns:
        The same shape; 1 / cells where there are no counts at all.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=-2, keepdims=True)
    cells = counts.shape[-1]
    overall = (total + 1e-9) / (total.sum(axis=-1, keepdims=True) + 1e-9 * cells)
    return np.asarray((counts + prior * overall) / (counts.sum(axis=-1, keepdims=True) + prior))


def quantize(shares: Floats) -> NDArray[np.int64]:
    """Shares as integers that sum to 2^24 over the last axis; the largest cell takes what rounding leaves."""
    table = np.round(shares * _SHARE).astype(np.int64)
    at = table.argmax(axis=-1)[..., np.newaxis]
    rest = _SHARE - table.sum(axis=-1, keepdims=True)
    np.put_along_axis(table, at, np.take_along_axis(table, at, axis=-1) + rest, axis=-1)
    return table


def place(numbers: Counts, slots: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Counts]:
    """The slots whose middles lie before and after the middle of each window, and the weight (of 60) of the latter."""
    since = np.asarray(numbers) - HOUR // 2
    before = (since // HOUR) % slots
    return before.astype(np.intp), ((before + 1) % slots).astype(np.intp), since % HOUR


def expect(rows: Counts, table: NDArray[np.int64], numbers: Counts) -> Counts:
    """Expected counts in units of 1 / UNIT.

    Args:
        rows: values in each window, shape (variables, windows).
        table: from `quantize`, cells first: shape (slots, cells, variables).
        numbers: of the windows, consecutive, shape (windows,).

    Returns:
        Shape (cells, variables, windows).
    """
    before, after, weight = place(numbers, table.shape[0])
    expected = np.empty((*table.shape[1:], numbers.size), dtype=np.int64)
    starts = np.flatnonzero(np.append(True, np.diff(before) != 0)).tolist()
    for start, end in zip(starts, [*starts[1:], numbers.size], strict=True):
        low, high = table[before[start]], table[after[start]]
        part = expected[:, :, start:end]
        np.multiply((high - low)[..., np.newaxis], weight[start:end], out=part)
        part += (low * HOUR)[..., np.newaxis]
        part *= rows[:, start:end]
    return expected
