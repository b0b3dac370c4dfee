"""Laws of merging."""

import copy
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.histogram import Histogram, Invalid

AXES = [NumericAxis(np.array([0.0, 1.0, 2.5]), 0, 2), CategoryAxis(("a", "b"), ("c",))]
numbers = st.integers(0, 2**40)
# Sums of integers below 2**53 are exact, so that equality is the law and not a tolerance.
sums = st.integers(-(2**45), 2**45).map(float)


@st.composite
def histograms(draw, axis):
    counts = draw(st.lists(numbers, min_size=axis.cells, max_size=axis.cells))
    invalid = Invalid(*(draw(numbers) for _ in range(4)))
    low, high = sorted((draw(sums), draw(sums)))
    return Histogram(axis, np.array(counts), invalid, draw(sums), low, high)


triples = st.sampled_from(AXES).flatmap(lambda axis: st.tuples(*[histograms(axis)] * 3))


@given(triples)
def test_merge_is_associative_commutative_and_has_an_identity(three):
    a, b, c = three
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(Histogram.empty(a.axis)) == a == Histogram.empty(a.axis).merge(a)


@given(triples)
def test_merge_adds_every_count_and_changes_neither(three):
    a, b, _ = three
    before = copy.deepcopy((a, b))
    merged = a.merge(b)
    assert (a, b) == before
    assert merged.counts.tolist() == [x + y for x, y in zip(a.counts.tolist(), b.counts.tolist(), strict=True)]
    assert merged.seen == a.seen + b.seen
    assert merged.valid == a.valid + b.valid
    assert merged.invalid.total == a.invalid.total + b.invalid.total
    assert (merged.sum, merged.min, merged.max) == (a.sum + b.sum, min(a.min, b.min), max(a.max, b.max))


@pytest.mark.parametrize(
    "other",
    [
        NumericAxis(np.array([0.0, 1.0, 3.5]), 0, 2),
        NumericAxis(np.array([0.0, 1.0, 2.5]), 1, 2),
        NumericAxis(np.array([0.0, 3.5]), 0, 1),
        CategoryAxis(("b", "a")),
    ],
)
def test_different_cells_are_named_and_not_merged(other):
    mine = Histogram.empty(AXES[0])
    with pytest.raises(ValueError, match="different cells") as raised:
        mine.merge(Histogram.empty(other))
    assert repr(mine.axis) in str(raised.value)
    assert repr(other) in str(raised.value)


def test_a_histogram_cannot_be_changed():
    counts = np.array([1, 2, 3, 4])
    histogram = Histogram(AXES[0], counts)
    counts[0] = 9
    assert histogram.counts.tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="read-only"):
        histogram.counts[0] = 9
    with pytest.raises(FrozenInstanceError):
        histogram.sum = 1.0
    with pytest.raises(ValueError, match="read-only"):
        AXES[0].edges[0] = 9


@pytest.mark.parametrize("counts", [[1, 2, 3], [1, 2, 3, -1], [[1, 2, 3, 4]]])
def test_counts_must_fit_the_axis(counts):
    with pytest.raises(ValueError, match="need 4 counts"):
        Histogram(AXES[0], np.array(counts))
