"""Counts by window: laws of merging, and what is made of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.calibration import fit_calibration
from otel_mlmon.numerics.rates import count_quality
from otel_mlmon.numerics.windows import RATES, REASONS, WindowCounts, condense
from otel_mlmon.semconv import QualityMeasure

ENTRIES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4 + len(REASONS) - 1)), max_size=60)


def counts_of(entries):
    numbers, cells = zip(*entries, strict=True) if entries else ((), ())
    return WindowCounts.of(4, np.array(numbers, dtype=np.int64), np.array(cells, dtype=np.int64))


@given(ENTRIES, ENTRIES, ENTRIES)
def test_merging_has_the_laws_of_adding(a, b, c):
    x, y, z = map(counts_of, (a, b, c))
    assert x.merge(y) == y.merge(x) == counts_of([*a, *b])
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(counts_of([])) == x
    assert WindowCounts.from_plain(x.to_plain()) == x


def test_different_cells_do_not_merge():
    with pytest.raises(ValueError, match="4 and 5 cells"):
        counts_of([]).merge(WindowCounts.of(5, [], []))


def test_parts_give_the_calibration_of_the_whole():
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 6 * 1440, 60_000)
    cells = np.minimum(rng.poisson(1.5, numbers.size), 4)
    axis, starts = NumericAxis(np.array([0.0, 1.0, 2.0, 3.0]), 0, 3), np.arange(5)
    whole = WindowCounts.of(5, numbers, cells)
    part = rng.integers(0, 3, numbers.size)
    a, b, c = (WindowCounts.of(5, numbers[part == i], cells[part == i]) for i in range(3))
    merged = c.merge(a).merge(b)
    assert merged == whole
    one, other = (fit_calibration(*w.dense(axis, starts)).to_plain() for w in (whole, merged))
    assert one == other


def test_nan_is_no_value_and_rates_are_those_of_quality():
    axis = NumericAxis(np.array([-1.0, 0.0, 1.0, 2.0]), 1, 2)
    cells, invalid = np.array([[1, 2, 30, 4, 5]]), np.array([[7, 8, 9, 10]])
    counts, rates, seen = condense(cells, invalid, axis, np.array([0, 2, 3]))
    assert (counts.tolist(), seen.tolist()) == ([[3, 30, 9]], [76])
    said = count_quality(axis, cells[0], dict(zip(REASONS, invalid[0].tolist(), strict=True)))
    by_name = dict(zip(RATES, rates[0].tolist(), strict=True))
    assert by_name["below"] + by_name["above"] == said[QualityMeasure.OUT_OF_RANGE]
    assert by_name["missing"] + by_name["nan"] == said[QualityMeasure.MISSING]
    category = CategoryAxis(("a", "b"))
    _, rates, _ = condense(np.array([5, 4, 3, 2]), np.zeros(4, dtype=np.int64), category, np.array([0, 1, 2]))
    assert dict(zip(RATES, rates.tolist(), strict=True))["unseen"] == 2
