"""The fold: journal entries in, counts out. Deterministic: the entries' times of receipt are its only clock.

Folding the same entries in the same order from the same state always gives the same state, which is what makes replay
after a crash exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.additions import Additions, Sent
from otel_mlmon_processor.batch import Batch, Group
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.pack import PackError, encode, join, seal, unpack
from otel_mlmon_processor.producers import UnusableError
from otel_mlmon_processor.profile_store import ProfileStore
from otel_mlmon_processor.reasons import Reason
from otel_mlmon_processor.state import State
from otel_mlmon_processor.upgrades import OLDEST, upgrade, upgrade_profiles
from otel_mlmon_processor.views import Capture, build, capture
from otel_mlmon_processor.windows import ModelKey, ModelView

FORMAT: Final = 8  # of the dump


class Dump(NamedTuple):
    """A fold to go on from.

    Args:
        parts: what changes all the time.
        documents: of the profiles in it, by digest: they hardly ever change, and are larger by far.
    """

    parts: Sequence[bytes]
    documents: Mapping[str, bytes]


class Unfinished:
    """A dump that is being made while the fold goes on. Not thread-safe, but for `seal`."""

    def __init__(self, state: State, settings: FoldSettings, profiles: ProfileStore) -> None:
        self._state, self._dumping = state, state.begin_dump()
        self._head = [encode(value) for value in (FORMAT, [settings.window_ns, settings.display_windows])]
        self._profiles, self._documents = encode(profiles.dump()), profiles.documents()
        self._written = False

    def go_on(self, seconds: float | None = None) -> bool:
        """Write for about so long, or all that is left; whether all is written, and the fold is free of it."""
        if not self._written and self._dumping.go_on(seconds):
            self._state.end_dump(self._dumping)
            self._written = True
        return self._written

    def give_up(self) -> None:
        """It is not wanted any more."""
        self._state.end_dump(self._dumping)

    def seal(self) -> Dump:
        """What was written, put together and made small; takes time, and may be done by any thread."""
        if not self._written:
            raise ValueError("not all is written yet")
        return Dump(seal(join([*self._head, self._dumping.put_together(), self._profiles])), self._documents)

    def finish(self) -> Dump:
        """All at once."""
        self.go_on()
        return self.seal()


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
    dropped: Mapping[Reason, int]
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
        self._profiles = ProfileStore(caps, parse)

    def apply(self, received_ns: int, batch: Batch) -> Counter[Reason]:
        """Fold one request; by reason, the items of it that can never be used (beyond those that decoding refused)."""
        state = self._state
        state.now = max(state.now, received_ns)
        for key in state.sweep():
            self._profiles.forget(key)
        refused: Counter[Reason] = Counter()
        additions = Additions(received_ns)
        for group in batch.groups:
            self._apply_group(group, additions, refused)
        additions.add_to(state)
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

    def capture(self, key: ModelKey, wanted: Mapping[str, range] = MappingProxyType({}), now: int = 0) -> Capture:
        """Copies from which the view of a model at `now` (no earlier than the newest time of receipt) can be built
        while the fold goes on; `wanted` as in `views.capture`.

        Raises:
            KeyError: the model is not held.
        """
        model = self._state.models[key]
        self._state.keep(model)
        return capture(model, max(now, self._state.now), self.settings, wanted)

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

    def dump(self) -> Dump:
        """The whole state; `load` continues from it exactly."""
        return self.begin_dump().finish()

    def begin_dump(self) -> Unfinished:
        """A dump of the state as it is now, which is made bit by bit."""
        return Unfinished(self._state, self.settings, self._profiles)

    @classmethod
    def load(
        cls, dump: Dump, settings: FoldSettings | None = None, parse: Callable[[bytes], Profile] = Profile.from_bytes
    ) -> Fold:
        """The fold of a dump. Where the settings say other windows than it was made with, totals stay and the sliding
        window is summed again; windows of another length are dropped.

        Raises:
            FormatError: the dump is damaged, not whole, or of a newer version.
        """
        fold = cls(settings, parse)
        try:
            version, *rest = unpack(*dump.parts)
        except PackError as error:
            raise FormatError(_say_unreadable(str(error))) from error
        if not OLDEST <= version <= FORMAT:
            raise FormatError(
                f"the checkpoint has format {version}, this version reads {OLDEST} to {FORMAT}: run the version that "
                "wrote it, or name another directory"
            )
        windows, state, profiles = rest
        fold._state = State.load(upgrade(version, state), fold.settings)
        try:
            fold._profiles.load(*upgrade_profiles(version, profiles, dump.documents))
        except KeyError as error:
            raise FormatError(_say_unreadable(f"the profile {error.args[0]} is missing")) from None
        if windows != [fold.settings.window_ns, fold.settings.display_windows]:
            fold._state.recut(windows=windows[0] == fold.settings.window_ns)
        return fold

    # ---------------------------------------------------------------- one request

    def _apply_group(self, group: Group, additions: Additions, refused: Counter[Reason]) -> None:
        state = self._state
        try:
            producer = state.producer(group.producer)
        except UnusableError as error:
            refused[error.reason] += group.items
            return
        for part in group.parts:
            self._profiles.add(producer.number, producer.key(part.model, part.version), part, refused)
        Sent(state, producer, additions, refused).take(group.points, group.block)


def _say_unreadable(how: str) -> str:
    return f"the checkpoint cannot be read ({how}); restore a backup, or move the directory away to begin anew"
