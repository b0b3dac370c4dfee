"""What has changed, in which order to look at it, and in which words. Pure.

A variable has drifted where the 95 % lower bound of the effect D exceeds the tolerance, and a quality rate is broken
where its own bound does. What can only be a fault (values missing or invalid, one replica that differs from the others)
is named before what may be the world changing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from otel_mlmon.semconv import QualityMeasure
from otel_mlmon_processor.core.quality import Rate

Kind = Literal["missing", "invalid", "replica", "unseen", "out_of_range", "drift"]
FAULTS: Final = ("missing", "invalid", "replica")
REPLICAS: Final = 3
_SAID: Final = {
    QualityMeasure.MISSING: "missing",
    QualityMeasure.INVALID: "invalid",
    QualityMeasure.UNSEEN: "never seen before",
    QualityMeasure.OUT_OF_RANGE: "out of the reference's range",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that has changed.

    Args:
        role, name: of the variable.
        kind: what about it.
        size: lower bound of the effect D.
        text: in words, without the name.
    """

    role: str
    name: str
    kind: Kind
    size: float
    text: str

    @property
    def label(self) -> str:
        """How the variable is called: a feature by its name, an output as such."""
        return self.name if self.role == "feature" else f"prediction {self.role}"

    def __str__(self) -> str:
        return f"{self.label}: {self.text}"


@dataclass(frozen=True, slots=True)
class Shift:
    """A share of categories that moved most, or the mean of a number.

    Args:
        mean: difference of the means in standard deviations of the reference; None for categories or where unknown.
        category: the category whose share moved most; None for numbers.
        before, after: its shares.
    """

    mean: float | None = None
    category: str | None = None
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaEffect:
    """How much one replica differs from the others together: lower bound of D, and in words (may be empty)."""

    replica: str
    lower: float
    text: str


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Faults first, then by size; one variable is named once in each of the two tiers, by its largest."""
    chosen: dict[tuple[bool, str, str], Finding] = {}
    for finding in sorted(findings, key=lambda f: (f.kind not in FAULTS, -f.size, f.role, f.name, f.kind)):
        chosen.setdefault((finding.kind in FAULTS, finding.role, finding.name), finding)
    return tuple(chosen.values())


def find_quality(role: str, name: str, rates: dict[str, Rate], tolerance: float) -> list[Finding]:
    """Rates that have broken."""
    return [
        Finding(role, name, measure, rate.effect, say_rate(measure, rate.reference or 0.0, rate.rate))  # type: ignore[arg-type]  # QualityMeasure's values are kinds
        for measure, rate in rates.items()
        if rate.effect > tolerance
    ]


def find_replicas(role: str, name: str, replicas: Sequence[ReplicaEffect], tolerance: float) -> list[Finding]:
    """The replica that differs most, where it does."""
    apart = [effect for effect in replicas if effect.lower > tolerance]
    if not apart:
        return []
    worst = apart[0]
    said = f"{worst.replica} differs from the other replicas" + (f", {worst.text}" if worst.text else "")
    return [Finding(role, name, "replica", worst.lower, said)]


def say_rate(measure: str, before: float, after: float) -> str:
    """Missing 0.2 % -> 4.1 %, in words."""
    return f"{_SAID[measure]} {say_share(before)} -> {say_share(after)}"


def say_shift(shift: Shift) -> str:
    """The direction of a change, in words."""
    if shift.category is not None:
        return f"'{shift.category}' {say_share(shift.before)} -> {say_share(shift.after)}"
    if shift.mean is None:
        return "distribution changed"
    if abs(shift.mean) < 0.05:
        return "shape changed, mean about the same"
    return f"mean {'up' if shift.mean > 0 else 'down'} {abs(shift.mean):.2g} sd"


def say_share(share: float) -> str:
    """A share as a percentage of two significant digits or so."""
    percent = 100 * share
    return (
        f"{percent:.0f} %"
        if percent >= 10 or percent == 0
        else f"{percent:.1f} %"
        if percent >= 0.1
        else f"{percent:.2g} %"
    )


def say_model(findings: Sequence[Finding], decided: bool) -> str:
    """One sentence on a model."""
    if not decided:
        return "not enough data to say"
    if not findings:
        return "nothing has changed"
    first = "; ".join(map(str, findings[:2]))
    more = len({(f.role, f.name) for f in findings} - {(f.role, f.name) for f in findings[:2]})
    return f"{first}; and {more} more" if more > 0 else first
