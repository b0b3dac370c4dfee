"""What the tests look at of the counts of a window."""

import numpy as np

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.rates import count_quality
from otel_mlmon.numerics.windows import RATES, REASONS, condense
from otel_mlmon.semconv import QualityMeasure


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
