"""What a comparison says, against scipy, the processor, and the same data in other containers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.windows import ModelView, VariableCounts, VariableKey
from scipy import stats

import otel_mlmon
from otel_mlmon import Profile
from otel_mlmon.numerics.binning import CategoryAxis
from otel_mlmon.profile.document import ProfileError
from otel_mlmon.profile.sources import SourceError
from otel_mlmon.semconv import DriftMeasure

TIMES = {"time_column": "when"}


def test_unchanged_data_passes(frame, checked):
    result = otel_mlmon.compare(frame(seed=1), frame(seed=2), **TIMES)
    document = checked(result)
    assert result.passed
    assert document["passed"]
    assert not [f for f in result.findings if f.level != "note"]
    assert result.verdict == "nothing has changed that is worth hearing of: 5 variables, 6,000 rows against 6,000"
    assert all(f.changed is False for f in result.features)


def test_a_shift_is_found_and_said(frame, checked, told):
    current = frame(seed=2)
    current["distance"] += 0.5 * current["distance"].std()
    result = otel_mlmon.compare(frame(seed=1), current, **TIMES)
    checked(result)
    assert not result.passed
    ((level, label, text),) = told(result, "drift")
    assert (level, label) == ("drift", "distance")
    assert text.startswith("mean up 0.5")
    assert result.features[0].name == "distance"
    assert result.verdict.startswith("1 of 5 variables have changed: distance: mean up 0.5")


def test_measures_are_those_of_the_raw_data(frame, feature):
    a, b = frame(40_000, seed=1), frame(30_000, seed=2)
    b["distance"] *= 1.2
    found = feature(otel_mlmon.compare(a, b, **TIMES), "distance").drift
    x, y = a["distance"].to_numpy(), b["distance"].to_numpy()
    assert found["ks"] == pytest.approx(stats.ks_2samp(x, y).statistic, abs=0.003)
    assert found["wasserstein"] == pytest.approx(stats.wasserstein_distance(x, y) / x.std(ddof=1), rel=0.01)
    assert found["mean_shift"] == pytest.approx((y.mean() - x.mean()) / x.std(ddof=1), rel=1e-9)
    rates = feature(otel_mlmon.compare(a, b, **TIMES), "delay").rates["missing"]
    assert rates["reference"] == pytest.approx(a["delay"].isna().mean(), abs=1e-12)
    assert rates["current"] == pytest.approx(b["delay"].isna().mean(), abs=1e-12)


def test_the_p_value_is_the_chi_square_test_of_scipy(frame, feature):
    a, b = frame(5_000, seed=1), frame(4_000, seed=2)
    b["carrier"] = np.where(np.arange(4_000) % 20 == 0, "DL", b["carrier"])
    names = ["UA", "AA", "DL", "B6"]
    table = np.array([[np.count_nonzero(side["carrier"] == name) for name in names] for side in (a, b)])
    expected = stats.chi2_contingency(table, correction=False).pvalue
    found = feature(otel_mlmon.compare(a, b, **TIMES), "carrier").drift["p_value"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_it_says_is_what_the_processor_says_of_the_same_counts(frame):
    reference, current = frame(seed=1), frame(seed=2)
    current["distance"] *= 1.1
    current.loc[:400, "carrier"] = "DL"
    profile = Profile.build(reference, model="m", exclude=["when"])
    parts = Profile.build(current, model="m", exclude=["when"], plan=profile.plan)
    window = {}
    for part in parts.references:
        axis, held = part.variable.axis, part.histogram
        seen = {"missing": held.invalid.missing, "nan": held.invalid.nan}
        if isinstance(axis, CategoryAxis):
            labels = dict(zip(axis.labels, held.counts.tolist(), strict=True))
            counts = VariableCounts(seen=held.seen, invalid=seen, categories=labels)
        else:
            counts = VariableCounts(seen=held.seen, invalid=seen, edges=axis.edges, cells=held.counts, sum=held.sum)
        window[VariableKey("feature", part.variable.name)] = counts
    fields = {field.name: None for field in dataclasses.fields(ModelView)}
    view = ModelView(**{**fields, "window": window, "replicas": None})
    state = evaluate_model(view, profile, tolerance=0.005)
    result = otel_mlmon.compare(profile, current, exclude=["when"])
    for found in result.features:
        gauges = state.variables[VariableKey("feature", found.name)].measures
        for name, value in gauges.items():
            mine = found.drift[name]
            assert (mine is None and np.isnan(value)) or mine == pytest.approx(value, rel=1e-12, abs=1e-15), name
    assert {f.name for f in state.findings} == {f.name for f in result.features if f.changed}


@pytest.mark.parametrize(
    "container", ["polars", "arrow", "numpy dict", "parquet", "csv", "feather", "folder", "glob", "chunks"]
)
def test_every_container_gives_the_same(frame, container, tmp_path):
    sides = frame(seed=1).drop(columns="weekend"), frame(seed=2).drop(columns="weekend")
    sides[1]["distance"] *= 1.3
    expected = otel_mlmon.compare(*sides, **TIMES, names=("a", "b")).to_dict()
    made = [_contain(side, container, tmp_path / str(i)) for i, side in enumerate(sides)]
    found = otel_mlmon.compare(*made, **TIMES, names=("a", "b")).to_dict()
    if container == "csv":  # which knows floats to as many digits as it was given
        assert [f["text"] for f in found["features"]] == [f["text"] for f in expected["features"]]
    else:
        assert found == expected


def _contain(side, container, folder):
    folder.mkdir()
    table = pa.Table.from_pandas(side, preserve_index=False)
    if container == "polars":
        return pl.from_arrow(table)
    if container == "arrow":
        return table
    if container == "numpy dict":
        return {name: side[name].to_numpy() for name in side}
    if container == "chunks":
        return [side.iloc[:2_500], side.iloc[2_500:]]
    if container == "csv":
        pyarrow.csv.write_csv(table, folder / "x.csv")
        return folder / "x.csv"
    if container == "feather":
        pyarrow.feather.write_feather(table, folder / "x.feather")
        return str(folder / "x.feather")
    pyarrow.parquet.write_table(table.slice(0, 1_000), folder / "a.parquet", row_group_size=300)
    pyarrow.parquet.write_table(table.slice(1_000), folder / "b.parquet")
    return {"parquet": [folder / "a.parquet", folder / "b.parquet"], "folder": folder}.get(
        container, folder / "*.parquet"
    )


def test_the_current_data_may_be_read_only_once_and_the_reference_not(frame):
    a, b = frame(seed=1), frame(seed=2)
    result = otel_mlmon.compare(a, iter([b.iloc[:10], b.iloc[10:]]), **TIMES)
    assert result.current.rows == len(b)
    assert result.passed
    with pytest.raises(SourceError, match="can be read only once, and the reference is read twice"):
        otel_mlmon.compare(iter([a]), b)


def test_a_profile_or_its_file_is_a_reference(frame, tmp_path, checked):
    a, b = frame(seed=1), frame(seed=2)
    b["distance"] *= 1.3
    profile = Profile.build(a, model="flights", version="3", time_column="when")
    profile.save(tmp_path / "flights.profile.json")
    data = otel_mlmon.compare(a, b, **TIMES)
    for reference in (profile, tmp_path / "flights.profile.json", str(tmp_path / "flights.profile.json")):
        result = otel_mlmon.compare(reference, b, **TIMES)
        document = checked(result)
        assert document["reference"]["kind"] == "profile"
        assert document["reference"]["duplicates"] is None
        assert [f.drift for f in result.features] == [f.drift for f in data.features]
        assert [f.text for f in result.features] == [f.text for f in data.features]
    assert otel_mlmon.compare(profile, b, **TIMES).reference.name == "flights 3"


def test_profiles_of_two_halves_differ_in_nothing():
    """Each has cells and categories of its own; what only these say is not called a change."""
    rng, wrong = np.random.default_rng(5), []

    def build(n, shift=0.0):
        shares = 1 / np.arange(1, 91)
        rows = {
            "rounded": np.round(rng.lognormal(6.5, 0.7, n) / 10) * 10,
            "normal": rng.normal(shift, size=n),
            "city": rng.choice([f"C{i}" for i in range(90)], n, p=shares / shares.sum()),
            "hour": rng.integers(0, 24, n).astype(float),
        }
        return Profile.build(rows, model="m", version="1")

    for _ in range(8):
        result = otel_mlmon.compare(build(14_000), build(14_300))
        wrong += [(finding.name, finding.text) for finding in result.findings]
    assert wrong == []
    result = otel_mlmon.compare(build(14_000), build(14_300, shift=0.15))
    assert [feature.name for feature in result.features if feature.changed] == ["normal"]
    assert "mean up 0.1" in result.verdict


def test_two_profiles_are_compared_over_the_cells_of_the_first(frame, checked, feature):
    a, b = frame(20_000, seed=1), frame(20_000, seed=2)
    b["delay"] += 10
    left, right = (Profile.build(side, model="m", exclude=["when"]) for side in (a, b))
    result = otel_mlmon.compare(left, right)
    checked(result)
    raw = otel_mlmon.compare(a, b, exclude=["when"])
    assert [f.name for f in result.features if f.changed] == ["delay"]
    for measure in (DriftMeasure.KS, DriftMeasure.PSI, DriftMeasure.WASSERSTEIN):
        assert feature(result, "delay").drift[measure] == pytest.approx(feature(raw, "delay").drift[measure], rel=0.05)
    same = otel_mlmon.compare(left, left)
    assert same.passed
    assert all(f.drift["ks"] in (0, None) for f in same.features)


def test_predictions_and_target_are_told_apart(frame, checked, told):
    rng = np.random.default_rng(3)
    a, b = frame(seed=1), frame(seed=2)
    for side, shift in ((a, 0.0), (b, 0.2)):
        side["p"] = np.clip(rng.beta(2, 5, len(side)) + shift, 0, 1)
        side["late"] = rng.random(len(side)) < 0.3 + shift
    result = otel_mlmon.compare(a, b, prediction="p", target="late", **TIMES)
    checked(result)
    roles = {f.name: f.role for f in result.features}
    assert roles["score"] == "score"
    assert roles["late"] == "target"
    assert told(result, "unit") == [("drift", "prediction score", "all values + 0.2025, the shape is the same")]
    assert [f.role for f in result.findings if f.name == "late"] == ["target"]
    roles = otel_mlmon.compare(a, b, prediction={"value": "p", "class": "late"}, **TIMES)
    assert {f.role for f in roles.features} == {"feature", "value", "class"}


def test_a_profile_with_outputs_needs_no_predictions(frame):
    a = frame(seed=1)
    scores = np.linspace(0, 1, len(a))
    profile = Profile.build(a, model="m", predictions=scores, exclude=["when"])
    result = otel_mlmon.compare(profile, frame(seed=2), exclude=["when"])
    assert {f.role for f in result.features} == {"feature"}
    with_scores = otel_mlmon.compare(profile, frame(seed=2).assign(p=scores), prediction="p", exclude=["when"])
    assert {f.role for f in with_scores.features} == {"feature", "score"}


def test_columns_are_chosen(frame):
    a, b = frame(seed=1), frame(seed=2)
    b["distance"] *= 2
    assert not otel_mlmon.compare(a, b, exclude=["when"]).passed
    assert otel_mlmon.compare(a, b, exclude=["when", "distance"]).passed
    chosen = otel_mlmon.compare(a, b, columns=["stops", "carrier"])
    assert {f.name for f in chosen.features} == {"stops", "carrier"}
    assert {f.name for f in otel_mlmon.compare(a, b, columns=["stops"], target="weekend").features} == {
        "stops",
        "weekend",
    }


def test_types_are_chosen(frame, feature):
    a, b = frame(seed=1), frame(seed=2)
    found = otel_mlmon.compare(a, b, types={"stops": "numeric"}, exclude=["when"])
    assert feature(found, "stops").drift["ks"] is not None
    assert feature(otel_mlmon.compare(a, b, exclude=["when"]), "stops").drift["ks"] is None


def test_too_few_values_are_not_judged(frame, checked):
    result = otel_mlmon.compare(frame(seed=1), frame(60, seed=2), columns=["distance", "delay"])
    checked(result)
    assert [f.changed for f in result.features] == [None, None]
    assert result.passed
    assert result.verdict == "too few values to say anything: 60 rows against 6,000"


def test_no_row_is_an_error_and_passes_nothing(frame):
    a, b = frame(seed=1), frame(seed=2)
    with pytest.raises(SourceError, match=r"the current data have no rows$"):
        otel_mlmon.compare(a, b[:0], **TIMES)
    with pytest.raises(SourceError, match=r"the reference data have no rows$"):
        otel_mlmon.compare(a[:0], b, **TIMES)
    with pytest.raises(SourceError, match="the reference data have no rows that fulfil the condition"):
        otel_mlmon.compare(a, b, reference_where="distance > 1e9", **TIMES)
    with pytest.raises(SourceError, match="the current data have no rows that fulfil the condition"):
        otel_mlmon.compare(a, b, current_where="distance > 1e9", **TIMES)


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_rows_are_no_error(frame, rows, checked):
    for a, b in ((frame(seed=1), frame(rows, seed=2)), (frame(rows, seed=1), frame(seed=2))):
        checked(otel_mlmon.compare(a, b, **TIMES))


def test_many_features_share_the_budget():
    """A hundred features of noise: each test must be surer, so that the whole fails as rarely as promised."""
    failed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(1_000, 100)), rng.normal(size=(300, 100))
        result = otel_mlmon.compare(a, b)
        failed += not result.passed
        assert result.settings.tests == 100 + (3 + 4) * 100 + 1
    assert failed <= 2  # 1 % promised; P(more than 2 of 40) = 0.8 %


def draw_rare(rng, rows):
    """What chance alone makes look like a change: values that a small sample may hold or not."""
    missing = rng.random(rows) < 0.01
    zipf = 1 / np.arange(1, 81)
    return {
        "minus": np.where(rng.random(rows) < 0.003, -1, rng.poisson(40, rows)),
        "unknown": rng.choice(["red", "green", "unknown"], rows, p=[0.6, 0.397, 0.003]),
        "spelling": rng.choice(["North", "South", "north"], rows, p=[0.6, 0.397, 0.003]),
        "flag": (rng.random(rows) < 0.01).astype(np.int64),
        "integers": np.where(missing, np.nan, rng.integers(0, 1_000, rows)),
        "many": rng.choice([f"c{i}" for i in range(80)], rows, p=zipf / zipf.sum()),
    }


@pytest.mark.parametrize("sizes", [(200, 200), (1_000, 1_000), (1_000, 4_000)])
def test_rare_values_do_not_fail_a_comparison(sizes):
    failed = []
    for seed in range(40):
        rng = np.random.default_rng([seed, *sizes])
        failed += otel_mlmon.compare(*(draw_rare(rng, rows) for rows in sizes)).findings
    assert [str(finding) for finding in failed if finding.level != "note"] == []


def test_more_rows_repeat_more_often_by_chance():
    rng = np.random.default_rng(3)
    few, many = ({"a": rng.poisson(3, n), "b": rng.integers(0, 40, n)} for n in (1_000, 10_000))
    for a, b in ((few, many), (many, few)):
        assert otel_mlmon.compare(a, b).passed


def test_a_shift_is_found_in_small_data():
    """0.25 sd of one feature among 35, a thousand rows: the smooth test sees it, the chi-square test mostly not."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(1_000, 35)), rng.normal(size=(1_000, 35))
        b[:, 7] += 0.25
        found += any(finding.name == "x7" for finding in otel_mlmon.compare(a, b).findings)
    assert found >= 10


def test_settings_decide(frame):
    a, b = frame(seed=1), frame(seed=2)
    b["distance"] += 0.2 * b["distance"].std()
    assert not otel_mlmon.compare(a, b, **TIMES).passed
    assert otel_mlmon.compare(a, b, tolerance=0.2, **TIMES).passed
    assert otel_mlmon.compare(a, b, false_alarms=1e-300, **TIMES).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["nope"]}, "no column 'nope' in the data"),
        ({"time_column": "nope"}, "no column 'nope' in the data"),
        ({"time_column": "carrier"}, "the time column must hold times in ISO 8601, it holds"),
        ({"by": "distance"}, "by: the reference has no column of categories 'distance'"),
        ({"by": "nope"}, "by: the reference has no column of categories 'nope'; it has "),
        ({"prediction": "nope"}, "no column 'nope' in the data"),
        ({"prediction": np.zeros(3)}, "prediction: must be the name of a column"),
        ({"types": {"nope": "numeric"}}, "types: no column 'nope' in the data"),
        ({"tolerance": -1}, "tolerance: must be a number >= 0, got -1"),
        ({"false_alarms": 0}, "false_alarms: must be between 0 and 1, got 0"),
        ({"period": "year"}, "period: must be day, week or month, got 'year'"),
        ({"timezone": "Mars/Phobos"}, "timezone: must be an IANA name"),
    ],
)
def test_wrong_options_are_told(frame, options, message):
    with pytest.raises(SourceError, match=message):
        otel_mlmon.compare(frame(seed=1), frame(seed=2), **options)


def test_rows_of_a_profile_cannot_be_chosen(frame):
    profile = Profile.build(frame(), model="m", exclude=["when"])
    with pytest.raises(SourceError, match="a profile has no rows to choose from"):
        otel_mlmon.compare(profile, frame(), reference_where="stops > 1")
    with pytest.raises(SourceError, match="a profile has no rows to choose from"):
        otel_mlmon.compare(frame(), profile, by="carrier", exclude=["when"])
    with pytest.raises(SourceError, match="no column 'nope' in the profile"):
        otel_mlmon.compare(profile, frame(), columns=["nope"])


def test_a_broken_profile_is_told(frame, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ProfileError, match=r'x\.json: not a profile: field "format" must be "otel-mlmon/profile"'):
        otel_mlmon.compare(tmp_path / "x.json", frame())


def test_progress_is_told(frame):
    seen = []
    otel_mlmon.compare(frame(seed=1), frame(seed=2), progress=lambda *said: seen.append(said), **TIMES)
    assert seen == [
        ("reference: looking", 6_000, 6_000),
        ("reference: counting", 6_000, 6_000),
        ("counting", 6_000, 6_000),
    ]


def test_the_same_input_gives_the_same_document(frame):
    a, b = frame(30_000, seed=1), frame(70_000, seed=2)
    first, second = (otel_mlmon.compare(a, b, by="carrier", **TIMES).to_dict() for _ in range(2))
    assert first == second


def test_frame_holds_what_the_document_holds(frame, feature):
    b = frame(seed=2)
    b["distance"] *= 1.3
    result = otel_mlmon.compare(frame(seed=1), b, **TIMES)
    table = result.to_frame()
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == [f.name for f in result.features]
    assert table.loc["distance", "changed"]
    assert table.loc["distance", "psi"] == feature(result, "distance").drift["psi"]
    assert table.loc["delay", "missing_before"] == feature(result, "delay").reference.missing
