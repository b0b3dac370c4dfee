"""One tool on frames of known change; runs in the tool's own environment, started by compare_alarms.py.

    compare_alarms_worker.py TOOL < cells

Takes a list of cells (JSON), prints a line of JSON for each. The frames depend on the cell and the number of the
repetition alone, so all tools see the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", NML_DISABLE_USAGE_LOGGING="1", DO_NOT_TRACK="1")  # no tool may call home

import numpy as np
import pandas as pd
from comparers import COMPARERS, Called, Detect

SEED = 7
NUMBERS = ("normal", "lognormal", "t3", "integers", "ties", "zeros")
CATEGORIES = ("zipf3", "zipf10", "zipf30", "zipf80", "zipf200")
RARE = ("flag", "poisson", "minus", "unknown", "spelling", "normal")
FRAMES = {
    "5": ["normal", "t3", "integers", "zeros", "zipf30"],
    "35": [*NUMBERS * 5, *CATEGORIES],
    "500": [*NUMBERS * 71, *NUMBERS[:4], *CATEGORIES * 14],
    "rare": list(RARE),
    "discrete": ["flag", "poisson", "zipf3", "zipf10", "zipf30"],
}
MISSING = 0.01  # share, in every third column
CHANGES = {  # the column that changes
    "mean + 0.1 sd": "normal_0",
    "mean + 0.25 sd": "normal_0",
    "mean + 0.5 sd": "normal_0",
    "variance x 1.25": "normal_0",
    "variance x 1.5": "normal_0",
    "missing 1 % -> 3 %": "integers_3",
    "a category + 5 points": "zipf10_31",
}


def draw(kind: str, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Values of a column, shape (rows,)."""
    if kind.startswith("zipf"):
        size = int(kind[4:])
        return _choose(rng, rows, [f"c{i}" for i in range(size)], 1 / np.arange(1, size + 1))
    makers: dict[str, Callable[[], np.ndarray]] = {
        "normal": lambda: rng.normal(size=rows),
        "lognormal": lambda: rng.lognormal(sigma=1.5, size=rows),
        "t3": lambda: rng.standard_t(3, size=rows),
        "integers": lambda: rng.integers(0, 1_000, rows),
        "ties": lambda: np.round(rng.normal(size=rows) * 2) / 2,
        "zeros": lambda: np.where(rng.random(rows) < 0.7, 0.0, rng.exponential(size=rows)),
        "flag": lambda: (rng.random(rows) < 0.01).astype(np.int64),
        "poisson": lambda: rng.poisson(3, rows),
        "minus": lambda: np.where(rng.random(rows) < 0.003, -1, rng.poisson(40, rows)),
        "unknown": lambda: _choose(rng, rows, ["red", "green", "blue", "unknown"], [0.5, 0.3, 0.197, 0.003]),
        "spelling": lambda: _choose(rng, rows, ["North", "South", "north"], [0.6, 0.397, 0.003]),
    }
    return makers[kind]()


def _choose(rng: np.random.Generator, rows: int, names: list[str], weights: Any) -> np.ndarray:
    """Names, by weights of any sum."""
    edges = np.cumsum(weights)
    return np.array(names, dtype=object)[np.searchsorted(edges / edges[-1], rng.random(rows), side="right")]


def make_frame(name: str, rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """A frame of columns `kind_number`; every third has missing values."""
    columns = {}
    for i, kind in enumerate(FRAMES[name]):
        values = draw(kind, rng, rows)
        if i % 3 == 0 and f"{kind}_{i}" != "normal_0" and name not in ("rare", "discrete"):
            values = blank(values, rng, MISSING)
        columns[f"{kind}_{i}"] = values
    return pd.DataFrame(columns)


def blank(values: Any, rng: np.random.Generator, share: float) -> np.ndarray:
    """The same with a share of them missing: None among strings, NaN among numbers, which become floats."""
    values = np.asarray(values)
    kept = values.copy() if values.dtype == object else values.astype(np.float64)
    kept[rng.random(kept.size) < share] = None if values.dtype == object else np.nan
    return kept


def apply_change(frame: pd.DataFrame, change: str, rng: np.random.Generator) -> None:
    """Change one column in place; "none" leaves all as they are."""
    if change == "none":
        return
    name = CHANGES[change]
    if change.startswith("mean"):
        frame[name] += float(change.split()[2])
    elif change.startswith("variance"):
        frame[name] *= float(change.split()[2]) ** 0.5
    elif change.startswith("missing"):
        frame[name] = blank(frame[name], rng, 1 - (1 - 0.03) / (1 - MISSING))
    else:  # c1 has 0.171 of the values
        others = (frame[name] != "c1") & (rng.random(len(frame)) < 0.05 / (1 - 0.5 / (1 / np.arange(1, 11)).sum()))
        frame.loc[others, name] = "c1"


def make_sides(cell: dict[str, Any], repetition: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reference and current, drawn independently of each other."""
    sizes = cell["reference"], cell["current"]
    rng = np.random.default_rng([SEED, zlib.crc32(f"{cell['frame']} {cell['change']}".encode()), *sizes, repetition])
    reference, current = (make_frame(cell["frame"], rng, rows) for rows in sizes)
    apply_change(current, cell["change"], rng)
    return reference, current


class Ours:
    """otel_mlmon.compare at its defaults, and with no tolerance; both sides are read once for the two."""

    def __init__(self) -> None:
        import otel_mlmon

        self.compare: Any = otel_mlmon.compare
        self.checked = False

    def __call__(self, reference: pd.DataFrame, current: pd.DataFrame) -> Called:
        from otel_mlmon.comparison.compare import compare_sides
        from otel_mlmon.comparison.sides import Choice, read_current, read_reference

        rest: Any = {"where": None, "name": "", "notify": lambda *_: None}
        before = read_reference(reference, current, Choice(), **rest)
        after = read_current(current, before, Choice(), **rest)
        found = {
            name: compare_sides(before, after, tolerance=t) for name, t in (("default", 0.005), ("tolerance 0", 0))
        }
        if not self.checked:  # what is timed and judged here is what the public function says
            assert self.compare(reference, current).findings == found["default"].findings
            self.checked = True
        return {
            name: [(f.name, f"{f.kind}: {f.text}") for f in result.findings if f.level != "note"]
            for name, result in found.items()
        }


TOOLS: dict[str, Callable[[], Detect]] = {"otel-mlmon": Ours, **{n: lambda d=d: d for n, d in COMPARERS.items()}}


def run_cell(cell: dict[str, Any], detect: Detect) -> dict[str, Any]:
    """Counts of a cell by variant: failed, changed column called, called first, and failures by reason and kind."""
    variants: dict[str, Any] = {}
    changed, spent = CHANGES.get(cell["change"]), 0.0
    for repetition in range(cell["repetitions"]):
        sides = make_sides(cell, repetition)
        started = time.perf_counter()
        found = detect(*sides)
        spent += time.perf_counter() - started
        for variant, called in found.items():
            held = variants.setdefault(variant, {"failed": 0, "found": 0, "first": 0, "why": Counter(), "example": {}})
            held["failed"] += bool(called)
            held["found"] += changed in [name for name, _ in called]
            held["first"] += bool(called) and called[0][0] == changed
            reasons = {}
            for name, text in called:
                kind = name.partition("_")[0] or "rows"
                reasons.setdefault(f"{text.partition(':')[0]}, {kind}", f"repetition {repetition}: {name}: {text}")
            if changed is None:
                held["why"].update(list(reasons))
                held["example"] = {**reasons, **held["example"]}
    return {**cell, "ms": round(spent / cell["repetitions"] * 1000, 1), "variants": variants}


def main() -> int:
    warnings.simplefilter("ignore")
    detect = TOOLS[sys.argv[1]]()
    out, sys.stdout = sys.stdout, sys.stderr  # some tools print
    detect(*make_sides({"frame": "35", "change": "none", "reference": 200, "current": 200}, 10**6))  # imports
    for cell in json.load(sys.stdin):
        print(json.dumps(run_cell(cell, detect)), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
