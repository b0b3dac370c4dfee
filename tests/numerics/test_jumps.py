"""What comes together by chance, against distributions whose sums are known."""

import numpy as np
import pytest
from scipy import stats

from otel_mlmon.numerics.jumps import LIGHT, fit_jumps, jump_freedom
from otel_mlmon.numerics.scales import SCALES


def test_the_t_reaches_as_far_as_sums_of_five_minutes():
    """Of minutes that are -1 and 1 with chances of 0.01 each, five sum to 5 with 1e-10 and to 4 with 4.9e-8."""
    minutes = np.repeat([-1.0, 0.0, 1.0], [100, 9_800, 100])[:, np.newaxis]
    freedom = jump_freedom(minutes, 5, np.array([0.02]))
    assert stats.t(freedom).isf(5e-10) == pytest.approx(4 / np.sqrt(5 * 0.02), rel=0.02)


def test_one_bursting_order_of_four_is_enough():
    rng = np.random.default_rng(1)
    minutes = rng.normal(size=(14 * 1_440, 4))
    calm = jump_freedom(minutes, 5, np.ones(4))
    minutes[:, 2] += np.where(rng.random(len(minutes)) < 0.02, rng.choice([-16.0, 16.0], len(minutes)), 0.0)
    variance = minutes.var(axis=0)
    assert calm > 200
    assert jump_freedom(minutes, 5, variance) < 30
    # Sums that vary by more, since minutes depend on each other, are not made of bursts.
    assert jump_freedom(minutes, 5, 10 * variance) == pytest.approx(LIGHT)


def test_sums_of_skewed_minutes_are_those_of_a_gamma():
    minutes = stats.gamma(0.2).ppf((np.arange(200_000) + 0.5) / 200_000)[:, np.newaxis] - 0.2
    freedom = jump_freedom(minutes, 60, np.array([0.2]))
    far = (stats.gamma(12).isf(5e-10) - 12) / np.sqrt(12)
    assert stats.t(freedom).isf(5e-10) == pytest.approx(far, rel=0.03)


def test_minutes_that_say_nothing_are_light():
    assert jump_freedom(np.zeros((0, 4)), 5, np.ones(4)) == LIGHT
    assert jump_freedom(np.zeros((7, 4)), 5, np.ones(4)) == pytest.approx(LIGHT)
    found = fit_jumps(np.random.default_rng(2).normal(size=(1_440, 4)), np.zeros((5, 10)), np.ones(5))
    assert found.shape == (len(SCALES),)
    assert (found[[0, 4]] == LIGHT).all()
    assert (found > 100).all()
