"""A day of flights minute by minute, in one process: what the alarms say of it under their budget."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from data import FEATURES

from otel_mlmon import Profile

sys.path.append(str(Path(__file__).parents[1] / "alarms"))
from replay import replay

DAY = pd.Timestamp("2013-05-01")
NOON = DAY.timestamp() + 12 * 3600.0


def tell_day(flights: pd.DataFrame, *, fault: bool) -> list[tuple[str, str]]:
    """Time of the day and words of each alarm; with the fault the wind speed is missing from noon on.

    What is normal from minute to minute is learnt from January to April.
    """
    reference = flights[flights["day"] < DAY]
    profile = Profile.build(reference[[*FEATURES, "time"]], model="flights", version="2013-04", time_column="time")
    rows = flights.loc[flights["day"] == DAY, [*FEATURES, "time"]].sort_values("time")
    if fault:
        rows["wind_speed"] = np.where(rows["time"] >= NOON, np.nan, rows["wind_speed"])
    return [(pd.Timestamp(event.time, unit="s").strftime("%H:%M"), event.say()) for event in replay(profile, rows)]
