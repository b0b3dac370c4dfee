"""Counts and profiles -> what has changed. All features of a model are measured at once, in padded arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from otel_mlmon.numerics.binning import OTHER, UNSEEN, Axis, CategoryAxis, Counts, Floats, NumericAxis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen, decision_starts
from otel_mlmon.numerics.effect import effect, sufficient
from otel_mlmon.numerics.exponential import rebin
from otel_mlmon.numerics.measures import MEASURES, cell_bounds
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon.semconv import DriftMeasure, QualityMeasure
from otel_mlmon_processor.core.quality import Rate, count_hidden, count_quality, make_rate
from otel_mlmon_processor.core.verdict import (
    REPLICAS,
    Finding,
    ReplicaEffect,
    Shift,
    find_quality,
    find_replicas,
    rank,
    say_model,
    say_rate,
    say_shift,
)
from otel_mlmon_processor.snapshot import ModelState, VariableState
from otel_mlmon_processor.windows import ModelView, VariableCounts, VariableKey

# Exponential buckets are taken where the reference fills so many cells, else they say too little.
LEAST_CELLS: Final = 20
_EXPLICIT: Final = frozenset(MEASURES)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A variable that both the reference and the window have, over the reference's cells.

    `starts` are the coarse cells that are shown, `decision` those that the effect is measured over.
    """

    key: VariableKey
    reference: Reference
    current: VariableCounts
    cells: Counts
    starts: Any
    decision: Any

    @property
    def shift(self) -> Shift:
        """Which way it has moved."""
        difference = _mean(self.current, self.cells) - self.reference.mean
        return find_shift(self.reference, self.cells, self.reference.histogram.counts, difference)


def evaluate_model(
    view: ModelView, profile: Profile | None, *, tolerance: float, measures: Collection[str] = _EXPLICIT
) -> ModelState:
    """Measure and judge one model.

    Args:
        view: its counts.
        profile: its reference; without one there are quality rates and no drift.
        tolerance: smallest effect worth hearing of.
        measures: the drift measures to compute.
    """
    references = {_key_of(r): r for r in profile.references} if profile is not None else {}
    compared = [
        pair for key, counts in view.window.items() if (pair := _compare(key, references.get(key), counts)) is not None
    ]
    drift = dict(zip((pair.key for pair in compared), measure(compared, measures), strict=True))
    pairs = {pair.key: pair for pair in compared}
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
        )
    findings_ = rank(findings)
    decided = any(state.alarm is not None for state in states.values())
    sentence = say_model(findings_, decided) if profile is not None else "no reference: counts only"
    return ModelState(view, profile, MappingProxyType(states), findings_, tolerance, sentence)


def _key_of(reference: Reference) -> VariableKey:
    role = reference.variable.role
    return VariableKey(role, reference.variable.name if role == "feature" else "")


def _compare(key: VariableKey, reference: Reference | None, counts: VariableCounts) -> Compared | None:
    if reference is None:
        return None
    axis, held = reference.variable.axis, reference.histogram.counts
    cells = cells_over(axis, held, counts)
    if cells is None or not cells.sum() or not held.sum():
        return None
    return Compared(key, reference, counts, cells, coarse_starts(held, axis), decision_starts(held, axis))


def cells_over(axis: Axis, reference: Counts, counts: VariableCounts) -> Counts | None:
    """Counts over the axis, shape (axis.cells,); None where they were counted over other cells."""
    if isinstance(axis, CategoryAxis):
        if counts.categories is None:
            return None
        # The labels of a producer that has no profile are the categories themselves.
        at = {**axis.codes, OTHER: axis.cells - 2, UNSEEN: axis.cells - 1}
        cells = np.zeros(axis.cells, dtype=np.int64)
        for label, count in counts.categories.items():
            cells[at.get(label, axis.default)] += count
        return cells
    if counts.edges is None or counts.cells is None:
        return None
    if counts.exponential:
        enough = np.count_nonzero(reference) >= LEAST_CELLS and counts.cells.size > 0
        return rebin(counts.cells, _closed(counts.edges, counts.cells.size), axis) if enough else None
    return counts.cells if np.array_equal(counts.edges, axis.edges) else None


def _closed(edges: Floats, cells: int) -> Floats:
    """Bounds of the cells (cells + 1,), where the end cells may be open."""
    return edges if edges.size == cells + 1 else cell_bounds(edges)


def measure(compared: Sequence[Compared], measures: Collection[str]) -> list[dict[str, float]]:
    """Drift measures of each variable, all variables at once."""
    if not compared:
        return []
    coarse_p = _pad([coarsen(pair.cells, pair.starts) for pair in compared])
    coarse_q = _pad([coarsen(pair.reference.histogram.counts, pair.starts) for pair in compared])
    decided = (
        _pad([coarsen(pair.cells, pair.decision) for pair in compared]),
        _pad([coarsen(pair.reference.histogram.counts, pair.decision) for pair in compared]),
    )
    numeric = [i for i, pair in enumerate(compared) if isinstance(pair.reference.variable.axis, NumericAxis)]
    found: list[dict[str, float]] = [{} for _ in compared]

    def keep(name: str, values: Floats, rows: Sequence[int]) -> None:
        for row, value in zip(rows, np.atleast_1d(values).tolist(), strict=True):
            found[row][name] = value

    every = range(len(compared))
    categories = [i for i in every if i not in set(numeric)]
    for name in measures:
        if name == DriftMeasure.LINF:
            keep(name, MEASURES[name].compute(coarse_p[categories], coarse_q[categories]), categories)
        elif name in (DriftMeasure.EFFECT, DriftMeasure.EFFECT_LOWER):
            keep(name, MEASURES[name].compute(*decided), every)
        elif name in MEASURES and not MEASURES[name].ordered:
            keep(name, MEASURES[name].compute(coarse_p, coarse_q), every)
    if numeric:
        _measure_numbers([compared[i] for i in numeric], measures, lambda name, values: keep(name, values, numeric))
    return found


def _measure_numbers(
    compared: Sequence[Compared], measures: Collection[str], keep: Callable[[str, Floats], None]
) -> None:
    """Measures of ordered cells, over all of them."""
    p = _pad([pair.cells for pair in compared])
    q = _pad([pair.reference.histogram.counts for pair in compared])
    std = np.array([pair.reference.std or np.nan for pair in compared])
    means = np.array([_mean(pair.current, pair.cells) for pair in compared], dtype=np.float64)
    shift = means - np.array([pair.reference.mean for pair in compared])
    if DriftMeasure.KS in measures:
        keep(DriftMeasure.KS, MEASURES[DriftMeasure.KS].compute(p, q))
    if DriftMeasure.WASSERSTEIN in measures:
        bounds = _pad_bounds([_bounds(pair) for pair in compared])
        distance = MEASURES[DriftMeasure.WASSERSTEIN].compute(p, q, bounds, mean_difference=shift)
        keep(DriftMeasure.WASSERSTEIN, distance / std)
    if DriftMeasure.MEAN_SHIFT in measures:
        keep(DriftMeasure.MEAN_SHIFT, shift / std)


def _bounds(pair: Compared) -> Floats:
    histogram = pair.reference.histogram
    axis = pair.reference.variable.axis
    assert isinstance(axis, NumericAxis)  # noqa: S101 -- asked of numbers only
    return cell_bounds(axis.edges, histogram.min, histogram.max)


def _mean(counts: VariableCounts, cells: Counts) -> float:
    """Mean of the valid values; NaN where it is not known."""
    valid = int(cells.sum())
    return counts.sum / valid if counts.sum is not None and valid and counts.cells is not None else np.nan


def find_shift(reference: Reference, p: Counts, q: Counts, difference: float) -> Shift:
    """Which way counts p have moved from counts q, both over the reference's cells; `difference` is of their means."""
    axis = reference.variable.axis
    if isinstance(axis, NumericAxis):
        shift = difference / reference.std if reference.std else np.nan
        return Shift(mean=float(shift) if np.isfinite(shift) else None)
    after, before = p / max(p.sum(), 1), q / max(q.sum(), 1)
    at = int(np.abs(after - before).argmax())
    assert isinstance(axis, CategoryAxis)  # noqa: S101 -- there are two kinds of axes
    return Shift(None, axis.labels[at], float(before[at]), float(after[at]))


def _judge(
    view: ModelView,
    key: VariableKey,
    reference: Reference | None,
    pair: Compared | None,
    measures: Mapping[str, float],
    *,
    tolerance: float,
    findings: list[Finding],
) -> VariableState:
    """State of one variable; what was found is added to `findings`."""
    rates = rate_quality(reference, view.window[key])
    if reference is None:
        return VariableState(measures, None, None, rates, (), ())
    coarse = coarsen(pair.cells, pair.decision) if pair is not None else np.zeros(1, dtype=np.int64)
    enough = bool(sufficient(coarse.sum(), coarse.size)) if pair is not None else False
    lower = measures.get(DriftMeasure.EFFECT_LOWER, np.nan)
    mine = find_quality(key.role, key.name, rates, tolerance)
    drifted = enough and lower > tolerance
    if drifted and pair is not None:
        mine.append(Finding(key.role, key.name, "drift", float(lower), say_shift(pair.shift)))
    decided = enough or bool(mine)
    replicas: tuple[ReplicaEffect, ...] = ()
    if mine:
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
    current = count_quality(axis, cells_over(axis, held.counts, counts), counts.invalid)
    before = count_quality(axis, held.counts, asdict(held.invalid))
    singles = _singles(axis, held.counts)
    return {
        name: make_rate(count, counts.seen, (before[name], held.seen), count_hidden(name, singles))
        for name, count in current.items()
    }


def _singles(axis: Axis, counts: Counts) -> int:
    """Categories that the reference holds once, at most: of those that are not listed it knows the number alone."""
    if not isinstance(axis, CategoryAxis):
        return 0
    return int((counts[: len(axis.names)] == 1).sum()) + len(axis.others)


def compare_replicas(view: ModelView, key: VariableKey, reference: Reference) -> tuple[ReplicaEffect, ...]:
    """The replicas that differ most from the others together, those farthest from the reference first.

    Compared are the distribution of the valid values and the share of those that are not; the larger effect counts.
    """
    axis, held = reference.variable.axis, reference.histogram
    names: list[str] = []
    rows: list[Counts] = []
    sums: list[float] = []
    for name, variables in view.replicas.items():
        counts = variables.get(key)
        if counts is None or not counts.seen:
            continue
        cells = cells_over(axis, held.counts, counts)
        names.append(name)
        rows.append(np.append(np.zeros(axis.cells) if cells is None else cells, sum(counts.invalid.values())))
        sums.append(np.nan if counts.sum is None else counts.sum)
    if len(names) < 2:
        return ()
    each, total = np.array(rows, dtype=np.int64), np.array(sums)
    others, rest = each.sum(axis=0) - each, total.sum() - total
    starts = decision_starts(held.counts, axis)
    p, q, base = (coarsen(counts, starts) for counts in (each[:, :-1], others[:, :-1], held.counts))
    valid = p.sum(axis=-1), q.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = total / valid[0] - rest / valid[1]
    enough = sufficient(np.minimum(*valid), starts.size)
    lower = np.where(enough, effect(p, q).lower, -np.inf)
    far = np.where(enough, effect(p, base).estimate, -np.inf)
    found = []
    for i, name in enumerate(names):
        rest_of = int(others[i, -1]), int(others[i].sum())
        broken = make_rate(int(each[i, -1]), int(each[i].sum()), rest_of)
        if broken.effect > lower[i]:
            said = say_rate(QualityMeasure.MISSING, broken.reference or 0.0, broken.rate)
            found.append((max(far[i], broken.effect), ReplicaEffect(name, broken.effect, said)))
        elif np.isfinite(lower[i]):
            shift = find_shift(reference, each[i, :-1], others[i, :-1], float(differences[i]))
            found.append((far[i], ReplicaEffect(name, float(lower[i]), say_shift(shift))))
    found.sort(key=lambda pair: (-pair[0], pair[1].replica))
    return tuple(effect_ for _, effect_ in found[:REPLICAS])


def _distribution(reference: Reference, pair: Compared | None) -> tuple[tuple[float, float], ...]:
    """Upper bounds and cumulative shares of the coarse cells of a number."""
    axis = reference.variable.axis
    if pair is None or not isinstance(axis, NumericAxis):
        return ()
    shares = np.cumsum(coarsen(pair.cells, pair.starts)) / pair.cells.sum()
    upper = np.append(axis.edges[pair.starts[1:] - 1], np.inf)
    return tuple(zip(upper.tolist(), shares.tolist(), strict=True))


def _pad(rows: Sequence[Counts]) -> Counts:
    """Rows of different lengths as one array, filled with zeros."""
    padded = np.zeros((len(rows), max(row.size for row in rows)), dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : row.size] = row
    return padded


def _pad_bounds(rows: Sequence[Floats]) -> Floats:
    """The same for bounds, filled with the last."""
    width = max(row.size for row in rows)
    return np.array([np.append(row, np.full(width - row.size, row[-1])) for row in rows])
