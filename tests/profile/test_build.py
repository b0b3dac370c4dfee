"""Counts against a naive specification, containers against each other, and odd columns."""

import bisect
import datetime as dt
import math
import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.columns import read_columns
from otel_mlmon.encoding import encode
from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.profile import Profile
from otel_mlmon.profile.arrow import encode_arrow
from otel_mlmon.profile.sources import ROWS, SourceError, chunk_rows

START = dt.datetime(2013, 1, 1, 6, 30)


def build(data, **options):
    return Profile.build(data, model="m", created="2026-11-23", **options)


def find(profile, name, role="feature"):
    return next(r for r in profile.references if (r.variable.role, r.variable.name) == (role, name))


def make_rows(n, seed=0):
    """Lists of Python values of every kind."""
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 300 * 86_400, n).tolist()
    return {
        "float": rng.normal(5, 2, n).tolist(),
        "atoms": np.where(rng.random(n) < 0.3, 0.0, rng.exponential(size=n)).tolist(),
        "wide": rng.integers(-1000, 100_000, n).tolist(),
        "few": rng.integers(0, 7, n).tolist(),
        "flag": (rng.random(n) < 0.2).tolist(),
        "word": rng.choice(["UA", "AA", "DL", "é", "a b"], n, p=[0.4, 0.3, 0.15, 0.1, 0.05]).tolist(),
        "many": [f"id{i}" for i in rng.integers(0, 300, n)],
        "when": [START + dt.timedelta(seconds=second) for second in days],
        "essay": [f"{'lorem ipsum ' * int(k)}{i}" for i, k in enumerate(rng.integers(4, 30, n))],
        "same": [1.5] * n,
    }


# ---------------------------------------------------------------- against a specification


def specify(values, variable, newest):
    """Counts, invalid values, sum, min, max and squared deviations, value by value."""
    axis, transform = variable.axis, variable.transform
    counts, kept = [0] * axis.cells, []
    reasons = {"missing": 0, "nan": 0, "inf": 0, "type": 0}
    for value in values:
        if value is None:
            reasons["missing"] += 1
            continue
        if transform == "age":
            value = (newest - value).total_seconds()
        elif transform == "hour":
            value = value.hour
        elif transform == "length":
            value = len(value)
        if isinstance(axis, NumericAxis):
            if math.isnan(value):
                reasons["nan"] += 1
            elif math.isinf(value):
                reasons["inf"] += 1
            else:
                kept.append(float(value))
                counts[bisect.bisect_left(axis.edges.tolist(), value)] += 1
        else:
            name = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
            known = axis.names.index(name) if name in axis.names else None
            spare = len(axis.names) + (axis.closed and name not in axis.others)
            counts[spare if known is None else known] += 1
    return counts, reasons, kept


@pytest.mark.parametrize("n", [1, 2, 37, 1_000])
def test_counts_are_those_of_a_naive_count(n):
    rows = make_rows(n)
    rows["float"][0] = None
    profile = build(rows)
    newest = max(rows["when"])
    assert profile.rows == n
    assert [r.variable.column for r in profile.references if r.variable.transform != "hour"] == list(rows)
    for reference in profile.references:
        histogram = reference.histogram
        counts, reasons, kept = specify(rows[reference.variable.column], reference.variable, newest)
        assert histogram.counts.tolist() == counts, reference.variable.name
        assert vars_of(histogram.invalid) == reasons
        if isinstance(reference.variable.axis, NumericAxis):
            assert histogram.min == min(kept, default=math.inf)
            assert histogram.max == max(kept, default=-math.inf)
            assert histogram.sum == pytest.approx(math.fsum(kept), rel=1e-12)
            expected = statistics.stdev(kept) if len(kept) > 1 else 0.0
            assert reference.std == pytest.approx(expected, rel=1e-9, abs=1e-12)


def vars_of(invalid):
    return {name: getattr(invalid, name) for name in ("missing", "nan", "inf", "type")}


def test_the_deviation_survives_a_large_mean():
    values = 1e9 + np.random.default_rng(0).normal(size=3 * ROWS)
    reference = build({"x": values}).references[0]
    assert reference.std == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert reference.mean == pytest.approx(values.mean(), rel=1e-14)


def test_cells_follow_all_values_and_not_just_the_sample():
    values = np.random.default_rng(0).normal(size=300_000)
    values[123_456], values[234_567] = -50.0, 60.0
    histogram = build({"x": values}).references[0].histogram
    axis = histogram.axis
    assert (histogram.min, histogram.max) == (-50.0, 60.0)
    assert axis.edges[axis.low] < -50 < 60 < axis.edges[axis.high]
    assert histogram.counts[: axis.low + 1].sum() == histogram.counts[axis.high + 1 :].sum() == 0


def test_rare_categories_outside_the_sample_are_known():
    values = np.array(["a", "b"] * 150_000, dtype=object)
    values[299_998] = "rare"
    axis = build({"x": values}).references[0].variable.axis
    assert set(axis.names) == {"a", "b", "rare"}
    assert axis.closed


# ---------------------------------------------------------------- containers


def typed_table(rows):
    return pa.table(
        {**rows, "when": pa.array(rows["when"], pa.timestamp("us")), "few": pa.array(rows["few"], pa.int8())}
    )


def structured(rows):
    kinds = {
        "wide": "i8",
        "few": "i4",
        "flag": "?",
        "word": "U8",
        "many": "U8",
        "when": "datetime64[us]",
        "essay": "U600",
    }
    array = np.empty(len(rows["float"]), dtype=[(name, kinds.get(name, "f8")) for name in rows])
    for name, values in rows.items():
        array[name] = values
    return array


def categorical(rows):
    frame = pd.DataFrame(rows)
    return frame.astype({"word": "category", "many": "category", "flag": "category", "few": "category"})


CONTAINERS = {
    "dict of lists": dict,
    "dict of arrays": lambda rows: {name: np.array(values) for name, values in rows.items()},
    "object arrays": lambda rows: {name: np.array(values, dtype=object) for name, values in rows.items()},
    "structured": structured,
    "pandas": pd.DataFrame,
    "pandas nullable": lambda rows: pd.DataFrame(rows).convert_dtypes(dtype_backend="numpy_nullable"),
    "pandas arrow": lambda rows: typed_table(rows).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas object": lambda rows: pd.DataFrame(rows, dtype=object),
    "pandas categorical": categorical,
    "pandas utc": lambda rows: pd.DataFrame(rows).assign(
        when=lambda f: f["when"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    ),
    "polars": pl.DataFrame,
    "polars categorical": lambda rows: pl.DataFrame(rows).with_columns(pl.col("word", "many").cast(pl.Categorical)),
    "arrow table": typed_table,
    "arrow batch": lambda rows: typed_table(rows).to_batches()[0],
    "arrow chunks": lambda rows: pa.concat_tables([typed_table(rows).slice(0, 400), typed_table(rows).slice(400)]),
    "arrow dictionary": lambda rows: typed_table(rows).set_column(
        5, "word", pa.array(rows["word"]).dictionary_encode()
    ),
    "arrow dataset": lambda rows: pa.dataset.dataset(typed_table(rows)),
    "iterable": lambda rows: [pd.DataFrame(rows)],
}
FILES = {
    "parquet": lambda table, path: pa.parquet.write_table(table, path, row_group_size=300),
    "feather": pa.feather.write_feather,
    "csv": pa.csv.write_csv,
    "tsv": lambda table, path: pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t")),
    "csv.gz": lambda table, path: pa.csv.write_csv(table, pa.CompressedOutputStream(path, "gzip")),
}


def bare(profile):
    """Without what says where it was made; a structured array or category keeps less of the numeric type."""
    references = [replace(r, variable=replace(r.variable, dtype="float")) for r in profile.references]
    return replace(profile, packages={}, references=tuple(references))


@pytest.fixture(scope="module")
def rows():
    return make_rows(1_000)


@pytest.fixture(scope="module")
def expected(rows):
    return bare(build(rows)).to_bytes()


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_profile(name, rows, expected):
    assert bare(build(CONTAINERS[name](rows))).to_bytes() == expected


@pytest.mark.parametrize("name", FILES)
def test_every_file_gives_the_same_profile(name, rows, expected, tmp_path):
    path = tmp_path / f"data.{name}"
    FILES[name](typed_table(rows), str(path))
    assert bare(build(path)).to_bytes() == expected
    assert bare(build(str(path))).to_bytes() == expected
    assert bare(build([tmp_path])).to_bytes() == expected
    assert bare(build(str(tmp_path / "*"))).to_bytes() == expected


def test_a_plain_array_has_columns_by_position():
    array = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    profile = build(array)
    assert [r.variable.name for r in profile.references] == ["x0", "x1", "x2"]
    named = build({f"x{i}": array[:, i] for i in range(3)})
    assert profile == named


def test_a_frame_without_names_is_read_by_position():
    array = np.random.default_rng(0).normal(size=(500, 3))
    profile = build(pd.DataFrame(array))
    assert profile == build(array)
    columns = read_columns(pd.DataFrame(array), [v.column for v in profile.plan.variables]).columns
    assert [np.asarray(column).tolist() for column in columns.values()] == array.T.tolist()


def test_names_must_be_strings_and_distinct():
    with pytest.raises(SourceError, match="column 'a' occurs twice"):
        build(pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]))
    with pytest.raises(SourceError, match="names of columns must be strings, got 0"):
        build({0: [1.0]})


def test_wide_data_comes_in_shorter_chunks():
    assert (chunk_rows(1), chunk_rows(35), chunk_rows(1_000), chunk_rows(100_000)) == (ROWS, ROWS, 8_000, 1_024)
    array = np.random.default_rng(0).normal(size=(10_000, 900)).astype(np.float32)
    wide = build(array, columns=["x0", "x899"])
    narrow = build(array[:, [0, -1]])
    for left, right in zip(wide.references, narrow.references, strict=True):
        assert left.histogram.counts.tolist() == right.histogram.counts.tolist()


def test_many_chunks_are_one(tmp_path):
    rng = np.random.default_rng(0)
    n = 3 * ROWS + 17
    table = pa.table({"x": rng.normal(size=n), "c": rng.choice(["a", "b"], n)})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=50_000)
    whole = replace(build({name: table[name].to_numpy() for name in ("x", "c")}), packages={})
    for data in (
        table,
        tmp_path / "a.parquet",
        pl.from_arrow(table),
        pa.Table.from_batches(table.to_batches(max_chunksize=1000)),
    ):
        assert replace(build(data), packages={}).to_bytes() == whole.to_bytes()


# ---------------------------------------------------------------- missing and odd values


def test_missing_values_of_every_kind_are_counted_alike():
    frames = [
        {"x": [1.0, None, 3.0], "c": ["a", None, "b"], "d": [START, None, START]},
        pd.DataFrame({"x": [1, None, 3], "c": ["a", None, "b"], "d": [START, None, START]}, dtype=object),
        pd.DataFrame({"x": [1.0, None, 3.0], "c": ["a", None, "b"], "d": [START, None, START]}).convert_dtypes(),
        pl.DataFrame({"x": [1.0, None, 3.0], "c": ["a", None, "b"], "d": [START, None, START]}),
        pa.table({"x": [1.0, None, 3.0], "c": ["a", None, "b"], "d": [START, None, START]}),
    ]
    for data in frames:
        profile = build(data, types={"x": "numeric"})
        assert [r.histogram.invalid.missing for r in profile.references] == [1, 1, 1, 1], type(data)
        assert [r.histogram.valid for r in profile.references] == [2, 2, 2, 2]


def test_nan_and_infinity_are_in_no_cell():
    reference = build({"x": np.array([1.0, np.nan, np.inf, -np.inf, 2.0])}).references[0]
    assert vars_of(reference.histogram.invalid) == {"missing": 0, "nan": 1, "inf": 2, "type": 0}
    assert (reference.histogram.valid, reference.histogram.sum) == (2, 3.0)


def test_values_of_another_type_are_counted_as_such():
    reference = build({"x": [1.5, "two", [3], 4.5, b"5", None, 2.5]}).references[0]
    assert vars_of(reference.histogram.invalid) == {"missing": 1, "nan": 0, "inf": 0, "type": 3}
    assert reference.histogram.valid == 3


@pytest.mark.parametrize(
    "column",
    [
        [None] * 10,
        np.full(10, np.nan),
        pd.Series([pd.NA] * 10, dtype="Int64"),
        pl.Series([None] * 10),
        pa.nulls(10),
        np.array(["NaT"] * 10, dtype="datetime64[s]"),
        [[1, 2]] * 10,
        np.arange(10).astype("timedelta64[s]"),
        pa.array([b"a"] * 10),
    ],
    ids=lambda column: type(column).__name__,
)
def test_a_column_without_a_value_is_kept_as_empty(column):
    profile = build({"x": column, "y": np.arange(10.0)})
    reference = profile.references[0]
    assert (reference.variable.dtype, reference.variable.axis) == ("empty", CategoryAxis(()))
    assert (reference.histogram.valid, reference.histogram.seen) == (0, 10)
    assert Profile.from_bytes(profile.to_bytes()) == profile


def test_a_constant_column_has_its_own_cell():
    for value in (0.0, 7.25, -1e300, 5e-324):
        histogram = build({"x": np.full(50, value)}).references[0].histogram
        (cell,) = np.flatnonzero(histogram.counts)
        assert histogram.axis.low < cell <= histogram.axis.high
        assert (histogram.min, histogram.max) == (value, value)


def test_no_rows():
    profile = build({"x": np.array([], dtype=float), "c": []})
    assert profile.rows == 0
    assert [r.variable.dtype for r in profile.references] == ["empty", "empty"]


def test_a_hundred_thousand_distinct_strings_stay_bounded():
    profile = build({"id": [f"user-{i}" for i in range(100_000)]})
    axis, histogram = profile.references[0].variable.axis, profile.references[0].histogram
    assert (len(axis.names), len(axis.others), axis.closed) == (50, 1_000, False)
    assert histogram.counts.tolist() == [1] * 50 + [99_950, 0]
    assert len(profile.to_bytes()) < 40_000


def test_up_to_a_thousand_others_are_known_and_the_rest_is_new():
    profile = build({"c": [f"c{i:04}" for i in range(1_050)]})
    assert profile.references[0].variable.axis.closed
    values, _ = encode(profile.references[0].variable, ["c0000", "c1049", "other"], 0.0)
    assert values.tolist() == [0, 50, 51]


def test_names_that_cannot_stand_in_a_profile_are_other():
    profile = build({"c": ["a"] * 5 + ["x" * 2_000, "\ud800", "_OTHER_"]}, types={"c": "category"})
    reference = profile.references[0]
    assert reference.variable.axis == CategoryAxis(("a",), (), closed=False)
    assert reference.histogram.counts.tolist() == [5, 3, 0]
    assert Profile.from_bytes(profile.to_bytes()) == profile


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_floats_give_a_valid_document(values):
    profile = build({"x": values})
    assert Profile.from_bytes(profile.to_bytes()) == profile
    assert profile.references[0].histogram.seen == len(values)


# ---------------------------------------------------------------- types


def test_types_that_are_found(rows):
    found = {r.variable.name: (r.variable.dtype, r.variable.transform) for r in build(rows).references}
    assert found == {
        "float": ("float", "identity"),
        "atoms": ("float", "identity"),
        "wide": ("integer", "identity"),
        "few": ("integer", "identity"),
        "flag": ("boolean", "identity"),
        "word": ("string", "identity"),
        "many": ("string", "identity"),
        "when.age": ("datetime", "age"),
        "when.hour": ("datetime", "hour"),
        "essay.length": ("text", "length"),
        "same": ("float", "identity"),
    }
    numeric = {r.variable.name for r in build(rows).references if isinstance(r.variable.axis, NumericAxis)}
    assert numeric == {"float", "atoms", "wide", "when.age", "essay.length", "same"}


def test_twenty_integers_are_categories_and_twenty_one_are_numbers():
    for distinct, kind in ((20, CategoryAxis), (21, NumericAxis)):
        axis = build({"x": np.arange(1_000) % distinct}).references[0].variable.axis
        assert isinstance(axis, kind)


def test_types_can_be_overridden(rows):
    types = {
        "few": "numeric",
        "wide": "category",
        "flag": "numeric",
        "essay": "category",
        "word": "text",
        "same": "category",
    }
    profile = build(rows, types=types)
    axes = {r.variable.name: r.variable.axis for r in profile.references}
    assert isinstance(axes["few"], NumericAxis)
    assert isinstance(axes["wide"], CategoryAxis)
    assert isinstance(axes["flag"], NumericAxis)
    assert isinstance(axes["essay"], CategoryAxis)
    assert isinstance(axes["word.length"], NumericAxis)
    assert axes["same"].names == ("1.5",)
    assert find(profile, "flag").histogram.sum == sum(rows["flag"])
    assert find(profile, "wide").histogram.valid == 1_000


def test_categories_are_ordered_by_how_many_they_are(rows):
    names = find(build(rows, categories=3), "word").variable.axis.names
    assert names == tuple(sorted(set(rows["word"]), key=lambda word: -rows["word"].count(word))[:3])


def test_wrong_options_are_named(rows):
    for options, message in [
        ({"types": {"nope": "numeric"}}, "types: no column 'nope'"),
        ({"types": {"word": "datetime"}}, "'word' holds values of kind string, which cannot be counted as datetime"),
        ({"types": {"few": "number"}}, "types: of 'few' must be one of numeric"),
        ({"columns": ["few", "nope"]}, "no column 'nope'"),
        ({"time_column": "nope"}, "no column 'nope'"),
        ({"time_column": "word"}, "time column"),
        ({"predictions": "nope"}, "no column 'nope'"),
        ({"predictions": np.zeros(999)}, "999 for (at least )?1000 rows of data"),
        ({"predictions": {"label": np.zeros(1000)}}, "the roles are value, class, score"),
        ({"importance": {"nope": 1.0}}, "no feature 'nope'"),
        ({"importance": [1.0]}, "1 numbers for 10 features"),
        ({"importance": {"few": -1.0}}, "'few' must be a finite number"),
        ({"trained": "yesterday"}, "ISO 8601"),
    ]:
        with pytest.raises(SourceError, match=message):
            build(rows, **options)
    with pytest.raises(SourceError, match="version: must be text, got 1; '1' is"):
        Profile.build(rows, model="m", version=1)
    with pytest.raises(SourceError, match="model: must be a name"):
        Profile.build(rows, model="")
    with pytest.raises(SourceError, match=r"both give a feature 'a\.age'"):
        build({"a": [START], "a.age": [1.0]})


def test_a_boolean_may_come_as_a_number():
    variable = build({"x": [True, False, False]}).references[0].variable
    for column in (
        [1.0, 0.0, 1.0],
        np.array([1, 0, 1], dtype=np.float32),
        [True, False, True],
        ["true", "false", "true"],
    ):
        codes, invalid = encode(variable, column, 0.0)
        assert codes.tolist() == [1, 0, 1]
        assert not invalid.total
    assert encode(variable, [2], 0.0)[0].tolist() == [3]
    numbers = build({"x": [1, 0, 1, 1]}, types={"x": "boolean"}).references[0]
    assert (numbers.variable.axis.names, numbers.histogram.counts.tolist()) == (("true", "false"), [3, 1, 0, 0])


ARROW = {
    "string": pa.array(["a", None, "b", "zz", "b"]),
    "large": pa.array(["a", None, "b", "zz", "b"], pa.large_string()),
    "view": pa.array(["a", None, "b", "zz", "b"], pa.string_view()),
    "dictionary": pa.array(["a", None, "b", "zz", "b"]).dictionary_encode(),
    "chunks": pa.chunked_array([["a"], [None, "b"], ["zz", "b"]]),
    "no chunks": pa.chunked_array([], pa.string()),
    "boolean": pa.array([True, None, False, True]),
    "integer": pa.array([1, None, 2, 70], pa.uint8()),
    "float": pa.array([1.5, None, float("nan"), float("inf")]),
    "float32": pa.array([1.5, None, 0.1], pa.float32()),
    "timestamp": pa.array([START, None, START], pa.timestamp("ns")),
    "zoned": pa.array([START, None, START], pa.timestamp("ms", "America/New_York")),
    "date": pa.array([START.date(), None], pa.date32()),
    "nulls": pa.nulls(3),
    "list": pa.array([[1], None, [2]]),
}


@pytest.mark.parametrize("name", ARROW)
def test_arrow_is_counted_as_python_values_are(name, rows):
    column = ARROW[name]
    chunked = [column] if isinstance(column, pa.ChunkedArray) else [column, pa.chunked_array([column])]
    for reference in build({**rows, "few": [str(few) for few in rows["few"]]}).references:
        expected, invalid = encode(reference.variable, column.to_pylist(), 1e9)
        for form in chunked:
            values, found = encode_arrow(reference.variable, form, 1e9)
            assert values.tolist() == expected.tolist()
            assert found == invalid


# ---------------------------------------------------------------- time


def test_ages_are_counted_to_the_newest_value_or_to_the_time_of_the_row(rows):
    plain = find(build(rows), "when.age")
    assert plain.histogram.min == 0
    assert plain.variable.origin == max(rows["when"]).replace(tzinfo=dt.timezone.utc).timestamp()
    later = [moment + dt.timedelta(hours=2) for moment in rows["when"]]
    timed = build({**rows, "seen": later}, time_column="seen")
    age = find(timed, "when.age")
    assert (age.histogram.min, age.histogram.max, age.variable.origin) == (7200, 7200, None)
    assert "seen" not in {r.variable.column for r in timed.references}


def test_naive_times_of_rows_are_in_the_given_zone():
    summer, winter = dt.datetime(2013, 7, 1, 12), dt.datetime(2013, 1, 1, 12)
    data = {"made": [summer, winter], "seen": [summer, winter]}
    age = find(build(data, time_column="seen", timezone="America/New_York"), "made.age")
    assert (age.histogram.min, age.histogram.max) == (4 * 3600, 5 * 3600)
    aware = {"made": data["made"], "seen": pd.Series(data["seen"]).dt.tz_localize("UTC")}
    age = find(build(aware, time_column="seen", timezone="America/New_York"), "made.age")
    assert (age.histogram.min, age.histogram.max) == (0, 0)


def test_a_row_without_a_time_has_no_age():
    data = {"made": [START] * 4, "seen": [START, None, START, START]}
    age = find(build(data, time_column="seen"), "made.age")
    assert (age.histogram.valid, age.histogram.invalid.missing) == (3, 1)


# ---------------------------------------------------------------- predictions


def roles_of(profile):
    return {r.variable.role: r for r in profile.references if r.variable.role != "feature"}


@pytest.mark.parametrize(
    ("predictions", "roles"),
    [
        (np.linspace(0, 1, 100), {"score"}),
        (np.linspace(0, 1.01, 100), {"value"}),
        (np.linspace(0, 1, 100).reshape(-1, 1), {"score"}),
        (np.arange(100) % 2, {"class"}),
        (np.arange(100), {"value"}),
        (np.arange(100) % 2 == 0, {"class"}),
        (["yes", "no"] * 50, {"class"}),
        (pd.Series(np.linspace(0, 1, 100)), {"score"}),
        (pl.Series(["yes", "no"] * 50), {"class"}),
        (np.full((100, 2), 0.5), {"score", "class"}),
        ([[0.1, 0.9]] * 100, {"score", "class"}),
        (pd.DataFrame(np.full((100, 3), 1 / 3)), {"score", "class"}),
        ({"score": np.full(100, 3.0), "class": ["a"] * 100}, {"score", "class"}),
    ],
)
def test_roles_of_predictions(predictions, roles):
    found = roles_of(build({"x": np.arange(100.0)}, predictions=predictions))
    assert set(found) == roles
    assert all(r.histogram.seen == 100 for r in found.values())
    assert all(r.variable.name == role and not r.variable.column for role, r in found.items())


def test_scores_of_two_classes_are_those_of_the_second_and_of_more_the_largest():
    two = roles_of(build({"x": np.zeros(4)}, predictions=np.array([[0.8, 0.2], [0.1, 0.9], [0.6, 0.4], [0.5, 0.5]])))
    assert two["score"].histogram.sum == pytest.approx(0.2 + 0.9 + 0.4 + 0.5)
    assert dict(zip(two["class"].variable.axis.names, two["class"].histogram.counts.tolist(), strict=False)) == {
        "0": 3,
        "1": 1,
    }
    three = roles_of(build({"x": np.zeros(2)}, predictions=np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])))
    assert three["score"].histogram.sum == pytest.approx(1.2)


def test_classes_name_the_columns_of_scores():
    scores = np.array([[0.8, 0.2], [0.1, 0.9], [0.6, 0.4]])
    named = roles_of(build({"x": np.zeros(3)}, predictions=scores, classes=np.array(["on time", "late"])))["class"]
    assert (named.variable.axis.names, named.histogram.counts.tolist()) == (("on time", "late"), [2, 1, 0, 0])
    with pytest.raises(SourceError, match="classes: 3 labels for 2 columns"):
        build({"x": np.zeros(3)}, predictions=scores, classes=["a", "b", "c"])


def test_predictions_may_be_columns(rows, tmp_path):
    data = {**rows, "p": np.linspace(0, 1, 1_000), "label": ["late", "on time"] * 500}
    pa.parquet.write_table(pa.table(data), tmp_path / "a.parquet")
    profile = build(tmp_path / "a.parquet", predictions={"score": "p", "class": "label"})
    assert set(roles_of(profile)) == {"score", "class"}
    assert not {"p", "label"} & {r.variable.column for r in profile.references}
    beside = build(rows, predictions={"score": data["p"], "class": data["label"]})
    assert bare(profile).to_bytes() == bare(beside).to_bytes()
    assert set(roles_of(build(data, predictions="p", exclude=["label"]))) == {"score"}


# ---------------------------------------------------------------- the rest


def test_columns_choose_and_order_the_features(rows):
    profile = build(rows, columns=["word", "float"])
    assert [r.variable.name for r in profile.references] == ["word", "float"]
    assert "when" not in {r.variable.column for r in build(rows, exclude=["when"]).references}


def test_importance_and_identity_are_kept(rows):
    profile = build(rows, version="3", importance={"when": 2.0}, framework="sklearn", model_hash="ab", trained=START)
    assert find(profile, "when.hour").importance == find(profile, "when.age").importance == 2.0
    assert find(profile, "few").importance is None
    assert (profile.framework, profile.model_hash, profile.trained) == ("sklearn", "ab", "2013-01-01T06:30:00Z")
    assert profile.created == "2026-11-23T00:00:00Z"
    assert {"numpy", "python", "pandas"} <= profile.packages.keys()


def test_the_same_data_gives_the_same_document(rows):
    assert build(rows).to_bytes() == build(rows).to_bytes()


def test_what_can_be_read_once_needs_a_plan(rows):
    table = typed_table(rows)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    chunks = (batch for batch in table.to_batches())
    for data in (reader, chunks):
        with pytest.raises(SourceError, match=r"can be read only once.*Profile\.plan"):
            build(data)
    plan = Profile.plan(rows)
    expected = build(rows)
    assert build(reader, plan=plan).references == expected.references
    assert build(chunks, plan=plan).references == expected.references


def test_outputs_of_a_plan_need_predictions(rows):
    score = np.linspace(0, 1, 1_000)
    one = Profile.plan(rows, predictions=score)
    both = Profile.plan(rows, predictions=np.column_stack([1 - score, score]))
    with pytest.raises(SourceError, match="the plan has the role score, and none are given"):
        build(rows, plan=one)
    with pytest.raises(SourceError, match="the plan has the roles score, class; say which"):
        build(rows, plan=both, predictions=score)
    with pytest.raises(SourceError, match="the plan has the role class, and none are given"):
        build(rows, plan=both, predictions={"score": score})
    assert roles_of(build(rows, plan=one, predictions=score))["score"].histogram.valid == 1_000
    wide = build(rows, plan=one, predictions=np.column_stack([1 - score, score]))
    assert roles_of(wide)["score"].histogram.sum == pytest.approx(score.sum())


def test_a_plan_is_enough_to_know_what_is_counted(rows):
    plan = Profile.plan(rows, categories=3, types={"few": "numeric"})
    assert build(rows, plan=plan).plan == plan


def test_unreadable_data_is_refused_with_what_can_be_read():
    for data in (3, None, object(), ["a.parquet", 3], [1, 2], pl.LazyFrame({"x": [1]})):
        with pytest.raises((SourceError, FileNotFoundError), match=r"cannot read columns|collect"):
            build(data)
    with pytest.raises(SourceError, match="'b' has 2 rows, 'a' has 1"):
        build({"a": [1], "b": [1, 2]})
    with pytest.raises(SourceError, match="a column must"):
        build({"a": 1})
    with pytest.raises(SourceError, match="no columns"):
        build({})


def test_progress_is_told(rows):
    told = []
    build(rows, progress=lambda what, done, rows: told.append((what, done, rows)))
    assert told == [("looking", 1_000, 1_000), ("counting", 1_000, 1_000)]


def test_another_profile_is_a_plan_and_shows_itself_in_one_line():
    first = Profile.build({"a": np.arange(100.0)}, model="m", version="1")
    second = Profile.build({"a": np.arange(50.0)}, model="m", version="2", plan=first)
    assert second.plan == first.plan
    assert repr(second) == f"<Profile 'm 2': 50 rows, 1 variables, hash {second.hash}>"
