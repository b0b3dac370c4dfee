"""Counts and profiles -> what has changed. All features of a model are measured at once, in padded arrays."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import OTHER, UNSEEN, Axis, CategoryAxis, Counts, Floats, NumericAxis, differences
from otel_mlmon.numerics.coarse import coarsen
from otel_mlmon.numerics.drift import Pair, find_shift, measure_pairs
from otel_mlmon.numerics.effect import effect, sufficient
from otel_mlmon.numerics.exponential import rebin
from otel_mlmon.numerics.measures import MEASURES, cell_bounds
from otel_mlmon.numerics.nesting import reach
from otel_mlmon.numerics.rates import SLACK, Rate, count_quality, make_rate, rate_pairs
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon.semconv import DriftMeasure, QualityMeasure
from otel_mlmon.wording import say_rate, say_shift
from otel_mlmon_processor.core.alarm import AlarmState
from otel_mlmon_processor.core.verdict import (
    REPLICAS,
    Finding,
    ReplicaEffect,
    find_quality,
    find_replicas,
    rank,
    say_model,
)
from otel_mlmon_processor.snapshot import ModelState, VariableState
from otel_mlmon_processor.windows import ModelView, ReplicaCounts, VariableCounts, VariableKey

# Exponential buckets are taken where the reference fills so many cells, else they say too little.
LEAST_CELLS: Final = 20
_EXPLICIT: Final = frozenset(MEASURES)


def evaluate_model(
    view: ModelView,
    profile: Profile | None,
    *,
    tolerance: float,
    measures: Collection[str] = _EXPLICIT,
    alarms: AlarmState | None = None,
) -> ModelState:
    """Measure and judge one model.

    Args:
        view: its counts.
        profile: its reference; without one there are quality rates and no drift.
        tolerance: smallest effect worth hearing of.
        measures: the drift measures to compute.
        alarms: what is decided under the budget; None: a variable alarms where it differs over the sliding window.
    """
    references = {key_of(r): r for r in profile.references} if profile is not None else {}
    pairs = {
        key: pair for key, counts in view.window.items() if (pair := _pair(references.get(key), counts)) is not None
    }
    drift = dict(zip(pairs, measure_pairs(list(pairs.values()), measures), strict=True))
    findings: list[Finding] = []
    states: dict[VariableKey, VariableState] = {}
    for key in view.window:
        states[key] = _judge(
            view,
            key,
            references.get(key),
            pairs.get(key),
            drift.get(key, {}),
            tolerance=tolerance,
            findings=findings,
            raised=alarms is not None and key in alarms.active,
        )
        if alarms is not None and not alarms.refused:
            looked = key in alarms.variables and view.window[key].seen > 0
            states[key] = replace(states[key], alarm=key in alarms.active if looked else None)
    findings_ = rank(findings)
    decided = any(state.alarm is not None for state in states.values())
    sentence = say_model(findings_, decided) if profile is not None else "no reference: counts only"
    view = replace(view, replicas=None, windows=())  # which may be large
    return ModelState(view, profile, MappingProxyType(states), findings_, tolerance, sentence, alarms)


def key_of(reference: Reference) -> VariableKey:
    """Its name on the wire."""
    role = reference.variable.role
    return VariableKey(role, reference.variable.name if role == "feature" else "")


def _pair(reference: Reference | None, counts: VariableCounts) -> Pair | None:
    """Both sides over the reference's cells; None where one of them is empty or counted otherwise."""
    if reference is None:
        return None
    axis, held = reference.variable.axis, reference.histogram
    cells = cells_over(axis, held.counts, counts)
    if cells is None or not cells.sum() or not held.valid:
        return None
    difference = _mean(counts, cells) - reference.mean
    return Pair.of(
        axis,
        cells,
        held.counts,
        decision=reference.variable.decision,
        std=reference.std,
        minimum=held.min,
        maximum=held.max,
        mean_difference=difference,
    )


def cells_over(axis: Axis, reference: Counts, counts: VariableCounts) -> Counts | None:
    """Counts over the axis, shape (axis.cells,); None where they were counted over other cells."""
    if isinstance(axis, CategoryAxis):
        if counts.categories is None:
            return None
        return _encode(axis, counts.categories)
    if counts.edges is None or counts.cells is None:
        return None
    if np.array_equal(counts.edges, axis.edges):
        return counts.cells
    learnt = axis.low == 0 and axis.high == axis.edges.size - 1  # cut at bounds of what came, see `survey`
    if not counts.cells.size or not (counts.exponential or learnt):
        return None
    below, exact = reach(counts.cells, counts.edges, axis.edges)
    if exact.all():
        return differences(below, int(counts.cells.sum()))
    enough = counts.exponential and (learnt or np.count_nonzero(reference) >= LEAST_CELLS)
    return rebin(counts.cells, _closed(counts.edges, counts.cells.size), axis) if enough else None


def _encode(
    axis: CategoryAxis, categories: Mapping[str, int] | Mapping[str, Counts], rows: tuple[int, ...] = ()
) -> Counts:
    """Counts by label as cells of the axis, shape (*rows, axis.cells)."""
    # The labels of a producer that has no profile are the categories themselves.
    at = {**axis.codes, OTHER: axis.cells - 2, UNSEEN: axis.cells - 1}
    cells = np.zeros((*rows, axis.cells), dtype=np.int64)
    for label, count in categories.items():
        cells[..., at.get(label, axis.default)] += count
    return cells


def _rows_over(axis: Axis, reference: Counts, counts: ReplicaCounts) -> Counts:
    """Counts over the axis by replica, shape (n, axis.cells); zero where they were counted over other cells."""
    rows = len(counts.names)
    if isinstance(axis, CategoryAxis):
        return _encode(axis, counts.categories or {}, (rows,))
    if counts.edges is None or counts.cells is None:
        return np.zeros((rows, axis.cells), dtype=np.int64)
    if np.array_equal(counts.edges, axis.edges):
        return counts.cells
    over = np.zeros((rows, axis.cells), dtype=np.int64)
    for row, cells in enumerate(counts.cells):
        found = cells_over(axis, reference, VariableCounts(0, {}, counts.edges, cells, exponential=counts.exponential))
        if found is not None:
            over[row] = found
    return over


def _closed(edges: Floats, cells: int) -> Floats:
    """Bounds of the cells (cells + 1,), where the end cells may be open."""
    return edges if edges.size == cells + 1 else cell_bounds(edges)


def _mean(counts: VariableCounts, cells: Counts) -> float:
    """Mean of the valid values; NaN where it is not known."""
    valid = int(cells.sum())
    return counts.sum / valid if counts.sum is not None and valid and counts.cells is not None else np.nan


def _judge(
    view: ModelView,
    key: VariableKey,
    reference: Reference | None,
    pair: Pair | None,
    measures: Mapping[str, float],
    *,
    tolerance: float,
    findings: list[Finding],
    raised: bool,
) -> VariableState:
    """State of one variable; what was found is added to `findings`.

    An alarm under the budget comes sooner than the sliding window differs, so replicas are compared in it as well.
    """
    rates = rate_quality(reference, view.window[key])
    if reference is None:
        return VariableState(measures, None, None, rates, (), ())
    enough = pair is not None and pair.sufficient
    lower = measures.get(DriftMeasure.EFFECT_LOWER, np.nan)
    mine = find_quality(key.role, key.name, rates, tolerance)
    drifted = enough and lower > tolerance
    if drifted and pair is not None:
        shift = find_shift(pair, distance=measures.get(DriftMeasure.WASSERSTEIN, np.nan))
        mine.append(Finding(key.role, key.name, "drift", float(lower), say_shift(shift)))
    decided = enough or bool(mine)
    replicas: tuple[ReplicaEffect, ...] = ()
    if mine or raised:
        replicas = compare_replicas(view, key, reference)
        mine += find_replicas(key.role, key.name, replicas, tolerance)
    findings += mine
    return VariableState(
        measures, decided, bool(mine) if decided else None, rates, _distribution(reference, pair), replicas
    )


def rate_quality(reference: Reference | None, counts: VariableCounts) -> dict[str, Rate]:
    """Quality rates of a variable, against the reference's where there is one."""
    if reference is None:
        return {name: make_rate(n, counts.seen, None) for name, n in count_quality(None, None, counts.invalid).items()}
    axis, held = reference.variable.axis, reference.histogram
    cells = cells_over(axis, held.counts, counts)
    return rate_pairs(axis, (cells, counts.invalid, counts.seen), (held.counts, asdict(held.invalid), held.seen))


def compare_replicas(view: ModelView, key: VariableKey, reference: Reference) -> tuple[ReplicaEffect, ...]:
    """The replicas that differ most from the others together, those farthest from the reference first.

    Compared are the distribution of the valid values and the share of those that are not; the larger effect counts.
    """
    axis, held = reference.variable.axis, reference.histogram
    groups = view.replicas.of(key) if view.replicas is not None else ()
    if not groups:
        return ()
    each = np.concatenate([np.c_[_rows_over(axis, held.counts, group), group.invalid] for group in groups])
    total = np.concatenate([group.sums for group in groups])
    names = [name for group in groups for name in group.names]
    some = np.flatnonzero(each.any(axis=1))  # a standby has nothing to compare
    each, total, names = each[some], total[some], [names[i] for i in some.tolist()]
    if len(names) < 2:
        return ()
    others, rest = each.sum(axis=0) - each, total.sum() - total
    starts = np.array(reference.variable.decision, dtype=np.intp)
    p, q, base = (coarsen(counts, starts) for counts in (each[:, :-1], others[:, :-1], held.counts))
    valid = p.sum(axis=-1), q.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = total / valid[0] - rest / valid[1]
    enough = sufficient(np.minimum(*valid), starts.size)
    lower = np.where(enough, effect(p, q).lower, -np.inf)
    far = np.where(enough, effect(p, base).estimate, -np.inf)

    def rate(i: int) -> Rate:
        return make_rate(int(each[i, -1]), int(each[i].sum()), (int(others[i, -1]), int(others[i].sum())))

    broken = np.zeros(len(names))
    shares, rest_shares = (counts[:, -1] / np.maximum(counts.sum(axis=1), 1) for counts in (each, others))
    for i in np.flatnonzero(shares > SLACK * rest_shares).tolist():  # with less the bounds are not needed
        broken[i] = rate(i).effect
    # There may be thousands, and few are told of.
    rather = broken > lower
    size = np.where(rather, np.maximum(far, broken), far)
    known = np.flatnonzero(np.isfinite(lower) | rather).tolist()
    ranked = heapq.nsmallest(REPLICAS, ((-size[i], names[i], i) for i in known))
    found = []
    for _, name, i in ranked:
        if rather[i]:
            worse = rate(i)
            said = say_rate(QualityMeasure.MISSING, worse.reference or 0.0, worse.rate)
            found.append(ReplicaEffect(name, worse.effect, said))
        else:
            apart = Pair.of(
                axis, each[i, :-1], others[i, :-1], std=reference.std, mean_difference=float(differences[i])
            )
            found.append(ReplicaEffect(name, float(lower[i]), say_shift(find_shift(apart))))
    return tuple(found)


def _distribution(reference: Reference, pair: Pair | None) -> tuple[tuple[float, float], ...]:
    """Upper bounds and cumulative shares of the coarse cells of a number."""
    axis = reference.variable.axis
    if pair is None or not isinstance(axis, NumericAxis):
        return ()
    shares = np.cumsum(coarsen(pair.current, pair.starts)) / pair.current.sum()
    upper = np.append(axis.edges[pair.starts[1:] - 1], np.inf)
    return tuple(zip(upper.tolist(), shares.tolist(), strict=True))
