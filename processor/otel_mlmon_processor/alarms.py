"""Alarms of one model under its budget: windows in, events and a frozen state out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import OTHER, NumericAxis
from otel_mlmon.numerics.calibration import Calibration
from otel_mlmon.numerics.scales import DAY, HOUR
from otel_mlmon.numerics.windows import RATES, REASONS, condense
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon.profile.shape import cell_means
from otel_mlmon_processor.core.alarm import Alarm, AlarmEvent, AlarmState, Phase, Suspect
from otel_mlmon_processor.core.budget import split_budget
from otel_mlmon_processor.core.episodes import QUIET, Episode, Episodes, Event
from otel_mlmon_processor.core.learning import Learning
from otel_mlmon_processor.core.nulls import prepare_nulls
from otel_mlmon_processor.core.scanner import Hit, Scanner
from otel_mlmon_processor.core.slow import SlowDetector
from otel_mlmon_processor.core.verdict import label_of
from otel_mlmon_processor.core.words import Naming, say_episode, say_hit
from otel_mlmon_processor.evaluate import cells_over, key_of
from otel_mlmon_processor.windows import Counts, VariableCounts, VariableKey, Window

ALONE: Final = 0.95  # of a cell; then it is called by this one of its categories
MINUTE: Final = 60.0  # seconds; the only length of a window for which it is known what is normal
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
    """

    def __init__(self, profile: Profile, settings: AlarmSettings) -> None:
        self._settings = settings
        calibrated = [r for r in profile.references if r.calibration is not None]
        self._references: list[Reference] = calibrated or [r for r in profile.references if r.histogram.valid]
        self._keys = [key_of(reference) for reference in self._references]
        self._namings = [name_cells(reference) for reference in self._references]
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._starts: list[NDArray[np.intp]] = [np.array(r.variable.decision) for r in self._references]
        self._width = max(map(len, self._starts), default=1)
        self._scanner: Scanner | None = None
        self._learning: Learning | None = None
        self._phase: Phase = "calibrated"
        muted = {
            self._places[key]: int(until // MINUTE)
            for name, until in settings.muted.items()
            if (key := VariableKey("feature", name)) in self._places
        }
        self._episodes = Episodes(muted)
        self._raised: list[int] = []
        self._learnt: list[Calibration | None] = []
        self._used: NDArray[np.intp] = np.zeros(0, np.intp)  # places of the variables that the scanner looks at
        self._days = 0  # learnt when the scanner was made
        self.next = -1  # window that is wanted next; -1: any
        if calibrated:
            self._scan([r.calibration for r in calibrated])
        elif self._references:
            self._learning = self._make_learning()
            self._phase = self._learning.phase
            self._episodes.quiet = 2 * HOUR  # which is judged by the hour

    def _scan(self, calibrations: Sequence[Calibration | None]) -> None:
        """Look for alarms from now on, by these calibrations."""
        before, self._learnt = self._scanner, list(calibrations)
        used = np.array([place for place, c in enumerate(calibrations) if c is not None], dtype=np.intp)
        known = [c for c in calibrations if c is not None]
        if not known:
            return
        budget = split_budget(self._settings.budget, [self._references[place].importance for place in used])
        nulls = prepare_nulls(known, budget)
        settings = self._settings
        slow = SlowDetector(nulls, budget)
        self._scanner = Scanner(nulls, tolerance=settings.tolerance, slow=slow, least_rows=settings.least_rows)
        if before is not None and np.array_equal(used, self._used):
            self._scanner.load(before.dump())
        self._used = used
        self._episodes.quiet = QUIET

    def _make_learning(self) -> Learning:
        size = len(self._references)
        reference, allowed = np.zeros((self._width, size)), np.zeros((len(RATES), size))
        for place, r in enumerate(self._references):
            held = r.histogram
            invalid = np.array([getattr(held.invalid, reason) for reason in REASONS])
            coarse, rates, seen = condense(held.counts, invalid, r.variable.axis, self._starts[place])
            reference[: coarse.size, place] = coarse / max(coarse.sum(), 1)
            allowed[:, place] = rates / max(int(seen), 1)
        return Learning(list(map(len, self._starts)), len(RATES), reference, allowed)

    def advance(self, windows: Iterable[Window]) -> list[AlarmEvent]:
        """Look at windows in order; those before `next` are left out."""
        events: list[Event] = []
        for window in windows:
            if window.number < self.next:
                continue
            self.next = window.number + 1
            counts, rates, seen = self._read(window.variables)
            events += self._episodes.advance(
                window.number, self._look(window.number, counts, rates, seen), np.flatnonzero(seen).tolist()
            )
            self._hold()
        self._raised += [event.window for event in events if event.kind == "raise"]
        self._raised = [window for window in self._raised if window > self.next - PERIOD]
        return [AlarmEvent(event.kind, (event.window + 1) * MINUTE, self._tell(event.episode)) for event in events]

    def _look(self, number: int, counts: Counts, rates: Counts, seen: Counts) -> list[Hit]:
        hits: list[Hit] = []
        if self._learning is not None:
            hits += self._learning.advance(number, counts, rates, seen)
            self._phase = self._learning.phase
            if self._phase != "learning" and self._learning.days > self._days:
                self._days = self._learning.days
                self._scan(self._learning.calibrate())
            if self._phase == "learnt":
                self._learning = None
        if self._scanner is not None:
            width, used = self._scanner.width, self._used
            each = counts[:width, used, np.newaxis], rates[:, used, np.newaxis], seen[used, np.newaxis]
            found = self._scanner.advance(number, *each)
            hits += [hit._replace(variable=int(used[hit.variable])) for hit in found]
        return hits

    def _read(self, variables: Mapping[VariableKey, VariableCounts]) -> tuple[Counts, Counts, Counts]:
        """Counts (cells, variables), rates (rates, variables) and values seen (variables,) of one window."""
        size = len(self._references)
        counts, rates = np.zeros((self._width, size), np.int64), np.zeros((len(RATES), size), np.int64)
        seen = np.zeros(size, np.int64)
        for key, held in variables.items():
            place = self._places.get(key)
            if place is None:
                continue
            reference, axis = self._references[place], self._references[place].variable.axis
            cells = cells_over(axis, reference.histogram.counts, held)
            if cells is None:
                cells = np.zeros(axis.cells, np.int64)
            invalid = np.array([held.invalid.get(reason, 0) for reason in REASONS])
            coarse, rates[:, place], seen[place] = condense(cells, invalid, axis, self._starts[place])
            counts[: coarse.size, place] = coarse
        return counts, rates, seen

    def _hold(self) -> None:
        if self._scanner is not None:
            self._scanner.held[:] = np.isin(self._used, list(self._episodes.held))

    def _tell(self, episode: Episode) -> Alarm:
        suspects = tuple(
            Suspect(
                self._keys[s.variable],
                say_hit(s.hit, self._namings[s.variable]),
                share,
                s.hit.evidence,
                s.hit.lower,
                s.hit.scale,
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
            phase=self._phase,
            days=self._days if self._learning is None else self._learning.days,
            alarm=None if current is None else self._tell(current),
            active=frozenset(self._keys[place] for place in self._episodes.held),
            variables=frozenset(self._keys),
            raised=len(self._raised),
            budget=self._settings.budget,
        )

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "next": self.next,
            "phase": self._phase,
            "days": self._days,
            "raised": self._raised,
            "episodes": self._episodes.dump(),
            "learning": None if self._learning is None else flatten(self._learning.dump()),
            "learnt": [] if self._phase == "calibrated" else [c and c.to_plain() for c in self._learnt],
            "scanner": None if self._scanner is None else flatten(self._scanner.dump()),
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave, of the same profile and settings."""
        self.next, self._phase, self._days, self._raised = (plain[k] for k in ("next", "phase", "days", "raised"))
        self._episodes.load(plain["episodes"])
        if plain["learning"] is None:
            self._learning = None
        elif self._learning is not None:
            self._learning.load(unflatten(plain["learning"]))
        if plain["learnt"]:
            self._scan([c and Calibration.from_plain(c) for c in plain["learnt"]])
        if self._scanner is not None and plain["scanner"] is not None:
            self._scanner.load(unflatten(plain["scanner"]))
        self._hold()


def name_cells(reference: Reference) -> Naming:
    """How a variable and its coarse cells are called, or where they lie."""
    variable, held = reference.variable, reference.histogram
    starts: NDArray[np.intp] = np.array(variable.decision)
    label = label_of(variable.role, variable.name)
    if isinstance(variable.axis, NumericAxis):
        return Naming(label, cell_means(reference, starts) / (reference.std or 1.0))
    names = []
    for start, end in pairwise([*variable.decision, variable.axis.cells]):
        counts = held.counts[start:end]
        most = int(counts.argmax())
        names.append(variable.axis.labels[start + most] if counts[most] >= ALONE * counts.sum() else OTHER)
    return Naming(label, cells=tuple(names))


def flatten(tree: Any) -> Any:
    """A tree in which arrays of any shape are one-dimensional, with their shapes beside them."""
    if isinstance(tree, np.ndarray):
        return {"shape": list(tree.shape), "flat": tree.ravel()}
    if isinstance(tree, dict):
        return {key: flatten(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [flatten(value) for value in tree]
    return tree


def unflatten(tree: Any) -> Any:
    """What `flatten` was given; tuples have become lists."""
    if isinstance(tree, dict):
        if tree.keys() == {"shape", "flat"}:
            return tree["flat"].reshape(tree["shape"])
        return {key: unflatten(value) for key, value in tree.items()}
    return [unflatten(value) for value in tree] if isinstance(tree, list) else tree
