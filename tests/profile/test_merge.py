"""Merging: exact with one plan, in any order; principled without."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.profile import Profile, ProfileError

values = st.lists(
    st.tuples(
        st.floats(-1e6, 1e6) | st.sampled_from([0.0, np.nan, np.inf, None]),
        st.sampled_from(["a", "b", "c", None]) | st.text("xyz", max_size=2),
        st.integers(-5, 40),
    ),
    max_size=40,
)


def columns_of(rows):
    names = ("number", "word", "integer")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def build(data, **options):
    return Profile.build(data, model="m", version="1", created="2026-11-23", **options)


def find(profile, name):
    return next(r for r in profile.references if r.variable.name == name)


def assert_equal_but_for_rounding(a, b):
    """Counts to the last one; sums to the last digits."""
    assert a.rows == b.rows
    for left, right in zip(a.references, b.references, strict=True):
        assert left.variable == right.variable
        assert left.histogram.counts.tolist() == right.histogram.counts.tolist()
        assert left.histogram.invalid == right.histogram.invalid
        assert (left.histogram.min, left.histogram.max) == (right.histogram.min, right.histogram.max)
        scale = max(1.0, abs(right.histogram.max), abs(right.histogram.min)) if right.histogram.valid else 1.0
        if isinstance(right.variable.axis, NumericAxis) and right.histogram.valid:
            assert left.histogram.sum == pytest.approx(right.histogram.sum, rel=1e-9, abs=1e-9 * scale)
            assert left.m2 == pytest.approx(right.m2, rel=1e-7, abs=1e-9 * scale * scale)


@given(st.lists(values, min_size=1, max_size=4), values)
@settings(max_examples=60, deadline=None)
def test_parts_of_one_plan_merge_into_what_building_the_whole_gives(parts, sample):
    plan = Profile.plan(columns_of(sample or [(1.0, "a", 1)]))
    built = [build(columns_of(part), plan=plan) for part in parts]
    whole = build(columns_of([row for part in parts for row in part]), plan=plan)
    merged = Profile.merge(built)
    assert_equal_but_for_rounding(merged, whole)
    assert merged.plan == plan
    assert not merged.notes
    assert Profile.from_bytes(merged.to_bytes()) == merged


@given(st.lists(values, min_size=2, max_size=3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_order_does_not_matter(parts, shared):
    plan = Profile.plan(columns_of([(1.0, "a", 1), (2.5, "b", 2)])) if shared else None
    built = [build(columns_of(part), plan=plan) for part in parts]
    documents = {Profile.merge(order).to_bytes() for order in permutations(built)}
    assert len(documents) == 1


@given(values, values, values)
@settings(max_examples=30, deadline=None)
def test_merging_merged_parts_counts_the_same(a, b, c):
    plan = Profile.plan(columns_of([(1.0, "a", 1), (2.5, "b", 2)]))
    a, b, c = (build(columns_of(part), plan=plan) for part in (a, b, c))
    left, right = Profile.merge([Profile.merge([a, b]), c]), Profile.merge([a, Profile.merge([b, c])])
    assert_equal_but_for_rounding(left, right)


def test_one_part_is_itself():
    part = build({"x": np.random.default_rng(0).normal(size=100)})
    assert Profile.merge([part]).to_bytes() == part.to_bytes()


def test_an_empty_part_changes_nothing():
    rng = np.random.default_rng(0)
    part = build({"x": rng.normal(size=100), "c": rng.choice(["a", "b"], 100)})
    empty = build({"x": [], "c": []}, plan=part.plan)
    assert Profile.merge([part, empty]).references == part.references


# ---------------------------------------------------------------- different plans


def parts_of(seed=0):
    rng = np.random.default_rng(seed)

    def part(n, mean):
        return {
            "normal": rng.normal(mean, 1, n),
            "atom": np.where(rng.random(n) < 0.3, 4.0, rng.exponential(size=n)),
            "heavy": rng.standard_t(2, n),
            "word": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2] if mean else [0.2, 0.3, 0.5]),
        }

    return part(10_000, 0.0), part(30_000, 1.0)


def test_different_plans_keep_the_distributions():
    parts = parts_of()
    merged = Profile.merge([build(part) for part in parts])
    assert merged.rows == 40_000
    for name in ("normal", "atom", "heavy"):
        both = np.concatenate([part[name] for part in parts])
        reference = find(merged, name)
        edges = reference.variable.axis.edges
        exact = np.searchsorted(np.sort(both), edges, side="right") / both.size
        kept = np.cumsum(reference.histogram.counts)[:-1] / both.size
        assert np.abs(exact - kept).max() < 0.003, name
        assert reference.histogram.valid == both.size
        assert (reference.histogram.min, reference.histogram.max) == (both.min(), both.max())
        assert reference.mean == pytest.approx(both.mean(), rel=1e-9)
        assert reference.std == pytest.approx(both.std(ddof=1), rel=1e-9)
    words = np.concatenate([part["word"] for part in parts])
    word = find(merged, "word")
    kept = dict(zip(word.variable.axis.labels, word.histogram.counts.tolist(), strict=True))
    assert kept == {**{w: int((words == w).sum()) for w in "abc"}, "_OTHER_": 0, "_UNSEEN_": 0}


def test_an_atom_stays_in_a_cell_of_its_own():
    parts = parts_of()
    atom = find(Profile.merge([build(part) for part in parts]), "atom")
    axis = atom.variable.axis
    cell = int(axis.locate(4.0))
    assert axis.edges[cell] - axis.edges[cell - 1] < 1e-5
    expected = sum(int((part["atom"] == 4.0).sum()) for part in parts)
    assert atom.histogram.counts[cell] == pytest.approx(expected, abs=10)


def test_different_plans_are_told():
    a, b = (build(part) for part in parts_of())
    (note,) = Profile.merge([a, b]).notes
    assert note == "merged from parts with different plans: moved to common cells pro rata: normal, atom, heavy"
    words = [build({"c": list(text)}) for text in ("aab", "abb")]
    assert Profile.merge(words).notes == ("merged from parts with different plans: every distribution is exact",)


def test_a_column_that_a_part_lacks_is_missing_there():
    left, right = build({"x": np.arange(100.0), "y": np.arange(100.0)}), build({"x": np.arange(50.0) / 7})
    merged = Profile.merge([left, right])
    assert find(merged, "y").histogram.invalid.missing == 50
    assert find(merged, "y").histogram.counts.tolist() == find(left, "y").histogram.counts.tolist()
    assert find(merged, "x").histogram.valid == 150


def test_a_column_that_is_empty_in_a_part_adds_what_is_missing():
    left, right = build({"x": np.arange(100.0)}), build({"x": [None] * 20})
    merged = find(Profile.merge([left, right]), "x")
    assert merged.variable == find(left, "x").variable
    assert (merged.histogram.valid, merged.histogram.invalid.missing) == (100, 20)


def test_few_integers_and_many_integers_are_numbers_together():
    few, many = np.arange(1_000) % 10, np.arange(3_000) % 40
    merged = find(Profile.merge([build({"x": few}), build({"x": many})]), "x")
    assert isinstance(merged.variable.axis, NumericAxis)
    assert merged.histogram.valid == 4_000
    assert merged.mean == pytest.approx(np.concatenate([few, many]).mean())
    below = np.cumsum(merged.histogram.counts)[int(merged.variable.axis.locate(9.5))]
    assert below == pytest.approx((few <= 9.5).sum() + (many <= 9.5).sum(), abs=120)


def test_ages_of_parts_are_counted_to_the_newest_of_all():
    day = np.timedelta64(86_400, "s")
    first = np.datetime64("2020-01-01T00:00:00") + np.arange(0, 20) * day
    second = first + 20 * day
    merged = Profile.merge([build({"d": first}), build({"d": second})])
    age = find(merged, "d.age")
    assert (age.histogram.min, age.histogram.max) == (0.0, 39 * 86_400.0)
    assert age.mean == pytest.approx(19.5 * 86_400)
    assert find(merged, "d.hour").histogram.counts.sum() == 40


def test_categories_beyond_what_is_listed_stay_others():
    a = build({"c": [f"a{i}" for i in range(40)] * 2})
    b = build({"c": [f"b{i}" for i in range(40)] * 3})
    merged = find(Profile.merge([a, b]), "c")
    assert len(merged.variable.axis.names) == 50
    assert merged.variable.axis.names[:40] == tuple(sorted(f"b{i}" for i in range(40)))
    assert merged.variable.axis.closed
    assert len(merged.variable.axis.others) == 30
    assert merged.histogram.counts[-2:].tolist() == [60, 0]


def test_an_open_part_opens_the_whole():
    a = build({"c": [f"a{i}" for i in range(2_000)]})
    b = build({"c": ["b"] * 10})
    axis = find(Profile.merge([a, b]), "c").variable.axis
    assert isinstance(axis, CategoryAxis)
    assert not axis.closed
    assert axis.names[0] == "b"


# ---------------------------------------------------------------- what does not merge


def test_parts_of_different_models_are_refused():
    part = build({"x": [1.0]})
    for field, message in (("model", "model: .*'m', 'other'"), ("version", "version: ")):
        with pytest.raises(ProfileError, match=message):
            Profile.merge([part, replace(part, **{field: "other"})])
    with pytest.raises(ProfileError, match="nothing to merge"):
        Profile.merge([])


def test_parts_that_count_different_things_are_refused():
    numbers, words = build({"x": np.arange(50.0)}), build({"x": ["a", "b"]})
    with pytest.raises(ProfileError, match="column 'x': numbers in one part, categories in another"):
        Profile.merge([numbers, words])
    text = build({"x": ["a", "b"]}, types={"x": "text"})
    with pytest.raises(ProfileError, match="column 'x': the parts count different things of it"):
        Profile.merge([words, text])


def test_facts_of_the_parts_are_joined():
    part = build({"x": np.arange(10.0)}, importance={"x": 1.0})
    other = replace(
        part,
        created="2027-01-01T00:00:00Z",
        packages={"numpy": "1.0"},
        references=tuple(replace(r, importance=2.0) for r in part.references),
    )
    merged = Profile.merge([part, other])
    assert merged.created == "2027-01-01T00:00:00Z"
    assert merged.packages["numpy"] == ", ".join(sorted({"1.0", part.packages["numpy"]}))
    assert merged.references[0].importance == 1.5
