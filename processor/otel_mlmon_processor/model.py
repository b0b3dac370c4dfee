"""State of one model: generations by profile hash, its event time, and what concerns its operation."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.generation import Generation
from otel_mlmon_processor.points import Attributes
from otel_mlmon_processor.reading import Reading
from otel_mlmon_processor.room import Room
from otel_mlmon_processor.watermark import Watermark
from otel_mlmon_processor.windows import ModelKey


class OperationKey(NamedTuple):
    """An operational histogram: bounds as the bytes of a float64 array, b"" for exponential ones."""

    metric: str
    attributes: Attributes
    bounds: bytes


class Operation:
    """An operational histogram over the life of the model, mutable."""

    __slots__ = ("counts", "sum")

    def __init__(self, counts: Any, total: float = 0.0) -> None:
        self.counts = counts
        self.sum = total

    def add(self, reading: Reading) -> None:
        """Add counts; a producer that sends no sum adds none."""
        if isinstance(reading.counts, ExponentialSum):
            self.counts.merge(reading.counts)
        elif isinstance(reading.counts, bytes):
            self.counts = self.counts + reading.cells
        else:
            self.counts = self.counts + reading.counts
        self.sum += reading.sum or 0.0


class Level(NamedTuple):
    """The newest value of an up-down counter of a producer."""

    end: int
    value: int
    received: int


class Model:
    """One merge key, mutable."""

    __slots__ = (
        "born",
        "dropped",
        "generations",
        "info",
        "info_end",
        "instances",
        "key",
        "last",
        "levels",
        "operations",
        "received",
        "since",
        "watermark",
    )

    def __init__(self, key: ModelKey) -> None:
        self.key = key
        self.born = 0  # generations so far
        self.received = 0
        self.since = 0  # begin of the first interval that was counted
        self.last = -1  # window of the watermark
        self.generations: dict[str, Generation] = {}
        self.watermark = Watermark()
        self.instances: dict[str, int] = {}  # newest event time of each replica
        self.operations: dict[OperationKey, Operation] = {}
        self.levels: dict[tuple[int, Attributes], Level] = {}
        self.info: dict[str, str] = {}
        self.info_end = -1
        self.dropped: Counter[tuple[str, str]] = Counter()

    def generation(self, digest: str, most: int, spare: Room) -> Generation | None:
        """The counts under a profile hash, begun on first sight; None where there are too many."""
        generation = self.generations.get(digest)
        if generation is None and len(self.generations) < most:
            generation = self.generations[digest] = Generation(digest, self.born, spare)
            generation.last = self.last
            self.born += 1
        return generation

    def current(self, now: int, idle: int) -> Generation | None:
        """The generation to show: of those that are being sent the one that began last, else the one sent last.

        While replicas change from one profile to another both are being sent, and the newer one stays in view; after
        a return to the older profile that one is shown as soon as the newer has fallen silent.
        """
        return max(
            self.generations.values(),
            key=lambda g: (True, g.born, 0) if now - g.received <= idle else (False, g.received, g.born),
            default=None,
        )

    def begin(self, generation: Generation | None, since: int) -> None:
        """Something is counted from `since` on; the first says when the counters were zero."""
        self.since = self.since or since
        if generation is not None:
            generation.since = generation.since or since

    def note(self, producer: int, instance: str, end: int, received: int) -> None:
        """A feature or prediction point of event time `end` came."""
        self.watermark.note(producer, end, received)
        if end > self.instances.get(instance, -1):
            self.instances[instance] = end

    def advance(self, now: int, settings: FoldSettings) -> None:
        """Move event time forward as far as all live producers have sent."""
        spread = settings.caps.windows_ahead * settings.window_ns
        time = self.watermark.advance(now, settings.idle_ns, spread)
        last = settings.window_of(time) if time else -1
        if last > self.last:
            self.last = last
            oldest = (last + 1 - settings.horizon) * settings.window_ns
            for instance in [instance for instance, end in self.instances.items() if end <= oldest]:
                del self.instances[instance]
            for generation in self.generations.values():
                generation.advance(last, settings)

    def operate(self, key: OperationKey, reading: Reading) -> None:
        """Add to an operational histogram, begun on first sight."""
        operation = self.operations.get(key)
        if operation is None:
            zero = ExponentialSum() if isinstance(reading.counts, ExponentialSum) else 0
            operation = self.operations[key] = Operation(zero)
        operation.add(reading)

    def describe(self, attributes: Attributes, end: int) -> None:
        """Keep the identity that the newest info point gives; of two at one time the later in text order."""
        info = dict(attributes)
        if (end, sorted(info.items())) > (self.info_end, sorted(self.info.items())):
            self.info, self.info_end = info, end

    def recut(self, settings: FoldSettings, *, windows: bool) -> None:
        """Take up other settings; `windows` are kept where their length is the same. Totals always stay."""
        if not windows:
            self.last = settings.window_of(self.watermark.value) if self.watermark.value else -1
        for generation in self.generations.values():
            generation.recut(self.last, settings, windows=windows)

    def knows(self, producer: int) -> bool:
        """Whether a producer has anything to do with its event time or its levels."""
        return producer in self.watermark.newest or any(number == producer for number, _ in self.levels)

    def forget(self, producer: int) -> None:
        """A producer has gone for good."""
        self.watermark.forget(producer)
        for place in [place for place in self.levels if place[0] == producer]:
            del self.levels[place]

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint; they stay as they are."""
        operations = [
            [*key, o.counts.dump() if isinstance(o.counts, ExponentialSum) else o.counts, o.sum]
            for key, o in self.operations.items()
        ]
        return [
            [list(self.key), self.born, self.received, self.since, self.last, self.info, self.info_end],
            [generation.dump() for generation in self.generations.values()],
            self.watermark.dump(),
            list(self.instances.items()),
            operations,
            [[producer, attributes, *level] for (producer, attributes), level in self.levels.items()],
            [[*names, count] for names, count in self.dropped.items()],
        ]

    @classmethod
    def load(cls, plain: list[Any], spare: Room, settings: FoldSettings) -> Model:
        """What `dump` gave."""
        numbers, generations, watermark, instances, operations, levels, drops = plain
        key, born, received, since, last, info, info_end = numbers
        model = cls(ModelKey(*key))
        model.born, model.received, model.since, model.last = born, received, since, last
        model.info, model.info_end = info, info_end
        model.generations = {g.hash: g for g in (Generation.load(each, spare, settings) for each in generations)}
        model.watermark = Watermark.load(watermark)
        model.instances = dict(instances)
        for metric, attributes, bounds, counts, total in operations:
            held = ExponentialSum.load(counts) if isinstance(counts, list) else counts
            model.operations[OperationKey(metric, _attributes(attributes), bounds)] = Operation(held, total)
        model.levels = {
            (p, _attributes(attributes)): Level(end, value, received) for p, attributes, end, value, received in levels
        }
        model.dropped = Counter({(metric, reason): count for metric, reason, count in drops})
        return model


def _attributes(plain: list[list[str]]) -> Attributes:
    return tuple((key, value) for key, value in plain)
