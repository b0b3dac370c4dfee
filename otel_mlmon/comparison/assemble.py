"""From verdicts on variables to the result that is shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from otel_mlmon.comparison.finding import LEVELS, Finding
from otel_mlmon.comparison.groups import Group, date_of
from otel_mlmon.comparison.judge import ALL_MEASURES, Verdict, is_enough
from otel_mlmon.comparison.result import Feature, Series, SideInfo, Summary, TimeRange
from otel_mlmon.comparison.schema import GONE
from otel_mlmon.comparison.sides import Side
from otel_mlmon.numerics.binning import OTHER, UNSEEN, CategoryAxis, NumericAxis
from otel_mlmon.numerics.drift import Pair
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.shape import quantiles, shares_below
from otel_mlmon.semconv import DriftMeasure

BINS: Final = 30
LEAST_PERIODS: Final = 2  # that changed, one after the other, before a day is named
LABELS: Final = 20
_ENDS: Final = np.array([0.005, 0.995])


def describe_side(side: Side) -> SideInfo:
    """What is known of a side as a whole."""
    if side.facts is None:
        return SideInfo(side.name, "profile", side.rows, None, None)
    repeated, looked = side.facts.repeats.among(side.rows)
    return SideInfo(side.name, "data", side.rows, repeated / looked if looked else None, _describe_times(side))


def _describe_times(side: Side) -> TimeRange | None:
    assert side.facts is not None  # noqa: S101 -- asked of data
    if side.facts.times is None:
        return None
    first, last = (dt.datetime.fromtimestamp(t, dt.timezone.utc).replace(microsecond=0) for t in side.facts.times)
    days = (last.date() - first.date()).days + 1
    begin, end = (time.isoformat().replace("+00:00", "Z") for time in (first, last))
    return TimeRange(begin, end, days, days - len(side.facts.days))


def find_times(reference: SideInfo, current: SideInfo) -> list[Finding]:
    """Gaps in the time covered, and rows that are older than the reference's end."""
    if current.time is None:
        return []
    notes = []
    if current.time.empty_days:
        notes.append(f"{current.time.empty_days} of {current.time.days} days have no row")
    if reference.time is not None and current.time.first < reference.time.last:
        notes.append(f"begin {current.time.first[:10]}, before the reference ends ({reference.time.last[:10]})")
    return [Finding("note", "time", "data", "", text, 0.0) for text in notes]


def make_feature(
    verdict: Verdict, role: str, periods: Series | None, segments: Series | None, starts: Sequence[str]
) -> Feature:
    """A variable as it is shown."""
    variable, pair = verdict.reference.variable, verdict.pair
    counted = [finding for finding in verdict.findings if finding.level != "note"]
    counted.sort(key=lambda finding: (LEVELS.index(finding.level), finding.kind != "drift"))
    told = [finding.text for finding in counted[:2]]
    drift: dict[str, float | None] = {name: _known(verdict.measures.get(name, np.nan)) for name in ALL_MEASURES}
    changed = verdict.changed
    return Feature(
        name=variable.name,
        column=variable.column,
        role=role,
        type=variable.dtype,
        transform=variable.transform,
        changed=changed,
        text="; ".join(told) or (GONE if verdict.current is None and not told else ""),
        since=_find_since(periods, starts) if verdict.drifted else None,
        drift={**drift, "p_value": _known(verdict.p_value)},
        rates={
            name: {"reference": rate.reference, "current": rate.rate, "lower": rate.lower, "allowed": rate.allowed}
            for name, rate in verdict.rates.items()
        },
        reference=summarise(verdict.reference),
        current=summarise(verdict.current) if verdict.current is not None else Summary(0, 1.0),
        distribution=_draw(verdict.reference, verdict.current, pair),
        periods=periods,
        segments=segments,
    )


def _known(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def summarise(reference: Reference) -> Summary:
    """Figures of one side."""
    histogram = reference.histogram
    if not isinstance(reference.variable.axis, NumericAxis) or not histogram.valid or not np.isfinite(histogram.min):
        return Summary(histogram.valid, histogram.missing)
    median = float(quantiles(reference, np.array([0.5]))[0])
    return Summary(
        histogram.valid, histogram.missing, reference.mean, reference.std, histogram.min, median, histogram.max
    )


def _draw(reference: Reference, current: Reference | None, pair: Pair | None) -> dict[str, Any] | None:
    """Shares in bins of equal width, or by category."""
    if pair is None or current is None:
        return None
    if isinstance(pair.axis, CategoryAxis):
        return _draw_categories(pair, pair.axis, hours=reference.variable.transform == "hour")
    if not np.isfinite(current.histogram.min):  # counted as categories there
        return None
    ends = np.array([quantiles(side, _ENDS) for side in (reference, current)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not low < high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    points = np.linspace(low, high, BINS + 1)
    points[0] = np.nextafter(low, -np.inf)
    below = [shares_below(side, points) for side in (reference, current)]
    return {
        "low": low,
        "high": high,
        "reference": np.diff(below[0]).tolist(),
        "current": np.diff(below[1]).tolist(),
        "below": [float(shares[0]) for shares in below],
        "above": [float(1 - shares[-1]) for shares in below],
    }


def _draw_categories(pair: Pair, axis: CategoryAxis, *, hours: bool) -> dict[str, Any]:
    before, after = pair.reference / pair.reference.sum(), pair.current / pair.current.sum()
    names = len(axis.names)
    order = np.argsort(-np.maximum(before, after)[:names], kind="stable")
    chosen = sorted(order.tolist(), key=lambda i: int(axis.names[i])) if hours else order[:LABELS].tolist()
    rest = [i for i in order.tolist() if i not in set(chosen)] + [names]
    labels = [axis.names[i] for i in chosen]
    shares = [[float(side[i]) for i in chosen] for side in (before, after)]
    for label, cells in ((OTHER, rest), (UNSEEN, [names + 1])):
        sums = [float(side[cells].sum()) for side in (before, after)]
        if any(sums):
            labels.append(label)
            for row, value in zip(shares, sums, strict=True):
                row.append(value)
    return {"labels": labels, "reference": shares[0], "current": shares[1]}


def make_series(
    pairs: Sequence[Pair | None],
    measures: Sequence[Mapping[str, float]],
    groups: Sequence[Reference],
    tolerance: float,
) -> Series:
    """The measures of one variable over periods or segments."""
    enough = [is_enough(pair) for pair in pairs]

    def take(name: str) -> tuple[float | None, ...]:
        return tuple(
            _known(found.get(name, np.nan)) if good else None for found, good in zip(measures, enough, strict=True)
        )

    lower = take(DriftMeasure.EFFECT_LOWER)
    return Series(
        take(DriftMeasure.EFFECT),
        lower,
        take(DriftMeasure.MEAN_SHIFT),
        tuple(group.histogram.missing if group.histogram.seen else None for group in groups),
        tuple(None if value is None else value > tolerance for value in lower),
    )


def _find_since(periods: Series | None, starts: Sequence[str]) -> str | None:
    """The first period from which on every one that can be judged has changed.

    None where that is the first of all, where there are too few, or where most that have changed lie before it.
    """
    if periods is None:
        return None
    decided = [(start, bool(on)) for start, on in zip(starts, periods.changed, strict=True) if on is not None]
    last = next((i for i in range(len(decided) - 1, -1, -1) if not decided[i][1]), -1)
    after, before = len(decided) - last - 1, sum(on for _, on in decided[: last + 1])
    return decided[last + 1][0] if last >= 0 and after >= max(LEAST_PERIODS, before) else None


def describe_periods(unit: str, periods: Mapping[int, Group]) -> dict[str, Any] | None:
    """Unit, first days and rows."""
    if not periods:
        return None
    return {
        "unit": unit,
        "starts": [date_of(day).isoformat() for day in periods],
        "rows": [group.rows for group in periods.values()],
    }
