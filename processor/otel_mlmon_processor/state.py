"""All that the fold remembers, and the caps on it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from otel_mlmon_processor.blocks import Form
from otel_mlmon_processor.dumping import Dumping
from otel_mlmon_processor.fold_settings import SECOND, FoldSettings
from otel_mlmon_processor.generation import Generation
from otel_mlmon_processor.layout import CATEGORY, CELLS, Layout, Place, Slot
from otel_mlmon_processor.model import Model, OperationKey
from otel_mlmon_processor.plans import Plan, make_plan
from otel_mlmon_processor.points import Attributes, Producer
from otel_mlmon_processor.producers import (
    NUMBERS,
    OPERATION,
    Meaning,
    ProducerState,
    Series,
    UnusableError,
    interpret,
    place_of,
)
from otel_mlmon_processor.reading import Reading
from otel_mlmon_processor.reasons import Reason
from otel_mlmon_processor.reckoning import measure, size_of_operation, size_of_places, size_of_series
from otel_mlmon_processor.room import SERIES, Room, size_of, size_of_names
from otel_mlmon_processor.streams import identify
from otel_mlmon_processor.windows import ModelKey

_PLANS: Final = 4096  # that are kept
_SWEEP: Final = 60 * SECOND  # between two looks for what has fallen silent


class State:
    """Models, producers and counters, mutable. What is there stays; what would exceed a cap is refused."""

    def __init__(self, settings: FoldSettings) -> None:
        self.settings = settings
        self.memory = Room(settings.caps.memory)
        self.spare = Room(settings.caps.spare)
        self.models: dict[ModelKey, Model] = {}
        self.producers: dict[tuple[str, ...], ProducerState] = {}
        self.meanings: dict[tuple[str, Attributes], Meaning] = {}  # of all series
        self._plans: dict[Form, Plan | None] = {}
        self.streams = 0
        self.now = 0  # newest time of receipt
        self.points = 0
        self.duplicates = 0
        self.late = 0
        self.dropped: Counter[Reason] = Counter()
        self._next_producer = 0
        self._swept = 0
        self._dumping: Dumping | None = None

    def intervals_of(self, producer: ProducerState) -> int:
        """Delta intervals that a producer may keep exactly: its share, or one for each of its series if that is more.

        The series of some SDKs (Node.js) each have a start of their own, so all of a request's must fit. Each takes a
        bit a series.
        """
        most = self.settings.caps.intervals
        wanted = max(most // max(1, len(self.producers)), min(most, len(producer.series)))
        return max(256, min(wanted, self.settings.caps.interval_bits // max(1, self.streams)))

    def producer(self, producer: Producer) -> ProducerState:
        """What is known of a producer, begun on first sight.

        Raises:
            UnusableError: there are too many.
        """
        identity = identify(producer)
        known = self.producers.get(identity)
        if known is None:
            if len(self.producers) >= self.settings.caps.producers:
                raise UnusableError("too_many_producers")
            known = self.producers[identity] = ProducerState(
                self._next_producer, producer.namespace, producer.service, producer.instance, producer.environment
            )
            self._next_producer += 1
        self.keep(known)
        known.received = self.now
        return known

    def series(self, producer: ProducerState, metric: str, attributes: Attributes, reading: Reading) -> Series:
        """A series of a producer, begun on first sight, where there is a place for what it counts.

        Raises:
            UnusableError: its attributes make no sense, or something of it is one too many.
        """
        meaning = self.meanings.get((metric, attributes)) or interpret(metric, attributes)
        known = producer.series.get(meaning)
        if known is not None:
            return known
        if self.streams >= self.settings.caps.streams:
            raise UnusableError("too_many_streams")
        model, generation = self._find_model(producer, meaning)
        size = SERIES + (size_of_names(attributes) if (metric, attributes) not in self.meanings else 0)
        if generation is not None:
            place = place_of(meaning, reading.bounds if isinstance(reading.counts, bytes) else None)
            self._check(generation.layout, place, size)
        elif meaning.kind == OPERATION:
            self._check_operation(model, OperationKey(metric, meaning.rest, reading.bounds), reading, size)
        self._charge(size)
        self.streams += 1
        self.meanings[metric, attributes] = meaning
        series = producer.series[meaning] = Series(producer.next_series, meaning, model, generation)
        producer.next_series += 1
        return series

    def plan(self, form: Form) -> Plan | None:
        """How a block is added at once; None where that cannot be."""
        if form not in self._plans:
            meanings = [self.meanings.get((point.metric, point.attributes)) for point in form.points]
            known = [meaning for meaning in meanings if meaning is not None]
            if len(known) < len(meanings):
                return None  # not all have been counted before
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[form] = make_plan(form, known)
        return self._plans[form]

    def _find_model(self, producer: ProducerState, meaning: Meaning) -> tuple[Model, Generation | None]:
        caps, key = self.settings.caps, producer.key(meaning.model, meaning.version)
        model = self.models.get(key)
        if model is None:
            if len(self.models) >= caps.models:
                raise UnusableError("too_many_models")
            model = self.models[key] = Model(key)
            model.received = self.now
        self.keep(model)
        generation = None
        if meaning.variable is not None:
            generation = model.generation(meaning.digest, caps.generations, self.spare)
            if generation is None:
                raise UnusableError("too_many_profiles")
            generation.received = self.now
        return model, generation

    def count_stream(self, reading: Reading) -> None:
        """One more cumulative stream is held.

        Raises:
            UnusableError: there are too many, or there is no memory for it.
        """
        if self.streams >= self.settings.caps.streams:
            raise UnusableError("too_many_streams")
        self._charge(SERIES + size_of(reading))
        self.streams += 1

    def operate(self, model: Model, key: OperationKey, reading: Reading) -> None:
        """Add to an operational histogram, begun on first sight.

        Raises:
            UnusableError: there are too many, or there is no memory for it.
        """
        if key not in model.operations:
            self._check_operation(model, key, reading)
            self.memory.held += size_of_operation(reading.counts)
        model.operate(key, reading)

    def slot(self, series: Series, generation: Generation, bounds: bytes | None) -> Slot:
        """Where counts of a series are added; `bounds` is None for exponential histograms and plain counts.

        Raises:
            UnusableError: it would be a place too many.
        """
        slot = series.slot
        if slot is not None and (
            series.meaning.kind != NUMBERS or slot.place.detail == ("" if bounds is None else bounds)
        ):
            return slot
        place = place_of(series.meaning, bounds)
        if place not in generation.layout.places:
            self._check(generation.layout, place)
            self.memory.held += size_of_places(place.nbytes, self.settings)
        series.slot = slot = generation.layout.place(place)
        return slot

    def _charge(self, size: int) -> None:
        if not self.memory.fits(size):
            raise UnusableError("memory")
        self.memory.held += size

    def _check_operation(self, model: Model, key: OperationKey, reading: Reading, size: int = 0) -> None:
        """Whether there is a place, and so much memory beside it."""
        if key not in model.operations:
            if len(model.operations) >= self.settings.caps.operations:
                raise UnusableError("too_many_operations")
            if not self.memory.fits(size_of_operation(reading.counts) + size):
                raise UnusableError("memory")

    def _check(self, layout: Layout, place: Place, size: int = 0) -> None:
        """Whether there is a place, and so much memory beside it."""
        if place in layout.places:
            return
        caps = self.settings.caps
        held = layout.held[place.variable, place.kind]
        if place.kind == CATEGORY and held >= caps.categories:
            raise UnusableError("too_many_categories")
        if place.kind == CELLS and held >= caps.bounds:
            raise UnusableError("too_many_bounds")
        if place.variable not in layout.variables and len(layout.variables) >= caps.variables:
            raise UnusableError("too_many_features")
        if len(layout.places) >= caps.places:
            raise UnusableError("too_many_places")
        if not self.memory.fits(size_of_places(place.nbytes, self.settings) + size):
            raise UnusableError("memory")

    def sweep(self) -> list[ModelKey]:
        """Forget models and producers that have long been silent; the models that went. Looks once a minute."""
        if self.now - self._swept < _SWEEP:
            return []
        self._swept = self.now
        held = len(self.producers), self.streams
        oldest = self.now - self.settings.retire_ns
        for identity, producer in list(self.producers.items()):
            if producer.received < oldest:
                for series in producer.series.values():
                    self._release(series)
                del self.producers[identity]
                for model in self.models.values():
                    if model.knows(producer.number):
                        self.keep(model)
                        model.forget(producer.number)
        retired = [key for key, model in self.models.items() if model.received < oldest]
        for key in retired:
            gone = self.models.pop(key)
            self.memory.held -= sum(size_of_operation(o.counts) for o in gone.operations.values())
            for generation in gone.generations.values():
                self._retire(generation)
            self._forget_series(gone)
        for model in self.models.values():
            for digest in [digest for digest, g in model.generations.items() if g.received < oldest]:
                self.keep(model)
                self._retire(model.generations.pop(digest))
        if held != (len(self.producers), self.streams):
            used = {meaning: None for producer in self.producers.values() for meaning in producer.series}
            kept = {(meaning.metric, meaning.attributes): meaning for meaning in used}
            self.memory.held -= sum(size_of_names(attributes) for _, attributes in self.meanings.keys() - kept.keys())
            self.meanings = kept
            self._plans.clear()
        return retired

    def measure(self) -> int:
        """Bytes that `memory` holds, reckoned anew from all that is there."""
        return measure(self.settings, self.models.values(), self.producers.values(), self.meanings)

    def _retire(self, gone: Generation) -> None:
        self.memory.held -= size_of_places(gone.layout.nbytes, self.settings)
        self.spare.held -= gone.spared
        self._forget_series(gone)

    def _release(self, series: Series) -> None:
        self.streams -= _streams_of(series)
        self.memory.held -= size_of_series(series)

    def _forget_series(self, gone: Model | Generation) -> None:
        for producer in self.producers.values():
            for meaning, series in list(producer.series.items()):
                if series.model is gone or series.generation is gone:
                    self.keep(producer)
                    self._release(series)
                    del producer.series[meaning]

    def recut(self, *, windows: bool) -> None:
        """Take up other settings, see Model.recut."""
        for model in self.models.values():
            model.recut(self.settings, windows=windows)

    def begin_dump(self) -> Dumping:
        """A dump of what is there now; until `end_dump` what changes is written to it first. One at a time: all that is
        left of the one before is written now.
        """
        if self._dumping is not None:
            self._dumping.go_on()
        numbers = [self.streams, self.now, self.points, self.duplicates, self.late]
        numbers += [self._next_producer, self._swept, self.memory.held]
        header = [numbers, dict(self.dropped)]
        self._dumping = Dumping(header, list(self.models.values()), self.producers)
        return self._dumping

    def end_dump(self, dumping: Dumping) -> None:
        """It is finished, or given up."""
        if self._dumping is dumping:
            self._dumping = None

    def keep(self, part: Model | ProducerState) -> None:
        """Before a model or a producer changes: a dump that is being made must have it as it was."""
        dumping = self._dumping  # which another thread may end
        if dumping is not None:
            dumping.keep(part)

    @classmethod
    def load(cls, plain: list[Any], settings: FoldSettings) -> State:
        """What `Dumping.put_together` gave, unpacked; series are interpreted again."""
        numbers, dropped, models, meanings, bounds, producers = plain
        state = cls(settings)
        state.streams, state.now, state.points, state.duplicates, state.late = numbers[:5]
        state._next_producer, state._swept, held = numbers[5:]
        state.dropped = Counter(dropped)
        state.models = {model.key: model for model in (Model.load(each, state.spare, settings) for each in models)}
        read = [interpret(metric, tuple((key, value) for key, value in pairs)) for metric, pairs in meanings]
        state.meanings = {(meaning.metric, meaning.attributes): meaning for meaning in read}
        state.producers = {
            tuple(identity): ProducerState.load(producer, state.models, read, bounds)
            for identity, producer in producers
        }
        state.memory.held = state.measure() if held is None else held
        return state


def _streams_of(series: Series) -> int:
    return 1 + len(series.cumulatives)
