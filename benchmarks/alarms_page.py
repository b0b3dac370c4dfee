"""From the units to one table for each question, and the page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from alarm_streams import BURST, BURSTS, DAY, FACTORS, HEAVY, HOURS, KINDS, MISSING, NAMES, SEASON, WANDER, WEEKEND
from alarms_model import CHANGES, FEATURES
from otel_mlmon_processor.core.budget import split_budget
from recorder import machine
from scipy.stats import chi2

Summary = dict[str, Any]
REACH = {  # kind, rows, change: minutes
    ("independent", 1_000, "mean + 0.25 sd"): 2,
    ("independent", 1_000, "mean + 0.1 sd"): 10,
    ("independent", 50, "mean + 0.25 sd"): 20,
    ("season + autoregressive", 1_000, "mean + 0.5 sd"): 3,
    ("season + autoregressive", 1_000, "mean + 0.25 sd"): 120,
}


def poisson(k: int, months: float) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a rate a month."""
    low = chi2.ppf(0.025, 2 * k) / 2 if k else 0.0
    return low / months, chi2.ppf(0.975, 2 * k + 2) / 2 / months


def summarize(units: Sequence[dict[str, Any]], cost: dict[str, float]) -> Summary:
    """What the page shows, JSON-able."""
    null: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    delays: dict[tuple[str, int, str, str], list[float]] = defaultdict(list)
    for unit in units:
        if unit["what"] == "null":
            for budget in unit["alarms"]:
                null[unit["kind"], unit["rows"], budget].append(unit)
        else:
            for name, by_budget in unit["delays"].items():
                for budget, minutes in by_budget.items():
                    delays[unit["kind"], unit["rows"], name, budget].append(np.inf if minutes is None else minutes)
    return {
        "machine": machine(),
        "cost": cost,
        "null": [
            {
                "kind": kind,
                "rows": rows,
                "budget": float(budget),
                "months": round(sum(u["days"] for u in found) / 30, 2),
                "alarms": sum(len(u["alarms"][budget]) for u in found),
                "minutes": sum(a["lasted"] for u in found for a in u["alarms"][budget]),
                "causes": Counter(f"{a['test']}, {a['scale']} min" for u in found for a in u["alarms"][budget]),
            }
            for (kind, rows, budget), found in sorted(null.items(), key=lambda item: _order(item[0]))
        ],
        "delays": [
            {
                "kind": kind,
                "rows": rows,
                "change": name,
                "budget": float(budget),
                "n": len(found),
                "median": _finite(np.median(found)),
                "quartiles": [_finite(q) for q in np.quantile(found, [0.25, 0.75], method="nearest")],
            }
            for (kind, rows, name, budget), found in sorted(delays.items(), key=lambda item: _order(item[0]))
        ],
        "us": round(float(np.mean([u["us"] for u in units if u["what"] == "null"] or [0])), 2),
    }


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (KINDS.index(key[0]) if key[0] in KINDS else 99, *key[1:])


def _finite(minutes: Any) -> int | None:
    return int(minutes) if np.isfinite(minutes) else None


def over_budget(summary: Summary) -> bool:
    """Whether some kind and number of rows has more than one false alarm a month, beyond chance."""
    cells = [c for c in summary["null"] if c["budget"] == 1]
    return any(poisson(c["alarms"], c["months"])[0] > 1 for c in cells)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]
    return "\n".join(lines)


def _rate(k: int, months: float) -> str:
    if not months:
        return ""
    low, high = poisson(k, months)
    return f"{k / months:.2f} ({low:.2f} to {high:.2f})"


def null_table(summary: Summary) -> str:
    cells = {(c["kind"], c["rows"]): c for c in summary["null"] if c["budget"] == 1}
    sizes = sorted({rows for _, rows in cells})
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in cells):
        of = [cells[kind, size] for size in sizes if (kind, size) in cells]
        k, months = sum(c["alarms"] for c in of), sum(c["months"] for c in of)
        each = [f"{c['alarms']} in {c['months']:.0f}" for c in of]
        rows.append([kind, *each, *[""] * (len(sizes) - len(each)), _rate(k, months)])
    k, months = sum(c["alarms"] for c in cells.values()), sum(c["months"] for c in cells.values())
    rows.append(["**all**", *[""] * len(sizes), f"**{_rate(k, months)}**"])
    return table(["stream", *(f"n = {size:,}" for size in sizes), "a model-month (95 %)"], rows)


def delay_table(summary: Summary) -> str:
    found = {(d["kind"], d["rows"], d["change"]): d for d in summary["delays"] if d["budget"] == 1}
    columns = sorted({(kind, rows) for kind, rows, _ in found}, key=lambda c: (KINDS.index(c[0]), c[1]))
    rows = []
    for name in CHANGES:
        row = [name]
        for kind, size in columns:
            d = found.get((kind, size, name))
            reach = REACH.get((kind, size, name))
            row.append("" if d is None else _say(d) + (f" [reach {reach}]" if reach else ""))
        rows.append(row)
    return table(["change", *(f"{kind}, n = {size:,}" for kind, size in columns)], rows)


def _say(d: dict[str, Any]) -> str:
    low, high = (_minutes(q) for q in d["quartiles"])
    return f"{_minutes(d['median'])} ({low} to {high})"


def _minutes(minutes: int | None) -> str:
    if minutes is None:
        return "not"
    return f"{minutes}" if minutes < 300 else f"{minutes / 60:.0f} h" if minutes < 2 * DAY else f"{minutes / DAY:.1f} d"


def curve_table(summary: Summary) -> str:
    rows = []
    for cell in summary["null"]:
        of = [
            d
            for d in summary["delays"]
            if (d["kind"], d["rows"], d["budget"]) == (cell["kind"], cell["rows"], cell["budget"])
        ]
        said = {d["change"]: _say(d) for d in of}
        if any(c["budget"] == 100 and (c["kind"], c["rows"]) == (cell["kind"], cell["rows"]) for c in summary["null"]):
            rows.append(
                [
                    f"{cell['kind']}, n = {cell['rows']:,}",
                    f"{cell['budget']:g}",
                    _rate(cell["alarms"], cell["months"]),
                    said.get("mean + 0.25 sd", ""),
                    said.get("mean + 0.5 sd", ""),
                ]
            )
    return table(["stream", "budget", "false alarms a month (95 %)", "mean + 0.25 sd", "mean + 0.5 sd"], rows)


def peer_table(peers: Summary) -> str:
    """Of each tool: false alarms a month at one look a minute, and how soon what has changed is called."""
    rows = []
    for tool, cells in peers.get("tools", {}).items():
        by = {(c["kind"], c["change"]): c for c in cells}
        for kind in dict.fromkeys(c["kind"] for c in cells):
            null = by[kind, "none"]
            for variant in null["any"]:
                k, n = null["any"][variant], null["windows"]
                month = 30 * DAY * k / n if k else f"< {30 * DAY * 3 / n:,.0f}"  # three for none: 95 %
                row = [f"{tool}, {variant}", kind, f"{k} of {n}", month if isinstance(month, str) else f"{month:,.0f}"]
                for change in ("mean + 0.25 sd", "mean + 0.5 sd"):
                    c = by[kind, change]
                    row.append(f"{c['changed'].get(variant, 0)} of {c['windows']}")
                rows.append([*row, f"{null['ms']:.0f}"])
    head = [
        "tool",
        "stream",
        "windows called changed, nothing changes",
        "a month",
        "+ 0.25 sd called",
        "+ 0.5 sd called",
    ]
    return table([*head, "ms a window"], rows) if rows else "Not run."


def budget_table() -> str:
    split = split_budget(1.0, [None] * FEATURES)
    rows = [[name, scale, f"{share:.3f}"] for name, scale, share in split.table()]
    rows.append(["**sum**", "", f"**{sum(share for *_, share in split.table()):.3f}**"])
    return table(["test", "scale", "false alarms in 30 days"], rows)


def cause_table(summary: Summary) -> str:
    causes: Counter[str] = Counter()
    for cell in summary["null"]:
        if cell["budget"] == 1:
            causes.update(cell["causes"])
    return table(["test and scale", "false alarms"], [[name, k] for name, k in causes.most_common()])


def draw_picture(summary: Summary, path: Path) -> None:
    """False alarms by kind; delays; the operating curve."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(16, 6), layout="constrained")
    cells = [c for c in summary["null"] if c["budget"] == 1]
    kinds = list(dict.fromkeys(c["kind"] for c in cells))[::-1]
    sizes = sorted({c["rows"] for c in cells})
    for i, size in enumerate(sizes):
        of = {c["kind"]: c for c in cells if c["rows"] == size}
        at = [kinds.index(kind) + 0.18 * (i - (len(sizes) - 1) / 2) for kind in of]
        rate = np.array([c["alarms"] / c["months"] for c in of.values()])
        ends = np.array([poisson(c["alarms"], c["months"]) for c in of.values()])
        axes[0].errorbar(rate, at, xerr=[rate - ends[:, 0], ends[:, 1] - rate], fmt="o", label=f"n = {size:,}")
    axes[0].axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes[0].set_yticks(range(len(kinds)), kinds)
    axes[0].set(xlabel="false alarms a model-month, 95 % interval; dotted: budget", title="nothing changes")
    for kind, style in zip(dict.fromkeys(d["kind"] for d in summary["delays"]), ("-", "--", ":"), strict=False):
        for name, colour in (
            ("mean + 0.1 sd", "tab:gray"),
            ("mean + 0.25 sd", "tab:blue"),
            ("mean + 0.5 sd", "tab:red"),
        ):
            of = [d for d in summary["delays"] if (d["kind"], d["change"], d["budget"]) == (kind, name, 1)]
            of = [d for d in of if d["median"] is not None]
            axes[1].plot(
                [d["rows"] for d in of],
                [d["median"] for d in of],
                style,
                color=colour,
                marker="o",
                label=f"{name}, {kind}",
            )
    axes[1].set(
        xscale="log",
        yscale="log",
        xlabel="rows a minute",
        ylabel="median delay, minutes",
        title="one of 30 features changes",
    )
    for cell in {(c["kind"], c["rows"]): c for c in summary["null"] if c["budget"] == 100}.values():
        points = []
        for c in summary["null"]:
            for d in summary["delays"]:
                same = all(c[k] == d[k] == cell[k] for k in ("kind", "rows")) and c["budget"] == d["budget"]
                if same and d["change"] == "mean + 0.25 sd" and d["median"] is not None:
                    points.append((d["median"], max(c["alarms"] / c["months"], 0.02)))
        points.sort()
        axes[2].plot(*zip(*points, strict=True), "o-", label=f"{cell['kind']}, n = {cell['rows']:,}")
    axes[2].set(
        xscale="log",
        yscale="log",
        xlabel="median delay of + 0.25 sd, minutes",
        ylabel="false alarms a month (0.02: none)",
    )
    axes[2].set_title("budgets of 0.1, 1, 10 and 100")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def render(summary: Summary) -> str:
    """The page."""
    cost = summary["cost"]
    said = (
        f"{cost['us']} us of processor time for a feature and window, all scales and tests, of {cost['features']:,} "
        f"features, one window "
        f"at a time (slowest window: {cost['us, slowest window']} us)."
        if cost
        else "not measured."
    )
    return TEXT.format(
        machine=summary["machine"],
        features=FEATURES,
        null=null_table(summary),
        causes=cause_table(summary),
        delays=delay_table(summary),
        curve=curve_table(summary),
        budget=budget_table(),
        peers=peer_table(summary.get("peers", {})),
        cost=said,
        us=summary["us"],
        wander=WANDER,
        hours=HOURS,
        season=SEASON,
        bursts=f"{BURSTS:.0%}",
        burst=BURST,
        weekend=WEEKEND,
        heavy=HEAVY,
        factors=FACTORS,
        names=NAMES,
        missing=f"{MISSING:.0%}",
    )


TEXT = """# False alarms of the alarm budget, and how soon a change is seen

Written by `make bench-alarms`. The budget is one false alarm per model in 30 days, all {features} features, tests and
scales together; the tolerance is the default (D = 0.005). Windows of one minute with a Poisson number of rows of mean
n; 14 reference days (one in the last stream), then 30 days in which nothing changes. Every month has a reference of its
own. An alarm is an episode of the model, whatever features take part. Machine: {machine}.

![False alarms and delays](alarms.png)

## Nothing changes

False alarms in so many months, and a month with the exact 95 % Poisson interval:

{null}

Which test at which scale raised them:

{causes}

- *independent*: every row is drawn anew.
- *bursts*: {bursts} of the windows come from other users, whose mean is {burst} sd up or down.
- *autoregressive*: the mean and the log of the standard deviation wander, {wander} sd each, with a correlation time of
  {hours:g} hour.
- *season*: the mean swings by up to {season} sd over the day, each feature at its own time.
- *weekly season*: and is {weekend} sd up or down at weekends (14 days are too few to learn hours of the week).
- *heavy-tailed days*: each day has a level of its own, {heavy} sd times Student's t with 3 degrees of freedom.
- *correlated*: the wander of all features is made of {factors} factors.
- *one day*: season and autoregressive, with a reference of one day.

Two of three features are numbers over 20 cells, every third is a category with {names} names (Zipf); {missing} of the
values are missing.

## One of 30 features changes

Minutes until it is part of an alarm: median (quartiles), *not*: not within a day (the ramp: 20 days).

{delays}

## Other budgets

{curve}

## Others, on windows of the same streams

Each at its defaults, n = 1,000, with a sample of 10,000 rows of the reference, one window after the other
(`python benchmarks/alarms_peers.py`). *A month*: alarms in 30 days, were each minute looked at; *called*: windows after
the change in which the feature is called changed, whatever else is (of evidently's dataset: in which the data set is).

{peers}

## The budget, divided

{budget}

## Cost

{cost} In these runs, many windows at a time: {us} us.
"""
