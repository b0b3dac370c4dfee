"""Whether `otel_mlmon.compare` keeps its budget of false alarms, what it finds, and how others do on the same frames.

    make bench-compare-alarms

Writes compare_alarms.json, .md and .png beside this file, about 30 minutes on one core; cells that are in the JSON are
not run again, so a run that was stopped goes on. --quick (two minutes) prints a page from few repetitions and writes
nothing. Exit status 1 where a cell breaks the budget.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compare_alarms_page import EQUAL, OURS, PEER_CHANGES, POWER, SHOWN, Cell, broken, draw_picture, render
from compare_alarms_worker import CHANGES, SEED
from comparers import PINS
from environments import make_environment
from recorder import machine

HERE = Path(__file__).resolve().parent
RESULT = HERE / "compare_alarms.json"
SIZES = ((200, 200), (1_000, 1_000), (10_000, 1_000), (1_000, 10_000), (100_000, 10_000))
NULL = {
    "35": (400, 400, 400, 400, 100),
    "5": (400, 400, 400, 400, 100),
    "rare": (400, 400, 400, 400, 100),
    "discrete": (400, 400, 400, 400, 100),
}
WIDE = (30, 30, 20, 20, 5)  # of 500 features
PEERS = {"scipy": 50, "alibi-detect": 50, "whylogs": 30, "nannyml": 30, "evidently": 20}


def plan(quick: bool) -> Iterator[Cell]:
    """All cells, in the order they are run."""

    def cell(tool: str, frame: str, change: str, sizes: tuple[int, int], repetitions: int) -> Cell:
        few = max(repetitions // (20 if repetitions >= 100 else 15), 2) if quick else repetitions
        return dict(
            zip(
                ("tool", "frame", "change", "reference", "current", "repetitions"),
                (tool, frame, change, *sizes, few),
                strict=True,
            )
        )

    for frame, repetitions in NULL.items():
        for sizes, number in zip(SIZES, repetitions, strict=True):
            yield cell(OURS, frame, "none", sizes, number)
    yield cell(OURS, "35", "none", EQUAL[1], 200)
    for sizes in POWER:
        for change in CHANGES:
            yield cell(OURS, "35", change, sizes, 50)
    for sizes, number in zip(SIZES, WIDE, strict=True):
        if not quick:
            yield cell(OURS, "500", "none", sizes, number)
    for tool, repetitions in PEERS.items():
        changes = ("none", SHOWN) if tool == "evidently" or quick else ("none", *PEER_CHANGES)
        for sizes in EQUAL:
            for change in changes:
                yield cell(tool, "35", change, sizes, repetitions)


def key(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("tool", "frame", "change", "reference", "current", "repetitions"))


def run(cells: Sequence[Cell], done: list[Cell], *, save: bool) -> list[Cell]:
    """Cells with their results; those of `done` are taken as they are, and each new one is written at once."""
    known = {key(cell): cell for cell in done}
    for tool in dict.fromkeys(cell["tool"] for cell in cells):
        todo = [cell for cell in cells if cell["tool"] == tool and key(cell) not in known]
        if not todo:
            continue
        python = make_environment(tool, PINS[tool]) if tool in PINS else sys.executable
        command = [python, HERE / "compare_alarms_worker.py", tool]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(todo))
            process.stdin.close()
            for line in process.stdout:
                cell = json.loads(line)
                print(*key(cell), f"{cell['ms']} ms", file=sys.stderr, flush=True)
                known[key(cell)] = cell
                if save:
                    write_result([known[key(cell)] for cell in cells if key(cell) in known])
        if process.returncode:
            raise SystemExit(f"{tool} ended with status {process.returncode}")
    return [known[key(cell)] for cell in cells]


def write_result(cells: list[Cell]) -> None:
    result = {"seed": SEED, "machine": machine(), "pins": PINS, "cells": cells}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions; writes nothing")
    quick = parser.parse_args().quick
    cells = list(plan(quick))
    done = json.loads(RESULT.read_text())["cells"] if RESULT.exists() and not quick else []
    cells = run(cells, done, save=not quick)
    page = render(cells, machine())
    print(page)
    if not quick:
        write_result(cells)
        RESULT.with_suffix(".md").write_text(page)
        draw_picture(cells, RESULT.with_suffix(".png"))
    return int(bool(broken(cells)))


if __name__ == "__main__":
    sys.exit(main())
