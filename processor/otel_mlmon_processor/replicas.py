"""What tells the replicas of a model apart: a variable's counts by all of them at once, as there may be thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.layout import CATEGORY, CELLS, EXPONENTIAL, INVALID, Counts, Floats, Slot, Tally
from otel_mlmon_processor.windows import ReplicaCounts, VariableKey


class HeldReplicas:
    """Counts by replica, put together when they are asked for, which is while an alarm is on.

    Args:
        slots: places of the counts.
        tallies: counts of each replica, not packed, to be added up.
    """

    def __init__(self, slots: Sequence[Slot], tallies: Mapping[str, Sequence[Tally]]) -> None:
        self._slots = slots
        self._tallies = tallies
        self._names = np.array(list(tallies), dtype=object)

    def __len__(self) -> int:
        return len(self._tallies)

    def of(self, key: VariableKey) -> Sequence[ReplicaCounts]:
        """See `Replicas`."""
        ints, _ = self._added
        slots = self._slots_by_variable.get(key, [])
        invalid = np.zeros(len(self), dtype=np.int64)
        categories: dict[str, Counts] = {}
        for slot in slots:
            if slot.place.kind == INVALID:
                invalid += ints[:, slot.offset]
            elif slot.place.kind == CATEGORY:
                categories[str(slot.place.detail)] = ints[:, slot.offset]
        numeric = [slot for slot in slots if slot.place.kind in (CELLS, EXPONENTIAL)]
        if not numeric:
            nothing = np.full(len(self), np.nan)
            return [ReplicaCounts(self._names.tolist(), invalid, None, None, nothing, categories or None)]
        # As for the whole model, of several bounds the newest with counts are taken.
        chosen = np.zeros(len(self), dtype=np.intp)
        for number, slot in enumerate(numeric):
            chosen[self._count(slot) > 0] = number
        found = []
        for number, slot in enumerate(numeric):
            members = np.flatnonzero(chosen == number)
            if slot.place.kind == CELLS:
                edges = np.frombuffer(slot.place.detail, dtype=np.float64)  # type: ignore[arg-type]  # bytes of CELLS
                groups = [(members, edges, ints[members, slot.offset : slot.offset + slot.size])]
            else:
                each = [(members[i : i + 1], *self._merge(slot, at).cells()) for i, at in enumerate(members.tolist())]
                groups = [(member, edges, cells[None]) for member, edges, cells in each]
            for among, edges, cells in groups:
                found.append(
                    ReplicaCounts(
                        self._names[among].tolist(),
                        invalid[among],
                        edges,
                        cells,
                        self._sum(slot, among),
                        {label: counts[among] for label, counts in categories.items()} or None,
                        exponential=slot.place.kind == EXPONENTIAL,
                    )
                )
        return found

    @cached_property
    def _slots_by_variable(self) -> Mapping[VariableKey, Sequence[Slot]]:
        found: dict[VariableKey, list[Slot]] = {}
        for slot in self._slots:
            found.setdefault(slot.place.variable, []).append(slot)
        return found

    @cached_property
    def _added(self) -> tuple[Counts, Floats]:
        """Integers and sums by replica, each a row."""
        last = self._slots[-1] if self._slots else None
        width = last.offset + last.size + (last.total >= 0) if last else 0
        ints = np.zeros((len(self), width), dtype=np.int64)
        sums = np.zeros((len(self), 1 + max((slot.total for slot in self._slots), default=-1)))
        for row, tallies in enumerate(self._tallies.values()):
            for tally in tallies:
                ints[row, : tally.ints.size] += tally.ints
                sums[row, : tally.sums.size] += tally.sums
        return ints, sums

    def _count(self, slot: Slot) -> Counts:
        """Values in the cells of a slot, by replica."""
        if slot.place.kind == CELLS:
            counts: Counts = self._added[0][:, slot.offset : slot.offset + slot.size].sum(axis=1)
            return counts
        return np.array([self._merge(slot, row).count for row in range(len(self))], dtype=np.int64)

    def _merge(self, slot: Slot, row: int) -> ExponentialSum:
        merged = ExponentialSum()
        for tally in self._tallies[self._names[row]]:
            if slot.number in tally.exponentials:
                merged.merge(tally.exponentials[slot.number])
        return merged

    def _sum(self, slot: Slot, rows: Counts) -> Floats:
        """Of the values in a slot; NaN where that of some is not known."""
        ints, sums = self._added
        known = ints[rows, slot.offset + slot.size] == 0
        return np.where(known, sums[rows, slot.total], np.nan)
