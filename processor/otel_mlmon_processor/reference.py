"""The command `otel-mlmon reference`: look after what a processor learns from production."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from otel_mlmon.cli import SUMMARIES, Command, CommandError
from otel_mlmon.numerics.scales import DAY, HOUR, LEAST_DAYS
from otel_mlmon.wording import printable, say_time
from otel_mlmon_processor.alarm_store import FILE, AlarmStore
from otel_mlmon_processor.orders import LEAST_ROLL, MOST_ROLL, Order, Orders
from otel_mlmon_processor.windows import ModelKey

WAIT: Final = 30.0  # seconds for the processor to take an order up
_BETWEEN: Final = 0.1
_PHASES: Final = {
    "calibrated": "said by the profile",
    "survey": f"first day: choosing cells; {LEAST_DAYS} days more are needed",
    "learning": f"being learnt; {LEAST_DAYS} days are needed",
    "provisional": "known; more days are learnt",
    "learnt": "fixed",
    "refused": "not learnt, for want of memory",
}


class Row(NamedTuple):
    """What is saved of a model and profile; `shown` is what the learner says of itself, empty where it has nothing."""

    model: ModelKey
    profile: str
    phase: str
    variables: list[str]
    shown: dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    show = commands.add_parser(
        "show",
        help="what is learnt of which model",
        description="Read what the processor saved last: at each change, and every 15 minutes.",
    )
    show.add_argument("data", type=Path, metavar="DIR", help="data directory of the processor")
    show.add_argument("model", nargs="?", metavar="MODEL", help="this model alone, with its features")
    freeze = commands.add_parser("freeze", help="keep it as it is now; nothing is learnt any more")
    reset = commands.add_parser("reset", help="forget it, and learn anew from now on")
    roll = commands.add_parser("roll", help="from now on it is what the previous days say, learnt again each day")
    for command in (freeze, reset, roll):
        command.description = (
            "Leaves an order in the data directory; the processor takes it up at its next evaluation, or at its start."
        )
        command.epilog = "exit status: 0 done, or left for a processor that does not run; 2 not possible"
        command.add_argument("data", type=Path, metavar="DIR", help="data directory of the processor")
        command.add_argument("model", metavar="MODEL", help="name of the model")
        if command is roll:
            days = f"{LEAST_ROLL} to {MOST_ROLL}"
            command.add_argument("--days", type=int, required=True, metavar="N", help=f"how many, {days}")
        command.add_argument(
            "--wait", type=float, default=WAIT, metavar="SECONDS", help=f"for the processor ({WAIT:g}; 0: do not wait)"
        )
    for command in (show, freeze, reset, roll):
        command.add_argument("--version", metavar="VERSION", help="of the model, where there are several")
        command.add_argument("--service", metavar="SERVICE", help="service.name, where several have the model")
        command.add_argument("--namespace", metavar="NAMESPACE", help="service.namespace, likewise")
        command.add_argument("--environment", metavar="ENVIRONMENT", help="deployment.environment.name, likewise")


def run(args: argparse.Namespace) -> int:
    """Show it, or give the order and wait for the answer."""
    if not args.data.is_dir():
        raise CommandError(f"{args.data} is no directory; name the processor's data directory")
    rows, time_ = read_rows(args.data)
    chosen = [row for row in rows if _matches(row.model, args)]
    if args.subcommand == "show":
        if args.model and not chosen:
            raise CommandError(_say_unknown(rows, args.model))
        show_rows(Console(), chosen, time_, features=args.model is not None)
        return 0
    models = sorted({row.model for row in chosen})
    if not models:
        raise CommandError(_say_unknown(rows, args.model))
    if len(models) > 1:
        listed = "; ".join(_say_model(model) for model in models)
        raise CommandError(f"there are several: {listed}; choose by --version, --service, --namespace, --environment")
    days = getattr(args, "days", 0)
    if args.subcommand == "roll" and not LEAST_ROLL <= days <= MOST_ROLL:
        raise CommandError(f"--days must be {LEAST_ROLL} to {MOST_ROLL}, got {days}")
    Console().print(give(args.data, Order(args.subcommand, models[0], days), args.wait), markup=False, soft_wrap=True)
    return 0


def give(data: Path, order: Order, wait: float) -> str:
    """Give an order and wait until it is followed; what came of it.

    Raises:
        CommandError: the processor cannot follow it.
    """
    orders, name = Orders(data), _say_model(order.model)
    given = orders.give(order)
    end = time.monotonic() + wait
    while (answer := orders.answer(given)) is None:
        if time.monotonic() >= end:
            return f"{order.verb} of {name} is left for the processor, which has not taken it up yet"
        time.sleep(_BETWEEN)
    if answer:
        raise CommandError(f"{order.verb} of {name}: {answer}")
    return f"{order.verb} of {name}: done"


def read_rows(data: Path) -> tuple[list[Row], float]:
    """What was saved, and when, in seconds since 1970 (0: nothing yet).

    Raises:
        CommandError: it cannot be read.
    """
    try:
        saved, changed = AlarmStore(data).read(), (data / FILE).stat().st_mtime
    except FileNotFoundError:
        return [], 0.0
    except (OSError, ValueError) as error:
        raise CommandError(f"{data / FILE}: {error}") from None
    return list(_list_rows(saved.models)), changed


def _list_rows(saved: Mapping[str, Any]) -> Iterator[Row]:
    for name, plain in sorted(saved.items()):
        *key, digest = json.loads(name)
        alarms = plain.get("alarms")
        if alarms is None:
            yield Row(ModelKey(*key), digest, "survey", [], {})
            continue
        shown = alarms["shown"] or {}
        yield Row(ModelKey(*key), digest, shown.get("phase", "calibrated"), alarms["variables"], shown)


def _matches(model: ModelKey, args: argparse.Namespace) -> bool:
    asked = (args.namespace, args.service, args.environment, args.model, args.version)
    return all(wanted is None or wanted == held for wanted, held in zip(asked, model, strict=True))


def _say_model(model: ModelKey) -> str:
    return printable(f"{model.model} {model.version}".strip() + f" of {'/'.join(filter(None, model[:3]))}")


def _say_unknown(rows: list[Row], model: str) -> str:
    known = "; ".join(sorted({_say_model(row.model) for row in rows})) or "none"
    return f"no such model {model!r} (with this version and service) is known; known are: {known}"


def show_rows(console: Console, rows: list[Row], changed: float, *, features: bool) -> None:
    """Print a table of the models, and one of the features of each."""
    if not rows:
        console.print("nothing is known yet: no model has sent anything, or nothing is learnt")
        return
    moment = f"{say_time(changed)} UTC"
    table = Table("model", "version", "service", "learnt", "what is normal is", "days", "from", "memory", title=moment)
    for row in rows:
        shown = row.shown
        learnt = "-" if row.phase == "calibrated" else "reference, null" if _is_surveyed(row) else "null"
        phase = _say_phase(row.phase, shown)
        first = shown.get("span", [-1])[0]
        began = datetime.fromtimestamp(first * 3600, timezone.utc).strftime("%Y-%m-%d") if first >= 0 else "-"
        size = f"{shown['size'] / 1e6:.1f} MB" if shown.get("size") else "-"
        model = (row.model.model, row.model.version, row.model.service)
        cells = (*model, learnt, phase, str(shown.get("days", "-")), began, size)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    console.print(table)
    for row in rows if features else []:
        if row.shown:
            console.print(_list_features(row))


def _say_phase(phase: str, shown: dict[str, Any]) -> str:
    days = shown.get("rolling", 0)
    if phase != "rolling":
        return f"{_PHASES[phase]}; then the newest {days} days" if days else _PHASES[phase]
    newest = f"the newest {days} days"
    return newest if shown["days"] >= LEAST_DAYS else f"fixed until {LEAST_DAYS} days are learnt; then {newest}"


def _is_surveyed(row: Row) -> bool:
    return row.phase == "survey" or bool(row.shown.get("surveyed"))


def _list_features(row: Row) -> Table:
    table = Table(
        "feature or output", "hours not learnt", "", title=escape(_say_model(row.model)), title_justify="left"
    )
    day = DAY // HOUR
    refused = np.asarray(row.shown["refused"]).tolist()
    for place, (label, hours) in enumerate(zip(row.variables, refused, strict=True)):
        unknown = "not known: too few sound hours" if place in row.shown["unknown"] else ""
        days = f" ({hours / day:.1f} days)" if hours >= day else ""
        table.add_row(escape(printable(label)), f"{hours}{days}", unknown)
    return table


COMMAND = Command(SUMMARIES["reference"], configure, run)
