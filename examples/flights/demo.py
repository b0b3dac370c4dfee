"""A year of flights through a model, three replicas and a processor, to a verdict.

A classifier of late arrivals is trained on January to April. Then three replicas replay flights over OTLP:
  1. flights of these months that were held out, in random order: nothing has changed;
  2. May and the months after as they were: season, a new timetable;
  3. the same with a fault: one replica gets distances in kilometres, all lose the wind speed.
At last the first of May goes by minute by minute, under the alarm budget; at noon the wind speed is lost.
The demo fails (exit status 1) where part 1 is not quiet, part 3 does not name both faults first, or that day has not
the wind speed's alarm alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import minutes
import pandas as pd
from data import FEATURES, load_flights, make_model, save_shares, split_training, spread_over_days
from otel_mlmon_processor.core.verdict import Finding, say_model
from otel_mlmon_processor.status import Seen
from picture import draw
from rich.console import Console
from rich.live import Live
from stage import Stage, StageError
from view import render

from otel_mlmon import Profile

REPLICAS = 3
TRAINED_UNTIL = "2013-05-01"
OUTPUT = Path("demo-output")
FAULTS = {("distance", "replica"), ("wind_speed", "missing")}
DAY = 86_400.0


@dataclass(frozen=True)
class Part:
    """A stretch of days.

    Args:
        title: in words.
        days: to replay.
        faults: of each replica.
    """

    title: str
    days: list[str]
    faults: list[list[str]]


@dataclass
class Run:
    """What was seen so far, a value for each day."""

    parts: list[Part]
    days: list[str] = field(default_factory=list)
    findings: list[tuple[Finding, ...]] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0
    seen: Seen | None = None
    text: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)  # by the alarms of one day, minute by minute

    def of(self, part: Part) -> list[tuple[Finding, ...]]:
        """Findings on the days of a part."""
        return [found for day, found in zip(self.days, self.findings, strict=True) if day in part.days]


def plan_parts(fast: bool, fault: bool) -> list[Part]:
    none: list[list[str]] = [[] for _ in range(REPLICAS)]
    broken = [["no-wind", "kilometres"] if i == 1 else ["no-wind"] for i in range(REPLICAS)] if fault else none
    quiet, real, last = (14, 21, 8) if fast else (28, 92, 21)
    begin = pd.Timestamp(TRAINED_UNTIL)

    def days(since: pd.Timestamp, count: int) -> list[str]:
        return [str(day.date()) for day in pd.date_range(since, periods=count)]

    return [
        Part("training months, shuffled: no change", days(begin - pd.Timedelta(days=quiet), quiet), none),
        Part("the later months as they were: another season, a new timetable", days(begin, real), none),
        Part("two faults put in" if fault else "no fault put in", days(begin + pd.Timedelta(days=real), last), broken),
    ]


def prepare(folder: Path, flights: pd.DataFrame, parts: list[Part], seed: int) -> tuple[Profile, Path, list[Path]]:
    """Train the model, attach its profile, deal the flights out."""
    train, held_out = split_training(flights, TRAINED_UNTIL, seed)
    model = make_model().fit(train[FEATURES], train["late"])
    scores = model.predict_proba(train[FEATURES])
    profile = Profile.build(train[FEATURES], model="flights", version="2013-04", predictions={"score": scores[:, 1]})
    profile.attach(model)
    joblib.dump(model, folder / "model.joblib")
    quiet = spread_over_days(held_out, parts[0].days[0], len(parts[0].days))
    real = flights[flights["day"].isin(pd.to_datetime(parts[1].days + parts[2].days))]
    return profile, folder / "model.joblib", save_shares(pd.concat([quiet, real]), folder, REPLICAS, seed)


def replay(stage: Stage, run: Run, console: Console) -> None:
    """Replay all parts; after each day look at what the processor says."""
    live = console.is_terminal
    with Live(console=console, auto_refresh=False, transient=True) as display:
        for number, part in enumerate(run.parts, 1):
            if not live:
                console.print(f"part {number}: {part.title}")
            for day in part.days:
                began = time.perf_counter()
                run.rows += stage.replay(day, part.faults)
                run.seconds += time.perf_counter() - began
                run.seen, run.text = stage.look(pd.Timestamp(day).timestamp() + DAY)
                run.days.append(day)
                run.findings.append(run.seen.findings())
                if live:
                    display.update(render(run, number), refresh=True)
                elif len(run.days) % 7 == 0:
                    console.print(f"  {day}: {say_model(run.findings[-1], decided=True)}", soft_wrap=True)


def check(run: Run) -> list[str]:
    """What did not come out as it must; empty where all did."""
    failures = []
    noisy = [day for day, found in zip(run.days, run.findings, strict=True) if day in run.parts[0].days and found]
    if noisy:
        failures.append(f"part 1 was not quiet on {', '.join(noisy)}")
    first = {(finding.name, finding.kind) for finding in run.findings[-1][: len(FAULTS)]}
    if first != FAULTS:
        failures.append(f"part 3 names {sorted(first)} first, not the faults {sorted(FAULTS)}")
    if not run.said or not all("wind_speed" in text and at > "12:00" for at, text in run.said):
        failures.append(f"minute by minute: {run.said}, not an alarm of the wind speed after noon")
    return failures


def conclude(stage: Stage, run: Run, profile: Profile, console: Console, *, keep: bool) -> int:
    """Draw, say what has changed and where to look; the exit status."""
    OUTPUT.mkdir(exist_ok=True)
    picture = OUTPUT / "flights.png"
    draw(run, profile, picture)
    last = run.findings[-1]
    console.print(f"\n{run.rows:,} flights replayed, {run.rows / run.seconds:,.0f} a second.")
    console.print(f"What has changed: [bold]{say_model(last, decided=True)}[/]", soft_wrap=True)
    for finding in last[:6]:
        console.print(f"  {finding}", soft_wrap=True, highlight=False)
    console.print(
        f"\nMinute by minute under the alarm budget, {minutes.DAY:%-d %B}, wind speed lost at noon:", soft_wrap=True
    )
    for at, text in run.said:
        console.print(f"  {at}  {text}", soft_wrap=True, highlight=False)
    console.print(f"\nPicture: {picture.resolve()}", soft_wrap=True)
    if keep:
        command = Path(sys.executable).parent / "otel-mlmon"
        console.print(f"Metrics: {stage.url} (until Ctrl-C); ask for instance (PromQL):", soft_wrap=True)
        console.print('  ml_feature_drift{ml_drift_measure="effect_lower"} > 0.005', highlight=False)
        console.print('  ml_feature_quality_change{ml_quality_measure="missing"} > 0.01', highlight=False)
        console.print("  topk(3, ml_drift_replica)", highlight=False)
        console.print(f"or in a terminal: {command} status --url {stage.url}", highlight=False, soft_wrap=True)
    else:
        console.print("`make demo ARGS=--keep` leaves the processor running, to be asked and scraped.", highlight=False)
    failures = check(run)
    for failure in failures:
        console.print(f"[red]failed:[/] {failure}", soft_wrap=True)
    if not failures:
        console.print(
            "[green]as it must be:[/] part 1 was quiet, part 3 names both faults first, the day has one alarm."
        )
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer days")
    parser.add_argument("--no-fault", action="store_true", help="put no fault in, to see the demo's own check fail")
    parser.add_argument("--keep", action="store_true", help="leave the processor running until Ctrl-C")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the shares (0)")
    args = parser.parse_args()
    console = Console()
    parts = plan_parts(args.fast, not args.no_fault)
    with tempfile.TemporaryDirectory(prefix="mlmon-demo-") as name:
        console.print("training a model of late arrivals on the flights of January to April 2013 ...")
        flights = load_flights()
        profile, model, shares = prepare(Path(name), flights, parts, args.seed)
        console.print(f"profile {profile.hash}: {len(profile.references)} variables of {profile.rows:,} flights")
        try:
            with Stage(Path(name), model, shares) as stage:
                run = Run(parts)
                replay(stage, run, console)
                run.said = minutes.tell_day(flights, fault=not args.no_fault)
                status = conclude(stage, run, profile, console, keep=args.keep)
                if args.keep:
                    console.print("the processor is running; Ctrl-C ends it")
                    while True:
                        time.sleep(1)
        except StageError as error:
            console.print(f"[red]failed:[/] {error}")
            return 1
        except KeyboardInterrupt:
            return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
