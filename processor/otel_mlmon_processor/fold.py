"""The fold: journal entries in, counts out. Deterministic: the entries' times of receipt are its only clock.

Folding the same entries in the same order from the same state always gives the same state, which is what makes replay
after a crash exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.generation import Generation, Share
from otel_mlmon_processor.layout import Slot, Tally
from otel_mlmon_processor.model import Level, Model, OperationKey
from otel_mlmon_processor.pack import PackError, pack, unpack
from otel_mlmon_processor.points import CUMULATIVE, DELTA, Batch, Group, Point
from otel_mlmon_processor.producers import DROPPED, INFO, LEVEL, OPERATION, ProducerState, Series, UnusableError
from otel_mlmon_processor.profile_store import ProfileStore
from otel_mlmon_processor.state import State
from otel_mlmon_processor.streams import DUPLICATE, NEW, Cumulative, Increase, Reading
from otel_mlmon_processor.views import Capture, build, capture
from otel_mlmon_processor.windows import ModelKey, ModelView

FORMAT: Final = 3  # of the dump

AHEAD: Final = "ahead"
_TOTALS_ONLY: Final = -1


class _Additions:
    """What a request adds, gathered so that each place of time is added to once."""

    def __init__(self, received: int) -> None:
        self.received = received
        self.shares: dict[tuple[Model, Generation], dict[Share, list[tuple[Slot, Reading]]]] = {}
        self.newest: dict[tuple[Model, int, str], int] = {}  # event time by model, producer and replica


class FormatError(ValueError):
    """A dump of another version, or none at all."""


@dataclass(frozen=True, slots=True)
class FoldCounters:
    """What became of the points since the fold began.

    Args:
        points: folded; duplicates are not among them.
        duplicates: had been counted before.
        late: came behind the watermark.
        dropped: by reason, acknowledged and not used; "ahead" of their time of receipt are in the totals only.
        conflicts: profiles of a model and version that differ from one known before.
        streams, producers: held now.
    """

    points: int
    duplicates: int
    late: int
    dropped: Mapping[str, int]
    conflicts: int
    streams: int
    producers: int


class Fold:
    """The state of the receiving side, mutable; not thread-safe.

    Args:
        settings: windows, timeouts, caps.
        parse: reads a profile document.
    """

    def __init__(
        self, settings: FoldSettings | None = None, parse: Callable[[bytes], Profile] = Profile.from_bytes
    ) -> None:
        self.settings = settings or FoldSettings()
        caps = self.settings.caps
        self._state = State(self.settings)
        self._profiles = ProfileStore(caps.profiles, caps.profile_bytes, caps.assemblies, parse)

    def apply(self, received_ns: int, batch: Batch) -> Counter[str]:
        """Fold one request; by reason, the items of it that can never be used (beyond those that decoding refused)."""
        state = self._state
        state.now = max(state.now, received_ns)
        for key in state.sweep():
            self._profiles.forget(key)
        refused: Counter[str] = Counter()
        additions = _Additions(received_ns)
        for group in batch.groups:
            self._apply_group(group, additions, refused)
        self._add(additions)
        state.dropped.update(refused)
        state.dropped.update(batch.refused)
        return refused

    def views(self) -> tuple[ModelView, ...]:
        """Views of all models."""
        return tuple(build(self.capture(key)) for key in self.models())

    def models(self, now: int = 0) -> tuple[ModelKey, ...]:
        """Models that are held and have not been silent for so long, at `now`, that they are to be forgotten."""
        oldest = max(now, self._state.now) - self.settings.retire_ns
        return tuple(key for key, model in self._state.models.items() if model.received >= oldest)

    def capture(self, key: ModelKey, after: Mapping[str, int] = MappingProxyType({})) -> Capture:
        """Copies from which the view of a model can be built while the fold goes on; `after` as in `views.capture`.

        Raises:
            KeyError: the model is not held.
        """
        return capture(self._state.models[key], self._state.now, self.settings, after)

    def profiles(self) -> Mapping[ModelKey, tuple[Profile, ...]]:
        """Profiles that came as events, of each model the one created last first."""
        return self._profiles.every()

    def counters(self) -> FoldCounters:
        """What became of the points."""
        state = self._state
        return FoldCounters(
            state.points,
            state.duplicates,
            state.late,
            dict(state.dropped),
            self._profiles.conflicts,
            state.streams,
            len(state.producers),
        )

    def dump(self) -> bytes:
        """The whole state; `load` continues from it exactly."""
        settings = [self.settings.window_ns, self.settings.display_windows]
        return pack([FORMAT, settings, self._state.dump(), self._profiles.dump()])

    @classmethod
    def load(
        cls, data: bytes, settings: FoldSettings | None = None, parse: Callable[[bytes], Profile] = Profile.from_bytes
    ) -> Fold:
        """The fold of a dump. Where the settings say other windows than it was made with, totals stay and the sliding
        window is summed again; windows of another length are dropped.

        Raises:
            FormatError: the dump is damaged or of a newer version.
        """
        fold = cls(settings, parse)
        try:
            version, *rest = unpack(data)
        except PackError as error:
            raise FormatError(
                f"the checkpoint cannot be read ({error}); restore a backup, or move the directory away to begin anew"
            ) from error
        if version != FORMAT:
            raise FormatError(
                f"the checkpoint has format {version}, this version reads {FORMAT}: run the version that wrote it, or "
                "name another directory"
            )
        windows, state, profiles = rest
        fold._state = State.load(state, fold.settings)
        fold._profiles.load(profiles)
        if windows != [fold.settings.window_ns, fold.settings.display_windows]:
            fold._state.recut(windows=windows[0] == fold.settings.window_ns)
        return fold

    # ---------------------------------------------------------------- one request

    def _apply_group(self, group: Group, additions: _Additions, refused: Counter[str]) -> None:
        state = self._state
        try:
            producer = state.producer(group.producer)
        except UnusableError as reason:
            refused[str(reason)] += len(group.points) + len(group.parts)
            return
        for part in group.parts:
            self._profiles.add(producer.number, producer.key(part.model, part.version), part, refused)
        for point in group.points:
            try:
                self._apply_point(producer, point, additions)
            except UnusableError as reason:
                refused[str(reason)] += 1

    def _apply_point(self, producer: ProducerState, point: Point, additions: _Additions) -> None:
        state = self._state
        series = state.series(producer, point.metric, point.attributes)
        model, kind = series.model, series.meaning.kind
        model.received = state.now
        if kind == INFO:
            model.describe(point.attributes, point.end)
        elif kind == LEVEL:
            self._set_level(producer, series, point)
        else:
            increase = self._read_increase(producer, series, point)
            if increase is None:
                state.duplicates += 1
                return
            model.begin(series.generation, min(increase.since or point.end, state.now))
            if series.generation is not None:
                share = self._share(producer, series, point, increase.since, additions)
                bounds = None if isinstance(increase.reading.counts, (int, ExponentialSum)) else increase.reading.bounds
                slot = state.slot(series, series.generation, bounds)
                shares = additions.shares.setdefault((model, series.generation), {})
                shares.setdefault(share, []).append((slot, increase.reading))
            elif kind == OPERATION:
                key = OperationKey(point.metric, series.meaning.rest, increase.reading.bounds)
                if not model.operate(key, increase.reading, self.settings.caps.operations):
                    raise UnusableError("too_many_operations")
            elif kind == DROPPED:
                model.dropped[point.metric, series.meaning.detail] += _number(increase.reading)
        state.points += 1

    def _read_increase(self, producer: ProducerState, series: Series, point: Point) -> Increase | None:
        """What a point adds; None where it had been counted before.

        Raises:
            UnusableError: whether it was counted is no longer known, or its cells changed without a new start.
        """
        reading = Reading.read(point.value)
        if point.temporality == DELTA:
            verdict = producer.intervals.take(point.start, point.end, series.number, self._state.intervals_of(producer))
            if verdict == NEW:
                return Increase(point.start or point.end, reading)
        elif point.temporality == CUMULATIVE:
            known = series.cumulatives.get(point.start)
            if known is None:
                self._state.count_stream()
                series.cumulatives[point.start] = Cumulative(point.start, point.end, reading)
                return Increase(point.start, reading)
            advanced = known.advance(point.end, reading)
            if isinstance(advanced, Increase):
                return advanced
            verdict = advanced
        else:
            raise UnusableError("temporality")
        if verdict == DUPLICATE:
            return None
        raise UnusableError(verdict)

    def _share(self, producer: ProducerState, series: Series, point: Point, since: int, additions: _Additions) -> Share:
        """Where in time the counts of a feature or an output belong."""
        settings, model = self.settings, series.model
        if series.generation is not None:
            series.generation.received = self._state.now
            series.generation.points += 1
        window, span = settings.window_of(point.end), settings.span_of(since, point.end)
        if point.end > additions.received + settings.ahead_ns:
            self._state.dropped[AHEAD] += 1
            return Share(producer.instance, _TOTALS_ONLY, span)
        self._state.late += window < model.last
        place = (model, producer.number, producer.instance)
        additions.newest[place] = max(additions.newest.get(place, 0), point.end)
        return Share(producer.instance, window, span)

    def _set_level(self, producer: ProducerState, series: Series, point: Point) -> None:
        place = (producer.number, point.attributes)
        known = series.model.levels.get(place)
        value = _number(Reading.read(point.value))
        if point.temporality == DELTA:
            verdict = producer.intervals.take(point.start, point.end, series.number, self._state.intervals_of(producer))
            if verdict == NEW:
                total = value + (known.value if known else 0)
                end = max(point.end, known.end if known else 0)
                series.model.levels[place] = Level(end, total, self._state.now)
        elif known is None or point.end > known.end:
            series.model.levels[place] = Level(point.end, value, self._state.now)

    def _add(self, additions: _Additions) -> None:
        for (_, generation), shares in additions.shares.items():
            touched: set[int] = set()
            for share, pairs in shares.items():
                generation.add(share, _gather(pairs, generation), self.settings)
                touched.add(share.window)
            generation.pack(touched)
        for (model, producer, instance), end in additions.newest.items():
            model.note(producer, instance, end, self._state.now)
        for model in {model: None for model, _, _ in additions.newest}:
            model.advance(self._state.now, self.settings)


def _gather(pairs: list[tuple[Slot, Reading]], generation: Generation) -> Tally:
    """One tally of what a request adds to one place of time."""
    tally = Tally(generation.layout.width, generation.layout.floats)
    ints = tally.ints
    for slot, reading in pairs:
        counts = reading.counts
        if isinstance(counts, int):
            ints[slot.offset] += counts
            continue
        if isinstance(counts, ExponentialSum):
            tally.exponentials.setdefault(slot.number, ExponentialSum()).merge(counts)
        else:
            ints[slot.offset : slot.offset + slot.size] += counts
        if reading.sum is None:
            ints[slot.offset + slot.size] += counts.count if isinstance(counts, ExponentialSum) else int(counts.sum())
        else:
            tally.sums[slot.total] += reading.sum
    return tally


def _number(reading: Reading) -> int:
    if not isinstance(reading.counts, int):
        raise UnusableError("instrument")
    return reading.counts
