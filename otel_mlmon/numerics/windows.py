"""What of a variable is counted by window: what calibration is learnt from, and what the tests look at."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts
from otel_mlmon.numerics.coarse import coarsen
from otel_mlmon.semconv import FeatureInvalidReason

REASONS: Final = (
    FeatureInvalidReason.MISSING,
    FeatureInvalidReason.NAN,
    FeatureInvalidReason.INF,
    FeatureInvalidReason.TYPE,
)
UNSEEN, BELOW, ABOVE = "unseen", "below", "above"
RATES: Final = (*REASONS, UNSEEN, BELOW, ABOVE)  # of the values seen; each has a test of its own


def condense(cells: Counts, invalid: Counts, axis: Axis, starts: NDArray[np.intp]) -> tuple[Counts, Counts, Counts]:
    """From counts over an axis to what the tests look at.

    Args:
        cells: (..., axis.cells).
        invalid: by REASONS, (..., 4).
        axis: the cells.
        starts: the decision's, see `decision_starts`.

    Returns:
        Counts over the coarse cells (..., starts.size); counts by RATES (..., 7); values seen (...).
    """
    rates = np.zeros((*cells.shape[:-1], len(RATES)), dtype=np.int64)
    rates[..., : len(REASONS)] = invalid
    if isinstance(axis, CategoryAxis):
        rates[..., RATES.index(UNSEEN)] = cells[..., -1]
    else:
        rates[..., RATES.index(BELOW)] = cells[..., : axis.low + 1].sum(axis=-1)
        rates[..., RATES.index(ABOVE)] = cells[..., axis.high + 1 :].sum(axis=-1)
    seen = np.asarray(cells.sum(axis=-1) + invalid.sum(axis=-1))
    return coarsen(cells, starts), rates, seen
