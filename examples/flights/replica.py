"""One replica of the model: replays its share of the flights, a day for each line on standard input.

    python replica.py MODEL FLIGHTS [FAULT ...]

A line is `DAY [FAULT ...]`, where a fault is `kilometres` (distance in kilometres instead of miles) or `no-wind` (wind
speed missing). It answers with the number of flights once they are acknowledged.
"""

from __future__ import annotations

import sys

import joblib
import numpy as np
import pandas as pd
from data import FEATURES

from otel_mlmon import Monitor, Profile

DAY = 86_400.0


def main() -> int:
    model, flights = joblib.load(sys.argv[1]), pd.read_parquet(sys.argv[2])
    days = dict(tuple(flights.groupby("day")))
    monitor = Monitor(Profile.attached(model), temporality="delta", resolution=DAY)
    print("ready", flush=True)
    for line in sys.stdin:
        day, *faults = line.split()
        rows = days.get(pd.Timestamp(day))
        if rows is not None:
            X = rows[FEATURES].copy()
            if "kilometres" in faults:
                X["distance"] *= 1.609344
            if "no-wind" in faults:
                X["wind_speed"] = np.nan
            scores = model.predict_proba(X)
            monitor.observe(X, scores, time=pd.Timestamp(day).timestamp() + DAY)
        print(0 if rows is None else len(rows), monitor.flush(), flush=True)
    monitor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
