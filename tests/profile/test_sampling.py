"""The sample is bounded, uniform, and the same however the rows are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from otel_mlmon.profile.physical import read_physical
from otel_mlmon.profile.sampling import CELLS, LEAST, ROWS, Sample


def draw(values, cuts, most):
    """Sampled values of an array that comes in pieces."""
    sample = Sample(np.random.default_rng(7), most)
    for piece in np.split(values, cuts):
        chosen = sample.choose(piece.size)
        sample.add({"x": read_physical(piece).select(chosen)})
    return sample.finish()["x"].values


@given(st.integers(0, 400), st.lists(st.integers(0, 400), max_size=8), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_cuts_change_nothing(n, cuts, most):
    values = np.arange(float(n))
    whole = draw(values, [], most)
    assert draw(values, sorted(min(cut, n) for cut in cuts), most).tolist() == whole.tolist()
    assert whole.size == min(n, most)
    assert (np.diff(whole) > 0).all()


def test_every_row_is_as_likely():
    values = np.arange(200_000.0)
    drawn = draw(values, np.arange(5_000, 200_000, 5_000), 20_000)
    assert drawn.size == 20_000
    assert kstest(drawn / values.size, "uniform").pvalue > 0.01
    assert chisquare(np.histogram(drawn, bins=40, range=(0, 200_000))[0]).pvalue > 0.01


def test_what_is_held_stays_bounded():
    sample = Sample(np.random.default_rng(0), 1_000)
    for _ in range(200):
        chosen = sample.choose(5_000)
        sample.add({"x": read_physical(np.zeros(5_000)).select(chosen)})
        assert chosen.size <= 5_000
    late = sample.choose(5_000)
    assert late.size < 30  # 1,000 of a million
    sample.add({"x": read_physical(np.zeros(5_000)).select(late)})
    assert sample.finish()["x"].values.size == 1_000


@pytest.mark.parametrize(("columns", "rows"), [(1, ROWS), (100, ROWS), (1_000, CELLS // 1_000), (100_000, LEAST)])
def test_wide_data_gets_fewer_rows(columns, rows):
    sample = Sample(np.random.default_rng(0))
    column = read_physical(np.zeros(2))
    sample.choose(2)
    sample.add({str(i): column for i in range(columns)})
    assert sample.most == rows


def test_a_column_that_comes_later_was_missing_before():
    sample = Sample(np.random.default_rng(0), 10)
    for columns in ({"a": [1.0, 2.0]}, {"a": [3.0], "b": ["x"]}):
        chosen = sample.choose(len(columns["a"]))
        sample.add({name: read_physical(values).select(chosen) for name, values in columns.items()})
    found = sample.finish()
    assert found["a"].present.tolist() == [1.0, 2.0, 3.0]
    assert found["b"].valid.tolist() == [False, False, True]
    assert found["b"].present.tolist() == ["x"]
