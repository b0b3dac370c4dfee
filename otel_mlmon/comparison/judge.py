"""Two sides -> what has changed. A budget of false alarms is split over all tests, as in the processor's verdict a
change must be both sure and larger than the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy.special import chdtrc

from otel_mlmon.comparison import schema
from otel_mlmon.comparison.finding import Finding, rank
from otel_mlmon.comparison.groups import Group
from otel_mlmon.comparison.sides import Side
from otel_mlmon.numerics.binning import UNSEEN, CategoryAxis, NumericAxis
from otel_mlmon.numerics.drift import Pair, find_shift, measure_pairs
from otel_mlmon.numerics.effect import sufficient
from otel_mlmon.numerics.histogram import Histogram
from otel_mlmon.numerics.measures import MEASURES, chi_square
from otel_mlmon.numerics.rates import Rate, count_quality, make_rate, rate_pairs
from otel_mlmon.numerics.smooth import smooth_test
from otel_mlmon.profile.document import ProfileError, Reference
from otel_mlmon.profile.rebinning import counts_over
from otel_mlmon.semconv import DriftMeasure, QualityMeasure
from otel_mlmon.wording import printable, say_rate, say_share, say_shift

TOLERANCE: Final = 0.005  # of the effect D, about 0.07 standard deviations of a normal
FALSE_ALARMS: Final = 0.01  # of comparisons of unchanged data
GROUP_MEASURES: Final = (
    DriftMeasure.EFFECT,
    DriftMeasure.EFFECT_LOWER,
    DriftMeasure.MEAN_SHIFT,
    DriftMeasure.WASSERSTEIN,
)
ALL_MEASURES: Final = (*MEASURES, DriftMeasure.MEAN_SHIFT)
# What says why the distribution is another one.
EXPLAINS: Final = frozenset({"unit", "type", "constant", "renamed", "missing_code"})
EXPLAINED: Final = frozenset({"drift", "out_of_range", "unseen", "invalid"})
_LEVEL: Final = {
    QualityMeasure.MISSING: "fault",
    QualityMeasure.INVALID: "fault",
    QualityMeasure.UNSEEN: "drift",
    QualityMeasure.OUT_OF_RANGE: "drift",
}

Measured = tuple[list[list["Pair | None"]], list[list[Mapping[str, float]]]]


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Of one variable, over the reference's cells.

    Args:
        reference, current: its counts; `current` is None where it is gone or counts something else.
        pair: None where one of the two is empty.
        measures: by name; empty where there is no pair.
        p_value: that both samples come from one distribution, see `find_p_value`.
        rates: by quality measure.
        drifted: None where there are too few values.
        findings: what differs.
    """

    reference: Reference
    current: Reference | None
    pair: Pair | None
    measures: Mapping[str, float]
    p_value: float
    rates: Mapping[str, Rate]
    drifted: bool | None
    findings: tuple[Finding, ...]

    @property
    def changed(self) -> bool | None:
        """Whether anything that counts differs; None where that cannot be said."""
        if any(finding.level != "note" for finding in self.findings):
            return True
        return self.drifted if self.current is not None else True


def align(reference: Side, current: Side, *, certain: bool = False) -> list[Reference | None]:
    """The current variables in the order of the reference's, counted over its cells.

    Where they were counted over others, their values are spread evenly over the cells that they were counted in; or,
    where `certain`, put where they are most like the reference's.
    """
    by_name = {(r.variable.role, r.variable.name): r for r in current.references}
    return [_over(r, by_name.get((r.variable.role, r.variable.name)), certain) for r in reference.references]


def _over(reference: Reference, current: Reference | None, certain: bool) -> Reference | None:
    if current is None or current.variable == reference.variable:
        return current
    axis, histogram = reference.variable.axis, current.histogram
    try:
        counts = counts_over(axis, current, reference.histogram.counts if certain else None)
    except ProfileError:  # numbers against categories
        return None
    if isinstance(axis, CategoryAxis) or isinstance(current.variable.axis, CategoryAxis):
        total, least, most = 0.0, np.inf, -np.inf
    else:
        total, least, most = histogram.sum, histogram.min, histogram.max
    over = Histogram(axis, counts, histogram.invalid, total, least, most)
    return Reference(reference.variable, over, current.m2)


def make_pair(reference: Reference, current: Reference | None) -> Pair | None:
    """Both over the same cells; None where one is empty."""
    if current is None or not reference.histogram.valid or not current.histogram.valid:
        return None
    held = reference.histogram
    numeric = isinstance(reference.variable.axis, NumericAxis)
    return Pair.of(
        reference.variable.axis,
        current.histogram.counts,
        held.counts,
        decision=reference.variable.decision,
        std=reference.std,
        minimum=held.min,
        maximum=held.max,
        mean_difference=current.mean - reference.mean if numeric else np.nan,
    )


def is_enough(pair: Pair | None) -> bool:
    """Whether both sides have enough values to decide."""
    return pair is not None and bool(sufficient(min(pair.current.sum(), pair.reference.sum()), pair.decision.size))


def find_p_value(pair: Pair | None) -> float:
    """That both samples come from one distribution: of the chi-square test; of numbers of the smooth test too, the
    smaller of the two doubled.
    """
    if pair is None:
        return np.nan
    p, q = pair.decided
    freedom = int(((p + q) > 0).sum()) - 1
    if freedom < 1:
        return 1.0
    p_value = float(chdtrc(freedom, float(chi_square(p, q)) * freedom))
    if not isinstance(pair.axis, NumericAxis):
        return p_value
    smooth = smooth_test(p, q)
    return min(1.0, 2 * min(p_value, float(chdtrc(smooth.freedom, smooth.statistic))))


class Budget:
    """How sure each test must be, so that all together raise at most so many false alarms.

    Args:
        false_alarms: share of comparisons of unchanged data that may fail.
        drift: tests of distributions; half of the share is theirs.
        rates: tests of rates, which have the other half.
    """

    def __init__(self, false_alarms: float, drift: int, rates: int) -> None:
        self.p_value = false_alarms / 2 / max(drift, 1)
        self.confidence = 1 - false_alarms / 2 / max(rates, 1)
        self.tests = drift + rates

    def drifted(self, pair: Pair | None, measures: Mapping[str, float], tolerance: float) -> bool | None:
        """Whether a distribution has changed, surely and by more than the tolerance; None: too few values."""
        if not is_enough(pair):
            return None
        lower = measures.get(DriftMeasure.EFFECT_LOWER, np.nan)
        return bool(lower > tolerance and find_p_value(pair) <= self.p_value)


def judge_variable(
    reference: Reference,
    current: Reference | None,
    pair: Pair | None,
    measures: Mapping[str, float],
    sides: tuple[Side, Side],
    *,
    certain: Reference | None,
    budget: Budget,
    tolerance: float,
    kind: str,
) -> Verdict:
    """One variable.

    Args:
        reference: see Verdict, as for the next three.
        current: of the same.
        pair: of both.
        measures: of the pair.
        sides: the reference and the current one, for their samples.
        certain: as `current`, most like the reference, see `align`; what is found is found of it.
        budget: of false alarms.
        tolerance: smallest effect worth hearing of.
        kind: type of the current values.
    """
    variable = reference.variable
    old, sample = (
        side.facts.sample.get(variable.column) if side.facts is not None and variable.transform == "identity" else None
        for side in sides
    )
    if current is None or certain is None:
        types = list(schema.compare_types(reference, kind, sample))
        return Verdict(reference, None, None, {}, np.nan, {}, None, tuple(types))
    rates = rate_variable(reference, certain, budget.confidence)
    drifted = budget.drifted(pair, measures, tolerance)
    if drifted and certain is not current:
        surely = make_pair(reference, certain)
        drifted = surely is not None and budget.drifted(
            surely, next(iter(measure_pairs([surely], GROUP_MEASURES))), tolerance
        )
    found = list(schema.compare_types(reference, kind, sample)) if variable.transform != "age" else []
    found += schema.find_constant(reference, current, confidence=budget.confidence)
    found += schema.find_codes(reference, current, sample, old, confidence=budget.confidence)
    names = list(schema.compare_categories(reference, certain, sample, confidence=budget.confidence))
    if drifted:
        found += schema.compare_units(reference, current, sample, old)
    found += _find_rates(reference, rates, tolerance, names)
    if drifted and pair is not None:
        spread = current.std / reference.std if reference.std else np.nan
        shift = find_shift(pair, distance=measures.get(DriftMeasure.WASSERSTEIN, np.nan), spread=spread)
        size = measures[DriftMeasure.EFFECT_LOWER]
        told = {finding.kind for finding in found if finding.level == "drift"}
        if shift.category != UNSEEN or "unseen" not in told:
            found.append(Finding("drift", "drift", variable.role, variable.name, say_shift(shift), size))
    found += names
    if any(finding.kind in EXPLAINS and finding.level != "note" for finding in found):
        found = [finding for finding in found if finding.kind not in EXPLAINED]
    return Verdict(reference, current, pair, measures, find_p_value(pair), rates, drifted, rank(found))


def rate_variable(reference: Reference, current: Reference, confidence: float) -> dict[str, Rate]:
    """Rates of missing, invalid, unseen and out-of-range values against the reference's."""
    now, was = current.histogram, reference.histogram
    return rate_pairs(
        reference.variable.axis,
        (now.counts, asdict(now.invalid), now.seen),
        (was.counts, asdict(was.invalid), was.seen),
        confidence,
    )


def _find_rates(
    reference: Reference, rates: Mapping[str, Rate], tolerance: float, names: list[Finding]
) -> list[Finding]:
    """Rates that have broken; that of unseen values takes over the names that are known."""
    variable, found = reference.variable, []
    for measure, rate in rates.items():
        if rate.effect <= tolerance:
            continue
        text = say_rate(measure, rate.reference or 0.0, rate.rate)
        new = [finding for finding in names if finding.kind == "unseen"]
        if measure == QualityMeasure.UNSEEN and new:
            names.remove(new[0])
            text = new[0].text
        found.append(Finding(_LEVEL[measure], measure, variable.role, variable.name, text, rate.effect))
    return found


def count_rates(references: Sequence[Reference]) -> int:
    """Tests of rates, and those of the schema."""
    return sum(len(count_quality(r.variable.axis, r.histogram.counts, {})) + schema.TESTS for r in references)


def measure_groups(
    references: Sequence[Reference], groups: Mapping[Any, Group], bases: Mapping[Any, Group]
) -> Measured:
    """Pairs and measures of each variable and group, shape (variables, groups).

    Args:
        references: of the whole reference, for groups that have no base of their own.
        groups: of the current side.
        bases: of the reference, by the same keys.
    """
    pairs: list[list[Pair | None]] = [[] for _ in references]
    for key, group in groups.items():
        base = bases[key].references if key in bases else references
        for i, (was, now) in enumerate(zip(base, group.references, strict=True)):
            pairs[i].append(make_pair(was, now))
    flat = [pair for row in pairs for pair in row if pair is not None]
    measured = iter(measure_pairs(flat, GROUP_MEASURES))
    return pairs, [[next(measured) if pair is not None else {} for pair in row] for row in pairs]


def find_segments(
    reference: Reference,
    names: Sequence[str],
    pairs: Sequence[Pair | None],
    measures: Sequence[Mapping[str, float]],
    *,
    budget: Budget,
    tolerance: float,
) -> list[Finding]:
    """The segment that has changed most, where the whole has not."""
    hit = [i for i, pair in enumerate(pairs) if budget.drifted(pair, measures[i], tolerance)]
    if not hit:
        return []
    worst = max(hit, key=lambda i: measures[i][DriftMeasure.EFFECT_LOWER])
    pair, size = pairs[worst], measures[worst][DriftMeasure.EFFECT_LOWER]
    assert pair is not None  # noqa: S101 -- it has been decided
    more = f", and {len(hit) - 1} more" if len(hit) > 1 else ""
    shift = find_shift(pair, distance=measures[worst].get(DriftMeasure.WASSERSTEIN, np.nan))
    said = f"in '{printable(names[worst])}': {say_shift(shift)}{more}"
    return [Finding("drift", "segment", reference.variable.role, reference.variable.name, said, size)]


def find_repeats(reference: Side, current: Side, budget: Budget, tolerance: float) -> list[Finding]:
    """Whether more rows than before repeat an earlier one, among as many: of more rows more are alike by chance."""
    if reference.facts is None or current.facts is None or not reference.rows or not current.rows:
        return []
    sides = reference.facts.repeats, current.facts.repeats
    before, (repeated, looked) = (side.among(min(reference.rows, current.rows)) for side in sides)
    rate = make_rate(repeated, looked, before, confidence=budget.confidence)
    if rate.effect <= tolerance:
        return []
    said = f"duplicates {' -> '.join(say_share(side.share) for side in sides)}"
    return [Finding("fault", "duplicates", "data", "", said, rate.effect)]
