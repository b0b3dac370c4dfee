"""A model process of `make bench-outage`: python outage_worker.py INTERVALS TEMPORALITY; the environment says where to.

Predicts until so many intervals were collected (the first WARM are not timed), says "mend" on stdout, waits for a line,
sends what is left, and prints JSON: calls, microseconds of calls and of recording alone, memory, how often it was sent
until all was acknowledged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from otel_mlmon import Monitor, Profile

FEATURES, PAUSE, WARM = 35, 0.0005, 10  # columns, seconds between calls, intervals
SENDS = 1000  # to find the receiver again


class Counted(Monitor):
    """Knows how many intervals it has collected."""

    intervals = 0

    def collect(self, *args: Any) -> Any:
        self.intervals += 1
        return super().collect(*args)


def resident() -> int:
    """Bytes of memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> int:
    logging.disable()  # the SDK tells of each export that failed
    intervals, temporality = int(sys.argv[1]), sys.argv[2]
    rng = np.random.default_rng(1)
    train = rng.normal(size=(5_000, FEATURES))
    model = LogisticRegression().fit(train, train[:, 0] > 0)
    scores = model.predict_proba(train)[:, 1]
    monitor = Counted(Profile.build(train, model="bench", predictions={"score": scores}), temporality=temporality)
    rows = [row.reshape(1, FEATURES) for row in rng.normal(size=(512, FEATURES))]
    calls, memory, whole, alone = 0, 0, [], []
    with monitor.inference(rows[0]) as call:
        call.record({"score": scores[:1]})
    monitor.flush()
    while monitor.intervals < intervals:
        X = rows[calls // 2 % 512]
        began = time.perf_counter()
        with monitor.inference(X) as call:
            y = model.predict_proba(X)
            call.record({"score": y[:, 1]})
        between = time.perf_counter()
        with monitor.inference(X) as call:
            call.record({"score": y[:, 1]})
        ended = time.perf_counter()
        calls += 2
        if monitor.intervals >= WARM:
            memory = memory or resident()
            whole.append(between - began)
            alone.append(ended - between)
        time.sleep(PAUSE)
    grown = resident() - memory
    print("mend", flush=True)
    sys.stdin.readline()
    sends = next(n for n in range(1, SENDS) if monitor.flush())
    monitor.close()
    figures = {
        name: {f"p{q}": float(np.percentile(seconds, q)) * 1e6 for q in (50, 99)}
        for name, seconds in (("call", whole), ("recording", alone))
    }
    print(json.dumps({"calls": calls + 1, "timed": len(whole), "us": figures, "grown": grown, "sends": sends}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
