"""Alarms of one model under its budget: windows in, events and a frozen state out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.numerics.calibration import Calibration
from otel_mlmon.numerics.scales import DAY, HOUR
from otel_mlmon.numerics.windows import RATES, REASONS, condense
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon_processor.core.alarm import Alarm, AlarmEvent, AlarmState, Suspect
from otel_mlmon_processor.core.budget import split_budget
from otel_mlmon_processor.core.episodes import QUIET, Episode, Episodes, Event
from otel_mlmon_processor.core.nulls import prepare_nulls
from otel_mlmon_processor.core.scanner import Hit, Scanner
from otel_mlmon_processor.core.slow import SlowDetector
from otel_mlmon_processor.core.words import name_cells, say_episode, say_hit
from otel_mlmon_processor.evaluate import cells_over, key_of
from otel_mlmon_processor.hold import MINUTE
from otel_mlmon_processor.learner import Learner, Reading
from otel_mlmon_processor.learnt import middles
from otel_mlmon_processor.pack import flatten, unflatten
from otel_mlmon_processor.windows import VariableCounts, VariableKey, Window

PERIOD: Final = 30 * DAY  # windows over which raised alarms are counted


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Of one model.

    Args:
        budget: false alarms in 30 days, all variables, tests and scales together.
        tolerance: smallest effect D worth hearing of.
        least_rows: values of a variable that a look must hold, beyond five for each cell.
        muted: until when, in seconds since 1970, a feature is not listened to.
    """

    budget: float = 1.0
    tolerance: float = 0.005
    least_rows: int = 0
    muted: Mapping[str, float] = field(default_factory=dict)


class ModelAlarms:
    """Mutable state of the alarms of one model and profile; not thread-safe.

    What is normal comes from the profile's calibration; where it has none it is learnt from the windows.

    Args:
        profile: the reference, or what the survey of a model without one found.
        settings: of the model.
        grant: whether there is memory of so many bytes for what is learnt; what was granted before is given back.
        surveyed: whether the reference is learnt, too.
    """

    def __init__(
        self,
        profile: Profile,
        settings: AlarmSettings,
        *,
        grant: Callable[[int], bool] = lambda _: True,
        surveyed: bool = False,
    ) -> None:
        self._settings, self.survey = settings, profile if surveyed else None
        calibrated = [r for r in profile.references if r.calibration is not None]
        self._references: list[Reference] = calibrated or [r for r in profile.references if r.histogram.valid]
        self._keys = [key_of(reference) for reference in self._references]
        self._namings = [name_cells(reference) for reference in self._references]
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._starts: list[NDArray[np.intp]] = [np.array(r.variable.decision) for r in self._references]
        self._width = max(map(len, self._starts), default=1)
        self._scanner: Scanner | None = None
        muted = {
            self._places[key]: int(until // MINUTE)
            for name, until in settings.muted.items()
            if (key := VariableKey("feature", name)) in self._places
        }
        self._episodes = Episodes(muted)
        self._raised: list[int] = []
        self._words: dict[int, str] = {}  # of the variables of the alarm, as its newest event said them
        self._known: list[Calibration | None] = []  # those that the scanner goes by
        self._used: NDArray[np.intp] = np.zeros(0, np.intp)  # places of the variables that it looks at
        self._learner: Learner | None = None
        self.next = -1  # window that is wanted next; -1: any
        if calibrated:
            self._scan([r.calibration for r in calibrated])
        elif self._references:
            self._learner = Learner(self._references, settings.budget, grant, self.survey)
            self._scan([])

    @property
    def reference(self) -> Profile | None:
        """What was learnt of a model without a profile."""
        return self._learner.reference if self._learner is not None else None

    @property
    def granted(self) -> int:
        """Bytes of memory."""
        return self._learner.granted if self._learner is not None else 0

    @property
    def learner(self) -> Learner:
        """What learns what is normal.

        Raises:
            ValueError: the profile says it.
        """
        if self._learner is None:
            raise ValueError("its profile says what is normal, so nothing is learnt from production")
        return self._learner

    def freeze(self) -> None:
        """Keep what is learnt as it is.

        Raises:
            ValueError: nothing is learnt here, or not yet enough.
        """
        self.learner.freeze(self.next)

    def reset(self) -> None:
        """Forget what is learnt, and learn anew.

        Raises:
            ValueError: nothing is learnt here.
        """
        self.learner.reset()
        self._episodes.end()

    def _scan(self, calibrations: list[Calibration | None]) -> None:
        """Look for alarms from now on, by these calibrations."""
        before, self._known, self._scanner = self._scanner, calibrations, None
        used = np.array([place for place, c in enumerate(calibrations) if c is not None], dtype=np.intp)
        known = [c for c in calibrations if c is not None]
        if known:
            budget = split_budget(self._settings.budget, [self._references[place].importance for place in used])
            nulls = prepare_nulls(known, budget)
            settings, slow = self._settings, SlowDetector(nulls, budget)
            self._scanner = Scanner(nulls, tolerance=settings.tolerance, slow=slow, least_rows=settings.least_rows)
            if before is not None and np.array_equal(used, self._used):
                self._scanner.load(before.dump())
        self._used = used
        self._episodes.quiet = QUIET if known else 2 * HOUR
        if self.reference is not None:
            self._namings = [name_cells(r) for r in self.reference.references]

    def advance(self, windows: Iterable[Window]) -> list[AlarmEvent]:
        """Look at windows in order; those before `next` are left out."""
        events: list[Event] = []
        for window in windows:
            if window.number < self.next:
                continue
            self.next = window.number + 1
            read = self._read(window.variables)
            hits, looked = self._look(window.number, read), np.flatnonzero(read.seen).tolist()
            events += self._episodes.advance(window.number, hits, looked)
            self._hold()
        if events:
            suspects = () if events[-1].kind == "clear" else events[-1].episode.suspects
            self._words = {s.variable: say_hit(s.hit, self._namings[s.variable]) for s in suspects}
        self._raised += [event.window for event in events if event.kind == "raise"]
        self._raised = [window for window in self._raised if window > self.next - PERIOD]
        return [AlarmEvent(event.kind, (event.window + 1) * MINUTE, self._tell(event.episode)) for event in events]

    def _look(self, number: int, reading: Reading) -> list[Hit]:
        hits: list[Hit] = []
        if self._learner is not None:
            found = self._learner.advance(number, reading)
            if self._learner.calibrations is not self._known:
                self._scan(self._learner.calibrations)
            hits += [hit for hit in found if hit.variable not in self._used]
        if self._scanner is not None:
            width, used = self._scanner.width, self._used
            counts, rates = reading.counts[:width, used, np.newaxis], reading.rates[:, used, np.newaxis]
            found = self._scanner.advance(number, counts, rates, reading.seen[used, np.newaxis])
            hits += [hit._replace(variable=int(used[hit.variable])) for hit in found]
        return hits

    def _read(self, variables: Mapping[VariableKey, VariableCounts]) -> Reading:
        size = len(self._references)
        counts, rates = np.zeros((self._width, size), np.int64), np.zeros((len(RATES), size), np.int64)
        seen, sums = np.zeros(size, np.int64), np.zeros(size)
        for key, held in variables.items():
            place = self._places.get(key)
            if place is None:
                continue
            reference, axis = self._references[place], self._references[place].variable.axis
            cells = cells_over(axis, reference.histogram.counts, held)
            if cells is None:
                cells = np.zeros(axis.cells, np.int64)
                if held.cells is not None and held.cells.any():
                    continue  # counted over others
            invalid = np.array([held.invalid.get(reason, 0) for reason in REASONS])
            coarse, rates[:, place], seen[place] = condense(cells, invalid, axis, self._starts[place])
            counts[: coarse.size, place] = coarse
            if self.survey is not None and isinstance(axis, NumericAxis):
                sums[place] = float(cells @ middles(axis.edges)) if held.sum is None else held.sum
        return Reading(counts, rates, seen, sums)

    def _hold(self) -> None:
        held = list(self._episodes.held)
        if self._scanner is not None:
            self._scanner.held[:] = np.isin(self._used, held)
        if self._learner is not None:
            self._learner.hold(np.isin(np.arange(len(self._keys)), held))

    def _tell(self, episode: Episode) -> Alarm:
        suspects = tuple(
            Suspect(
                self._keys[s.variable],
                say_hit(s.hit, self._namings[s.variable]),
                share,
                s.hit.evidence,
                s.hit.lower,
                s.hit.scale,
                s.since * MINUTE,
            )
            for s, share in zip(episode.suspects, episode.shares, strict=True)
        )
        ended = None if episode.cleared is None else (episode.cleared + 1) * MINUTE
        said = say_episode(episode, self._namings)
        return Alarm((episode.raised + 1) * MINUTE, episode.since * MINUTE, said, suspects, ended)

    def state(self) -> AlarmState:
        """As it is now."""
        current = self._episodes.current
        return AlarmState(
            phase="calibrated" if self._learner is None else self._learner.phase,
            days=0 if self._learner is None else self._learner.days,
            alarm=None if current is None else self._tell(current),
            active=frozenset(self._keys[place] for place in self._episodes.held),
            variables=frozenset(self._keys),
            raised=len(self._raised),
            budget=self._settings.budget,
            words={self._keys[place]: text for place, text in self._words.items()},
        )

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        learner = self._learner
        return {
            "next": self.next,
            "raised": self._raised,
            "words": list(self._words.items()),
            "episodes": self._episodes.dump(),
            "scanner": None if self._scanner is None else flatten(self._scanner.dump()),
            "learner": None if learner is None else learner.dump(),
            "variables": [naming.label for naming in self._namings],
            "shown": None if learner is None else learner.describe(),
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave, of the same profile and settings."""
        self.next, self._raised = plain["next"], list(plain["raised"])
        self._words = dict(plain["words"])
        self._episodes.load(plain["episodes"])
        if plain["learner"] is not None and self._learner is not None:
            self._learner.load(plain["learner"])
            self._scan(self._learner.calibrations)
        if self._scanner is not None and plain["scanner"] is not None:
            self._scanner.load(unflatten(plain["scanner"]))
        self._hold()
