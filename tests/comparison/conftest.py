"""Data that two sides are made of."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "compare.schema.json").read_text(encoding="utf-8"))


def make_frame(rows: int = 6_000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "distance": rng.gamma(3.0, 250.0, rows),
            "delay": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(8, 30, rows)),
            "stops": rng.integers(0, 3, rows),
            "carrier": rng.choice(["UA", "AA", "DL", "B6"], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "weekend": rng.random(rows) < 0.3,
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 30 * 86_400, rows)), unit="s"),
        }
    )


@pytest.fixture
def frame():
    return make_frame


@pytest.fixture
def checked():
    """The document of a result, which must be what the schema says."""

    def check(result):
        document = result.to_dict()
        jsonschema.validate(document, SCHEMA)
        return document

    return check


@pytest.fixture
def told():
    """Level, label and text of the findings of a kind."""
    return lambda result, kind: [(f.level, f.label, f.text) for f in result.findings if f.kind == kind]


@pytest.fixture
def feature():
    """A variable of a result by its name."""
    return lambda result, name: next(f for f in result.features if f.name == name)
