"""docs/alarms-real.md: what the alarms say of three sets of real data, day by day, and a picture of it.

    make pages-alarms     (a quarter of an hour on two cores)

Every row goes through the real Monitor, OTLP, the processor's ingest, windows and alarms, with the default budget.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from replay import replay
from streams import STREAMS

from otel_mlmon import Profile

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / ".bench" / "alarms-real.json"
PAGE, PICTURE = ROOT / "docs" / "alarms-real.md", ROOT / "docs" / "img" / "alarms-real.png"
SAID = {"raise": "**alarm**", "grow": "grows", "clear": "over"}
INK, BAR, GRID = "#22272e", "#0b5a94", "#edf0f3"
DRAWN = ("flights", "timetable", "delays", "taxi")


def run(name: str) -> dict[str, Any]:
    """Replay a stream; its events as plain values."""
    stream = STREAMS[name]()
    profile = Profile.build(stream.reference, model=name, time_column="time", **stream.options)
    events = [
        {
            "day": str(stream.day(event.time).date()),
            "kind": event.kind,
            "text": event.alarm.text,
            "names": [suspect.variable.name for suspect in event.alarm.suspects],
        }
        for event in replay(profile, stream.rows)
    ]
    days = sorted({str(stream.day(time + 1).date()) for time in stream.rows["time"]})
    return {
        "title": stream.title,
        "step": stream.step,
        "reference": len(stream.reference),
        "rows": len(stream.rows),
        "days": days,
        "events": events,
    }


def tell_days(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Days and what was said on them; days on which nothing was are put together."""
    by_day = {day: list(events) for day, events in groupby(result["events"], key=lambda event: event["day"])}
    rows: list[tuple[list[str], str]] = []
    on = False
    for day in result["days"]:
        said = "; ".join(f"{SAID[event['kind']]}: {event['text']}" for event in by_day.get(day, []))
        quiet = "on" if on else "quiet"
        on = by_day[day][-1]["kind"] != "clear" if day in by_day else on
        if not said and rows and rows[-1][1] == quiet:
            rows[-1][0].append(day)
        else:
            rows.append(([day], said or quiet))
    return [(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}", said) for days, said in rows]


def count_days(result: dict[str, Any]) -> int:
    """Days on which an alarm was on at any time."""
    return sum((int((pd.Timestamp(b) - pd.Timestamp(a)).days) // result["step"] + 1) for a, b, _ in episodes(result))


def episodes(result: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """First and last day of each alarm, and from when on each variable was part of it."""
    found: list[tuple[str, str, list[tuple[str, str]]]] = []
    began, since = "", dict[str, str]()
    for event in result["events"]:
        if event["kind"] == "raise":
            began, since = event["day"], {}
        for name in event["names"]:
            since.setdefault(name, event["day"])
        if event["kind"] == "clear":
            found.append((began, event["day"], list(since.items())))
            began = ""
    if began:
        found.append((began, result["days"][-1], list(since.items())))
    return found


def draw(results: dict[str, dict[str, Any]]) -> None:
    """For each stream the variables that were part of an alarm, over the days."""
    names = {
        key: list(dict.fromkeys(name for _, _, since in episodes(results[key]) for name, _ in since)) for key in DRAWN
    }
    heights = [max(len(names[key]), 1) for key in DRAWN]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            len(DRAWN), 1, figsize=(11, 0.26 * sum(heights) + 3.2), height_ratios=[h + 1 for h in heights]
        )
        for axis, key in zip(axes, DRAWN, strict=True):
            result = results[key]
            width = pd.Timedelta(days=result["step"])
            for first, last, since in episodes(result):
                del first
                for name, day in since:
                    begin = pd.Timestamp(day)
                    axis.barh(names[key].index(name), pd.Timestamp(last) - begin + width, left=begin, color=BAR)
            axis.set_yticks(range(len(names[key])), names[key])
            axis.set_ylim(max(len(names[key]), 1) - 0.4, -0.6)
            axis.set_xlim(pd.Timestamp(result["days"][0]), pd.Timestamp(result["days"][-1]) + width)
            axis.set_title(result["title"], loc="left", fontsize=10)
            axis.grid(axis="x", color=GRID)
            axis.set_axisbelow(True)
            axis.tick_params(length=0)
        figure.tight_layout()
        figure.savefig(PICTURE, dpi=110)
        plt.close(figure)


def render(results: dict[str, dict[str, Any]], text: str) -> str:
    """The page: `text` with a table for each {stream} in it, and one of all."""
    lines = ["| replayed | rows of the reference | rows | days | alarms | days with an alarm on |", "|---|---:|---:|---:|---:|---:|"]  # fmt: skip  # noqa: E501
    for result in results.values():
        raised = sum(event["kind"] == "raise" for event in result["events"])
        days = f"{len(result['days']) * result['step']:,}"
        on = f"{count_days(result) * result['step']:,}"
        lines.append(f"| {result['title']} | {result['reference']:,} | {result['rows']:,} | {days} | {raised} | {on} |")
    text = text.replace("{summary}", "\n".join(lines))
    for name, result in results.items():
        table = "\n".join(["| day | |", "|---|---|", *(f"| {day} | {said} |" for day, said in tell_days(result))])
        text = text.replace("{" + name + "}", table)
    return text


def main() -> None:
    chosen = sys.argv[1:] or list(STREAMS)
    known: dict[str, dict[str, Any]] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if chosen != ["page"]:
        RESULT.parent.mkdir(exist_ok=True)
        with ProcessPoolExecutor(2) as pool:
            for name, result in zip(chosen, pool.map(run, chosen), strict=True):
                known[name] = result
                RESULT.write_text(json.dumps(known, indent=1))
                print(f"{name}: {len(result['events'])} events on {len(result['days'])} days", flush=True)
    results = {name: known[name] for name in STREAMS if name in known}
    PAGE.write_text(render(results, (Path(__file__).parent / "page.md").read_text()))
    draw(results)


if __name__ == "__main__":
    main()
