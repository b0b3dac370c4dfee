"""Coarse cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis, fit_axis
from otel_mlmon.numerics.coarse import COARSE_CELLS, coarse_starts, coarsen, decision_starts
from otel_mlmon.numerics.effect import effect

samples = st.one_of(
    st.lists(st.floats(-100, 100), min_size=1, max_size=300),
    st.lists(st.integers(0, 50).map(float), min_size=1, max_size=300),
)


@settings(max_examples=200)
@given(samples)
def test_at_most_20_cells_that_keep_the_total_and_the_two_sides_apart(values):
    ordered = np.sort(np.array(values))
    axis = fit_axis(ordered)
    counts = axis.count(ordered)
    starts = coarse_starts(counts, axis)
    coarse = coarsen(counts, starts)
    assert starts.size == coarse.size <= COARSE_CELLS
    assert coarse.sum() == counts.sum()
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert starts[1] == axis.low + 1
    assert starts[-1] == axis.high + 1
    assert (coarse[1:-1] >= len(values) / 80).all()
    assert coarse_starts(counts, axis).tolist() == starts.tolist()


def test_continuous_cells_get_about_equal_shares():
    values = np.sort(np.random.default_rng(0).normal(size=100_000))
    axis = fit_axis(values)
    shares = coarsen(axis.count(values), coarse_starts(axis.count(values), axis)) / values.size
    assert shares.size == 20
    assert shares[[0, -1]].tolist() == [0, 0]
    assert shares[1:-1].max() <= 2.01 / 32  # two quantile cells
    assert shares[1:-1].min() >= 0.99 / 64  # 0.0005 .. 0.02 of a tail, joined


def test_a_heavy_atom_stays_alone():
    rng = np.random.default_rng(1)
    values = np.sort(np.where(rng.random(50_000) < 0.3, 0.0, rng.normal(size=50_000)))
    axis = fit_axis(values)
    counts = axis.count(values)
    starts = coarse_starts(counts, axis)
    cell = int(axis.locate(0.0))
    assert cell in starts
    assert cell + 1 in starts
    assert coarsen(counts, starts)[starts.tolist().index(cell)] == (values == 0).sum()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 4, 3, 2, 0, 0], [5, 4, 3, 2, 0]),  # each category, then OTHER and UNSEEN in one
        ([100, 50, 1, 1, 1, 3, 0], [100, 50, 3, 3]),  # the rare are one cell
        ([10] * 19 + [0, 0], [10] * 19 + [0]),
        ([10] * 40 + [7, 0], [10] * 18 + [220, 7]),  # at most 20
        ([0, 0], [0]),
        ([3, 0, 0], [3, 0]),
    ],
)
def test_categories(counts, expected):
    axis = CategoryAxis(tuple(map(str, range(len(counts) - 2))))
    starts = coarse_starts(np.array(counts), axis)
    assert coarsen(np.array(counts), starts).tolist() == expected


@settings(max_examples=200)
@given(samples)
def test_cells_of_the_decision_are_joined_coarse_ones_that_the_reference_filled(values):
    ordered = np.sort(np.array(values))
    axis = fit_axis(ordered)
    counts = axis.count(ordered)
    starts = decision_starts(counts, axis)
    assert set(starts.tolist()) <= set(coarse_starts(counts, axis).tolist())
    assert starts[0] == 0
    assert (coarsen(counts, starts) >= len(values) / 80).all()


@given(st.lists(st.integers(0, 100), min_size=3, max_size=40), st.data())
def test_joining_cells_never_adds_to_the_divergence(counts, data):
    axis = CategoryAxis(tuple(map(str, range(len(counts) - 2))))
    q = np.sort(np.array(counts))[::-1] + 1
    p = np.array(data.draw(st.lists(st.integers(1, 1000), min_size=len(counts), max_size=len(counts))))
    found = []
    for starts in (decision_starts(q, axis), coarse_starts(q, axis)):
        a, b = coarsen(p, starts), coarsen(q, starts)
        found.append(effect(a, b).estimate + (starts.size - 1) * (1 / p.sum() + 1 / q.sum()))  # uncorrected
    assert found[0] <= found[1] + 1e-9


def test_categories_that_the_reference_never_saw_are_no_cell_of_the_decision():
    axis = CategoryAxis(("a", "b", "c"))
    counts = np.array([60, 30, 10, 0, 0])
    assert coarsen(counts, decision_starts(counts, axis)).tolist() == [60, 40]  # 10 are too few for a cell of their own
    assert coarsen(10 * counts, decision_starts(10 * counts, axis)).tolist() == [600, 300, 100]
    assert decision_starts(np.zeros(5, dtype=np.int64), axis).size >= 1


def test_coarsen_takes_any_leading_shape():
    counts = np.arange(24).reshape(2, 2, 6)
    expected = np.stack([counts[..., :2].sum(-1), counts[..., 2], counts[..., 3:].sum(-1)], axis=-1)
    np.testing.assert_array_equal(coarsen(counts, np.array([0, 2, 3])), expected)


def test_counts_must_fit_the_axis():
    with pytest.raises(ValueError, match="need 3 counts"):
        coarse_starts(np.zeros(4, dtype=np.int64), NumericAxis(np.array([0.0, 1.0]), 0, 1))
