"""A comparison in the terminal: the verdict, what differs, a table of all variables."""

from __future__ import annotations

from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from otel_mlmon.comparison.finding import gather
from otel_mlmon.comparison.result import Comparison, Feature, SideInfo
from otel_mlmon.profile.shape import draw_blocks, format_number, format_share
from otel_mlmon.semconv import DriftMeasure
from otel_mlmon.wording import printable

SHOWN: Final = 40  # variables, where not all are asked for
WIDE: Final = 118  # columns from which there is room for histograms
SPARK: Final = 10
STYLES: Final = {"fault": "red", "drift": "yellow", "note": "dim"}
_COLUMNS: Final = (
    (DriftMeasure.EFFECT, "effect"),
    (DriftMeasure.EFFECT_LOWER, "at least"),
    (DriftMeasure.PSI, "PSI"),
    (DriftMeasure.WASSERSTEIN, "W1 (sd)"),
)


def show_comparison(comparison: Comparison, console: Console, *, every: bool = False) -> None:
    """Print it.

    Args:
        comparison: the result.
        console: where to.
        every: all variables, whatever their number.
    """
    style = "bold green" if comparison.passed else "bold red"
    word = "passed" if comparison.passed else "changed"
    console.print(Text.assemble((word, style), "  ", printable(comparison.verdict)))
    for side, label in ((comparison.reference, "reference"), (comparison.current, "current")):
        console.print(Text(f"{label:9}  {_tell_side(side)}", style="dim"))
    if comparison.findings:
        console.print()
    for labels, finding in gather(comparison.findings)[: None if every else SHOWN]:
        style = STYLES[finding.level]
        line = Text.assemble((f"{finding.level:5}", style), "  ", (printable(labels), "bold"))
        console.print(line.append(f": {printable(finding.text)}"))
    console.print()
    chosen = comparison.features if every else comparison.features[:SHOWN]
    console.print(_make_table(chosen, wide=console.width >= WIDE))
    if len(chosen) < len(comparison.features):
        console.print(Text(f"and {len(comparison.features) - len(chosen)} more (--all shows them)", style="dim"))


def _tell_side(side: SideInfo) -> str:
    parts = [printable(side.name), side.kind, f"{side.rows:,} rows"]
    if side.time is not None:
        parts.append(f"{side.time.first[:10]} to {side.time.last[:10]}")
    if side.duplicates:
        parts.append(f"{format_share(side.duplicates)} duplicates")
    return ", ".join(parts)


def _make_table(features: tuple[Feature, ...], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("feature", overflow="fold", max_width=32)
    table.add_column("what changed", overflow="fold")
    for _, title in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("missing", justify="right", no_wrap=True)
    if wide:
        table.add_column("reference", no_wrap=True)
        table.add_column("current", no_wrap=True)
    for feature in features:
        style = "" if feature.changed else "dim"
        name = Text(printable(feature.name), style=style)
        if feature.role != "feature":
            name.append(f" ({'target' if feature.role == 'target' else 'prediction'})", style="cyan")
        since = f", since {feature.since}" if feature.since else ""
        numbers = [_format(feature.drift[measure]) for measure, _ in _COLUMNS]
        row = [name, Text(printable(feature.told) + since, style=style), *(Text(n, style=style) for n in numbers)]
        row.append(Text(feature.missing_change, style=style))
        table.add_row(*row, *(_draw(feature) if wide else ()))
    return table


def _format(number: float | None) -> str:
    if number is None:
        return ""
    text = f"{number:.4f}" if abs(number) < 1e3 else format_number(number)
    return "0.0000" if text == "-0.0000" else text


def _draw(feature: Feature) -> tuple[Text, Text]:
    """Both distributions, in one scale."""
    if feature.distribution is None:
        return Text(), Text()
    sides = [np.array(feature.distribution[side], dtype=np.float64) for side in ("reference", "current")]
    if "low" in feature.distribution:
        sides = [np.add.reduceat(side, np.arange(0, side.size, max(1, side.size // SPARK))) for side in sides]
    drawn = draw_blocks(np.concatenate([side[:SPARK] for side in sides]))
    half = len(drawn) // 2
    return Text(drawn[:half], style="cyan"), Text(drawn[half:], style="magenta")
