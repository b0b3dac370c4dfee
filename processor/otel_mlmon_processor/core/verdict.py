"""What has changed, in which order to look at it, and in which words. Pure.

A variable has drifted where the 95 % lower bound of the effect D exceeds the tolerance, and a quality rate is broken
where its own bound does. What can only be a fault (values missing or invalid, one replica that differs from the others)
is named before what may be the world changing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from otel_mlmon.numerics.rates import Rate
from otel_mlmon.wording import say_rate

Kind = Literal["missing", "invalid", "replica", "unseen", "out_of_range", "drift"]
FAULTS: Final = ("missing", "invalid", "replica")
REPLICAS: Final = 3


def label_of(role: str, name: str) -> str:
    """How a variable is called: a feature by its name, an output as such."""
    return name if role == "feature" else f"prediction {role}"


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
        """How the variable is called."""
        return label_of(self.role, self.name)

    def __str__(self) -> str:
        return f"{self.label}: {self.text}"


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


def say_model(findings: Sequence[Finding], decided: bool) -> str:
    """One sentence on a model."""
    if not decided:
        return "not enough data to say"
    if not findings:
        return "nothing has changed"
    first = "; ".join(map(str, findings[:2]))
    more = len({(f.role, f.name) for f in findings} - {(f.role, f.name) for f in findings[:2]})
    return f"{first}; and {more} more" if more > 0 else first
