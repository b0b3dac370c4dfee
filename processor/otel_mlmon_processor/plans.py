"""What the numbers of a block are counts of, and where they are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon_processor.blocks import Block, Form
from otel_mlmon_processor.generation import Generation
from otel_mlmon_processor.points import DELTA
from otel_mlmon_processor.producers import Meaning, Series, place_of
from otel_mlmon_processor.reading import Reading

Places = NDArray[np.int64]


class Targets(NamedTuple):
    """Where in a generation's vectors cells, plain numbers and sums are added; each place is there once."""

    cells: Places
    numbers: Places
    sums: Places


class Patch(NamedTuple):
    """Counts to be added at once; the arrays are as long as those of `targets`, the i-th goes to the i-th place."""

    targets: Targets
    cells: NDArray[np.int64]
    numbers: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def points(self) -> int:
        """How many it is made of."""
        return self.sums.size + self.numbers.size


@dataclass(slots=True, eq=False)
class Plan:
    """The points of a form that count values of one model and profile, and the others.

    Args:
        meanings: of these points: H histograms, then N plain numbers.
        bounds: of the histograms.
        temporality: of all these points.
        histograms, numbers, cells: which of the block's they are.
        starts, ends: where their times are in the words, and those of all other deltas.
        others: places of the other points.
    """

    meanings: tuple[Meaning, ...]
    bounds: tuple[bytes, ...]
    temporality: int
    histograms: slice | Places
    numbers: slice | Places
    cells: slice | Places
    starts: Places
    ends: Places
    others: tuple[int, ...]
    _targets: dict[Generation, Targets] = field(default_factory=dict)

    def find_targets(self, generation: Generation) -> Targets | None:
        """Where they are added; None where there is not yet a place for each."""
        known = self._targets.get(generation)
        if known is None:
            edges = [*self.bounds, *[None] * (len(self.meanings) - len(self.bounds))]
            wanted = [place_of(meaning, bounds) for meaning, bounds in zip(self.meanings, edges, strict=True)]
            slots = [generation.layout.places[place] for place in wanted if place in generation.layout.places]
            if len(slots) < len(wanted) or len(set(slots)) < len(slots):
                return None
            histograms, numbers = slots[: len(self.bounds)], slots[len(self.bounds) :]
            known = self._targets[generation] = Targets(
                _join([(slot.offset, slot.offset + slot.size) for slot in histograms]),
                np.array([slot.offset for slot in numbers], dtype=np.int64),
                np.array([slot.total for slot in histograms], dtype=np.int64),
            )
        return known

    def interval(self, block: Block) -> tuple[int, int] | None:
        """The times of its points; None where they are not the same."""
        starts, ends = block.words[self.starts], block.words[self.ends]
        if (starts != starts[0]).any() or (ends != ends[0]).any():
            return None
        return int(starts[0]), int(ends[0])


def make_plan(form: Form, meanings: Sequence[Meaning]) -> Plan | None:
    """The plan of a form whose points have these meanings; None where they must be taken one by one."""
    counted = [place for place, meaning in enumerate(meanings) if meaning.variable is not None]
    told = {
        (meanings[place].model, meanings[place].version, meanings[place].digest, form.points[place].temporality)
        for place in counted
    }
    if len(told) != 1 or len({id(meaning) for meaning in meanings}) < len(meanings):
        return None
    ((*_, temporality),) = told
    histograms = [place for place in counted if form.points[place].bounds is not None]
    numbers = [place for place in counted if form.points[place].bounds is None]
    others = [place for place in range(len(meanings)) if meanings[place].variable is None]
    timed = [*counted, *[place for place in others if form.points[place].temporality == DELTA]]
    bounds = [form.points[place].bounds or b"" for place in histograms]
    which = [form.points[place].number for place in histograms]
    firsts = form.shape.firsts[which].tolist()
    return Plan(
        meanings=tuple(meanings[place] for place in [*histograms, *numbers]),
        bounds=tuple(bounds),
        temporality=temporality,
        histograms=_select([(number, number + 1) for number in which]),
        numbers=_select([(form.points[place].number, form.points[place].number + 1) for place in numbers]),
        cells=_select([(first, first + len(edges) // 8 + 1) for first, edges in zip(firsts, bounds, strict=True)]),
        starts=np.array([form.points[place].start for place in timed]),
        ends=np.array([form.points[place].end for place in timed]),
        others=tuple(others),
    )


def advance(
    series: Sequence[Series], start: int, end: int, bounds: Sequence[bytes], patch: Patch
) -> tuple[int | None, Patch]:
    """What the counts in `patch` add to those of cumulative streams, which take them on, and since when; None where a
    stream is new, began again, is farther already or has other bounds.
    """
    streams = [stream for stream in [each.find(start) for each in series] if stream is not None]
    if len(streams) < len(series) or any(stream.end != streams[0].end for stream in streams):
        return None, patch
    since = streams[0].end
    histograms, numbers = streams[: len(bounds)], streams[len(bounds) :]
    before = [stream.reading for stream in histograms]
    if end <= since or any(
        reading.sum is None or reading.bounds != edges for reading, edges in zip(before, bounds, strict=True)
    ):
        return None, patch
    cells = patch.cells - np.frombuffer(b"".join([reading.counts for reading in before]), "<i8")  # type: ignore[misc]
    plain = patch.numbers - np.array([stream.reading.counts for stream in numbers], dtype=np.int64)
    if cells.min(initial=0) < 0 or plain.min(initial=0) < 0:
        return None, patch
    sums = patch.sums - np.array([reading.sum for reading in before], dtype=np.float64)
    raw, first = patch.cells.tobytes(), 0
    for stream, edges, total in zip(histograms, bounds, patch.sums.tolist(), strict=True):
        last = first + len(edges) + 8
        stream.end, stream.reading = end, Reading(raw[first:last], edges, total)
        first = last
    for stream, count in zip(numbers, patch.numbers.tolist(), strict=True):
        stream.end, stream.reading = end, Reading(count)
    return since, patch._replace(cells=cells, numbers=plain, sums=sums)


def _join(ranges: Sequence[tuple[int, int]]) -> Places:
    return np.concatenate([np.arange(0), *[np.arange(first, last) for first, last in ranges]])


def _select(ranges: Sequence[tuple[int, int]]) -> slice | Places:
    """Ranges as an index: a slice where they follow one another, which is faster."""
    places = _join(ranges)
    if places.size and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
