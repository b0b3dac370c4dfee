"""Counts over other edges, where that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.numerics.exponential import count_exponential
from otel_mlmon.numerics.nesting import MOST_EDGES, count_over, cut_axis, merge_cells, reach


@pytest.fixture
def rng():
    return np.random.default_rng(90)


def count(values, edges):
    """Values in (lower, upper] cells."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


def buckets(values):
    """Exponential buckets of values: edges, and counts with the open ends."""
    bounds, _ = count_exponential(np.sort(values)).cells()
    edges = np.unique(np.append(bounds, -5e-324))  # so that the zeros have a cell
    return edges, count(values, edges)


def test_reaching_an_edge_is_exact_where_no_filled_cell_is_cut():
    counts, edges = np.array([0, 5, 0, 7, 0]), np.array([1.0, 2.0, 3.0, 4.0])
    below, exact = reach(counts, edges, np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.5, 4.0, 9.0]))
    assert exact.tolist() == [True, True, False, True, True, False, True, True]
    assert below[exact].tolist() == [0, 0, 5, 5, 12, 12]


@given(
    st.lists(st.integers(0, 60), max_size=30),
    st.lists(st.integers(0, 60), max_size=30),
    st.sets(st.integers(0, 60), min_size=1, max_size=12),
    st.sets(st.integers(0, 60), min_size=1, max_size=12),
)
def test_merging_gives_the_counts_of_all_values_at_every_edge_that_is_left(a, b, first, second):
    sides = [(np.array(sorted(edges), dtype=float), values) for values, edges in ((a, first), (b, second))]
    merged, counts = merge_cells(*((edges, count(values, edges)) for edges, values in sides))
    assert counts.tolist() == count(a + b, merged).tolist()
    for edges, values in sides:  # an edge of one is dropped only where it cuts a filled cell of the other
        if not values:
            other = sides[0] if edges is sides[1][0] else sides[1]
            assert set(other[0]) <= set(merged)


def test_buckets_of_many_windows_add_up_over_the_coarsest(rng):
    windows = [rng.normal(100, 30, 50), rng.normal(100, 30, 5), rng.gamma(0.3, 100, 50), np.zeros(7), -rng.random(20)]
    total = buckets(windows[0])
    for window in windows[1:]:
        total = merge_cells(total, buckets(window))
    every = np.concatenate(windows)
    assert total[1].tolist() == count(every, total[0]).tolist()
    assert total[0].size > 20


def test_edges_are_bounded(rng):
    total = np.zeros(0), np.zeros(1, dtype=np.int64)
    for _ in range(40):
        edges = np.sort(rng.random(60))
        total = merge_cells(total, (edges, np.zeros(61, dtype=np.int64)))
    assert total[0].size == MOST_EDGES


def test_an_axis_is_cut_into_about_twenty_cells_with_atoms_alone(rng):
    values = np.where(rng.random(50_000) < 0.3, 0.0, rng.lognormal(3, 1, 50_000))
    edges, counts = buckets(values)
    axis = cut_axis(edges, counts)
    assert (axis.low, axis.high) == (0, axis.edges.size - 1)
    assert set(axis.edges) <= set(edges)
    inner = count_over(axis.edges, edges, counts)
    assert inner.tolist() == count(values, axis.edges).tolist()
    assert inner[0] == inner[-1] == 0
    assert 15 <= inner[1:-1].size <= 20
    assert inner[1:-1].min() >= values.size / 80
    assert inner.max() == (values == 0).sum()


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_constant_is_one_cell(value):
    edges, counts = buckets(np.full(600, value))
    axis = cut_axis(edges, counts)
    assert count_over(axis.edges, edges, counts).max() == 600


def test_nothing_gives_no_axis():
    assert cut_axis(np.array([1.0, 2.0]), np.zeros(3, dtype=np.int64)) is None
    assert cut_axis(np.zeros(0), np.array([5])) is None


def test_an_edge_that_cuts_is_named():
    with pytest.raises(ValueError, match=r"edges array\(\[1.5\]\) cut cells that hold values"):
        count_over(np.array([1.5, 2.0]), np.array([1.0, 2.0]), np.array([0, 5, 0]))
