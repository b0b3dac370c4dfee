"""A model without a profile: its cells from the first day, its reference from what was learnt."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from otel_mlmon_processor.core.learning import Learnt
from otel_mlmon_processor.evaluate import cells_over
from otel_mlmon_processor.learnt import make_profile, spread
from otel_mlmon_processor.pack import pack, unpack
from otel_mlmon_processor.survey import Survey
from otel_mlmon_processor.windows import ModelKey, VariableCounts, VariableKey, Window

from otel_mlmon import Profile
from otel_mlmon.numerics.binning import OTHER
from otel_mlmon.numerics.exponential import count_exponential
from otel_mlmon.numerics.scales import DAY
from otel_mlmon.numerics.windows import RATES, condense

KEY = ModelKey("", "svc", "", "m", "1")
START = 20_000 * DAY


def numbers(values, *, explicit=None, summed: bool = True) -> VariableCounts:
    """As a producer without a profile counts them."""
    finite = values[np.isfinite(values)]
    missing = {"nan": int(values.size - finite.size)}
    edges = (
        np.array(explicit) if explicit else np.unique(np.append(count_exponential(np.sort(finite)).cells()[0], -5e-324))
    )
    cells = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=edges.size + 1)
    total = float(finite.sum()) if summed else None
    return VariableCounts(values.size, missing, edges, cells, total, exponential=explicit is None)


def names(values) -> VariableCounts:
    return VariableCounts(len(values), {}, categories=dict(Counter(values)))


def draw(rng, rows: int = 20) -> dict[str, VariableCounts]:
    x = np.where(rng.random(rows) < 0.05, np.nan, rng.normal(50, 20, rows))
    skewed = np.where(rng.random(rows) < 0.3, 0.0, rng.lognormal(2, 1, rows))
    return {
        "x": numbers(x),
        "skewed": numbers(skewed),
        "bounds": numbers(rng.normal(50, 20, rows), explicit=[10.0, 30.0, 50.0, 70.0, 90.0]),
        "fuel": names(rng.choice(["gas", "oil", "EV"], rows, p=[0.7, 0.295, 0.005]).tolist()),
        "constant": numbers(np.full(rows, 3.0)),
    }


def windows(rng, first: int, last: int, step: int = 5, **options) -> list[Window]:
    return [
        Window(START + at, {VariableKey("feature", name): counts for name, counts in draw(rng, **options).items()})
        for at in range(first, last, step)
    ]


@pytest.fixture(scope="module")
def surveyed():
    survey = Survey()
    survey.advance(windows(np.random.default_rng(91), 0, DAY + 5))
    assert survey.done
    return survey.make_profile(KEY)


def test_a_day_is_a_day_and_half_of_it_must_have_traffic():
    survey = Survey()
    survey.advance(windows(np.random.default_rng(92), 0, 600))
    survey.advance(windows(np.random.default_rng(92), 1_400, DAY))
    assert not survey.done
    survey.advance(windows(np.random.default_rng(92), DAY, DAY + 60))
    assert survey.done  # ten hours, and the two at the end
    assert survey.next <= START + DAY + 1  # what comes after is learnt, not surveyed
    idle = Survey()
    idle.advance(windows(np.random.default_rng(92), 0, 60))
    idle.advance(windows(np.random.default_rng(92), 2 * DAY, 2 * DAY + 60))
    assert not idle.done


def test_cells_hold_equal_shares_and_every_window_is_counted_over_them_exactly(surveyed):
    by = {r.variable.name: r for r in surveyed.references}
    assert set(by) == {"x", "skewed", "bounds", "fuel", "constant"}
    total = {name: np.zeros(r.variable.axis.cells, dtype=np.int64) for name, r in by.items()}
    for window in windows(np.random.default_rng(91), 0, DAY + 1):
        for key, counts in window.variables.items():
            axis = by[key.name].variable.axis
            cells = cells_over(axis, by[key.name].histogram.counts, counts)
            assert cells.sum() == counts.seen - sum(counts.invalid.values())
            total[key.name] += cells
    for name, r in by.items():
        assert r.histogram.counts.tolist() == total[name].tolist(), name
    assert 14 <= len(by["x"].variable.decision) <= 20
    assert by["x"].mean == pytest.approx(50, abs=1)
    assert by["x"].std == pytest.approx(20, abs=1)
    assert by["x"].histogram.invalid.nan / by["x"].histogram.seen == pytest.approx(0.05, abs=0.01)
    assert by["skewed"].histogram.counts.max() / by["skewed"].histogram.valid == pytest.approx(0.3, abs=0.02)
    assert by["bounds"].variable.axis.edges.tolist() == [10.0, 30.0, 50.0, 70.0, 90.0]
    assert by["fuel"].variable.axis.names == ("gas", "oil", "EV")
    assert by["constant"].variable.decision == (0,)


def test_it_goes_on_from_a_dump(surveyed):
    every, other = windows(np.random.default_rng(91), 0, DAY + 5), Survey()
    first = Survey()
    first.advance(every[:100])
    other.load(unpack(pack(first.dump())))
    other.advance(every)  # those it has seen are left out
    assert other.make_profile(KEY).to_bytes() == surveyed.to_bytes()


def test_the_document_can_be_read_again(surveyed):
    assert Profile.from_bytes(surveyed.to_bytes()).hash == surveyed.hash


def test_what_hardly_came_has_no_cells():
    survey = Survey()
    survey.advance(windows(np.random.default_rng(93), 0, DAY + 60, step=60, rows=10))
    assert survey.make_profile(KEY).references == ()


def test_many_categories_are_not_all_listed_and_more_than_can_be_kept_are_not_unseen():
    survey, rng = Survey(), np.random.default_rng(94)
    for at in range(0, DAY + 60, 60):
        few = names([f"n{int(i)}" for i in rng.zipf(1.5, 200) if i < 500])
        many = names([f"n{i}" for i in rng.integers(0, 10**9, 200)])
        open_ = VariableCounts(200, {}, categories={"a": 150, OTHER: 50})
        held = {"few": few, "many": many, "open": open_}
        survey.advance([Window(START + at, {VariableKey("feature", n): c for n, c in held.items()})])
    by = {r.variable.name: r for r in survey.make_profile(KEY).references}
    axes = {name: r.variable.axis for name, r in by.items()}
    assert len(axes["few"].names) == 20
    assert (axes["few"].closed, axes["many"].closed, axes["open"].closed) == (True, False, False)
    assert by["open"].histogram.counts.tolist() == [150 * 25, 50 * 25, 0]


def test_what_was_learnt_is_the_reference_over_the_same_cells(surveyed):
    """Counts come back from the decision's cells: exactly, but where it joins cells."""
    rng = np.random.default_rng(95)
    total: dict[str, np.ndarray] = {}
    learnt, sums = [], []
    for r in surveyed.references:
        axis = r.variable.axis
        cells, invalid, own = np.zeros(axis.cells, dtype=np.int64), np.zeros(4, dtype=np.int64), 0.0
        for _ in range(200):
            counts = draw(rng)[r.variable.name]
            cells += cells_over(axis, r.histogram.counts, counts)
            invalid[1] += counts.invalid.get("nan", 0)
            own += counts.sum or 0.0
        coarse, rates, seen = condense(cells, invalid, axis, np.array(r.variable.decision))
        total[r.variable.name] = cells
        sums.append(own)
        learnt.append(Learnt(np.append(coarse, rates), int(seen), own))
    made = make_profile(surveyed, learnt, [None] * len(learnt), 1_700_000_000.0)
    assert made.created == "2023-11-14T22:13:20+00:00"
    assert made.rows == 4_000
    for r, own in zip(made.references, sums, strict=True):
        assert r.histogram.valid == total[r.variable.name].sum()
        assert r.histogram.sum == own
        apart = np.abs(r.histogram.counts - total[r.variable.name]).sum() / r.histogram.valid
        assert apart <= 0.04, (
            r.variable.name
        )  # 'EV' is joined with 'oil', cells of hardly any values with their neighbours
        assert r.histogram.counts[-1] == total[r.variable.name][-1]
    x = next(r for r in made.references if r.variable.name == "x")
    assert x.std == pytest.approx(20, abs=1)
    assert x.mean == pytest.approx(50, abs=1.5)


def test_spreading_keeps_every_count(surveyed):
    for r in surveyed.references:
        coarse, rates, _ = condense(
            r.histogram.counts, np.zeros(4, dtype=np.int64), r.variable.axis, np.array(r.variable.decision)
        )
        assert spread(r, coarse, rates).tolist() == r.histogram.counts.tolist()
        assert rates.size == len(RATES)
