"""Counts by minute: what they hold is what the histogram holds, whatever the container and the order of the rows."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from otel_mlmon.numerics.scales import DAY
from otel_mlmon.numerics.windows import RATES, REASONS, condense
from otel_mlmon.profile import Profile
from otel_mlmon.profile.window_tally import WindowTally, find_minutes, join_windows
from otel_mlmon.profile.windows import MOST_DAYS, choose_days, kept_days

N = 5_000
START = 1_735_689_600.0  # 1 January 2025, UTC


def make_rows(seed: int = 0) -> dict[str, list]:
    """Columns of every kind, with whatever can be wrong in them, over an hour and a half."""
    rng = np.random.default_rng(seed)
    number = rng.normal(size=N)
    number[rng.random(N) < 0.02] = np.nan
    number[rng.random(N) < 0.01] = np.inf
    word = rng.choice(["Rome", "Oslo", "Bonn", "Graz"], N).tolist()
    times = START + rng.uniform(0, 5_400, N)
    return {
        "number": number.tolist(),
        "whole": rng.integers(0, 1_000, N).tolist(),
        "few": rng.integers(0, 3, N).tolist(),
        "flag": (rng.random(N) < 0.3).tolist(),
        "word": [None if i % 50 == 0 else w for i, w in enumerate(word)],
        "born": [dt.datetime.fromtimestamp(t - 86_400 * (i % 90), dt.timezone.utc) for i, t in enumerate(times)],
        "text": [f"some words {i} " * 5 for i in range(N)],
        "time": times.tolist(),
    }


def mixed(rows: dict[str, list]) -> dict[str, list]:
    """With values of wrong types, which only lists can hold."""
    rows = dict(rows)
    rows["number"] = ["no number" if i % 97 == 0 else None if i % 89 == 0 else v for i, v in enumerate(rows["number"])]
    rows["word"] = [float("nan") if i % 41 == 0 else [1] if i % 43 == 0 else v for i, v in enumerate(rows["word"])]
    return rows


CONTAINERS = {
    "lists": lambda rows: rows,
    "mixed": mixed,
    "pandas": pd.DataFrame,
    "pandas nullable": lambda rows: pd.DataFrame(rows).convert_dtypes(),
    "polars": lambda rows: pl.DataFrame(rows),
    "arrow": lambda rows: pa.table(rows),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_windows_sum_to_the_histogram(container):
    rows = make_rows()
    plan = Profile.plan(CONTAINERS[container](make_rows(1)), time_column="time")  # so that some are unseen or outside
    profile = Profile.build(CONTAINERS[container](rows), model="m", plan=plan, time_column="time", part=True)
    numbers = np.ceil(np.array(rows["time"]) / 60).astype(np.int64) - 1
    assert profile.windows.numbers.tolist() == np.unique(numbers).tolist()
    seen = np.unique(numbers, return_counts=True)[1].tolist()
    assert {reference.variable.name for reference in profile.references} >= {"number", "born.age", "text.length"}
    for reference, counts in zip(profile.references, profile.windows.counts, strict=True):
        variable, held = reference.variable, reference.histogram
        cells = len(variable.decision)
        invalid = np.array([getattr(held.invalid, reason) for reason in REASONS])
        coarse, rates, _ = condense(held.counts, invalid, variable.axis, np.array(variable.decision))
        assert counts[:, :cells].sum(axis=0).tolist() == coarse.tolist()
        assert counts[:, cells:].sum(axis=0).tolist() == rates.tolist()
        assert counts[:, : cells + len(REASONS)].sum(axis=1).tolist() == seen


def test_each_row_is_in_its_minute():
    """(60 i, 60 (i + 1)], as the processor cuts time."""
    rows = {"x": [0.0, 1.0, 2.0, 3.0], "t": [60.0, 60.1, 120.0, float("nan")]}
    plan = Profile.plan({"x": np.arange(100.0), "t": np.arange(100.0)}, time_column="t")
    windows = Profile.build(rows, model="m", plan=plan, time_column="t", part=True).windows
    assert windows.numbers.tolist() == [0, 1]
    assert windows.counts[0].sum(axis=1).tolist() == [1, 2]


def test_the_order_of_the_rows_does_not_matter():
    rows = pd.DataFrame(make_rows())
    plan = Profile.plan(rows, time_column="time")
    one, other = (
        Profile.build(part, model="m", plan=plan, time_column="time", part=True)
        for part in (rows, rows.sample(frac=1, random_state=3))
    )
    assert one.windows == other.windows


def test_the_newest_days_are_kept_and_a_wrong_date_does_no_harm():
    (variable,) = Profile.plan({"x": np.arange(1_000.0)}).variables
    tally = WindowTally(variable, MOST_DAYS)
    rng = np.random.default_rng(2)
    days = np.append(rng.permutation(100), 10**6)  # one far in the future
    for day in days.tolist():
        time = day * 86_400 + np.array([30.0, 90.0])
        tally.add(find_minutes(time), np.array([1.0, 2.0]), np.full(2, -1, dtype=np.int8))
    windows = choose_days(join_windows([tally]), MOST_DAYS)
    assert sorted(set((windows.numbers // DAY).tolist())) == list(range(100 - MOST_DAYS + 1, 100))
    assert windows.counts[0][:, : len(variable.decision)].sum() == windows.numbers.size
    assert windows.counts[0].shape[1] == len(variable.decision) + len(RATES)


def test_wide_data_keeps_fewer_days():
    (variable,) = Profile.plan({"x": np.arange(1_000.0)}).variables
    assert kept_days([variable]) == MOST_DAYS
    assert 7 <= kept_days([variable] * 200) < MOST_DAYS
    assert kept_days([variable] * 100_000) == 7


# ---------------------------------------------------------------- what is learnt from them


def make_days(days: int, seed: int = 4) -> pd.DataFrame:
    """Twenty rows a minute from eight to twenty o'clock; the mean of `x` follows the time of day."""
    rng = np.random.default_rng(seed)
    minutes = (np.arange(days)[:, None] * 1_440 + np.arange(480, 1_200)).ravel()
    time = START + 60.0 * np.repeat(minutes, 20) + rng.uniform(0, 60, 20 * minutes.size)
    hour = time % 86_400 / 3_600
    x = rng.normal(np.sin(hour), 1)
    x[rng.random(x.size) < 0.01] = np.nan
    return pd.DataFrame({"x": x, "c": rng.choice(["a", "b", "c"], x.size, p=[0.6, 0.3, 0.1]), "time": time})


@pytest.fixture(scope="module")
def rows():
    return make_days(9)


def test_a_build_with_times_learns_what_is_normal(rows):
    profile = Profile.build(rows, model="m", time_column="time")
    x, c = (reference.calibration for reference in profile.references)
    assert profile.windows is None  # the document stays small
    assert len(profile.to_bytes()) < 60_000
    assert (x.slots, c.slots) == (24, 1)  # x has a season, c has none
    assert x.windows == 9 * 720
    assert x.shares.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert Profile.from_bytes(profile.to_bytes()) == profile
    assert Profile.build(rows.drop(columns="time"), model="m").references[0].calibration is None
    assert Profile.build(rows[:500], model="m", time_column="time").references[0].calibration is None  # half an hour


def test_parts_of_one_plan_learn_what_all_rows_would(rows):
    """Cut anyhow: by day, or every third row."""
    plan = Profile.plan(rows, time_column="time")
    whole = Profile.build(rows, model="m", plan=plan, time_column="time")
    assert whole.references[0].calibration is not None
    cuts = [rows[rows["time"] < START + 3 * 86_400], rows[rows["time"] >= START + 3 * 86_400]]
    for parts in (cuts, [rows[i::3] for i in range(3)]):
        built = [Profile.build(part, model="m", plan=plan, time_column="time", part=True) for part in parts]
        loaded = [Profile.from_bytes(part.to_bytes()) for part in built]
        for order in (loaded, loaded[::-1]):
            merged = Profile.merge(order)
            assert merged.windows is None
            assert [r.calibration for r in merged.references] == [r.calibration for r in whole.references]
            assert not merged.notes
        further = Profile.merge([Profile.merge(loaded[:1], part=True), *loaded[1:]])
        assert [r.calibration for r in further.references] == [r.calibration for r in whole.references]


def test_what_cannot_be_merged_is_dropped_and_said(rows):
    plan = Profile.plan(rows, time_column="time")
    one, other = (Profile.build(rows[i::2], model="m", plan=plan, time_column="time") for i in range(2))
    merged = Profile.merge([one, other])
    assert all(reference.calibration is None for reference in merged.references)
    assert merged.notes == (
        "what is normal from minute to minute is not known: not all parts were built with part=True",
    )
    apart = [Profile.build(rows[i::2], model="m", time_column="time", part=True) for i in range(2)]
    assert "the parts have different plans" in " ".join(Profile.merge(apart).notes)
    assert Profile.merge([one]).references[0].calibration == one.references[0].calibration
