"""The examples of docs/compare.md: each sentence is what a comparison says."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otel_mlmon import compare

TEXT = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()


@pytest.fixture(scope="module")
def halves(flights):
    """January and February, dealt out at random: nothing has changed."""
    rows = flights[flights["month"] <= 2].drop(columns="month").sample(frac=1, random_state=1)
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def chance(rows):
    return np.random.default_rng(0).random(len(rows))


CHANGES = {
    "gone": lambda rows: rows.drop(columns="temp"),
    "new": lambda rows: rows.assign(gate=1),
    "type": lambda rows: rows.assign(temp=rows.temp.astype(str)),
    "unit": lambda rows: rows.assign(temp=(rows.temp - 32) / 1.8),
    "missing_code": lambda rows: rows.assign(pressure=rows.pressure.fillna(0)),
    "constant": lambda rows: rows.assign(hour=12),
    "renamed": lambda rows: rows.assign(carrier=rows.carrier.str.lower()),
    "unseen": lambda rows: rows.assign(carrier=rows.carrier.where(chance(rows) > 0.01, "ZZ")),
    "category_gone": lambda rows: rows[rows.carrier != "US"],
    "missing": lambda rows: rows.assign(temp=rows.temp.where(chance(rows) > 0.05)),
    "invalid": lambda rows: rows.assign(temp=rows.temp.where(chance(rows) > 0.02, np.inf)),
    "out_of_range": lambda rows: rows.assign(temp=rows.temp.where(chance(rows) > 0.02, 250.0)),
    "duplicates": lambda rows: pd.concat([rows, rows.sample(frac=0.1, random_state=1)]),
}


def test_the_halves_are_alike(halves):
    assert compare(*halves).passed


@pytest.mark.parametrize("kind", CHANGES)
def test_kind(kind, halves):
    reference, current = halves
    found = [str(f) for f in compare(reference, CHANGES[kind](current)).findings if f.kind == kind]
    (row,) = re.findall(rf"^\| `{kind}` \| (.+?) \| ", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(.+?)`", row)) & set(found), found


def test_every_kind_is_told():
    schema = (Path(__file__).parents[2] / "docs" / "compare.schema.json").read_text()
    kinds = re.search(r'"kind": \{"enum": \[("gone".+?)\]', schema)[1]
    assert set(re.findall(r'"(\w+)"', kinds)) == set(re.findall(r"^\| `(\w+)` \| `", TEXT, re.MULTILINE))
