"""What a request adds to the state: point by point, and then to each place of time at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_mlmon_processor.blocks import Block
from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.generation import Generation, Share
from otel_mlmon_processor.layout import Slot, Tally
from otel_mlmon_processor.model import Level, Model, OperationKey
from otel_mlmon_processor.plans import Patch, advance
from otel_mlmon_processor.points import CUMULATIVE, DELTA, Point
from otel_mlmon_processor.producers import DROPPED, INFO, LEVEL, OPERATION, ProducerState, Series, UnusableError
from otel_mlmon_processor.reading import Reading, compare
from otel_mlmon_processor.reasons import Ignored, Reason
from otel_mlmon_processor.room import size_of
from otel_mlmon_processor.state import State
from otel_mlmon_processor.streams import DUPLICATE, NEW, Cumulative, Increase

AHEAD: Final[Ignored] = "ahead"
NO_WINDOW: Final[Ignored] = "no_window"
_TOTALS_ONLY: Final = -1
_Pair = tuple[Slot, Reading]
_Found = list[_Pair | Patch]  # in the order of the points


class Additions:
    """What a request adds to variables, gathered so that each place of time is added to once."""

    def __init__(self, received: int) -> None:
        self.received = received
        self.shares: dict[tuple[Model, Generation], dict[Share, _Found]] = {}
        self.newest: dict[tuple[Model, int, str], int] = {}  # event time by model, producer and replica

    def add_to(self, state: State) -> None:
        """Add all of it, and move event time forward.

        First to where it had got without what came now, so that it is the same whether it was looked at meanwhile.
        """
        for model in {model: None for model, _ in self.shares}:
            model.advance(state.now, state.settings)
        for (model, generation), shares in self.shares.items():
            touched: set[int] = set()
            generation.received = state.now
            for share, found in shares.items():
                points = sum(each.points if isinstance(each, Patch) else 1 for each in found)
                generation.points += points
                state.points += points
                if share.window == _TOTALS_ONLY:
                    state.dropped[AHEAD] += points
                elif share.window < model.last:
                    state.late += points
                if not generation.add(share, _gather(found, generation), state.settings):
                    state.dropped[NO_WINDOW] += points
                touched.add(share.window)
            generation.pack(touched)
        for (model, producer, instance), end in self.newest.items():
            model.note(producer, instance, end, state.now)
        for model in {model: None for model, _, _ in self.newest}:
            model.advance(state.now, state.settings)


class Sent:
    """The points of one producer in a request."""

    def __init__(self, state: State, producer: ProducerState, additions: Additions, refused: Counter[Reason]) -> None:
        self._state, self._settings = state, state.settings
        self._producer, self._additions, self._refused = producer, additions, refused
        self._places: dict[tuple[Generation, int, int], _Found] = {}
        # Further points of cumulative streams, which are compared all at once.
        self._steps: dict[Cumulative, tuple[Series, int, Reading]] = {}

    def take(self, points: Sequence[Point], block: Block | None = None) -> None:
        """Count what is new of them; what cannot be used is refused by reason."""
        for point in points if block is None else self._take_block(block):
            try:
                self._take(point)
            except UnusableError as error:
                self._refused[error.reason] += 1
        self._compare()
        self._producer.intervals.settle(self._state.intervals_of(self._producer))

    def _take_block(self, block: Block) -> Sequence[Point]:
        """Count a block at once where that gives what its points would, one by one; the points that are left."""
        plan = self._state.plan(block.form)
        interval = plan.interval(block) if plan else None
        if plan is None or interval is None:
            return block.points()
        held = self._producer.series
        series = [held[meaning] for meaning in plan.meanings if meaning in held]
        generation = series[0].generation if len(series) == len(plan.meanings) else None
        targets = plan.find_targets(generation) if generation is not None else None
        if generation is None or targets is None:
            return block.points()
        start, end = interval
        patch = Patch(
            targets,
            block.cells[plan.cells],
            block.numbers[plan.numbers],
            block.sums[plan.histograms],
        )
        since: int | None = start or end
        if plan.temporality == CUMULATIVE:
            since, patch = advance(series, start, end, plan.bounds, patch)
        elif not self._producer.intervals.take_all(start, end, [each.number for each in series]):
            since = None
        if since is None:
            return block.points()
        self._state.keep(series[0].model)
        series[0].model.received = self._state.now
        self._found(series[0].model, generation, since, end).append(patch)
        return [block.point(place) for place in plan.others]

    def _take(self, point: Point) -> None:
        metric, attributes, temporality, start, end, value = point
        producer, state = self._producer, self._state
        reading = value if isinstance(value, Reading) else Reading(ExponentialSum.read(value), b"", value.sum)
        series = state.series(producer, metric, attributes, reading)
        state.keep(series.model)
        series.model.received = state.now
        kind = series.meaning.kind
        if kind == INFO:
            series.model.describe(attributes, end)
            state.points += 1
            return
        if temporality == DELTA:
            verdict = producer.intervals.take(start, end, series.number)
            if verdict == DUPLICATE:
                state.duplicates += 1
            elif verdict != NEW:
                raise UnusableError(verdict)
            elif kind == LEVEL:
                self._change_level(series, end, reading)
            else:
                self._place(series, start or end, end, reading)
        elif kind == LEVEL:
            self._set_level(series, end, reading)
        elif temporality == CUMULATIVE:
            self._take_cumulative(series, start, end, reading)
        else:
            raise UnusableError("temporality")

    def _take_cumulative(self, series: Series, start: int, end: int, reading: Reading) -> None:
        known = series.find(start)
        if known is None:
            self._state.count_stream(reading)
            series.keep(Cumulative(start, end, reading))
            self._place(series, start, end, reading)
            return
        if known in self._steps:  # a request with two points of one stream
            self._compare()
        self._steps[known] = (series, end, reading)

    def _compare(self) -> None:
        """Find what the further points of cumulative streams add."""
        steps, self._steps = self._steps, {}
        changes = compare([(known.reading, reading) for known, (_, _, reading) in steps.items()])
        memory = self._state.memory
        for (known, (series, end, reading)), change in zip(steps.items(), changes, strict=True):
            before = size_of(known.reading)
            if not memory.fits(size_of(reading) - before):
                self._refused["memory"] += 1
                continue
            advanced = known.advance(end, reading, change)
            memory.held += size_of(known.reading) - before
            if isinstance(advanced, Increase):
                try:
                    self._place(series, advanced.since, end, advanced.reading)
                except UnusableError as error:
                    self._refused[error.reason] += 1
            elif advanced == DUPLICATE:
                self._state.duplicates += 1
            else:
                self._refused[advanced] += 1

    def _place(self, series: Series, since: int, end: int, reading: Reading) -> None:
        """Note where new counts over (since, end] are to be added; those of operation are added at once."""
        generation = series.generation
        if generation is None:
            self._operate(series, since or end, reading)
            return
        slot = self._state.slot(series, generation, reading.bounds if isinstance(reading.counts, bytes) else None)
        self._found(series.model, generation, since, end).append((slot, reading))  # and counted when it is added

    def _found(self, model: Model, generation: Generation, since: int, end: int) -> _Found:
        """Where in time counts of a feature or an output over (since, end] belong."""
        known = self._places.get((generation, since, end))
        if known is not None:
            return known
        settings, additions, producer = self._settings, self._additions, self._producer
        model.begin(generation, min(since or end, self._state.now))
        window, span = settings.window_of(end), settings.span_of(since, end)
        if end > additions.received + settings.ahead_ns:
            window = _TOTALS_ONLY
        else:
            place = (model, producer.number, producer.instance)
            additions.newest[place] = max(additions.newest.get(place, 0), end)
        shares = additions.shares.setdefault((model, generation), {})
        found = self._places[generation, since, end] = shares.setdefault(Share(producer.instance, window, span), [])
        return found

    def _operate(self, series: Series, since: int, reading: Reading) -> None:
        model, meaning = series.model, series.meaning
        model.begin(None, min(since, self._state.now))
        if meaning.kind == OPERATION:
            key = OperationKey(meaning.metric, meaning.rest, reading.bounds)
            self._state.operate(model, key, reading)
        elif meaning.kind == DROPPED:
            model.dropped[meaning.metric, meaning.detail] += _number(reading)
        self._state.points += 1

    def _change_level(self, series: Series, end: int, reading: Reading) -> None:
        known = series.model.levels.get((self._producer.number, series.meaning.attributes))
        value = _number(reading) + (known.value if known else 0)
        self._write_level(series, max(end, known.end if known else 0), value)

    def _set_level(self, series: Series, end: int, reading: Reading) -> None:
        known = series.model.levels.get((self._producer.number, series.meaning.attributes))
        if known is None or end > known.end:
            self._write_level(series, end, _number(reading))
        else:
            self._state.points += 1

    def _write_level(self, series: Series, end: int, value: int) -> None:
        place = (self._producer.number, series.meaning.attributes)
        series.model.levels[place] = Level(end, value, self._state.now)
        self._state.points += 1


def _gather(found: _Found, generation: Generation) -> Tally:
    """One tally of what a request adds to one place of time; sums in the order of the points."""
    tally = Tally(generation.layout.width, generation.layout.floats)
    histograms: list[_Pair] = []
    for each in found:
        if isinstance(each, Patch):
            _add_histograms(tally, histograms)
            histograms = []
            tally.ints[each.targets.cells] += each.cells
            tally.ints[each.targets.numbers] += each.numbers
            tally.sums[each.targets.sums] += each.sums
            continue
        slot, reading = each
        counts = reading.counts
        if isinstance(counts, bytes):
            histograms.append(each)
        elif isinstance(counts, int):
            tally.ints[slot.offset] += counts
        else:
            tally.exponentials.setdefault(slot.number, ExponentialSum()).merge(counts)
            _add_sum(tally, slot, reading.sum, counts.count)
    _add_histograms(tally, histograms)
    return tally


def _add_histograms(tally: Tally, histograms: list[_Pair]) -> None:
    """Add explicit histograms, the cells of all at once."""
    if not histograms:
        return
    cells = np.frombuffer(b"".join([reading.counts for _, reading in histograms]), dtype="<i8")  # type: ignore[misc]
    sizes = np.array([slot.size for slot, _ in histograms])
    offsets = np.array([slot.offset for slot, _ in histograms])
    starts = np.cumsum(sizes) - sizes
    np.add.at(tally.ints, np.arange(cells.size) + np.repeat(offsets - starts, sizes), cells)
    for slot, reading in histograms:
        if reading.sum is None:
            _add_sum(tally, slot, None, int(reading.cells.sum()))
        else:
            tally.sums[slot.total] += reading.sum


def _add_sum(tally: Tally, slot: Slot, total: float | None, count: int) -> None:
    if total is None:
        tally.ints[slot.offset + slot.size] += count
    else:
        tally.sums[slot.total] += total


def _number(reading: Reading) -> int:
    if not isinstance(reading.counts, int):
        raise UnusableError("instrument")
    return reading.counts
