"""Expected counts by the hour: exact integers, interpolated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.numerics.season import UNIT, expect, place, quantize, slot_shares


@given(
    st.lists(st.integers(0, 1_000), min_size=2, max_size=20).filter(any), st.integers(0, 10**7), st.integers(0, 10**6)
)
def test_what_is_expected_sums_to_the_rows_exactly(weights, minute, rows):
    table = quantize(np.array([weights, weights[::-1]]) / sum(weights))[..., np.newaxis]
    expected = expect(np.array([[rows]]), table, np.array([minute]))
    assert expected.sum() == rows * UNIT
    assert (expected >= 0).all()


def test_in_the_middle_of_an_hour_its_own_shares_hold_and_between_them_a_mixture():
    shares = np.zeros((24, 2))
    shares[:, 0] = np.arange(24) / 24
    shares[:, 1] = 1 - shares[:, 0]
    table = quantize(shares)[..., np.newaxis]
    minutes = np.array([10 * 60 + 30, 11 * 60, 11 * 60 + 15, 23 * 60 + 30, 24 * 60])
    got = expect(np.full((1, 5), 240), table, minutes)[0, 0] / UNIT
    assert got == pytest.approx([100, 105, 107.5, 230, 115], abs=1e-4)


def test_one_slot_is_no_season():
    table = quantize(np.array([[0.25, 0.75]]))[..., np.newaxis]
    got = expect(np.full((1, 100), 4), table, np.arange(12_345, 12_445)) / UNIT
    assert pytest.approx(np.tile([1, 3], (100, 1))) == got[:, 0].T


def test_hours_of_the_week_begin_on_a_thursday():
    """As 1970 did."""
    before, after, weight = place(np.array([30, 7 * 1440 + 45, 0]), 168)
    assert (before.tolist(), after.tolist(), weight.tolist()) == ([0, 0, 167], [1, 1, 0], [0, 15, 30])


def test_sums_are_the_same_in_any_order():
    rng = np.random.default_rng(1)
    table = quantize(rng.dirichlet(np.ones(20), size=24))[..., np.newaxis]
    each = expect(rng.integers(0, 10**6, (1, 500)), table, np.arange(500))
    assert np.array_equal(each.sum(axis=-1), each[..., rng.permutation(500)].sum(axis=-1))


def test_an_hour_without_traffic_has_the_shares_of_all_others():
    shares = slot_shares(np.array([[10, 30], [0, 0], [30, 10]]), prior=2)
    assert shares[1] == pytest.approx([0.5, 0.5])
    assert slot_shares(np.zeros((3, 4)), prior=1) == pytest.approx(np.full((3, 4), 0.25))
