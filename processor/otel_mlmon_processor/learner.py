"""What is normal for a model whose profile does not say it, learnt from its windows within a memory that is granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.calibration import Calibration
from otel_mlmon.numerics.scales import HOUR, LEAST_DAYS, MOST_DAYS
from otel_mlmon.numerics.windows import RATES, REASONS, condense
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon_processor.core.alarm import Phase
from otel_mlmon_processor.core.budget import RATES as RATES_TEST
from otel_mlmon_processor.core.learning import Learning
from otel_mlmon_processor.core.mixture import Mixture
from otel_mlmon_processor.core.scanner import Hit
from otel_mlmon_processor.learnt import make_profile
from otel_mlmon_processor.pack import flatten, unflatten
from otel_mlmon_processor.windows import Counts, Floats

RESERVED: Final = 1_300  # bytes of memory for a decision cell and day: with 1,000 rows a minute it takes about that


class Reading(NamedTuple):
    """A window: counts (cells, variables), rates (rates, variables), values seen (variables,), their sums."""

    counts: Counts
    rates: Counts
    seen: Counts
    sums: Floats


class Learner:
    """Mutable; not thread-safe.

    Args:
        references: of the profile, or of the survey.
        budget: false alarms in 30 days.
        grant: whether there is memory of so many bytes; what was granted before is given back.
        survey: of a model without a profile, whose reference is learnt, too.
    """

    def __init__(
        self, references: Sequence[Reference], budget: float, grant: Callable[[int], bool], survey: Profile | None
    ) -> None:
        self._references, self._budget, self._grant, self._survey = list(references), budget, grant, survey
        self._cells = [len(r.variable.decision) for r in references]
        self.granted = 0  # bytes
        self._hour = -1  # in which it was seen to that there is memory
        self._days = 0  # learnt when it was calibrated
        self._learning: Learning | None = None
        self._mixture: Mixture | None = None
        self.phase: Phase = "refused"
        self.calibrations: list[Calibration | None] = []  # by reference; another list when there is more to know
        self.reference: Profile | None = None
        self._begin()

    @property
    def days(self) -> int:
        """Learnt."""
        return self._days if self._learning is None else self._learning.days

    def hold(self, held: NDArray[np.bool_]) -> None:
        """Variables whose alarm is on, (F,)."""
        if self._mixture is not None:
            self._mixture.held = held

    def advance(self, number: int, reading: Reading) -> list[Hit]:
        """One window, in order.

        Returns:
            What no null could explain.
        """
        self._limit(number)
        if self._mixture is None:
            return []
        hits = self._mixture.advance(number, reading.counts, reading.rates, reading.seen)
        if self._learning is not None:
            for hit in hits:
                if hit.test == RATES_TEST and hit.evidence >= 1:
                    self._learning.tell(hit.window, [hit.variable])
            over = self._learning.advance(number, reading.counts, reading.rates, reading.sums)
            self._follow(number, self._learning, over=over)
        return hits

    def _follow(self, number: int, learning: Learning, *, over: bool) -> None:
        """Calibrate at the end of a day; end when there is enough."""
        phase = learning.phase
        if over and phase != "learning":
            self._calibrate(learning, number)
        if phase == "learnt":
            self._end(phase)
        elif phase != "learning" or not self.calibrations:
            self.phase = phase

    def _calibrate(self, learning: Learning, number: int) -> None:
        self._days, self.calibrations = learning.days, learning.calibrate()
        if self._survey is not None:
            self.reference = make_profile(self._survey, learning.total(), self.calibrations, number * 60.0)

    def freeze(self, number: int) -> None:
        """Keep what is learnt until the window `number` as it is.

        Raises:
            ValueError: it is not yet enough.
        """
        if self._learning is None:
            if self.phase == "refused":
                raise ValueError("nothing is learnt, for want of memory; see alarms.memory in the processor's settings")
            return
        if self._learning.days >= LEAST_DAYS:
            self._calibrate(self._learning, number)
        elif not self.calibrations:
            raise ValueError(f"{self._learning.days} days are learnt by now, and {LEAST_DAYS} are needed")
        self._end("learnt")

    def reset(self) -> None:
        """Forget what is learnt, and learn anew."""
        self.calibrations, self.reference, self._days = [], None, 0
        self._begin()

    def roll(self, days: int) -> None:
        """Learn from the newest days, again each day, from now on.

        Raises:
            ValueError: there is no memory for so many.
        """
        if not self._ask(self._reserve(days)):
            raise ValueError(f"there is no memory for {days} days; see alarms.memory in the processor's settings")
        if self._learning is None:
            self._learning = Learning(self._cells, len(RATES))
            self._mixture = self._mixture or self._make_mixture()
        self._learning.most, self._learning.rolling = days, True
        self.phase = "rolling" if self.calibrations else self._learning.phase

    def _begin(self) -> None:
        """Learn from now on, if there is memory."""
        self.phase, self._learning, self._mixture = "refused", None, None
        if self._ask(self._reserve(MOST_DAYS)):
            self._learning, self._mixture = Learning(self._cells, len(RATES)), self._make_mixture()
            self.phase = self._learning.phase

    def _end(self, phase: Phase) -> None:
        """Learn no more."""
        self._learning, self.phase = None, phase
        self._ask(0)

    def _reserve(self, days: int) -> int:
        return RESERVED * days * sum(self._cells)

    def _ask(self, size: int) -> bool:
        granted = self._grant(size)
        self.granted = size if granted else self.granted
        return granted

    def _limit(self, number: int) -> None:
        """Once an hour: is there memory still, or now?"""
        if number // HOUR == self._hour:
            return
        self._hour = number // HOUR
        if self.phase == "refused":
            self._begin()
        elif self._learning is not None and self._learning.size > self.granted and not self._ask(self._learning.size):
            self._end("learnt" if self.calibrations else "refused")

    def _make_mixture(self) -> Mixture:
        width, size = max(self._cells, default=1), len(self._cells)
        counts, totals = np.zeros((width + len(RATES), size), np.int64), np.zeros((2, size), np.int64)
        for place, r in enumerate(self._references):
            held = r.histogram
            invalid = np.array([getattr(held.invalid, reason) for reason in REASONS])
            coarse, rates, seen = condense(held.counts, invalid, r.variable.axis, np.array(r.variable.decision))
            counts[: coarse.size, place], counts[width:, place] = coarse, rates
            totals[:, place] = held.valid, seen
        return Mixture(np.array(self._cells), counts, totals, self._budget, growing=self._survey is not None)

    def describe(self) -> dict[str, Any]:
        """What people are shown, as plain values."""
        learning = self._learning
        return {
            "phase": self.phase,
            "days": self.days,
            "rolling": learning.most if learning is not None and learning.rolling else 0,
            "span": list(learning.span) if learning is not None else [-1, -1],
            "size": learning.size if learning is not None else 0,
            "surveyed": self._survey is not None,
            "refused": learning.refused if learning is not None else np.zeros(len(self._cells), dtype=np.int64),
            "unknown": [place for place, calibration in enumerate(self.calibrations) if calibration is None],
        }

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        learning = self._learning
        return {
            "phase": self.phase,
            "numbers": [self.granted, self._hour, self._days],
            "learning": None if learning is None else flatten(learning.dump()),
            "mixture": None if self._mixture is None else flatten(self._mixture.dump()),
            "calibrations": [c and c.to_plain() for c in self.calibrations],
            "reference": None if self.reference is None else self.reference.to_bytes(),
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave, of the same references."""
        self.phase, (self.granted, self._hour, self._days) = plain["phase"], plain["numbers"]
        self._grant(self.granted)
        self._learning = self._mixture = None
        if plain["learning"] is not None:
            self._learning = Learning(self._cells, len(RATES))
            self._learning.load(unflatten(plain["learning"]))
        if plain["mixture"] is not None:
            self._mixture = self._make_mixture()
            self._mixture.load(unflatten(plain["mixture"]))
        self.calibrations = [c and Calibration.from_plain(c) for c in plain["calibrations"]]
        if plain["reference"] is not None:
            self.reference = Profile.from_bytes(plain["reference"])
