"""One tool on sampled windows of the streams of alarms.py; runs in the tool's own environment.

    alarms_peers_worker.py TOOL < cells

Takes a list of cells (JSON), prints a line of JSON for each: in how many of its windows anything is called changed, and
in how many the feature that changes.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
import zlib
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", NML_DISABLE_USAGE_LOGGING="1", DO_NOT_TRACK="1")  # no tool may call home

import numpy as np
import pandas as pd
from alarm_streams import DAY, MISSING, draw_counts, draw_paths, shares_of
from comparers import Called
from scipy.special import ndtri

SEED = 6
FEATURES = 30
CELLS = 20
DAYS = 14
REFERENCE = 10_000  # rows


def make_values(counts: np.ndarray, feature: int, missing: int, rng: np.random.Generator) -> np.ndarray:
    """Values of these counts in random order: normal within the cells of a number, names of a category."""
    cells = np.repeat(np.arange(CELLS), counts)
    if feature % 3 == 2:
        values: Any = np.array([f"c{cell}" for cell in cells], dtype=object)
        values = np.append(values, np.full(missing, None, dtype=object))
    else:
        values = np.append(ndtri((cells + rng.random(cells.size)) / CELLS), np.full(missing, np.nan))
    return rng.permutation(values)


def make_frames(cell: dict[str, Any]) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """A sample of the rows of 14 reference days, and windows of the days after them."""
    rng = np.random.default_rng([SEED, zlib.crc32(cell["kind"].encode()), cell["rows"]])
    windows = 2 * DAYS * DAY
    mean, log = draw_paths(cell["kind"], windows, FEATURES, rng)
    if cell["change"].startswith("mean"):
        mean[0, DAYS * DAY :] += float(cell["change"].split()[2])
    at = np.append(rng.choice(DAYS * DAY, 500), DAYS * DAY + rng.choice(DAYS * DAY, cell["windows"], replace=False))
    rows = np.where(at < DAYS * DAY, REFERENCE // 500, cell["rows"])
    frames: list[dict[str, np.ndarray]] = [{} for _ in range(cell["windows"] + 1)]
    for f in range(FEATURES):
        missing = rng.binomial(rows, MISSING)
        counts = draw_counts(mean[f, at], log[f, at], rows - missing, shares_of(f, CELLS), rng)
        frames[0][f"f{f}"] = make_values(counts[:500].sum(axis=0), f, int(missing[:500].sum()), rng)
        for i in range(cell["windows"]):
            frames[i + 1][f"f{f}"] = make_values(counts[500 + i], f, int(missing[500 + i]), rng)
    made = [pd.DataFrame(columns) for columns in frames]
    return made[0], made[1:]


def detect_frouros(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """KSTest of each number, ChiSquareTest of each category, p < 0.05 (frouros leaves the level to its user)."""
    from frouros.detectors.data_drift import ChiSquareTest, KSTest

    called = []
    for name in reference:
        a, b = reference[name].dropna().to_numpy(), current[name].dropna().to_numpy()
        detector = KSTest() if a.dtype.kind == "f" else ChiSquareTest()
        detector.fit(X=a)
        result, _ = detector.compare(X=b)
        if result.p_value < 0.05:
            called.append((str(name), f"p: {result.p_value:.2g}"))
    return {"p < 0.05": called}


def main() -> int:
    warnings.simplefilter("ignore")
    from comparers import COMPARERS

    tools = {**COMPARERS, "frouros": detect_frouros}
    detect = tools[sys.argv[1]]
    out, sys.stdout = sys.stdout, sys.stderr  # some tools print
    for cell in json.load(sys.stdin):
        reference, windows = make_frames(cell)
        any_called: dict[str, int] = {}
        changed: dict[str, int] = {}
        started = time.perf_counter()
        for window in windows:
            for variant, called in detect(reference, window).items():
                any_called[variant] = any_called.get(variant, 0) + bool(called)
                whole = variant == "dataset"
                changed[variant] = changed.get(variant, 0) + any(whole or name == "f0" for name, _ in called)
        ms = (time.perf_counter() - started) / len(windows) * 1000
        print(json.dumps({**cell, "any": any_called, "changed": changed, "ms": round(ms, 1)}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
