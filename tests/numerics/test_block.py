"""Blocks of rows against one value at a time."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis, count_columns, fit_axis

AXIS = NumericAxis(np.array([-1.0, 0.0, 0.0625, 3.0]), 0, 3)
CATEGORIES = CategoryAxis(("a", "b"))
numbers = st.one_of(st.integers(-4, 4).map(float), st.floats())
codes = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan])
rows = st.lists(st.tuples(numbers, codes), max_size=50)


@settings(max_examples=300)
@given(rows)
def test_a_block_is_counted_as_its_values_are(rows):
    block = np.array(rows, dtype=np.float64).reshape(-1, 2)
    before = block.copy()
    number, category = count_columns(block, [AXIS, CATEGORIES])
    np.testing.assert_array_equal(block, before)

    values = [row[0] for row in rows]
    valid = [v for v in values if math.isfinite(v)]
    assert number.nan == sum(math.isnan(v) for v in values)
    assert number.inf == sum(math.isinf(v) for v in values)
    assert number.counts.tolist() == [
        sum(low < v <= high for v in valid)
        for low, high in zip([-math.inf, *AXIS.edges], [*AXIS.edges, math.inf], strict=True)
    ]
    assert (number.min, number.max) == (min(valid, default=math.inf), max(valid, default=-math.inf))
    exact, size = sum(map(Fraction, valid)), sum(abs(Fraction(v)) for v in valid)
    if size < 2**1023:
        assert abs(Fraction(number.sum) - exact) <= size * Fraction(1, 10**14)

    labels = [row[1] for row in rows]
    assert category.counts.tolist() == [labels.count(code) for code in (0.0, 1.0, 2.0, 3.0)]
    assert category.nan == sum(map(math.isnan, labels))
    assert (category.sum, category.inf) == (0.0, 0)


def test_a_sum_beyond_the_floats_is_infinite_and_warns_nobody():
    (counted,) = count_columns(np.full((9, 1), 1.7e308), [AXIS])
    assert counted.sum == math.inf
    assert counted.counts.tolist() == [0, 0, 0, 0, 9]


def test_counts_and_sum_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    block = rng.standard_cauchy((4096, 5))
    axes = [fit_axis(np.sort(block[:, i])) for i in range(5)]
    mixed = count_columns(block[rng.permutation(4096)], axes)
    for a, b in zip(count_columns(block, axes), mixed, strict=True):
        assert a.counts.tolist() == b.counts.tolist()
        assert a[1:] == b[1:]


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_memory_layout(order):
    block = np.asarray(np.random.default_rng(1).normal(size=(100, 6)), order=order)
    axes = [fit_axis(np.sort(block[:, i])) for i in range(0, 6, 2)]
    for i, counted in enumerate(count_columns(block[::-1, ::2], axes)):
        assert counted.counts.tolist() == axes[i].count(block[:, 2 * i]).tolist()


def test_columns_must_fit_the_axes():
    with pytest.raises(ValueError, match="need 1 columns"):
        count_columns(np.zeros((3, 2)), [AXIS])
