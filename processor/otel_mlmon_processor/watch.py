"""The alarms of all models: which windows they want next, what they say of them, and their state on disk."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_mlmon.numerics.scales import DAY, LEAST_DAYS
from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.alarm_store import AlarmStore, Saved
from otel_mlmon_processor.alarms import AlarmSettings, ModelAlarms
from otel_mlmon_processor.core.alarm import AlarmEvent, AlarmState, Phase
from otel_mlmon_processor.hold import Hold
from otel_mlmon_processor.orders import Order, Orders
from otel_mlmon_processor.survey import Survey
from otel_mlmon_processor.windows import ModelKey, ModelView

_LOG = logging.getLogger(__name__)
SAVED: Final = 900.0  # seconds between two savings; the fold holds windows for much longer
GONE: Final = 60 * DAY  # windows after which what was known of a model that is silent is forgotten

_Place = tuple[ModelKey, str]  # and the hash of the profile; "" without one


class Memory:
    """Bytes for what is learnt: what has been granted stays, and who comes later gets what is left."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._granted: dict[str, int] = {}

    def ask(self, name: str, size: int) -> bool:
        """Whether there is so much for somebody, who gives back what he had before."""
        others = sum(granted for held, granted in self._granted.items() if held != name)
        if size and others + size > self._limit:
            return False
        self._granted[name] = size
        return True


class Looked(NamedTuple):
    """What is known of a model's alarms, what has just happened, and the reference that was learnt.

    `alarms` is None where nothing is decided under the budget; `reference` is None where the model has a profile, or
    not enough is learnt yet.
    """

    alarms: AlarmState | None
    events: list[AlarmEvent]
    reference: Profile | None = None


class Watch:
    """Mutable; one thread at a time.

    Args:
        directory: where the state is kept.
        settings: of a model, by its name.
        hold: seconds for which a window that is over is waited for, see `Hold`; None: windows are looked at as they
            are, which is for rows of the past that are all there.
        memory: bytes for what is learnt where no profile says what is normal; None: nothing is learnt.
        clock: seconds.
        unsent: endpoints, each with the events that it has not taken; they are saved with what says that they happened.
            Those that were saved last are in `unsent`.
    """

    def __init__(
        self,
        directory: Path,
        settings: Callable[[str], AlarmSettings],
        *,
        hold: float | None,
        memory: int | None,
        clock: Callable[[], float],
        unsent: Callable[[], list[tuple[str, Sequence[Any]]]] = list,
    ) -> None:
        self._store, self._settings, self._clock = AlarmStore(directory), settings, clock
        self._orders = Orders(directory)
        self._hold, self._holds = hold, dict[ModelKey, Hold]()
        self._learns, self._memory = memory is not None, Memory(memory or 0)
        self._list_unsent = unsent
        self._saved, self.unsent = self._store.load()
        for name, plain in self._saved.items():  # before newcomers
            self._memory.ask(name, plain.get("granted", 0))
        self._time = clock()
        self._models: dict[_Place, ModelAlarms] = {}
        self._surveys: dict[_Place, Survey] = {}
        self._phases: dict[_Place, str] = {}

    def wanted(self) -> Mapping[ModelKey, Mapping[str, range]]:
        """By model and profile hash, the windows that can be looked at; models of which none can are left out."""
        now, wanted = self._clock(), dict[ModelKey, dict[str, range]]()
        following = {place: alarms.next for place, alarms in self._models.items()}
        following.update({place: survey.next for place, survey in self._surveys.items()})
        for (key, digest), window in following.items():
            last = self._holds[key].last(now) if self._hold is not None else sys.maxsize - 1
            if max(window, 0) <= last:
                wanted.setdefault(key, {})[digest] = range(window, last + 1)
        return wanted

    def look(self, view: ModelView, profile: Profile | None) -> Looked:
        """What a model's windows say, which are those that were wanted."""
        if self._hold is not None:
            self._holds.setdefault(view.key, Hold(self._hold)).see(view.watermark, self._clock())
        place = view.key, view.reference_hash
        if profile is None and not view.reference_hash and self._learns:
            return self._look_without_profile(place, view)
        if profile is None or profile.hash != view.reference_hash:
            return Looked(None, [])
        alarms = self._models.get(place)
        if alarms is None:
            if not self._learns and not any(reference.calibration for reference in profile.references):
                return Looked(None, [])
            alarms = self._models[place] = self._make(place, profile)
            self._load(place, alarms)
        return self._advance(place, alarms, view)

    def _look_without_profile(self, place: _Place, view: ModelView) -> Looked:
        if place not in self._models and place not in self._surveys:
            self._begin(place, self._saved.get(_name(place), {}))
        survey = self._surveys.get(place)
        if survey is not None:
            survey.advance(view.windows)
            granted = self._memory.ask(_name(place), survey.size)
            found = survey.make_profile(view.key) if survey.done and granted else None
            if found is None or not found.references:
                if not granted or found is not None:
                    self._survey_anew(place, survey.next)
                budget = self._settings(view.key.model).budget
                phase: Phase = "learning" if granted else "refused"
                return self._follow(place, view, AlarmState(phase, 0, None, frozenset(), frozenset(), 0, budget), [])
            del self._surveys[place]
            self._models[place] = self._make(place, found, surveyed=True)
            self._models[place].next = survey.next
            self._time = -SAVED
        return self._advance(place, self._models[place], view)

    def _begin(self, place: _Place, plain: Mapping[str, Any]) -> None:
        """A model without a profile: survey it, or go on where it was left."""
        if plain.get("profile") is not None:
            alarms = self._make(place, Profile.from_bytes(plain["profile"]), surveyed=True)
            self._models[place] = alarms
            self._load(place, alarms)
            return
        survey = self._surveys[place] = Survey()
        if plain.get("survey") is not None:
            survey.load(plain["survey"])
            self._saved.pop(_name(place))
        self._time = -SAVED

    def _make(self, place: _Place, profile: Profile, *, surveyed: bool = False) -> ModelAlarms:
        name = _name(place)
        settings = self._settings(place[0].model)
        return ModelAlarms(profile, settings, grant=lambda size: self._memory.ask(name, size), surveyed=surveyed)

    def _load(self, place: _Place, alarms: ModelAlarms) -> None:
        saved = self._saved.pop(_name(place), None)
        if saved is not None:
            alarms.load(saved["alarms"])
        elif alarms.state().phase != "calibrated":
            self._time = -SAVED  # so that `otel-mlmon reference` knows it

    def _survey_anew(self, place: _Place, following: int) -> None:
        """From the window `following` on."""
        survey = self._surveys[place] = Survey()
        survey.next = following

    def _advance(self, place: _Place, alarms: ModelAlarms, view: ModelView) -> Looked:
        events = alarms.advance(view.windows)
        return self._follow(place, view, alarms.state(), events, alarms.reference)

    def _follow(
        self,
        place: _Place,
        view: ModelView,
        state: AlarmState,
        events: list[AlarmEvent],
        reference: Profile | None = None,
    ) -> Looked:
        """Say what has become of learning, and have it saved."""
        before = self._phases.get(place)
        self._phases[place] = state.phase
        if events or (before is not None and state.phase != before):
            self._time = -SAVED  # save soon
        if state.phase != before:
            _LOG.log(*_say(state, before), f"{view.key.model} {view.key.version}".strip(), view.key.service)
        return Looked(state, events, reference)

    def obey(self) -> None:
        """Do what `otel-mlmon reference` has asked for; what was done is on disk before it is called done."""
        for name, order in self._orders.read():
            try:
                self._do(order)
            except ValueError as error:
                _LOG.warning("reference %s of %s %s: %s", order.verb, order.model.model, order.model.version, error)
                self._orders.refuse(name, str(error))
                continue
            if self.save():
                _LOG.info("reference %s: %s %s", order.verb, order.model.model, order.model.version)
                self._orders.finish(name)

    def _do(self, order: Order) -> None:
        key = order.model
        found = [(place, alarms) for place, alarms in self._models.items() if place[0] == key]
        surveyed = [place for place in self._surveys if place[0] == key]
        if order.verb == "reset" and (surveyed or any(place[1] == "" for place, _ in found)):
            self._models.pop((key, ""), None)
            following = max((alarms.next for place, alarms in found if not place[1]), default=-1)
            self._survey_anew((key, ""), following)
            self._memory.ask(_name((key, "")), 0)
            self._phases.pop((key, ""), None)
            return
        if surveyed:
            raise ValueError(f"its first day is not over; {LEAST_DAYS} more are needed")
        if not found:
            raise ValueError("no such model sends at present, or nothing is learnt (see alarms.learn in the settings)")
        for _, alarms in found:
            if order.verb == "freeze":
                alarms.freeze()
            elif order.verb == "reset":
                alarms.reset()
            else:
                alarms.learner.roll(order.days)

    def keep(self, models: Collection[ModelKey]) -> None:
        """Put aside what is known of all others; save from time to time, after an event, and when one was taken."""
        for place in [place for place in [*self._models, *self._surveys] if place[0] not in models]:
            self._saved[_name(place)] = self._dump(place)
            self._models.pop(place, None)
            self._surveys.pop(place, None)
            self._phases.pop(place, None)
        for key in set(self._holds) - set(models):
            del self._holds[key]
        if self._clock() - self._time >= SAVED or self.unsent != self._list_unsent():
            self.save()

    def _dump(self, place: _Place) -> dict[str, Any]:
        survey = self._surveys.get(place)
        if survey is not None:
            return {"survey": survey.dump(), "next": survey.next, "granted": survey.size}
        alarms = self._models[place]
        profile = None if alarms.survey is None else alarms.survey.to_bytes()
        return {"alarms": alarms.dump(), "profile": profile, "next": alarms.next, "granted": alarms.granted}

    def save(self) -> bool:
        """Write the state of all models; whether it could be."""
        held = {**self._saved, **{_name(place): self._dump(place) for place in [*self._models, *self._surveys]}}
        newest = max((plain["next"] for plain in held.values()), default=0)
        for name in [name for name, plain in self._saved.items() if plain["next"] < newest - GONE]:
            del held[name], self._saved[name]
            self._memory.ask(name, 0)
        self._time, self.unsent = self._clock(), self._list_unsent()
        try:
            self._store.save(Saved(held, self.unsent))
        except OSError as error:
            _LOG.error("the alarms' state cannot be saved: %s", error)
            return False
        return True


def _name(place: _Place) -> str:
    return json.dumps([*place[0], place[1]])


def _say(state: AlarmState, before: str | None) -> tuple[int, str]:
    """Level and text of what has become of learning."""
    if state.phase == "refused":
        return logging.WARNING, "%s of %s: what is normal is not learnt, for want of memory; see alarms.memory"
    said = {
        "calibrated": "the profile says what is normal",
        "learning": "what is normal is being learnt",
        "provisional": f"what is normal is known from {state.days} days, and more are learnt",
        "learnt": f"what is normal is known from {state.days} days",
        "rolling": f"what is normal is what the newest days say, {state.days} by now",
    }
    return logging.INFO if before or state.phase != "calibrated" else logging.DEBUG, "%s of %s: " + said[state.phase]
