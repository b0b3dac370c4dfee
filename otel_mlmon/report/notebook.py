"""A comparison as the small table that a notebook shows."""

from __future__ import annotations

from html import escape
from typing import Final

from otel_mlmon.comparison.result import Comparison, Feature
from otel_mlmon.semconv import DriftMeasure

SHOWN: Final = 20
_CELL: Final = 'style="text-align:left"'


def render_table(comparison: Comparison) -> str:
    """HTML without scripts: the verdict, what differs, the variables that moved most."""
    mark, colour = ("&#10003; passed", "#1a7f37") if comparison.passed else ("&#10007; changed", "#cf222e")
    findings = "".join(
        f"<li>{finding.level}: <b>{escape(finding.label)}</b> {escape(finding.text)}</li>"
        for finding in comparison.findings[:SHOWN]
    )
    heads = ("feature", "what changed", "effect", "at least", "PSI", "missing")
    head = "".join(f"<th {_CELL}>{name}</th>" for name in heads)
    rows = "".join(map(_render_row, comparison.features[:SHOWN]))
    rest = len(comparison.features) - SHOWN
    more = f"<p>and {rest} more: <code>.to_frame()</code>, <code>.save_html(path)</code></p>" if rest > 0 else ""
    return (
        f'<div><p><b style="color:{colour}">{mark}</b> {escape(comparison.verdict)}</p>'
        f"<ul>{findings}</ul><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}</div>"
    )


def _render_row(feature: Feature) -> str:
    numbers = [feature.drift[m] for m in (DriftMeasure.EFFECT, DriftMeasure.EFFECT_LOWER, DriftMeasure.PSI)]
    cells = [
        feature.name,
        feature.told,
        *("" if number is None else f"{number:.4f}" for number in numbers),
        feature.missing_change,
    ]
    return "<tr>" + "".join(f"<td {_CELL}>{escape(cell)}</td>" for cell in cells) + "</tr>"
