"""The alarms of all models: which windows they want next, what they say of them, and their state on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.alarm_store import AlarmStore
from otel_mlmon_processor.alarms import AlarmSettings, ModelAlarms
from otel_mlmon_processor.core.alarm import AlarmEvent, AlarmState
from otel_mlmon_processor.windows import ModelKey, ModelView

_LOG = logging.getLogger(__name__)
SAVED: Final = 900.0  # seconds between two savings; the fold holds windows for much longer

_Place = tuple[ModelKey, str]  # and the hash of the profile


class Watch:
    """Mutable; one thread at a time.

    Args:
        directory: where the state is kept.
        settings: of a model, by its name.
        learn: whether what is normal is learnt where the profile does not say it.
        clock: seconds.
    """

    def __init__(
        self, directory: Path, settings: Callable[[str], AlarmSettings], *, learn: bool, clock: Callable[[], float]
    ) -> None:
        self._store, self._settings, self._learn, self._clock = AlarmStore(directory), settings, learn, clock
        self._saved = self._store.load()
        self._time = clock()
        self._models: dict[_Place, ModelAlarms] = {}

    def after(self) -> Mapping[ModelKey, Mapping[str, int]]:
        """By model and profile hash, the window after which windows are wanted."""
        wanted: dict[ModelKey, dict[str, int]] = {}
        for (key, digest), alarms in self._models.items():
            wanted.setdefault(key, {})[digest] = alarms.next - 1
        return wanted

    def look(self, view: ModelView, profile: Profile | None) -> tuple[AlarmState | None, list[AlarmEvent]]:
        """What a model's new windows say; None where nothing is decided under the budget."""
        if profile is None or profile.hash != view.reference_hash:
            return None, []
        place = view.key, profile.hash
        alarms = self._models.get(place)
        if alarms is None:
            if not self._learn and not any(reference.calibration for reference in profile.references):
                return None, []
            alarms = self._models[place] = ModelAlarms(profile, self._settings(view.key.model))
            saved = self._saved.pop(_name(place), None)
            if saved is not None:
                alarms.load(saved)
        events = alarms.advance(view.windows)
        if events:
            self._time = -SAVED  # save soon
        return alarms.state(), events

    def keep(self, models: Collection[ModelKey]) -> None:
        """Forget all others; save from time to time, and after an event."""
        for place in [place for place in self._models if place[0] not in models]:
            del self._models[place]
        if self._clock() - self._time >= SAVED:
            self.save()

    def save(self) -> None:
        """Write the state of all models."""
        held = {_name(place): alarms.dump() for place, alarms in self._models.items()}
        self._time = self._clock()
        try:
            self._store.save({**self._saved, **held})
        except OSError as error:
            _LOG.error("the alarms' state cannot be saved: %s", error)


def _name(place: _Place) -> str:
    return json.dumps([*place[0], place[1]])
