"""Data-quality rates and whether one has broken. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scipy.stats import beta

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts, NumericAxis
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


def make_rate(count: int, seen: int, before: tuple[int, int] | None, hidden: int = 0) -> Rate:
    """A rate with its exact bounds.

    Args:
        count: current.
        seen: current.
        before: both of the reference; None where it is not known.
        hidden: what the reference would have counted had it been compared with another sample, see `count_hidden`.
    """
    lower = float(beta.ppf(1 - CONFIDENCE, count, seen - count + 1)) if 0 < count <= seen else 0.0
    if before is None:
        return Rate(count, seen, None, lower, 1.0)
    known, total = before
    most = known + hidden
    upper = float(beta.ppf(CONFIDENCE, most + 1, total - most)) if most < total else 1.0
    return Rate(count, seen, known / max(total, 1), lower, min(SLACK * upper + FLOOR, 1.0))


def count_hidden(measure: str, singles: int = 0) -> int:
    """How many of a reference's m values its own range and categories hide.

    The range is that of the m values, so none of them lies outside, and of others about 2 / m. Categories that m values
    do not show have together about the share of those that occur once among them (I. J. Good, 1953,
    doi:10.1093/biomet/40.3-4.237).

    Args:
        measure: a QualityMeasure.
        singles: categories that occur once, at most; one more may always exist.
    """
    return {QualityMeasure.OUT_OF_RANGE: 2, QualityMeasure.UNSEEN: max(singles, 1)}.get(measure, 0)


def count_quality(axis: Axis | None, cells: Counts | None, invalid: Mapping[str, int]) -> dict[str, int]:
    """Values by quality measure.

    Args:
        axis: of the variable; None where there is no profile.
        cells: counts over it; None where they are over others.
        invalid: values in no cell, by reason.
    """
    reasons = FeatureInvalidReason
    counts = {
        QualityMeasure.MISSING: invalid.get(reasons.MISSING, 0) + invalid.get(reasons.NAN, 0),
        QualityMeasure.INVALID: invalid.get(reasons.INF, 0) + invalid.get(reasons.TYPE, 0),
    }
    if isinstance(axis, NumericAxis):
        outside = 0 if cells is None else cells[: axis.low + 1].sum() + cells[axis.high + 1 :].sum()
        counts[QualityMeasure.OUT_OF_RANGE] = int(outside)
    elif isinstance(axis, CategoryAxis):
        counts[QualityMeasure.UNSEEN] = 0 if cells is None else int(cells[-1])
    return counts
