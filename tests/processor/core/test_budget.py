"""The budget is divided without a rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from otel_mlmon_processor.core.budget import TESTS, split_budget

IMPORTANCE = st.one_of(st.none(), st.floats(0, 1e6))


@given(st.floats(1e-3, 100), st.lists(IMPORTANCE, min_size=1, max_size=50))
def test_the_table_sums_to_the_budget(total, importances):
    budget = split_budget(total, importances)
    assert sum(share for _, _, share in budget.table()) == pytest.approx(total)
    assert (budget.tests > 0).all()
    assert (budget.slow > 0).all()


def test_what_matters_more_may_alarm_more_often_and_what_matters_not_keeps_half_a_share():
    budget = split_budget(1.0, [3.0, 1.0, 0.0, None])
    weights = budget.slow / budget.slow.sum()
    assert weights == pytest.approx([1 / 8 + 0.5 * 9 / 16, 1 / 8 + 0.5 * 3 / 16, 1 / 8, 1 / 8 + 0.5 * 4 / 16])


def test_a_look_has_its_part_of_thirty_days():
    budget = split_budget(1.0, [None])
    looks = [43_200, 43_200, 14_400, 3_600, 900]
    for test in range(len(TESTS)):
        assert budget.per_look[test, :, 0] * looks == pytest.approx(budget.tests[test, :, 0])


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="budget must be positive"):
        split_budget(0, [None])
