"""Thresholds against what fresh days of the same kind bring."""

from dataclasses import replace

import numpy as np
import pytest

from otel_mlmon.numerics.calibration import PEAKS

VARIABLES, DAYS, FRESH, SETS = 30, 14, 100_000, 12
SHARE = 0.024  # of the budget, for the test of orders over four hours


def with_days(calibration, levels):
    """The calibration of a variable whose days have these levels, which sums over four hours show as they are."""
    squares = levels**2
    statistics = squares / ((squares.sum() - squares) / (DAYS - 1))
    freedom = max(2 * DAYS / (squares.var(ddof=1) / squares.mean() ** 2), 4.5)
    peaks = calibration.peaks.copy()
    peaks[0, -1] = np.sort(statistics)[::-1][:PEAKS]
    freedoms = np.append(calibration.freedom[:-1], freedom)
    return replace(calibration, peaks=peaks, freedom=freedoms, blocks=DAYS, block=1_440, days=DAYS)


@pytest.mark.parametrize("freedom", [3.0, np.inf])
def test_days_of_heavy_tails_exceed_the_threshold_of_four_hours_about_as_often_as_the_budget_allows(streams, freedom):
    """Student's t with 3 degrees of freedom, and the normal; 14 days of each of 30 variables are known."""
    rng = np.random.default_rng(5)

    def draw(size):
        return rng.normal(size=size) if np.isinf(freedom) else rng.standard_t(freedom, size=size)

    found = []
    for _ in range(SETS):
        levels = draw((VARIABLES, DAYS))
        nulls = streams.scanner([with_days(streams.calibrations[0], each) for each in levels]).nulls
        fresh = draw(FRESH) ** 2
        beyond = [float(np.mean(fresh > q * each.var())) for q, each in zip(nulls.least[0, -1], levels, strict=True)]
        found.append(30 * sum(beyond))  # in 30 days, of any variable
    assert np.mean(found) <= 4 * SHARE, found
