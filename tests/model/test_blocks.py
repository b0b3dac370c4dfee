"""What is counted together must count as if each value had been counted alone."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from otel_mlmon.columns import UnreadableError
from otel_mlmon.profile.document import Profile
from otel_mlmon.recorder import FEW_ROWS, Recorder
from otel_mlmon.tallies import VariableKey

RNG = np.random.default_rng(7)
TRAIN = {
    "amount": RNG.gamma(2.0, 10.0, 2000),
    "age": RNG.integers(18, 90, 2000),
    "grade": RNG.integers(1, 6, 2000),
    "city": RNG.choice(["Rome", "Oslo", "Lima"], 2000),
    "member": RNG.random(2000) < 0.3,
    "joined": np.datetime64("2024-01-01") + RNG.integers(0, 300, 2000).astype("timedelta64[D]"),
}
PROFILE = Profile.build(TRAIN, model="m", version="1", types={"grade": "category"})
VARIABLES = {reference.variable.name: reference.variable for reference in PROFILE.references}
NOW = dt.datetime(2025, 1, 1, tzinfo=dt.timezone.utc).timestamp()

numbers = st.one_of(st.none(), st.floats(-10, 100), st.just(math.nan), st.just(math.inf), st.integers(0, 100))
rows = st.fixed_dictionaries(
    {
        "amount": numbers,
        "age": numbers,
        "grade": st.one_of(st.none(), st.integers(0, 7)),
        "city": st.sampled_from(["Rome", "Oslo", "Lima", "Bonn", None]),
        "member": st.sampled_from([True, False, None]),
    }
)


def recorder():
    return Recorder(PROFILE.plan, lambda: NOW, lambda: None, pytest.fail)


def counts(recorder):
    """By variable: seen, missing, NaN, infinite, wrong type, and each cell."""
    (tallies,) = recorder.collect().values()
    return {
        key.name: (t.seen, t.missing, t.nan, t.inf, t.wrong_type, t.counts.tolist())
        for key, t in tallies.items()
        if key.role == "feature"
    }


def naive_number(values, axis):
    """Missing, NaN, infinite, and counts of the cells (edge, next edge], one value after the other."""
    found, cells = Counter(), [0] * axis.cells
    for value in values:
        if value is None:
            found["missing"] += 1
        elif math.isnan(value):
            found["nan"] += 1
        elif math.isinf(value):
            found["inf"] += 1
        else:
            cells[sum(1 for edge in axis.edges if value > edge)] += 1
    return found["missing"], found["nan"], found["inf"], cells


@given(st.lists(rows, min_size=1, max_size=12))
def test_rows_as_mappings_count_as_a_naive_loop_does(batch):
    together = recorder()
    for row in batch:
        together.observe({**row, "joined": None})
    found = counts(together)
    for name in ("amount", "age"):
        missing, nan, inf, cells = naive_number([row[name] for row in batch], VARIABLES[name].axis)
        assert found[name] == (len(batch), missing, nan, inf, 0, cells)
    labels = VARIABLES["city"].axis.labels
    expected = Counter({"Bonn": "_UNSEEN_"}.get(row["city"], row["city"]) for row in batch if row["city"] is not None)
    assert found["city"][5] == [expected[label] for label in labels]


def frame_of(batch, kind):
    """A DataFrame of rows with columns of one of pandas' kinds of types."""
    columns = {name: [row[name] for row in batch] for name in batch[0]}
    if kind == "objects":
        return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    frame = {
        "amount": pd.array([None if v is None or math.isnan(v) else v for v in columns["amount"]], dtype="Float64"),
        "age": pd.array([None if v is None or not math.isfinite(v) else int(v) for v in columns["age"]], dtype="Int64"),
        "grade": pd.array(columns["grade"], dtype="Int64"),
        "city": pd.array(columns["city"], dtype="string") if kind == "nullable" else pd.Categorical(columns["city"]),
        "member": pd.array(columns["member"], dtype="boolean"),
    }
    return pd.DataFrame(frame)


def rows_of(frame):
    """A frame's values as mappings, without its short cuts."""
    values = [{name: frame[name].iloc[i] for name in frame} for i in range(len(frame))]
    return [{name: None if value is pd.NA else value for name, value in row.items()} for row in values]


@pytest.mark.parametrize("kind", ["objects", "nullable", "categorical"])
@given(st.lists(st.lists(rows, min_size=1, max_size=2 * FEW_ROWS), min_size=1, max_size=4), st.randoms())
def test_frames_of_any_size_and_order_count_as_their_rows_do(kind, batches, random):
    together, alone = recorder(), recorder()
    for batch in batches:
        frame = frame_of(batch, kind)
        for row in rows_of(frame):
            city = row["city"]
            alone.observe({**row, "city": None if isinstance(city, float) else city, "joined": None})
        names = list(frame.columns)
        random.shuffle(names)
        together.observe(frame[names])
    assert counts(together) == counts(alone)


def test_columns_that_are_absent_or_unknown_are_counted():
    held = recorder()
    held.observe(pd.DataFrame({"amount": [1.0, 2.0], "unknown": [1, 2], "other": ["a", "b"]}))
    held.observe(pd.DataFrame({"amount": np.ones(100), "unknown": 1}))
    found = counts(held)
    assert found["amount"][0:2] == (102, 0)
    assert found["city"][0:2] == (102, 102)
    assert held.take_extra_columns() == 3


def test_what_the_caller_does_to_a_frame_later_changes_nothing():
    for rows in (1, FEW_ROWS + 1):
        held = recorder()
        values = np.full((rows, 1), 5.0)
        frame = pd.DataFrame(values, columns=["amount"], copy=False)
        held.observe(frame)
        values[:] = 70.0
        frame["amount"] = -1.0
        (amount,) = [t for key, t in held.collect()[None].items() if key == VariableKey("feature", "amount")]
        assert (amount.min, amount.max, amount.valid) == (5.0, 5.0, rows)


def test_ages_are_taken_at_the_time_of_each_call():
    clock = iter([NOW, NOW + 100, NOW + 200])
    held = Recorder(PROFILE.plan, lambda: next(clock), lambda: None, pytest.fail)
    joined = pd.Timestamp("2024-12-31", tz="UTC")
    held.observe(pd.DataFrame({"joined": [joined] * 20}))
    held.observe(pd.DataFrame({"joined": [joined] * 20}))
    held.observe({**dict.fromkeys(TRAIN), "joined": joined.to_pydatetime()})
    age = held.collect()[None][VariableKey("feature", "joined.age")]
    day = 86_400.0
    assert (age.min, age.max) == (day, day + 200)
    assert age.sum == 20 * day + 20 * (day + 100) + day + 200


def test_a_column_that_cannot_be_read_is_of_a_wrong_type_and_the_others_are_counted():
    errors = []
    held = Recorder(PROFILE.plan, time.time, lambda: None, errors.append)
    frame = pd.DataFrame(np.ones((20, 2)), columns=["amount", "amount"])  # which of the two?
    frame["age"] = 30.0
    held.observe(frame)
    found = counts(held)
    assert found["age"][0:5] == (20, 0, 0, 0, 0)
    assert found["amount"][0] == 20
    assert found["amount"][4] == 20
    assert len(errors) == 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_matrices_of_any_size_count_as_their_columns_do(sizes, seed):
    rng = np.random.default_rng(seed)
    profile = Profile.build({"a": rng.normal(size=500), "b": rng.integers(0, 3, 500)}, model="m", version="1")
    held = Recorder(profile.plan, time.time, lambda: None, pytest.fail)
    parts = [np.column_stack([rng.normal(size=n), rng.integers(0, 5, n)]) for n in sizes]
    for part in parts:
        held.observe(part)
    found = counts(held)
    whole = np.vstack(parts)
    axes = {reference.variable.name: reference.variable.axis for reference in profile.references}
    assert (
        found["a"][5]
        == np.bincount([int((axes["a"].edges < v).sum()) for v in whole[:, 0]], minlength=axes["a"].cells).tolist()
    )
    names = Counter("_UNSEEN_" if v > 2 else str(int(v)) for v in whole[:, 1])
    assert found["b"][5] == [names[label] for label in axes["b"].labels]


def test_several_threads_that_find_full_blocks_lose_nothing():
    from concurrent.futures import ThreadPoolExecutor

    profile = Profile.build({"a": RNG.normal(size=500)}, model="m", version="1")
    held = Recorder(profile.plan, time.time, lambda: None, pytest.fail)  # nobody is woken: the callers count
    X = np.ones((1000, 1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: held.observe(X), range(400)))
    (tally,) = held.collect()[None].values()
    assert tally.valid == 400_000


def test_outputs_of_wrong_dimensions_are_of_a_wrong_type_and_hold_up_nothing():
    held = Recorder(None, time.time, lambda: None, pytest.fail)
    held.observe({"x": 1.0}, {"score": np.ones((3, 2))})
    held.observe({"x": 1.0}, {"score": np.ones(4)})
    tallies = held.collect()[None]
    assert tallies[VariableKey("feature", "x")].valid == 2
    score = tallies[VariableKey("score", "score")]
    assert (score.valid, score.wrong_type) == (4, 3)


def test_wide_data_without_a_profile_is_refused_before_it_takes_memory():
    wide = csr_matrix((2000, 2**20))  # 16 GiB where it is dense
    held = Recorder(None, time.time, lambda: None, pytest.fail)
    with pytest.raises(UnreadableError, match="1048576 columns and no profile"):
        held.observe(wide)
    held.observe(np.ones((3, 2)))
    with pytest.raises(UnreadableError, match="has not the 2 columns"):
        held.observe(wide)


def test_one_row_without_a_second_dimension_is_told_how_to_have_one():
    held = Recorder(None, time.time, lambda: None, pytest.fail)
    with pytest.raises(UnreadableError, match=r"ndarray of shape \(3,\): rows have two dimensions, one row is X\[:1\]"):
        held.observe(np.zeros(3))
