"""Data-quality rates and whether one has broken. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scipy.stats import beta

from otel_mlmon.numerics.binning import UNSEEN, Axis, CategoryAxis, NumericAxis
from otel_mlmon.semconv import FeatureInvalidReason, QualityMeasure

CONFIDENCE: Final = 0.95
SLACK: Final = 1.1  # a rate may be so many times the reference's
FLOOR: Final = 1e-4  # and so much above


@dataclass(frozen=True, slots=True)
class Rate:
    """A data-quality rate.

    Args:
        count, seen: the current one is count / seen.
        reference: the reference's rate; None where it is not known.
        lower: exact 95 % lower bound of the current rate (Clopper-Pearson).
    """

    count: int
    seen: int
    reference: float | None
    lower: float

    @property
    def rate(self) -> float:
        """The current rate; 0 where nothing was seen."""
        return self.count / self.seen if self.seen else 0.0

    @property
    def effect(self) -> float:
        """Effect D of the bound over the allowed rate q = 1.1 p0 + 1e-4: (p - q)^2 / (q (1 - q)); 0 below it."""
        if self.reference is None:
            return 0.0
        allowed = min(SLACK * self.reference + FLOOR, 1.0)
        if self.lower <= allowed:
            return 0.0
        return (self.lower - allowed) ** 2 / (allowed * (1 - allowed))


def make_rate(count: int, seen: int, reference: float | None) -> Rate:
    """A rate with its exact lower bound; the bound is 0 where nothing was counted."""
    lower = float(beta.ppf(1 - CONFIDENCE, count, seen - count + 1)) if 0 < count <= seen else 0.0
    return Rate(count, seen, reference, lower)


def count_quality(
    axis: Axis | None, cells: Mapping[str, int] | None, outside: int, invalid: Mapping[str, int]
) -> dict[str, int]:
    """Values by quality measure.

    Args:
        axis: of the variable; None where there is no profile.
        cells: counts by label of a category.
        outside: values outside the reference's range.
        invalid: values in no cell, by reason.
    """
    reasons = FeatureInvalidReason
    counts = {
        QualityMeasure.MISSING: invalid.get(reasons.MISSING, 0) + invalid.get(reasons.NAN, 0),
        QualityMeasure.INVALID: invalid.get(reasons.INF, 0) + invalid.get(reasons.TYPE, 0),
    }
    if isinstance(axis, NumericAxis):
        counts[QualityMeasure.OUT_OF_RANGE] = outside
    elif isinstance(axis, CategoryAxis):
        counts[QualityMeasure.UNSEEN] = (cells or {}).get(UNSEEN, 0)
    return counts
