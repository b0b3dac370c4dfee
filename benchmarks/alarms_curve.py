"""False alarms against delay: ours at four budgets and other tools, as a table, a verdict and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from alarm_streams import DAY
from scipy.stats import beta, chi2

MONTH = 30 * DAY
SHOWN = ("mean + 0.25 sd", "mean + 0.5 sd")
NOT = 3 * DAY  # where the picture has what was not seen


class Point(NamedTuple):
    """False alarms a month with their 95 % interval, and the median delay of each of SHOWN; None: not seen."""

    who: str
    kind: str
    rows: int
    rate: float
    low: float
    high: float
    delays: tuple[float | None, ...]
    ours: bool


def poisson(k: int, months: float) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a rate a month."""
    low = chi2.ppf(0.025, 2 * k) / 2 if k else 0.0
    return low / months, chi2.ppf(0.975, 2 * k + 2) / 2 / months


def collect(summary: dict[str, Any]) -> list[Point]:
    """One for each budget or tool, and stream."""
    medians = {(d["kind"], d["rows"], d["change"], d["budget"]): d["median"] for d in summary["delays"]}
    tried = {(c["kind"], c["rows"]) for c in summary["null"] if c["budget"] == 100}
    points = []
    for cell in summary["null"]:
        at = cell["kind"], cell["rows"]
        if at in tried:
            ends = poisson(cell["alarms"], cell["months"])
            delays = tuple(medians.get((*at, name, cell["budget"])) for name in SHOWN)
            who = f"budget {cell['budget']:g}"
            points.append(Point(who, *at, cell["alarms"] / cell["months"], *ends, delays, ours=True))
    for cell in summary["psi"]:
        at = cell["kind"], cell["rows"]
        ends = poisson(cell["called"], cell["months"])
        delays = tuple(medians.get((*at, name, cell["limit"])) for name in SHOWN)
        points.append(Point(cell["limit"], *at, cell["called"] / cell["months"], *ends, delays, ours=False))
    for tool, cells in summary.get("peers", {}).get("tools", {}).items():
        by = {(c["kind"], c["change"]): c for c in cells}
        for kind in dict.fromkeys(c["kind"] for c in cells):
            null = by[kind, "none"]
            for variant, k in null["any"].items():
                n = null["windows"]
                low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
                high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
                delays = tuple(_wait(by[kind, name], variant) for name in SHOWN)
                rates = (MONTH * share for share in (k / n, low, high))
                points.append(Point(f"{tool}, {variant}", kind, null["rows"], *rates, delays, ours=False))
    return sorted(points, key=lambda p: (p.kind, not p.ours, p.rate))


def _wait(cell: dict[str, Any], variant: str) -> float | None:
    """Median minutes until a window is called, at the share of windows that are."""
    share = cell["changed"].get(variant, 0) / cell["windows"]
    if not share:
        return None
    return 1 if share >= 0.5 else math.ceil(math.log(0.5) / math.log(1 - share))


def keeps(point: Point) -> str:
    """Whether it has one false alarm a month at most, as far as was seen."""
    return "no" if point.low > 1 else "yes" if point.high <= 1 else "not refuted"


def compare(points: list[Point]) -> str:
    """Of each tool that may keep the rate: its delays beside ours at a budget of 1."""
    ours = {(p.kind, p.rows): p for p in points if p.who == "budget 1"}
    lines = []
    for p in points:
        if p.ours or p.low > 1 or (p.kind, p.rows) not in ours:
            continue
        pairs = zip(SHOWN, p.delays, ours[p.kind, p.rows].delays, strict=True)
        said = "; ".join(f"{name} {_say(theirs)}, otel-mlmon {_say(own)}" for name, theirs, own in pairs)
        sure = "keeps it" if p.high <= 1 else f"not refuted (up to {p.high:,.0f} a month)"
        lines.append(f"- *{p.who}*, {p.kind}: {sure}. Minutes: {said}.")
    return "\n".join(lines) or "None does."


def _say(minutes: float | None) -> str:
    return "not seen" if minutes is None else f"{minutes:g}"


def tabulate(points: list[Point]) -> list[list[Any]]:
    """Rows of the page's table."""
    return [
        [
            f"**otel-mlmon, {p.who}**" if p.ours else p.who,
            f"{p.kind}, n = {p.rows:,}",
            f"{p.rate:,.2f} ({p.low:,.2f} to {p.high:,.2f})" if p.rate < 10 else f"{p.rate:,.0f}",
            keeps(p),
            *map(_say, p.delays),
        ]
        for p in points
    ]


def draw_curve(axis: Any, points: list[Point]) -> None:
    """Ours as lines, others as marks; what none was seen of is at the bottom, what was not seen at the right."""
    kinds = list(dict.fromkeys(p.kind for p in points))
    colours = dict(zip(kinds, ("tab:blue", "tab:red", "tab:green"), strict=False))
    marks = dict(zip(dict.fromkeys(p.who for p in points if not p.ours), "sv^<>DPXph*d", strict=False))
    for kind in kinds:
        of = sorted((p for p in points if p.ours and p.kind == kind and p.delays[0]), key=lambda p: p.rate)
        place = [(p.delays[0], max(p.rate, 0.02)) for p in of]
        axis.plot(*np.array(place).T, "o-", color=colours[kind], label=f"otel-mlmon, {kind}, budgets 0.1 to 100")
    for p in points:
        if not p.ours:
            label = None if p.who not in marks else p.who
            style = {"marker": marks[p.who], "markerfacecolor": "none", "color": colours[p.kind], "linestyle": ""}
            axis.plot([p.delays[0] or NOT], [max(p.rate, 0.02)], label=label if p.kind == kinds[0] else None, **style)
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.axvline(NOT, color="black", linewidth=0.5)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="median delay of + 0.25 sd, minutes; at the line: not seen",
        ylabel="false alarms (others: windows called) a month; 0.02: none",
        title="false alarms against delay (colour: stream)",
    )


def draw_picture(summary: dict[str, Any], path: Path) -> None:
    """False alarms by kind; delays; false alarms against delay."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(19, 7), layout="constrained")
    _draw_null(axes[0], [c for c in summary["null"] if c["budget"] == 1])
    _draw_delays(axes[1], [d for d in summary["delays"] if d["budget"] == 1])
    draw_curve(axes[2], collect(summary))
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    axes[1].legend(fontsize=7)
    axes[2].legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, dpi=110)


def _draw_null(axis: Any, cells: list[dict[str, Any]]) -> None:
    kinds = list(dict.fromkeys(c["kind"] for c in cells))[::-1]
    sizes = sorted({c["rows"] for c in cells})
    for i, size in enumerate(sizes):
        of = {c["kind"]: c for c in cells if c["rows"] == size}
        at = [kinds.index(kind) + 0.18 * (i - (len(sizes) - 1) / 2) for kind in of]
        rate = np.array([c["alarms"] / c["months"] for c in of.values()])
        ends = np.array([poisson(c["alarms"], c["months"]) for c in of.values()])
        axis.errorbar(rate, at, xerr=[rate - ends[:, 0], ends[:, 1] - rate], fmt="o", label=f"n = {size:,}")
    axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(kinds)), kinds)
    axis.set(xlabel="false alarms a model-month, 95 % interval; dotted: budget", title="nothing changes")


def _draw_delays(axis: Any, delays: list[dict[str, Any]]) -> None:
    for kind, style in zip(dict.fromkeys(d["kind"] for d in delays), ("-", "--", ":"), strict=False):
        for name, colour in (("mean + 0.1 sd", "tab:gray"), *zip(SHOWN, ("tab:blue", "tab:red"), strict=True)):
            of = [d for d in delays if (d["kind"], d["change"]) == (kind, name) and d["median"] is not None]
            places = [d["rows"] for d in of], [d["median"] for d in of]
            axis.plot(*places, style, color=colour, marker="o", label=f"{name}, {kind}")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="rows a minute",
        ylabel="median delay, minutes",
        title="one of 30 features changes",
    )
