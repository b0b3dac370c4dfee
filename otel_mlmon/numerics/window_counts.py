"""What of a variable is counted in each window of a minute, by the profile and by the processor alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from otel_mlmon.numerics.binning import Axis, Counts, NumericAxis
from otel_mlmon.semconv import FeatureInvalidReason

MINUTE: Final = 60  # seconds
_Reason = FeatureInvalidReason
REASONS: Final = (_Reason.MISSING, _Reason.NAN, _Reason.INF, _Reason.TYPE)
BELOW, ABOVE, UNSEEN = range(len(REASONS), len(REASONS) + 3)
# What has a rate of its own: values in no cell, by reason, and values in cells that the reference hardly knows.
RATES: Final = (*REASONS, "below", "above", "unseen")


def count_rates(axis: Axis, cells: Counts, invalid: Mapping[str, int]) -> list[int]:
    """Values of each of RATES; the others of a kind of variable are 0.

    Args:
        axis: of the variable.
        cells: counts over it, (axis.cells,).
        invalid: values in no cell, by reason.
    """
    reasons = [invalid.get(reason, 0) for reason in REASONS]
    if isinstance(axis, NumericAxis):
        return [*reasons, int(cells[: axis.low + 1].sum()), int(cells[axis.high + 1 :].sum()), 0]
    return [*reasons, 0, 0, int(cells[-1])]
