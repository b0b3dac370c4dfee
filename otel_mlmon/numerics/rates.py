"""Data-quality rates and whether one has broken. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scipy.special import betaincinv

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
        lower: exact lower bound of the current rate (Clopper-Pearson).
        allowed: exact upper bound p0 of the reference's rate, as 1.1 p0 + 1e-4.
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


def make_rate(
    count: int, seen: int, before: tuple[int, int] | None, hidden: int = 0, confidence: float = CONFIDENCE
) -> Rate:
    """A rate with its exact bounds.

    Args:
        count: current.
        seen: current.
        before: both of the reference; None where it is not known.
        hidden: what the reference would have counted had it been compared with another sample, see `count_hidden`.
        confidence: of each of the two bounds.
    """
    lower = float(betaincinv(count, seen - count + 1, 1 - confidence)) if 0 < count <= seen else 0.0
    if before is None:
        return Rate(count, seen, None, lower, 1.0)
    known, total = before
    most = known + hidden
    upper = float(betaincinv(most + 1, total - most, confidence)) if most < total else 1.0
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


def rate_pairs(
    axis: Axis,
    current: tuple[Counts | None, Mapping[str, int], int],
    reference: tuple[Counts, Mapping[str, int], int],
    confidence: float = CONFIDENCE,
) -> dict[str, Rate]:
    """Quality rates of a variable against the reference's, by quality measure.

    Args:
        axis: of the reference.
        current: counts over it (None where they are over others), values in no cell by reason, values seen.
        reference: the same.
        confidence: of the bounds.
    """
    now = count_quality(axis, current[0], current[1])
    before = count_quality(axis, reference[0], reference[1])
    singles = _singles(axis, reference[0])
    return {
        name: make_rate(count, current[2], (before[name], reference[2]), count_hidden(name, singles), confidence)
        for name, count in now.items()
    }


def _singles(axis: Axis, counts: Counts) -> int:
    """Categories that the reference holds once, at most: of those that are not listed it knows the number alone."""
    if not isinstance(axis, CategoryAxis):
        return 0
    return int((counts[: len(axis.names)] == 1).sum()) + len(axis.others)
