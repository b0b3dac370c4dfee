"""From the fold's mutable state to the frozen views that are evaluated: copy first, build later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.fold_settings import SECOND, FoldSettings
from otel_mlmon_processor.layout import CATEGORY, CELLS, EXPONENTIAL, INVALID, SEEN, Slot, Tally
from otel_mlmon_processor.model import Model, OperationKey
from otel_mlmon_processor.replicas import HeldReplicas
from otel_mlmon_processor.windows import ModelKey, ModelView, OperationHistogram, VariableCounts, VariableKey, Window


@dataclass(frozen=True, slots=True)
class Capture:
    """Copies of what a view needs, taken while the fold stands still; building the view from it takes longer."""

    key: ModelKey
    hash: str
    last: int
    window_ns: int
    display: int
    watermark: int
    slots: tuple[Slot, ...]
    window: Tally
    total: Tally
    replicas: Mapping[str, list[Tally]]
    active: int
    operations: tuple[tuple[OperationKey, Any, float], ...]
    active_calls: int
    info: Mapping[str, str]
    dropped: Mapping[tuple[str, str], int]
    others: Mapping[str, int]
    since: int
    total_since: int
    windows: tuple[tuple[int, list[Tally]], ...]


def capture(
    model: Model, now: int, settings: FoldSettings, wanted: Mapping[str, range] = MappingProxyType({})
) -> Capture:
    """Copy what a view of the model needs.

    Args:
        model: which.
        now: the time; event time moves on, as producers may have fallen silent since something came.
        settings: how time is cut.
        wanted: by profile hash, the windows that are wanted one by one; without them none are.
    """
    model.advance(now, settings)
    shown = model.current(now, settings.idle_ns)
    start = (model.last + 1 - settings.display_windows) * settings.window_ns
    return Capture(
        model.key,
        shown.hash if shown else "",
        model.last,
        settings.window_ns,
        settings.display_windows,
        model.watermark.value,
        tuple(shown.layout.slots) if shown else (),
        shown.slide(settings) if shown else Tally(),
        shown.total.copy() if shown else Tally(),
        shown.recent(settings) if shown else {},
        sum(end > start for end in model.instances.values()) if model.last >= 0 else 0,
        tuple((key, _copy(operation.counts), operation.sum) for key, operation in model.operations.items()),
        sum(level.value for level in model.levels.values() if now - level.received <= settings.idle_ns),
        dict(model.info),
        dict(model.dropped),
        {digest: other.points for digest, other in model.generations.items() if other is not shown},
        model.since,
        shown.since if shown else 0,
        shown.among(wanted[shown.hash]) if shown and shown.hash in wanted else (),
    )


def build(captured: Capture) -> ModelView:
    """The view of what was captured."""
    end = (captured.last + 1) * captured.window_ns
    start = end - captured.display * captured.window_ns
    known = captured.last >= 0
    return ModelView(
        key=captured.key,
        reference_hash=captured.hash,
        start=start / SECOND if known else 0.0,
        end=end / SECOND if known else 0.0,
        window=read_variables(captured.slots, captured.window),
        totals=read_variables(captured.slots, captured.total),
        replicas=HeldReplicas(captured.slots, captured.replicas),
        active_replicas=captured.active,
        operations=_read_operations(captured.operations),
        active_calls=captured.active_calls,
        info=MappingProxyType(dict(captured.info)),
        dropped=_by_metric(captured.dropped),
        watermark=captured.watermark / SECOND,
        windows=_Windows(captured.slots, captured.windows),
        others=MappingProxyType(dict(captured.others)),
        since=captured.since / SECOND,
        totals_since=captured.total_since / SECOND,
    )


class _Windows(Sequence[Window]):
    """Windows one by one, each built when asked for."""

    def __init__(self, slots: tuple[Slot, ...], tallies: tuple[tuple[int, list[Tally]], ...]) -> None:
        self._slots = slots
        self._tallies = tallies

    def __len__(self) -> int:
        return len(self._tallies)

    def __getitem__(self, at: Any) -> Any:
        number, tallies = self._tallies[at]
        total = Tally()
        for tally in tallies:
            tally.unpack()
            total.add(tally)
        return Window(number, read_variables(self._slots, total))


class _Parts:
    """What is known of a variable, while its slots are read."""

    __slots__ = ("categories", "cells", "exponential", "invalid", "numeric", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.invalid: dict[str, int] = {}
        self.categories: dict[str, int] | None = None
        self.cells: Slot | None = None
        self.exponential: Slot | None = None
        self.numeric = 0  # of the cells and buckets that are shown


def read_variables(slots: Iterable[Slot], tally: Tally) -> Mapping[VariableKey, VariableCounts]:
    """Counts by variable. Of several bounds of a variable the newest with counts are shown."""
    ints = tally.ints
    variables: dict[VariableKey, _Parts] = {}
    for slot in slots:
        variable, kind, detail = slot.place
        parts = variables.get(variable)
        if parts is None:
            parts = variables[variable] = _Parts()
        if kind in (CELLS, EXPONENTIAL):
            _choose(parts, slot, tally)
            continue
        count = int(ints[slot.offset]) if slot.offset < ints.size else 0
        if kind == SEEN:
            parts.seen = count
        elif kind == INVALID and count:
            parts.invalid[str(detail)] = count
        elif kind == CATEGORY:
            parts.categories = parts.categories if parts.categories is not None else {}
            if count:
                parts.categories[str(detail)] = count
    return MappingProxyType({variable: _finish(parts, tally) for variable, parts in variables.items()})


def _choose(parts: _Parts, slot: Slot, tally: Tally) -> None:
    if slot.place.kind == EXPONENTIAL:
        exponential = tally.exponentials.get(slot.number)
        count = exponential.count if exponential else 0
    else:
        count = int(tally.ints[slot.offset : slot.offset + slot.size].sum())
    if count or not (parts.numeric or parts.cells or parts.exponential):
        parts.numeric = count
        parts.cells, parts.exponential = (None, slot) if slot.place.kind == EXPONENTIAL else (slot, None)


def _finish(parts: _Parts, tally: Tally) -> VariableCounts:
    # Producers that are not ours may send no count of values seen.
    labelled = sum(parts.categories.values()) if parts.categories else 0
    seen = max(parts.seen, parts.numeric + labelled + sum(parts.invalid.values()))
    invalid = MappingProxyType(parts.invalid)
    categories = None if parts.categories is None else MappingProxyType(parts.categories)
    slot = parts.cells or parts.exponential
    if slot is None:
        return VariableCounts(seen, invalid, categories=categories)
    if parts.cells:
        edges = np.frombuffer(parts.cells.place.detail, dtype=np.float64)  # type: ignore[arg-type]  # bytes of CELLS
        cells = np.zeros(slot.size, dtype=np.int64)
        held = tally.ints[slot.offset : slot.offset + slot.size]
        cells[: held.size] = held
    else:
        edges, cells = tally.exponentials.get(slot.number, ExponentialSum()).cells()
    edges.setflags(write=False)
    cells.setflags(write=False)
    unsummed = slot.offset + slot.size
    known = unsummed >= tally.ints.size or not tally.ints[unsummed]
    total = float(tally.sums[slot.total]) if slot.total < tally.sums.size else 0.0
    return VariableCounts(
        seen, invalid, edges, cells, total if known else None, categories, exponential=parts.exponential is not None
    )


def _read_operations(
    operations: Iterable[tuple[OperationKey, Any, float]],
) -> Mapping[str, tuple[OperationHistogram, ...]]:
    """Operational histograms by metric; of several bounds of the same attributes the newest."""
    newest: dict[tuple[str, Any], OperationHistogram] = {}
    for key, counts, total in operations:
        if isinstance(counts, ExponentialSum):
            edges, cells = counts.cells()
        else:
            edges, cells = np.frombuffer(key.bounds, dtype=np.float64), counts
        edges.setflags(write=False)
        cells.setflags(write=False)
        attributes = MappingProxyType(dict(key.attributes))
        newest[key.metric, key.attributes] = OperationHistogram(attributes, edges, cells, total)
    grouped: dict[str, list[OperationHistogram]] = {}
    for (metric, _), histogram in newest.items():
        grouped.setdefault(metric, []).append(histogram)
    return MappingProxyType({metric: tuple(histograms) for metric, histograms in grouped.items()})


def _by_metric(dropped: Mapping[tuple[str, str], int]) -> Mapping[str, Mapping[str, int]]:
    grouped: dict[str, dict[str, int]] = {}
    for (metric, reason), count in dropped.items():
        grouped.setdefault(metric, {})[reason] = count
    return MappingProxyType({metric: MappingProxyType(reasons) for metric, reasons in grouped.items()})


def _copy(counts: Any) -> Any:
    return counts.copy()
