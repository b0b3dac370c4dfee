"""`otel_mlmon.compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from otel_mlmon.comparison import assemble, judge, schema
from otel_mlmon.comparison.finding import Finding, gather, rank
from otel_mlmon.comparison.groups import Group
from otel_mlmon.comparison.result import Comparison, Feature, Series, Settings, SideInfo
from otel_mlmon.comparison.sides import Choice, Side, name_data, read_current, read_reference
from otel_mlmon.comparison.where import Condition
from otel_mlmon.numerics.drift import Pair, measure_pairs
from otel_mlmon.profile.build import Notify, notified
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.sources import SourceError
from otel_mlmon.semconv import DriftMeasure

NAMED: Final = 2  # findings in the verdict


def compare(
    reference: Any,
    current: Any,
    *,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    prediction: str | Mapping[str, str] | None = None,
    target: str | None = None,
    time_column: str | None = None,
    timezone: str = "",
    period: str | None = None,
    by: str | None = None,
    types: Mapping[str, str] | None = None,
    where: str | None = None,
    reference_where: str | None = None,
    current_where: str | None = None,
    tolerance: float = judge.TOLERANCE,
    false_alarms: float = judge.FALSE_ALARMS,
    names: tuple[str, str] | None = None,
    progress: bool | Notify = False,
) -> Comparison:
    """What has changed from one data set to another.

    Args:
        reference: a Profile or the file of one (.json), or data: whatever `Profile.build` takes; it is read twice.
        current: the same; it is read once.
        columns: the features; else all columns that are nothing else.
        exclude: columns that are left out.
        prediction: column of what the model said, or a dict of roles ("value", "class", "score") to columns.
        target: column of what was to be predicted; it is told apart from the features.
        time_column: time of each row; then there is drift by period, too.
        timezone: IANA name of the zone of naive times in it; "" means UTC.
        period: "day", "week" or "month"; None: by day, by week from 100 days on, then by month.
        by: a column of categories; then its 20 most frequent values are compared apart, each with its own reference.
        types: of columns for which the type that is found is not wanted, see `Profile.build`.
        where: a condition on the rows of both, see `otel_mlmon.comparison.where`.
        reference_where: the same, on the reference alone.
        current_where: on the current data alone.
        tolerance: smallest effect D worth hearing of; 0.005 is about 0.07 standard deviations of a normal feature.
        false_alarms: share of comparisons of unchanged data that may fail, all features and tests together.
        names: what the two are called; else their files' names.
        progress: show a bar on standard error; or a function that is told (what, rows so far, rows in all or None).

    Raises:
        SourceError: the data cannot be read, or an option names a column that is not there.
        ProfileError: a profile is broken.
    """
    if not 0 <= tolerance < np.inf:
        raise SourceError(f"tolerance: must be a number >= 0, got {tolerance!r}")
    if not 0 < false_alarms < 1:
        raise SourceError(f"false_alarms: must be between 0 and 1, got {false_alarms!r}")
    if period not in (None, "day", "week", "month"):
        raise SourceError(f"period: must be day, week or month, got {period!r}")
    choice = Choice(
        None if columns is None else tuple(columns),
        tuple(exclude),
        prediction,
        target,
        time_column,
        timezone,
        period,
        by,
        types or {},
    )
    left, right = names or (name_data(reference, "reference"), name_data(current, "current"))
    with notified(progress) as notify:
        first = read_reference(
            reference, current, choice, where=_condition(where, reference_where), name=left, notify=notify
        )
        second = read_current(current, first, choice, where=_condition(where, current_where), name=right, notify=notify)
    return compare_sides(first, second, target=target, by=by, tolerance=tolerance, false_alarms=false_alarms)


def _condition(both: str | None, one: str | None) -> Condition | None:
    texts = [f"({text})" for text in (both, one) if text]
    return Condition.parse(" and ".join(texts)) if texts else None


def compare_sides(
    reference: Side,
    current: Side,
    *,
    target: str | None = None,
    by: str | None = None,
    tolerance: float = judge.TOLERANCE,
    false_alarms: float = judge.FALSE_ALARMS,
) -> Comparison:
    """Judge two sides that have been read."""
    findings, kinds = _compare_schema(reference, current)
    gone = {finding.name for finding in findings if finding.kind == "gone"}
    work = _Work.of(reference, current, gone, false_alarms)
    shown = assemble.describe_periods(current.unit, current.periods)
    features = []
    for i, was in enumerate(reference.references):
        variable = was.variable
        role = "target" if variable.role == "feature" and variable.column == target else variable.role
        kind = kinds.get((variable.role, variable.column), "empty")
        verdict = judge.judge_variable(
            was,
            work.aligned[i],
            work.pairs[i],
            work.measures[i],
            (reference, current),
            certain=work.certain[i],
            budget=work.budget,
            tolerance=tolerance,
            kind=kind,
        )
        if not verdict.changed and variable.column != by:
            apart = judge.find_segments(
                was,
                list(current.segments),
                work.segments[0][i],
                work.segments[1][i],
                budget=work.budget,
                tolerance=tolerance,
            )
            verdict = replace(verdict, findings=(*verdict.findings, *apart))
        findings += [replace(finding, role=role) for finding in verdict.findings]
        series = [
            _series(i, groups, found, tolerance)
            for groups, found in ((current.periods, work.periods), (current.segments, work.segments))
        ]
        starts = shown["starts"] if shown else []
        features.append(assemble.make_feature(verdict, role, series[0], series[1], starts))
    sides = assemble.describe_side(reference), assemble.describe_side(current)
    findings += judge.find_repeats(reference, current, work.budget, tolerance)
    findings += assemble.find_times(*sides)
    ranked = rank(findings)
    return Comparison(
        say_verdict(ranked, features, *sides),
        *sides,
        Settings(tolerance, false_alarms, work.budget.tests),
        ranked,
        tuple(_order(features, ranked)),
        shown,
        _describe_segments(by, reference, current),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """Measures of all variables, of the whole and by period and segment, and the budget for judging them."""

    aligned: list[Reference | None]
    pairs: list[Pair | None]
    measures: list[Mapping[str, float]]
    certain: list[Reference | None]
    segments: judge.Measured
    periods: judge.Measured
    budget: judge.Budget

    @classmethod
    def of(cls, reference: Side, current: Side, gone: set[str], false_alarms: float) -> _Work:
        references = reference.references
        aligned = [
            None if was.variable.role == "feature" and was.variable.column in gone else now
            for was, now in zip(references, judge.align(reference, current), strict=True)
        ]
        pairs = [judge.make_pair(was, now) for was, now in zip(references, aligned, strict=True)]
        measured = iter(measure_pairs([pair for pair in pairs if pair is not None], judge.ALL_MEASURES))
        segments = judge.measure_groups(references, current.segments, reference.segments)
        tests = sum(map(judge.is_enough, [*pairs, *(pair for row in segments[0] for pair in row)]))
        rates = judge.count_rates([was for was, now in zip(references, aligned, strict=True) if now is not None])
        return cls(
            aligned,
            pairs,
            [next(measured) if pair is not None else {} for pair in pairs],
            judge.align(reference, current, certain=True),
            segments,
            judge.measure_groups(references, current.periods, {}),
            judge.Budget(false_alarms, tests, rates + 1),
        )


def _series(i: int, groups: Mapping[Any, Group], found: judge.Measured, tolerance: float) -> Series | None:
    """Of the i-th variable."""
    if not groups:
        return None
    return assemble.make_series(found[0][i], found[1][i], [group.references[i] for group in groups.values()], tolerance)


def _compare_schema(reference: Side, current: Side) -> tuple[list[Finding], dict[tuple[str, str], str]]:
    """Columns that are gone or new, and the type of each current one by role and column."""
    counted = list(dict.fromkeys(r.variable.column for r in reference.references if r.variable.role == "feature"))
    before = counted if reference.facts is None else list(reference.facts.columns)
    if current.facts is not None:
        after = list(current.facts.columns)
        kinds = {("feature", name): sample.kind for name, sample in current.facts.sample.items()}
    else:
        variables = [r.variable for r in current.references]
        after = [variable.column for variable in variables if variable.role == "feature"]
        kinds = {(v.role, v.column): "string" if v.dtype == "text" else v.dtype for v in variables}
    return schema.compare_columns(before, after, known=reference.facts is not None), dict(kinds)


def _describe_segments(by: str | None, reference: Side, current: Side) -> dict[str, Any] | None:
    if by is None or not current.segments:
        return None
    return {
        "column": by,
        "names": list(current.segments),
        "reference_rows": [
            reference.segments[name].rows if name in reference.segments else None for name in current.segments
        ],
        "current_rows": [group.rows for group in current.segments.values()],
    }


def _order(features: Sequence[Feature], findings: Sequence[Finding]) -> list[Feature]:
    """Those that changed in the order of their findings, then by effect."""
    places: dict[tuple[str, str], int] = {}
    for place, finding in enumerate(findings):
        if finding.level != "note":
            places.setdefault((finding.role, finding.name), place)
    last = len(findings)
    return sorted(
        features,
        key=lambda f: (min(places.get((f.role, n), last) for n in (f.name, f.column)), -_effect(f), f.name),
    )


def _effect(feature: Feature) -> float:
    effect = feature.drift[DriftMeasure.EFFECT]
    return -np.inf if effect is None else effect


def say_verdict(
    findings: Sequence[Finding], features: Sequence[Feature], reference: SideInfo, current: SideInfo
) -> str:
    """One sentence."""
    counted = [finding for finding in findings if finding.level != "note"]
    if counted:
        first: dict[str, Finding] = {}
        for labels, finding in gather(counted):
            first.setdefault(labels, finding)
        said = "; ".join(f"{labels}: {finding.text}" for labels, finding in list(first.items())[:NAMED])
        more = f"; and {len(first) - NAMED} more" if len(first) > NAMED else ""
        changed = sum(feature.changed is True for feature in features)
        of = f"{changed} of {len(features)} variables have changed" if changed else "the data have changed"
        return f"{of}: {said}{more}"
    rows = f"{current.rows:,} rows against {reference.rows:,}"
    if not any(feature.changed is False for feature in features):
        return f"too few values to say anything: {rows}"
    return f"nothing has changed that is worth hearing of: {len(features)} variables, {rows}"
