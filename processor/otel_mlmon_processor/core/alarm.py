"""What is known of a model's alarms, frozen. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from otel_mlmon.numerics.scales import DAY, HOUR
from otel_mlmon.wording import say_time
from otel_mlmon_processor.core.verdict import label_of
from otel_mlmon_processor.windows import VariableKey

_SHOWN: Final = 3
_SAID: Final = {"raise": "alarm", "grow": "the alarm grows", "clear": "the alarm is over"}
# How it is known what is normal: by the profile; not yet; by some days, and more of them soon; for good; by the newest
# days; not at all, as there is no memory for it.
Phase = Literal["calibrated", "learning", "provisional", "learnt", "rolling", "refused"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A variable of an alarm.

    Args:
        variable: which.
        text: what has changed, in words.
        share: of the alarm.
        evidence: over what the budget allows.
        lower: lower bound of the effect D.
        minutes: that its strongest sign rests on.
        since: beginning of what its first sign rests on, seconds since 1970.
    """

    variable: VariableKey
    text: str
    share: float
    evidence: float
    lower: float
    minutes: int
    since: float

    def __str__(self) -> str:
        return f"{label_of(*self.variable)}: {self.text}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """An episode.

    Args:
        raised: when, seconds since 1970.
        since: beginning of what it rests on.
        text: what has changed, in words.
        suspects: the largest share first.
        cleared: when it ended; None while it lasts.
    """

    raised: float
    since: float
    text: str
    suspects: tuple[Suspect, ...]
    cleared: float | None = None

    @property
    def evidence(self) -> float:
        """Over what the budget allows."""
        return max(suspect.evidence for suspect in self.suspects)

    def say(self) -> str:
        """What has changed, "since 2025-01-01 09:30 UTC", and how sure that is: "evidence 3.2 in 5 min"."""
        alone = len(self.suspects) == 1
        sure = (
            f"{'' if alone else label_of(*s.variable) + ' '}{s.evidence:.2g} in {say_minutes(s.minutes)}"
            for s in self.suspects[:_SHOWN]
        )
        return f"{self.text}; since {say_time(self.since)} UTC; evidence {', '.join(sure)}"


def say_minutes(minutes: int) -> str:
    """A length of time in the largest unit that holds it whole."""
    for unit, size in (("d", DAY), ("h", HOUR)):
        if minutes % size == 0:
            return f"{minutes // size} {unit}"
    return f"{minutes} min"


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """An alarm began ("raise"), grew by a variable ("grow") or ended ("clear"), at a time in seconds since 1970."""

    kind: str
    time: float
    alarm: Alarm

    def say(self) -> str:
        """In one line."""
        return f"{_SAID[self.kind]}: {self.alarm.say()}"


@dataclass(frozen=True, slots=True, eq=False)
class AlarmState:
    """What is known of a model's alarms.

    Args:
        phase: how it is known what is normal.
        days: of production that it was learnt from.
        alarm: the one that is on.
        active: the variables of it that have not calmed down.
        variables: those that are looked at.
        raised: alarms in the last 30 days.
        budget: false alarms allowed in 30 days.
        words: what has changed, of each variable of the alarm, as its newest event said it; in its order.
    """

    phase: Phase
    days: int
    alarm: Alarm | None
    active: frozenset[VariableKey]
    variables: frozenset[VariableKey]
    raised: int
    budget: float
    words: Mapping[VariableKey, str] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether there is no memory to learn what is normal; then nothing is decided under the budget."""
        return self.phase == "refused"
