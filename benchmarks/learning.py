"""False alarms while what is normal is learnt, and what learning takes: `make bench-learning` writes learning.json.

Streams of the alarms benchmark and harder ones (features missing at night, nights with a tenth of the rows and their
own population, sessions of 50 rows against a profile of 1,000): each begins with the profile and goes on for
fourteen days, several times. Faults say how long it takes until they are told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from otel_mlmon_processor.core.learning import Learning
from otel_mlmon_processor.core.mixture import Mixture
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

DAY: Final = 1_440
CELLS: Final = 20
FEATURES: Final = 30
START: Final = 20_000 * DAY
MISSING: Final = 0

Row = tuple[Any, Any]  # counts (cells, features), rates (7, features)


def make_rows(kind: str, rows: int, days: int, rng: np.random.Generator) -> Iterator[Row]:
    """Windows of a stream, in order."""
    at = np.arange(days * DAY)
    night = at % DAY < 420
    session = 50 if "sessions" in kind else 1
    wander = 0.3 if "wander" in kind else 0.0
    season = np.sin(2 * np.pi * at / DAY) if "season" in kind else np.zeros(at.size)
    busy = np.where(night, 0.1, 1.0) if "nights" in kind else np.ones(at.size)
    level = lfilter([1], [1, -0.98], rng.normal(size=(FEATURES, at.size)) * (1 - 0.98**2) ** 0.5) * wander + season
    gone = np.where(night, 1.0, 0.0) if "missing" in kind else np.full(at.size, 0.005)
    edges = ndtri(np.arange(1, CELLS) / CELLS)
    for w in at.tolist():
        total = rng.poisson(rows * busy[w] / session, FEATURES)
        lost = rng.binomial(total, gone[w])
        own = level[:, w] + (2.0 if "nights" in kind and night[w] else 0.0)
        chances = np.diff(ndtr(edges - own[:, np.newaxis]), axis=1, prepend=0, append=1)
        counts = rng.multinomial(total - lost, chances).T * session
        rates = np.zeros((7, FEATURES), dtype=np.int64)
        rates[MISSING] = lost * session
        yield counts, rates


def make_profile(kind: str, rows: int, rng: np.random.Generator, size: int) -> tuple[Any, Any]:
    """Counts of a reference of fourteen days of the stream; of `size` rows of it where that is not 0."""
    counts, rates = np.zeros((CELLS, FEATURES), np.int64), np.zeros((7, FEATURES), np.int64)
    for more, others in make_rows(kind, rows, 14, rng):
        counts += more
        rates += others
    if size:
        every = np.concatenate([counts, rates[:1]])
        drawn = np.stack([rng.multinomial(size, every[:, f] / every[:, f].sum()) for f in range(FEATURES)], axis=1)
        counts, rates[:1] = drawn[:CELLS], drawn[CELLS:]
    return np.concatenate([counts, rates]), np.stack([counts.sum(axis=0), counts.sum(axis=0) + rates[MISSING]])


def run_stream(kind: str, rows: int, size: int, months: int, seed: int) -> dict[str, Any]:
    """False alarms in so many times fourteen days: features with a hit, per fourteen days."""
    rng = np.random.default_rng(seed)
    alarms, took, windows = 0, 0.0, 0
    for _ in range(months):
        mixture = Mixture(np.full(FEATURES, CELLS), *make_profile(kind, rows, rng, size), 1.0, growing=False)
        hit: set[int] = set()
        for w, (counts, rates) in enumerate(make_rows(kind, rows, 14, rng)):
            seen = counts.sum(axis=0) + rates[MISSING]
            began = time.process_time()
            hit |= {h.variable for h in mixture.advance(START + w, counts, rates, seen) if h.evidence >= 1}
            took += time.process_time() - began
            windows += 1
        alarms += len(hit)
    spent = took / windows / FEATURES * 1e6
    return {"kind": kind, "rows": rows, "profile": size, "fortnights": months, "alarms": alarms, "us": round(spent, 2)}


def run_fault(name: str, change: Callable[[Any, Any], None], rows: int, size: int, seed: int) -> dict[str, Any]:
    """Minutes until a fault is told that begins after a day."""
    rng = np.random.default_rng(seed)
    mixture = Mixture(np.full(FEATURES, CELLS), *make_profile("season", rows, rng, size), 1.0, growing=False)
    for w, (counts, rates) in enumerate(make_rows("season", rows, 7, rng)):
        if w >= DAY:
            change(counts, rates)
        hits = mixture.advance(START + w, counts, rates, counts.sum(axis=0) + rates[:4].sum(axis=0))
        if any(h.variable == 0 and h.evidence >= 1 for h in hits):
            return {"fault": name, "rows": rows, "profile": size, "minutes": w - DAY}
    return {"fault": name, "rows": rows, "profile": size, "minutes": None}


def lose(counts: Any, rates: Any) -> None:
    """All values of a feature."""
    rates[MISSING, 0] += counts[:, 0].sum()
    counts[:, 0] = 0


def renew(counts: Any, rates: Any) -> None:
    """All values are ones that were never seen."""
    rates[4, 0] = counts[:, 0].sum()


def stick(counts: Any, _: Any) -> None:
    """At one value."""
    total = counts[:, 0].sum()
    counts[:, 0] = 0
    counts[7, 0] = total


def measure_memory(rows: int) -> dict[str, Any]:
    """Bytes of a feature for fourteen days."""
    rng = np.random.default_rng(9)
    learning = Learning([CELLS] * FEATURES, 7)
    for w, (counts, rates) in enumerate(make_rows("season", rows, 14, rng)):
        learning.advance(START + w, counts, rates)
    learning.advance(START + 14 * DAY, counts, rates)
    return {"rows": rows, "bytes": round(learning.size / FEATURES)}


KINDS: Final = (
    "independent",
    "sessions",
    "season wander",
    "season wander sessions",
    "missing",
    "nights",
    "nights sessions",
)


def main() -> None:
    """Run it, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fortnights", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {
        "memory": [measure_memory(rows) for rows in (50, 1_000)],
        "faults": [],
        "streams": [],
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, change in (("missing", lose), ("never seen", renew), ("stuck", stick)):
        for rows, size in ((50, 1_000), (50, 100_000), (1_000, 1_000), (1_000, 100_000)):
            found["faults"].append(run_fault(name, change, rows, size, 7))
    for size in (0, 1_000):
        for rows in (50, 1_000):
            for seed, kind in enumerate(KINDS):
                found["streams"].append(run_stream(kind, rows, size, args.fortnights, seed))
                args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
