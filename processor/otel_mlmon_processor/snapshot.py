"""What an evaluation found, frozen: what the exporters show. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_mlmon.numerics.rates import Rate
from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.core.alarm import AlarmState
from otel_mlmon_processor.core.verdict import Finding, ReplicaEffect
from otel_mlmon_processor.windows import ModelView, VariableKey


@dataclass(frozen=True, slots=True, eq=False)
class VariableState:
    """One variable of a model over the sliding window.

    Args:
        measures: by drift measure; empty where there is no reference or nothing to compare.
        sufficient: whether there are enough values to decide; None where there is no reference.
        alarm: whether it is part of an alarm; None where nothing is decided.
        quality: by quality measure.
        distribution: upper bound and cumulative share of the coarse cells; empty for categories.
        replicas: while there is an alarm, those that differ most from the others.
    """

    measures: Mapping[str, float]
    sufficient: bool | None
    alarm: bool | None
    quality: Mapping[str, Rate]
    distribution: tuple[tuple[float, float], ...]
    replicas: tuple[ReplicaEffect, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ModelState:
    """One model: its counts, what was measured, what was found.

    `alarms` is None where windows are not one minute long, or the profile does not say what is normal from minute to
    minute: then a variable alarms where it differs over the sliding window.
    """

    view: ModelView
    profile: Profile | None
    variables: Mapping[VariableKey, VariableState]
    findings: tuple[Finding, ...]
    tolerance: float
    sentence: str
    alarms: AlarmState | None = None

    @property
    def rows(self) -> int:
        """Rows in the sliding window, as seen by its fullest variable."""
        return max((counts.seen for counts in self.view.window.values()), default=0)

    @property
    def budgeted(self) -> AlarmState | None:
        """What is decided under the budget; None where the sliding window decides."""
        return None if self.alarms is None or self.alarms.refused else self.alarms

    @property
    def told(self) -> tuple[Finding, ...]:
        """What people are told of the sliding window.

        All where it decides, or where it is not yet known what is normal; else what is part of an alarm.
        """
        alarms = self.budgeted
        if alarms is None or alarms.phase == "learning":
            return self.findings
        return tuple(f for f in self.findings if (f.role, f.name) in alarms.active)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All models at one moment."""

    models: tuple[ModelState, ...] = ()
    seconds: float = 0.0  # that the evaluation took
    conflicts: int = 0  # between profiles of the folder
    end: float = 0.0  # of the evaluation, seconds since 1970
