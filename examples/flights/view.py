"""The live view of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_mlmon_processor.core.verdict import FAULTS, say_model
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from otel_mlmon.semconv import DriftMeasure, QualityMeasure
from otel_mlmon.wording import say_share

if TYPE_CHECKING:
    from demo import Run

SHOWN = 12


def render(run: Run, number: int) -> RenderableType:
    """Where the replay is, the features that moved most, and a timeline of the verdicts."""
    part, seen, found = run.parts[number - 1], run.seen, run.findings[-1]
    assert seen is not None
    head = Text.assemble(
        (f"part {number} of {len(run.parts)}: {part.title}", "bold"),
        f"   {run.days[-1]}   {run.rows:,} flights, {run.rows / run.seconds:,.0f} a second",
    )
    said = Text(say_model(found, bool(seen.alarms)), style="red" if found else "green")
    table = Table("feature or output", "effect D, at least", "missing", "", "what has changed", expand=True)
    named = {(finding.role, finding.name): finding for finding in reversed(found)}
    order = [(f.role, f.name) for f in found]
    order += sorted(
        set(seen.alarms) - set(order), key=lambda v: -seen.drift.get(v, {}).get(DriftMeasure.EFFECT_LOWER, 0)
    )
    for variable in list(dict.fromkeys(order))[:SHOWN]:
        role, name = variable
        finding = named.get(variable)
        lower = seen.drift.get(variable, {}).get(DriftMeasure.EFFECT_LOWER)
        missing = seen.quality.get(variable, {}).get(QualityMeasure.MISSING)
        style = "" if finding is None else "red" if finding.kind in FAULTS else "yellow"
        table.add_row(
            name or f"prediction {role}",
            "" if lower is None else f"{lower:.4f}",
            "" if missing is None else say_share(missing),
            timeline(run, variable),
            finding.text if finding else "",
            style=style,
        )
    return Group(head, said, table)


def timeline(run: Run, variable: tuple[str, str], width: int = 24) -> str:
    """The last verdicts on a variable, a character a day."""
    marks = []
    for found in run.findings[-width:]:
        kinds = {finding.kind for finding in found if (finding.role, finding.name) == variable}
        marks.append("█" if kinds & set(FAULTS) else "▄" if kinds else "·")
    return "".join(marks)
