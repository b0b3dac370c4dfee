"""False alarms of the alarm budget on streams in which nothing changes, and how soon a change is seen.

    make bench-alarms

Writes alarms.json, .md and .png beside this file: hours on one core. Every unit (a model-month, or the changes of one
seed) is a line of alarms.jsonl as soon as it is done, so a run that was stopped goes on. --quick (5 minutes at most)
prints a page of a few units and writes nothing. --streams module:function takes the counts of all features from
simulate(kind, rows, windows, cells, rng) -> (windows, cells), windows of a minute from a Monday's midnight on.
Exit status 1 where false alarms exceed the budget. Nothing was ever tuned on seeds from FIRST on, of heavy-tailed days
from LATER on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from alarm_streams import KINDS
from alarms_curve import draw_picture
from alarms_model import make_scanner, run_delays, run_null
from alarms_page import over_budget, render, summarize

HERE = Path(__file__).resolve().parent
LINES = HERE / "alarms.jsonl"
PEERS = HERE / "alarms_peers.json"
RESULT = HERE / "alarms.json"
SEED = 6
FIRST = 100
LATER = {"heavy-tailed days": 100}  # more than FIRST: how heavy tails are told was mended after those were seen
ROWS = (50, 200, 1_000, 100)
MONTHS = 20
CHANGED = ("independent", "season + autoregressive")
BUDGETS = [1.0, 0.1, 10.0, 100.0]
CURVE = {("independent", 1_000), ("season + autoregressive", 1_000)}  # other budgets and PSI are tried too
Unit = dict[str, Any]


def plan(months: int, first: int = FIRST) -> Iterator[Unit]:
    """All units, so that a part of them is spread over everything."""
    for seed in range(first, first + months):
        for rows in ROWS:
            for kind in KINDS:
                yield {"what": "null", "kind": kind, "rows": rows, "seed": seed + LATER.get(kind, 0)}
                if kind in CHANGED and seed < first + 15:
                    yield {"what": "delay", "kind": kind, "rows": rows, "seed": seed}


def key(unit: Unit) -> tuple[Any, ...]:
    return tuple(unit[name] for name in ("what", "kind", "rows", "seed"))


def run(unit: Unit, simulate: Any, days: int = 30) -> Unit:
    """The unit with its results; what it draws depends on the unit alone."""
    seed = [SEED, zlib.crc32(unit["kind"].encode()), unit["rows"], unit["seed"], int(unit["what"] == "delay")]
    curve = (unit["kind"], unit["rows"]) in CURVE and unit["seed"] < FIRST + 10 and simulate is None
    budgets = BUDGETS if curve else BUDGETS[:1]
    if unit["what"] == "null":
        return {**unit, **run_null(unit["kind"], unit["rows"], seed, budgets, simulate=simulate, days=days)}
    return {**unit, **run_delays(unit["kind"], unit["rows"], seed, budgets)}


def load_streams(name: str) -> Any:
    """The function of "module:function"; modules of the current folder are found."""
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), function)


def measure_cost(features: int = 10_000, windows: int = 96) -> dict[str, float]:
    """Microseconds of processor time for a feature and window, one window at a time as in production, all scales."""
    from alarms_model import FEATURES, START, calibrate, make_model

    model = make_model("season + autoregressive", 200, 1, np.random.default_rng(SEED))
    few, copies = calibrate(model), np.arange(features) % FEATURES
    _, scanner = make_scanner([few[f] for f in copies])
    spent = []
    for window in range(windows):
        at = slice(model.cut + window, model.cut + window + 1)
        values = [
            np.ascontiguousarray(a[..., at][..., copies, :], dtype=np.int64) for a in (model.counts, model.missing)
        ]
        seen = model.seen[copies, at]
        started = time.process_time()  # others work on the machine too
        scanner.advance(START + model.cut + window, *values, seen)
        spent.append(time.process_time() - started)
    return {
        "features": features,
        "windows": windows,
        "us": round(float(np.mean(spent)) / features * 1e6, 2),
        "us, slowest window": round(float(np.max(spent)) / features * 1e6, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few units; writes nothing")
    parser.add_argument("--streams", metavar="MODULE:FUNCTION", help="other streams; writes nothing")
    parser.add_argument("--months", type=int, default=MONTHS, help="for each kind and number of rows (default: 20)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no unit later than this")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page from what there is")
    options = parser.parse_args()
    simulate = load_streams(options.streams) if options.streams else None
    save = not options.quick and simulate is None
    done: list[Unit] = []
    if save and LINES.exists():
        done = [json.loads(line) for line in LINES.read_text().splitlines()]
    known = {key(unit) for unit in done}
    until = time.monotonic() + 60 * min(options.minutes, 4 if options.quick else float("inf"))
    days = 10 if options.quick else 30
    for unit in plan(1 if options.quick else options.months):
        if options.page or time.monotonic() > until:
            break
        if key(unit) in known or (simulate is not None and unit["what"] == "delay"):
            continue
        result = run(unit, simulate, days)
        done.append(result)
        print(json.dumps(result), file=sys.stderr, flush=True)
        if save:
            with LINES.open("a") as file:
                file.write(json.dumps(result) + "\n")
    summary = summarize(done, _cost(options.page))
    if PEERS.exists():
        summary["peers"] = json.loads(PEERS.read_text())
    page = render(summary)
    print(page)
    if save:
        RESULT.write_text(json.dumps(summary, indent=1) + "\n")
        RESULT.with_suffix(".md").write_text(page)
        draw_picture(summary, RESULT.with_suffix(".png"))
    return int(over_budget(summary))


def _cost(keep: bool) -> dict[str, float]:
    if keep and RESULT.exists():
        return json.loads(RESULT.read_text())["cost"]
    return measure_cost()


if __name__ == "__main__":
    sys.exit(main())
