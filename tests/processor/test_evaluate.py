"""Counts and profile -> measures and verdict: against scipy and formulas written out one variable at a time, and on
data that has, or has not, changed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from otel_mlmon_processor.config import ALWAYS
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.windows import VariableCounts, VariableKey
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp

from otel_mlmon.numerics.coarse import coarse_starts, decision_starts
from otel_mlmon.numerics.exponential import count_exponential
from otel_mlmon.numerics.measures import MEASURES, cell_bounds
from otel_mlmon.profile.document import Profile
from otel_mlmon.semconv import DriftMeasure, QualityMeasure

TOLERANCE = 0.005
ALL = {*MEASURES, DriftMeasure.MEAN_SHIFT}


def evaluate(view, profile, measures=ALL):
    return evaluate_model(view, profile, tolerance=TOLERANCE, measures=measures)


def feature(name):
    return VariableKey("feature", name)


def build(rows, **options):
    return Profile.build(rows, model="m", version="1", **options)


def draw(rng, n):
    """Numbers and categories whose cells are of very different number."""
    return {
        "normal": rng.normal(10, 2, n),
        "skew": rng.lognormal(0, 1.5, n),
        "atoms": np.where(rng.random(n) < 0.4, 0.0, rng.exponential(5, n)),
        "few": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]),
        "many": np.array([f"c{i}" for i in rng.zipf(1.6, n) % 70]),
        "flag": rng.random(n) < 0.2,
        "class": np.array(["yes" if x else "no" for x in rng.random(n) < 0.3]),
        "score": rng.beta(2, 5, n),
    }


def profile_of(rows):
    features = {name: values for name, values in rows.items() if name not in ("class", "score")}
    return build(features, predictions={"class": rows["class"], "score": rows["score"]})


@pytest.fixture(scope="module")
def reference():
    return draw(np.random.default_rng(10), 8_000)


@pytest.fixture(scope="module")
def profile(reference):
    return profile_of(reference)


@pytest.fixture(scope="module")
def changed():
    """Everything has moved, some of it out of range, and 3,000 rows are enough for every feature."""
    rng = np.random.default_rng(11)
    rows = draw(rng, 3_000)
    rows["normal"] = rows["normal"] * 1.3 + 1
    rows["skew"][::7] *= 50
    rows["atoms"] = rows["atoms"] - 3
    rows["few"] = rng.choice(["a", "b", "c", "new"], 3_000, p=[0.3, 0.3, 0.35, 0.05])
    rows["flag"] = rng.random(3_000) < 0.4
    return rows


# ---------------------------------------------------------------- oracle: one variable at a time, formulas written out


def join(counts, starts):
    return [int(sum(counts[a:b])) for a, b in zip(starts, [*starts[1:], len(counts)], strict=True)]


def oracle_psi(p, q):
    used = [(x or 0.5, y or 0.5) for x, y in zip(p, q, strict=True) if x or y]
    n, m = sum(x for x, _ in used), sum(y for _, y in used)
    return sum((x / n - y / m) * np.log((x / n) / (y / m)) for x, y in used)


def oracle_effect(p, q):
    """D and its bound, with half an observation where the reference has none."""
    used = [(x, y or 0.5) for x, y in zip(p, q, strict=True) if x or y]
    n, m = sum(x for x, _ in used), sum(y for _, y in used)
    a, b = np.array([x / n for x, _ in used]), np.array([y / m for _, y in used])
    estimate = ((a - b) ** 2 / b).sum() - (len(used) - 1) * (1 / n + 1 / m)
    g, h = 2 * (a - b) / b, (a / b) ** 2
    variance = ((a * g**2).sum() - (a * g).sum() ** 2) / n + ((b * h**2).sum() - (b * h).sum() ** 2) / m
    return estimate, estimate - 1.75 * np.sqrt(variance)


def oracle_wasserstein(p, q, reference, current):
    """Area between the cumulative shares, straight in each cell, by the midpoint rule; then the known means."""
    axis, histogram = reference.variable.axis, reference.histogram
    bounds = cell_bounds(axis.edges, histogram.min, histogram.max)
    reached_p, reached_q = (np.append(0, np.cumsum(x) / sum(x)) for x in (p, q))
    up = down = 0.0
    for low, high, p0, p1, q0, q1 in zip(
        bounds[:-1], bounds[1:], reached_p[:-1], reached_p[1:], reached_q[:-1], reached_q[1:], strict=True
    ):
        way = (np.arange(500) + 0.5) / 500
        gap = (q0 + way * (q1 - q0)) - (p0 + way * (p1 - p0))
        up += np.maximum(gap, 0).mean() * (high - low)
        down += np.maximum(-gap, 0).mean() * (high - low)
    return (abs(current.mean() - reference.mean) + 2 * min(up, down)) / reference.std


def oracle(reference, counts, values):
    """All measures of a variable, from its counts and, where the mean is known, its values."""
    axis, held = reference.variable.axis, reference.histogram.counts
    numeric = counts.cells is not None
    cells = list(counts.cells) if numeric else [counts.categories.get(label, 0) for label in axis.labels]
    p, q = (join(x, list(coarse_starts(held, axis))) for x in (cells, held))
    a, b = np.array(p) / sum(p), np.array(q) / sum(q)
    used = np.array([x + y > 0 for x, y in zip(p, q, strict=True)])
    table = chi2_contingency([np.array(p)[used], np.array(q)[used]], correction=False)
    decided = [join(x, list(decision_starts(held, axis))) for x in (cells, held)]
    estimate, lower = oracle_effect(*decided)
    found = {
        DriftMeasure.PSI: oracle_psi(p, q),
        DriftMeasure.PSI_CORRECTED: oracle_psi(p, q) - (used.sum() - 1) * (1 / sum(p) + 1 / sum(q)),
        DriftMeasure.JS: jensenshannon(a, b, base=2),
        DriftMeasure.HELLINGER: np.sqrt(((np.sqrt(a) - np.sqrt(b)) ** 2).sum() / 2),
        DriftMeasure.CHI2: table.statistic / table.dof,
        DriftMeasure.EFFECT: estimate,
        DriftMeasure.EFFECT_LOWER: lower,
    }
    if not numeric:
        return {**found, DriftMeasure.LINF: np.abs(a - b).max()}
    # The distance of samples that have each value at a point of its cell is that of the cells.
    points = np.arange(len(cells))
    found[DriftMeasure.KS] = ks_2samp(np.repeat(points, cells), np.repeat(points, held), method="asymp").statistic
    found[DriftMeasure.WASSERSTEIN] = oracle_wasserstein(cells, held, reference, values)
    found[DriftMeasure.MEAN_SHIFT] = (values.mean() - reference.mean) / reference.std
    return found


def test_measures_of_all_variables_at_once_are_those_of_each_alone(views, profile, reference, changed):
    view = views.view(profile, changed)
    state = evaluate(view, profile)
    assert len(state.variables) == 8
    sizes = set()
    for held in profile.references:
        variable = held.variable
        key = VariableKey(variable.role, variable.name if variable.role == "feature" else "")
        sizes.add(variable.axis.cells)
        if view.window[key].cells is not None:
            given = np.asarray(reference[variable.name], dtype=float)
            assert held.mean == pytest.approx(given.mean())
            assert held.std == pytest.approx(given.std(ddof=1))
        expected = oracle(held, view.window[key], np.asarray(changed[variable.name]))
        assert dict(state.variables[key].measures) == pytest.approx(expected, rel=1e-4, abs=1e-9), variable.name
    assert len(sizes) > 4  # so there was something to pad


def test_a_variable_is_measured_alike_alone_and_among_others(views, profile, changed):
    """Nothing of another variable's counts or cells gets into its measures: they are equal to the last bit but one."""
    together = evaluate(views.view(profile, changed), profile).variables
    for key, state in together.items():
        name = key.name if key.role == "feature" else key.role
        alone = evaluate(views.view(profile, {name: changed[name]}), profile).variables[key]
        assert dict(alone.measures) == pytest.approx(dict(state.measures), rel=1e-12)
        assert (alone.alarm, alone.sufficient, alone.distribution) == (
            state.alarm,
            state.sufficient,
            state.distribution,
        )


def test_only_the_measures_that_are_asked_for_are_computed(views, profile, changed):
    view = views.view(profile, changed)
    for wanted in (ALWAYS, ALWAYS | {DriftMeasure.KS}):
        states = evaluate(view, profile, wanted).variables
        ordered = {DriftMeasure.WASSERSTEIN, DriftMeasure.KS}
        assert states[feature("normal")].measures.keys() == wanted
        assert states[feature("few")].measures.keys() == wanted - ordered


def test_the_verdict_does_not_depend_on_the_measures_that_are_shown(views, profile, changed):
    view = views.view(profile, changed)
    few, all_ = evaluate(view, profile, ALWAYS), evaluate(view, profile)
    assert [(f.name, f.kind, f.size, f.text) for f in few.findings] == [
        (f.name, f.kind, f.size, f.text) for f in all_.findings
    ]


def test_the_distribution_is_the_share_of_values_up_to_each_bound(views, profile, changed):
    state = evaluate(views.view(profile, changed), profile)
    for name in ("normal", "skew", "atoms", "score"):
        key = VariableKey("score", "") if name == "score" else feature(name)
        shown = state.variables[key].distribution
        assert 3 <= len(shown) <= 20
        assert shown[-1] == (np.inf, 1.0)
        for bound, share in shown:
            assert share == pytest.approx((np.asarray(changed[name]) <= bound).mean())
    assert state.variables[feature("few")].distribution == ()


# ---------------------------------------------------------------- what is decided, and what is not


def test_fewer_than_five_values_a_cell_are_never_scored(views):
    rng = np.random.default_rng(12)
    profile = build({"x": rng.normal(size=5_000)})
    (held,) = profile.references
    cells = len(decision_starts(held.histogram.counts, held.variable.axis))
    assert cells > 10
    everything_moved = np.full(5 * cells, held.histogram.max)
    for n, sufficient in ((1, False), (5 * cells - 1, False), (5 * cells, True)):
        state = evaluate(views.view(profile, {"x": everything_moved[:n]}), profile)
        one = state.variables[feature("x")]
        assert (one.sufficient, one.alarm) == ((True, True) if sufficient else (False, None))
        assert (state.sentence == "not enough data to say") is not sufficient
        assert bool(state.findings) is sufficient


def test_without_a_profile_there_are_rates_and_no_drift(views, profile, changed):
    rows = {**changed, "normal": np.where(np.arange(3_000) % 4 == 0, np.nan, changed["normal"])}
    state = evaluate(views.view(profile, rows), None)
    assert state.sentence == "no reference: counts only"
    assert state.findings == ()
    for one in state.variables.values():
        assert (one.measures, one.alarm, one.sufficient, one.distribution) == ({}, None, None, ())
    rates = state.variables[feature("normal")].quality
    assert rates.keys() == {QualityMeasure.MISSING, QualityMeasure.INVALID}
    assert (rates[QualityMeasure.MISSING].rate, rates[QualityMeasure.MISSING].reference) == (0.25, None)


def test_counts_over_other_cells_are_not_compared(views, profile, changed):
    counts = views.variables(profile, changed)
    x = counts[feature("normal")]
    others = {
        "other bounds": dataclasses.replace(x, edges=x.edges + 0.5),
        "fewer bounds": dataclasses.replace(x, edges=x.edges[1:], cells=x.cells[1:]),
        "labels where numbers are expected": counts[feature("few")],
        "nothing but a count": VariableCounts(100, {}),
    }
    for name, other in others.items():
        state = evaluate(views.view(profile, {feature("normal"): other}), profile).variables[feature("normal")]
        assert (dict(state.measures), state.alarm) == ({}, None), name
    numbers = evaluate(views.view(profile, {feature("few"): x}), profile).variables[feature("few")]
    assert (dict(numbers.measures), numbers.alarm) == ({}, None)


def test_a_feature_that_the_profile_does_not_know_has_rates_only(views, profile, changed):
    counts = views.variables(profile, changed)
    state = evaluate(views.view(profile, {feature("new"): counts[feature("normal")]}), profile)
    assert state.variables[feature("new")].alarm is None
    assert not state.variables[feature("new")].measures
    assert state.sentence == "not enough data to say"


def test_nan_is_never_a_value(views, profile, reference):
    """Half of the values NaN or infinite: the distribution is that of the others, and what is said is the fault."""
    normal = np.asarray(reference["normal"])
    holed = np.concatenate([normal, np.full(normal.size - 40, np.nan), np.full(40, np.inf)])
    whole = evaluate(views.view(profile, {"normal": normal}), profile).variables[feature("normal")]
    state = evaluate(views.view(profile, {"normal": holed}), profile)
    one = state.variables[feature("normal")]
    assert dict(one.measures) == dict(whole.measures)
    assert one.distribution == whole.distribution
    assert one.quality[QualityMeasure.MISSING].rate == (normal.size - 40) / holed.size
    assert one.quality[QualityMeasure.INVALID].rate == 40 / holed.size
    assert {finding.kind for finding in state.findings} == {"missing"}
    none = evaluate(views.view(profile, {"normal": np.full(500, np.nan)}), profile)
    assert not none.variables[feature("normal")].measures
    assert [finding.kind for finding in none.findings] == ["missing"]
    assert none.variables[feature("normal")].alarm is True


def replaced(share, value):
    """Values of which a share is another one."""
    return lambda rng, x: np.where(rng.random(x.size) < share, value, x)


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [
        ("normal", replaced(0.1, np.nan), "missing"),
        ("normal", replaced(0.1, -np.inf), "invalid"),
        ("normal", replaced(0.05, 1e6), "out_of_range"),
        ("normal", replaced(0.05, -1e6), "out_of_range"),
        ("few", replaced(0.05, "new"), "unseen"),
        ("few", lambda rng, x: np.where(rng.random(x.size) < 0.1, None, x.astype(object)), "missing"),
    ],
)
def test_each_rate_that_rises_is_named(views, profile, reference, *, name, change, kind):
    rows = {name: change(np.random.default_rng(13), np.asarray(reference[name])[:2_000])}
    state = evaluate(views.view(profile, rows), profile)
    assert kind in {finding.kind for finding in state.findings}
    assert all(finding.name == name for finding in state.findings)
    assert state.variables[feature(name)].alarm is True


def test_rates_that_the_reference_had_as_well_are_no_change(views):
    rng = np.random.default_rng(24)

    def draw_holed(n):
        x = rng.normal(size=n)
        x[rng.random(n) < 0.2] = np.nan
        x[rng.random(n) < 0.1] = np.inf
        return {"x": x, "c": np.where(rng.random(n) < 0.3, None, rng.choice(["a", "b"], n).astype(object))}

    held = draw_holed(10_000)
    profile = build(held)
    state = evaluate(views.view(profile, draw_holed(2_000)), profile)
    assert state.sentence == "nothing has changed"
    rates = state.variables[feature("x")].quality
    assert rates[QualityMeasure.MISSING].reference == np.isnan(held["x"]).mean()
    assert rates[QualityMeasure.INVALID].reference == np.isinf(held["x"]).mean()
    assert state.variables[feature("c")].quality[QualityMeasure.MISSING].reference == (held["c"] == None).mean()  # noqa: E711


def test_rare_categories_that_the_reference_happened_not_to_hold_are_no_change(views):
    """20 pairs of 2,000 values of 1,000 categories, ten of which are listed; about 6 % of the second are new."""
    rng = np.random.default_rng(25)
    shares = 1 / np.arange(1, 1_001)
    names = np.array([f"c{i}" for i in range(1_000)])
    for _ in range(20):
        held, now = (rng.choice(names, 2_000, p=shares / shares.sum()) for _ in range(2))
        profile = build({"c": held}, categories=10)
        state = evaluate(views.view(profile, {"c": now}), profile)
        assert state.variables[feature("c")].quality[QualityMeasure.UNSEEN].rate == (~np.isin(now, held)).mean()
        assert [str(finding) for finding in state.findings] == []


def test_categories_by_their_own_names_are_those_of_the_profile(views):
    """What a producer without a profile sends: rare ones are not unseen for being unlisted, new ones are."""
    profile = build({"c": ["a"] * 500 + ["b"] * 300 + ["rare"] * 100 + ["rarer"] * 100}, categories=2)
    assert profile.references[0].variable.axis.others
    named = VariableCounts(1_000, {}, categories={"a": 500, "b": 300, "rare": 120, "rarer": 80})
    state = evaluate(views.view(profile, {feature("c"): named}), profile)
    assert state.sentence == "nothing has changed"
    assert state.variables[feature("c")].measures[DriftMeasure.LINF] == 0
    named = VariableCounts(1_000, {}, categories={"a": 500, "b": 300, "rare": 100, "new": 100})
    state = evaluate(views.view(profile, {feature("c"): named}), profile)
    assert state.variables[feature("c")].quality[QualityMeasure.UNSEEN].rate == 0.1
    assert "unseen" in {finding.kind for finding in state.findings}


def test_values_in_a_column_that_was_empty_are_new(views):
    profile = build({"c": [None] * 1_000, "x": np.zeros(1_000)})
    state = evaluate(views.view(profile, {"c": ["a"] * 200}), profile)
    assert [(finding.name, finding.kind) for finding in state.findings] == [("c", "unseen")]


# ---------------------------------------------------------------- data that has, or has not, changed


def test_data_drawn_from_the_reference_raises_no_alarm(views):
    """60 windows of 1,000 rows x 30 features against a reference of 20,000: none of 1,800 variables alarms."""
    rng = np.random.default_rng(14)
    profile = build({f"x{i}": rng.normal(size=20_000) for i in range(30)})
    for _ in range(60):
        state = evaluate(views.view(profile, {f"x{i}": rng.normal(size=1_000) for i in range(30)}), profile, ALWAYS)
        assert state.sentence == "nothing has changed"
        assert all(one.alarm is False for one in state.variables.values())


def test_mixed_data_drawn_from_the_reference_raises_no_alarm(views):
    """40 pairs of 4,000 and 1,500 rows of eight variables of all kinds, with rare categories: none alarms."""
    rng = np.random.default_rng(15)
    for _ in range(40):
        profile = profile_of(draw(rng, 4_000))
        state = evaluate(views.view(profile, draw(rng, 1_500)), profile, ALWAYS)
        assert [str(finding) for finding in state.findings] == []


@pytest.mark.parametrize("sign", [1, -1])
def test_a_shift_of_three_tenths_of_a_deviation_alarms_and_is_said(views, sign):
    """20 windows of 1,000 rows: the effect is exp(0.09) - 1 = 0.094."""
    rng = np.random.default_rng(16)
    profile = build({"x": rng.normal(5, 4, 20_000), "still": rng.normal(size=20_000)})
    for _ in range(20):
        rows = {"x": rng.normal(5 + sign * 0.3 * 4, 4, 1_000), "still": rng.normal(size=1_000)}
        state = evaluate(views.view(profile, rows), profile)
        assert [finding.name for finding in state.findings] == ["x"]
        assert state.findings[0].kind == "drift"
        assert state.findings[0].text.startswith("mean up 0." if sign > 0 else "mean down 0.")
        assert state.variables[feature("x")].measures[DriftMeasure.MEAN_SHIFT] == pytest.approx(sign * 0.3, abs=0.12)
        assert state.variables[feature("still")].alarm is False


def test_a_category_whose_share_changed_most_is_named(views):
    profile = build({"c": ["a"] * 5_000 + ["b"] * 4_000 + ["c"] * 1_000})
    rows = {"c": ["a"] * 400 + ["b"] * 300 + ["c"] * 300}
    (finding,) = evaluate(views.view(profile, rows), profile).findings
    assert (finding.kind, finding.text) == ("drift", "'c' 10 % -> 30 %")


@pytest.mark.parametrize("times", [(1, 1), (1, 7), (1, 100), (5, 2), (50, 1)])
def test_the_same_data_in_another_number_never_alarms(views, times):
    rng = np.random.default_rng(17)
    rows = draw(rng, 700)
    grown, held = ({name: np.tile(values, n) for name, values in rows.items()} for n in times)
    profile = profile_of(held)
    state = evaluate(views.view(profile, grown), profile)
    assert state.findings == ()
    for key, one in state.variables.items():
        assert one.measures[DriftMeasure.EFFECT] <= 0, key
        assert one.measures[DriftMeasure.PSI] == pytest.approx(0, abs=1e-12)


def test_one_of_300_features_that_drifts_is_not_averaged_away(views):
    rng = np.random.default_rng(18)
    profile = build({f"x{i}": rng.normal(size=5_000) for i in range(300)})
    rows = {f"x{i}": rng.normal(size=1_000) for i in range(300)}
    rows["x217"] = rows["x217"] + 0.5
    state = evaluate(views.view(profile, rows), profile)
    assert [finding.name for finding in state.findings] == ["x217"]
    assert state.sentence.startswith("x217: mean up 0.5")
    assert sum(bool(one.alarm) for one in state.variables.values()) == 1


def test_a_constant_feature_stays_without_alarm_until_it_changes(views):
    profile = build({"x": np.full(1_000, 3.0)})
    assert evaluate(views.view(profile, {"x": np.full(400, 3.0)}), profile).findings == ()
    state = evaluate(views.view(profile, {"x": np.full(400, 4.0)}), profile)
    assert [finding.name for finding in state.findings] == ["x"]
    # There is no deviation to measure in; what is not known is not finite, so that no exporter shows it.
    assert not np.isfinite(state.variables[feature("x")].measures[DriftMeasure.WASSERSTEIN])


# ---------------------------------------------------------------- exponential input


def exponential(values) -> VariableCounts:
    """What a producer without a profile sends of numbers, merged as the processor does."""
    counted = count_exponential(np.sort(values))
    held = ExponentialSum(counted.scale, 0.0, counted.zero)
    held.positive = {counted.positive.offset + i: int(n) for i, n in enumerate(counted.positive.counts) if n}
    held.negative = {counted.negative.offset + i: int(n) for i, n in enumerate(counted.negative.counts) if n}
    edges, cells = held.cells()
    return VariableCounts(values.size, {}, edges, cells, float(values.sum()), exponential=True)


def test_exponential_counts_are_compared_over_the_cells_of_the_reference(views):
    rng = np.random.default_rng(19)
    profile = build({"x": rng.lognormal(0, 1, 20_000)})
    for factor, alarm in ((1.0, False), (1.5, True)):
        values = factor * rng.lognormal(0, 1, 3_000)
        direct = evaluate(views.view(profile, {"x": values}), profile).variables[feature("x")]
        rebinned = evaluate(views.view(profile, {feature("x"): exponential(values)}), profile).variables[feature("x")]
        assert (direct.alarm, rebinned.alarm) == (alarm, alarm)
        # Buckets are 2^(1/16) wide here or finer: no more than 4 % of a lognormal's values is in any of them.
        for measure in (DriftMeasure.KS, DriftMeasure.HELLINGER, DriftMeasure.JS):
            assert rebinned.measures[measure] == pytest.approx(direct.measures[measure], abs=0.02)
        assert rebinned.measures[DriftMeasure.MEAN_SHIFT] == pytest.approx(direct.measures[DriftMeasure.MEAN_SHIFT])


def test_exponential_counts_are_not_compared_where_the_reference_has_few_cells(views):
    """Buckets say too little of a number that has but a few values."""
    profile = build({"x": np.repeat([1.0, 2.0, 3.0], 1_000)})
    state = evaluate(views.view(profile, {feature("x"): exponential(np.repeat([1.0, 2.0, 3.0], 500))}), profile)
    assert (state.variables[feature("x")].alarm, dict(state.variables[feature("x")].measures)) == (None, {})


# ---------------------------------------------------------------- replicas


def merged(parts):
    return {name: np.concatenate([np.asarray(part[name]) for part in parts.values()]) for name in parts["a"]}


def test_the_replica_that_differs_is_named_with_what_differs(views):
    rng = np.random.default_rng(20)
    profile = build({"km": rng.normal(100, 30, 20_000), "still": rng.normal(size=20_000)})
    parts = {r: {"km": rng.normal(100, 30, 1_000), "still": rng.normal(size=1_000)} for r in "abcde"}
    parts["c"]["km"] = parts["c"]["km"] * 1.6
    state = evaluate(views.view(profile, merged(parts), replicas=parts), profile)
    first = state.findings[0]
    assert (first.name, first.kind) == ("km", "replica")
    assert first.text.startswith("c differs from the other replicas, mean up 2 sd")
    assert len(state.variables[feature("km")].replicas) == 3
    assert state.variables[feature("km")].replicas[0].replica == "c"
    assert state.variables[feature("still")].replicas == ()


def test_the_replica_that_sends_nothing_but_nan_is_named_with_its_share(views):
    rng = np.random.default_rng(21)
    profile = build({"wind": rng.normal(size=20_000)})
    parts = {r: {"wind": rng.normal(size=1_000)} for r in "abcd"}
    parts["b"]["wind"][:700] = np.nan
    state = evaluate(views.view(profile, merged(parts), replicas=parts), profile)
    assert str(state.findings[0]) == "wind: b differs from the other replicas, missing 0 % -> 70 %"


def test_replicas_that_have_all_moved_alike_are_not_blamed(views):
    rng = np.random.default_rng(22)
    profile = build({"x": rng.normal(size=20_000)})
    parts = {r: {"x": rng.normal(0.5, 1, 1_000)} for r in "abcd"}
    state = evaluate(views.view(profile, merged(parts), replicas=parts), profile)
    assert [finding.kind for finding in state.findings] == ["drift"]


def test_without_an_alarm_replicas_are_not_looked_at(views):
    """There may be thousands, and their counts are put together when they are asked for."""

    class Untouched:
        def of(self, key):
            raise AssertionError("looked at")

    rng = np.random.default_rng(23)
    profile = build({"x": rng.normal(size=20_000)})
    view = dataclasses.replace(views.view(profile, {"x": rng.normal(size=1_000)}), replicas=Untouched())
    assert evaluate(view, profile).findings == ()
