"""From the units to one table for each question, and the page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from alarm_streams import BURST, BURSTS, DAY, FACTORS, HEAVY, HOURS, KINDS, MISSING, NAMES, SEASON, WANDER, WEEKEND
from alarms_curve import SHOWN, collect, compare, poisson, tabulate
from alarms_model import CHANGES, FEATURES, UNDISTURBED
from otel_mlmon_processor.core.budget import split_budget
from recorder import machine

Summary = dict[str, Any]
REACH = {  # kind, rows, change: minutes
    ("independent", 1_000, "mean + 0.25 sd"): 2,
    ("independent", 1_000, "mean + 0.1 sd"): 10,
    ("independent", 50, "mean + 0.25 sd"): 20,
    ("season + autoregressive", 1_000, "mean + 0.5 sd"): 3,
    ("season + autoregressive", 1_000, "mean + 0.25 sd"): 120,
}


def summarize(units: Sequence[dict[str, Any]], cost: dict[str, float]) -> Summary:
    """What the page shows, JSON-able."""
    null: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    delays: dict[tuple[str, int, str, str], list[float]] = defaultdict(list)
    psi: dict[tuple[str, int, str], list[tuple[int, int]]] = defaultdict(list)
    before: Counter[str] = Counter()
    for unit in units:
        if unit["what"] == "null":
            for budget in unit["alarms"]:
                null[unit["kind"], unit["rows"], budget].append(unit)
            for limit, called in unit.get("psi", {}).items():
                psi[unit["kind"], unit["rows"], limit].append((called, unit["days"]))
        else:
            before.update(unit["before"])
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
                "repeated": sum(_repeats(u["alarms"][budget]) for u in found),
                "causes": Counter(f"{a['test']}, {a['scale']} min" for u in found for a in u["alarms"][budget]),
            }
            for (kind, rows, budget), found in sorted(null.items(), key=lambda item: _order(item[0]))
        ],
        "delays": [
            {
                "kind": kind,
                "rows": rows,
                "change": name,
                "budget": budget if budget.startswith("PSI") else float(budget),
                "n": len(found),
                "median": _finite(np.median(found)),
                "quartiles": [_finite(q) for q in np.quantile(found, [0.25, 0.75], method="nearest")],
            }
            for (kind, rows, name, budget), found in sorted(delays.items(), key=lambda item: _order(item[0]))
        ],
        "before": dict(before),
        "psi": [
            {
                "kind": kind,
                "rows": rows,
                "limit": limit,
                "called": sum(called for called, _ in found),
                "months": round(sum(days for _, days in found) / 30, 2),
            }
            for (kind, rows, limit), found in sorted(psi.items(), key=lambda item: _order(item[0]))
        ],
        "us": round(float(np.mean([u["us"] for u in units if u["what"] == "null"] or [0])), 2),
    }


def _repeats(alarms: list[dict[str, Any]]) -> int:
    """Alarms of a feature on a day on which it had one already."""
    return len(alarms) - len({(a["feature"], a["minute"] // DAY) for a in alarms})


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (KINDS.index(key[0]) if key[0] in KINDS else 99, *key[1:])


def _finite(minutes: Any) -> int | None:
    return int(minutes) if np.isfinite(minutes) else None


def over_budget(summary: Summary) -> bool:
    """Whether some kind and number of rows has more than one false alarm a month, beyond chance."""
    cells = [c for c in summary["null"] if c["budget"] == 1]
    return any(poisson(c["alarms"], c["months"])[0] > 1 for c in cells)


def say_reach(summary: Summary) -> str:
    """Which reaches are met, as measured."""
    cells = [c for c in summary["null"] if c["budget"] == 1]
    over = [c for c in cells if c["alarms"] > c["months"]]
    sure = [c for c in over if poisson(c["alarms"], c["months"])[0] > 1]
    said = [
        f"Reach: at most 1 false alarm a month in every kind and size. {len(cells) - len(over)} of {len(cells)} have "
        f"no more; above it beyond chance (the interval's lower end too): {len(sure) or 'none'}."
    ]
    said += [""] if over else []
    said += [
        f"- Above: {c['kind']}, n = {c['rows']:,}: {_rate(c['alarms'], c['months'])}; of {c['repeated']} of the "
        f"{c['alarms']} alarms the feature had one on the same day already."
        for c in over
    ]
    return "\n".join(said)


def say_delays(summary: Summary) -> str:
    """Which reaches of delays are met."""
    found = {(d["kind"], d["rows"], d["change"]): d for d in summary["delays"] if d["budget"] == 1}
    missed = [
        f"{kind}, n = {rows:,}, {name}: {_minutes(found[kind, rows, name]['median'])} instead of {least}"
        for (kind, rows, name), least in REACH.items()
        if (kind, rows, name) in found and not (found[kind, rows, name]["median"] or np.inf) <= least
    ]
    return "Not met: " + "; ".join(missed) + "." if missed else "All reaches named are met."


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
        each = [f"{c['alarms']} in {c['months']:.3g}" for c in of]
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


def render(summary: Summary) -> str:
    """The page."""
    cost, points = summary["cost"], collect(summary)
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
        curve=table(
            ["", "stream", "false alarms a month (95 %)", "at most 1", *SHOWN],
            tabulate(points),
        ),
        budget=budget_table(),
        reach=say_reach(summary),
        met=say_delays(summary),
        least=min((d["n"] for d in summary["delays"]), default=0),
        undisturbed=UNDISTURBED,
        before=f"{summary['before'].get('alarms', 0)} in {summary['before'].get('days', 0):,.0f} days",
        compared=compare(points),
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

{reach}

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

Minutes until it is part of an alarm: median (quartiles) of {least} or more seeds, *not*: not within a day (the ramp: 20
days). Each change begins at a random minute of days 2 to {undisturbed} of production, so that no look is aligned with
it, and its delay is counted from there. What was raised before it began is false ({before}); it is ended where the
change begins, so that an alarm that happens to be on is no quick one.

{delays}

{met}

## False alarms against delay, and others on the same streams

Minutes are medians. PSI over the same 20 cells against the whole reference, every minute of the same months: *false
alarms* are the windows in which it calls any feature changed. The tools, each at its defaults, with a sample of 10,000
rows of the reference, on 30 sampled windows in which nothing changes and 10 of each change (`python
benchmarks/alarms_peers.py`): the share of windows in which anything is called, times the minutes of a month, and the
median delay at the share of windows in which the feature that changed is called (of evidently's dataset: the data set).

{curve}

Those that keep one false alarm a month, or may as far as was seen:

{compared}

## The budget, divided

{budget}

## Cost

{cost} In these runs, many windows at a time: {us} us.
"""
