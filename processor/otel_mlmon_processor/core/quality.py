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
        allowed: exact 95 % upper bound p0 of the reference's rate, as 1.1 p0 + 1e-4.
    """

    count: int
    seen: int
    reference: float | None
    lower: float
    allowed: float

    @property
    def rate(self) -> float:
        """The current rate; 0 where nothing was seen."""
        return self.count / self.seen if self.seen else 0.0

    @property
    def effect(self) -> float:
        """Effect D of the lower bound p over what is allowed, q: (p - q)^2 / (q (1 - q)); 0 where p is below it."""
        if self.reference is None or self.lower <= self.allowed:
            return 0.0
        return (self.lower - self.allowed) ** 2 / (self.allowed * (1 - self.allowed))


def make_rate(measure: str, count: int, seen: int, before: tuple[int, int] | None) -> Rate:
    """A rate with its exact bounds.

    Args:
        measure: a QualityMeasure. The reference's range is that of its own m values, so what lies outside of it has a
            rate of about 2 / m, although none of them does; likewise one category more may exist than were seen.
        count: current.
        seen: current.
        before: both of the reference; None where it is not known.
    """
    lower = float(beta.ppf(1 - CONFIDENCE, count, seen - count + 1)) if 0 < count <= seen else 0.0
    if before is None:
        return Rate(count, seen, None, lower, 1.0)
    known, total = before
    hidden = {QualityMeasure.OUT_OF_RANGE: 2, QualityMeasure.UNSEEN: 1}.get(measure, 0)
    upper = float(beta.ppf(CONFIDENCE, known + hidden + 1, total - known)) if known < total else 1.0
    return Rate(count, seen, known / max(total, 1), lower, min(SLACK * upper + FLOOR, 1.0))


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
