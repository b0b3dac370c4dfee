"""One thing that differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("fault", "drift", "note")
RATES: Final = ("missing", "invalid")  # faults that can be large or small, as drift can
NAMED: Final = 3  # columns of which one thing is said


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that differs.

    Args:
        level: "fault": can only be a mistake; "drift": may be the world; "note": does not count.
        kind: what about it, see the schema of the JSON document.
        role: of the variable, or "target"; "data" where it is about all rows.
        name: of the variable or column; "" where it is about all rows.
        text: in words, without the name.
        size: lower bound of an effect D or a number beyond, for ranking.
    """

    level: str
    kind: str
    role: str
    name: str
    text: str
    size: float

    @property
    def label(self) -> str:
        """How the variable is called."""
        if self.role in ("value", "class", "score"):
            return f"prediction {self.role}"
        return (self.name or "''") if self.role != "data" else "rows"

    def __str__(self) -> str:
        return f"{self.label}: {self.text}"


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Faults, then drift and rates, then notes; the largest first, and what is about a segment alone last."""

    def place(finding: Finding) -> tuple[int, bool, float, str, str, str]:
        level = LEVELS.index("drift" if finding.kind in RATES and finding.level == "fault" else finding.level)
        return level, finding.kind == "segment", -finding.size, finding.role, finding.name, finding.kind

    return tuple(sorted(findings, key=place))


def gather(findings: Iterable[Finding]) -> list[tuple[str, Finding]]:
    """What is said of several variables in the same words once, with all their names: columns that lose the same rows,
    or that are gone. In the order of the first of each.
    """
    same: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        same.setdefault((finding.level, finding.text), []).append(finding)
    return [(_list_labels([one.label for one in some]), some[0]) for some in same.values()]


def _list_labels(labels: list[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    if len(labels) > NAMED + 1:
        return f"{', '.join(labels[:NAMED])} and {len(labels) - NAMED} more"
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
