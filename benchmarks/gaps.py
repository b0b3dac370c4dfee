"""False alarms where production has other row rates than the reference, sessions of alike rows, and bursts of retries.

    make bench-gaps

Writes gaps.json beside this file: an hour on one core. A reference of 14 days says what is normal; then each row rate
has ten days of production in which no feature changes. Eight features of 6 cells, each with three rates (of 1 %, 0.05 %
and 0.005 %), all in sessions of rows that are alike; the budget is one false alarm in 30 days.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from alarm_streams import DAY, draw_counts, draw_paths, wander
from alarms_model import make_scanner

from otel_mlmon.numerics.calibration import fit_calibration

RESULT = Path(__file__).resolve().with_suffix(".json")
FEATURES, CELLS, REFERENCE, DAYS = 8, 6, 14, 10
START = 20_004 * DAY
SHARES = (0.01, 0.0005, 0.00005)
FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
SEED = 11
WHAT = ("values", "rates")
QUIET = 30  # minutes without a hit after which the next is another alarm
BURST, BURSTS, TIMES = 10, 2, 4  # minutes of a burst of retries, bursts a day, how often each row comes


class Case(NamedTuple):
    """A kind of `alarm_streams`, rows a minute of the reference, rows of a session; what else is told.

    Args:
        rate_wander: standard deviation of the log of each rate, which wanders within an hour.
        known, new: whether there are bursts of retries in the reference, in production.
    """

    name: str
    kind: str
    rows: int
    session: int
    rate_wander: float = 0.0
    known: bool = False
    new: bool = False


def plan() -> Iterator[Case]:
    for rows in (50, 1_000):
        for session in (1, 5, 50):
            yield Case("sessions", "independent", rows, session)
            yield Case("season + autoregressive", "season + autoregressive", rows, session)
            yield Case("bursts of other users", "bursts", rows, session)
        for session in (1, 50):
            yield Case("rates that wander", "independent", rows, session, rate_wander=0.4)
        for session in (1, 5):
            yield Case("retries, known", "independent", rows, session, known=True, new=True)
            yield Case("retries, new", "independent", rows, session, new=True)


class Paths(NamedTuple):
    """Mean and log standard deviation (features, windows); by what rates are multiplied (features, 3, windows)."""

    mean: np.ndarray
    log: np.ndarray
    rates: np.ndarray

    def part(self, start: int, end: int) -> Paths:
        return Paths(*(a[..., start:end] for a in self))


def draw(paths: Paths, rows: float, session: int, retries: bool, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts (cells, features, windows), rates (3, features, windows), values seen (features, windows)."""
    windows = paths.mean.shape[1]
    times = np.full(windows, session)
    if retries:
        for start in rng.integers(0, windows - BURST, BURSTS * windows // DAY):
            times[start : start + BURST] = TIMES * session
    sessions = rng.poisson(rows / session, windows)
    counts, rates = (np.zeros((size, FEATURES, windows), dtype=np.int64) for size in (CELLS, len(SHARES)))
    for f in range(FEATURES):
        left = sessions.copy()
        for r, share in enumerate(SHARES):
            rates[r, f] = rng.binomial(left, np.minimum(share * paths.rates[f, r], 1))
            left -= rates[r, f]
        counts[:, f] = draw_counts(paths.mean[f], paths.log[f], left, np.full(CELLS, 1 / CELLS), rng).T
    counts, rates = counts * times, rates * times
    return counts, rates, counts.sum(axis=0) + rates.sum(axis=0)


def run(case: Case, seed: int) -> list[dict[str, Any]]:
    """False alarms of the values and of the rates at each row rate."""
    key = [SEED, case.rows, case.session, seed, sum(map(ord, case.kind))]
    rng, windows, cut = np.random.default_rng(key), (REFERENCE + DAYS) * DAY, REFERENCE * DAY
    mean, log = draw_paths(case.kind, windows, FEATURES, rng)
    rates = np.ones((FEATURES, len(SHARES), windows))
    if case.rate_wander:
        paths = wander(windows, rng, paths=rates[..., 0].size).reshape(rates.shape)
        rates = np.exp(case.rate_wander * paths - case.rate_wander**2 / 2)
    paths = Paths(mean, log, rates)
    reference = draw(paths.part(0, cut), case.rows, case.session, case.known, rng)
    held, numbers = reference[2] > 0, START + np.arange(cut)
    calibrations = []
    for f in range(FEATURES):
        counts, missing, seen = (a.reshape(-1, FEATURES, cut)[:, f, held[f]] for a in reference)
        calibrations.append(fit_calibration(numbers[held[f]], counts.T, missing.T, seen[0]))
    found = []
    for factor in FACTORS:
        drawn = np.random.default_rng([*key, int(100 * factor)])
        stream = draw(paths.part(cut, windows), case.rows * factor, case.session, case.new, drawn)
        _, scanner = make_scanner(calibrations)
        hits = []
        for at in range(0, DAYS * DAY, 240):
            hits += scanner.advance(START + cut + at, *(a[..., at : at + 240] for a in stream))
        alarms = {what: count([h.window for h in hits if (h.test == "rates") == (what == "rates")]) for what in WHAT}
        found.append({"case": case.name, "rows": case.rows, "session": case.session, "factor": factor, **alarms})
    return found


def count(windows: list[int]) -> int:
    """Alarms: hits with more than QUIET minutes between them."""
    ordered = np.sort(windows)
    return int(ordered.size > 0) + int((np.diff(ordered) > QUIET).sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="references of each case (default: 3)")
    parser.add_argument("--only", metavar="CASE", help="this case alone; writes nothing")
    options = parser.parse_args()
    totals: dict[tuple[str, int, int], dict[str, Any]] = {}
    for seed in range(options.seeds):
        for case in plan():
            for one in run(case, seed) if options.only in (None, case.name) else []:
                at = totals.setdefault((one["case"], one["rows"], one["session"]), {})
                sums = at.setdefault(f"x {one['factor']:g}", {"days": 0, **dict.fromkeys(WHAT, 0)})
                sums["days"] += DAYS
                for what in WHAT:
                    sums[what] += one[what]
                print(json.dumps({**one, "seed": seed}), file=sys.stderr, flush=True)
    rows = [{"case": c, "rows": r, "session": s, "factors": found} for (c, r, s), found in totals.items()]
    if options.only is None:
        RESULT.write_text(json.dumps({"seeds": options.seeds, "cases": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
