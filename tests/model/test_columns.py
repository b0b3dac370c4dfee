"""Rows of any kind are counted as a naive loop over their values counts them."""

from __future__ import annotations

import array
import csv
import datetime as dt
import io
import math
import time
from collections import UserDict, deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.columns import UnreadableError, names_of, read_columns
from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.profile.document import Plan, Variable
from otel_mlmon.recorder import Recorder
from otel_mlmon.tallies import VariableKey

EDGES = [-1.0, 0.0, 1.0, 10.0]
KINDS = {"1": 0, "2": 1, "3": 2, "4": 3}  # cell of each integer; 4 is known and not listed
WORDS = {"a": 0, "b": 1}


def feature(name, dtype, axis, transform="identity"):
    return Variable(name, name.partition(".")[0], "feature", dtype, transform, axis, (0,))


PLAN = Plan(
    (
        feature("x", "float", NumericAxis(np.array(EDGES), 1, 2)),
        feature("kind", "integer", CategoryAxis(("1", "2", "3"), others=("4",))),
        feature("flag", "boolean", CategoryAxis(("false", "true"))),
        feature("word", "string", CategoryAxis(("a", "b"), closed=False)),
    )
)
NAMES = ["x", "kind", "flag", "word"]


def count(*inputs, plan=PLAN):
    """What a recorder has counted, by variable: each reason a value was invalid, and the cells."""
    recorder = Recorder(plan, time.time, lambda: None, pytest.fail)
    for X in inputs:
        recorder.observe(X)
    tallies = recorder.collect().get(None, {})
    return {
        key.name: ({"missing": t.missing, "nan": t.nan, "inf": t.inf, "type": t.wrong_type}, t.counts.tolist())
        for key, t in tallies.items()
    }


def naive(rows):
    """The same, one value after the other, from the conventions: NaN and infinity of a category are no category."""
    found = {name: (dict.fromkeys(("missing", "nan", "inf", "type"), 0), cells) for name, cells in
             {"x": [0] * 5, "kind": [0] * 5, "flag": [0] * 4, "word": [0] * 4}.items()}  # fmt: skip
    for row in rows:
        for name, value in row.items():
            invalid, cells = found[name]
            if value is None:
                invalid["missing"] += 1
            elif name == "x" and math.isnan(value):
                invalid["nan"] += 1
            elif name == "x" and math.isinf(value):
                invalid["inf"] += 1
            elif name == "x":
                cells[sum(value > edge for edge in EDGES)] += 1
            elif name == "kind":
                cells[KINDS.get(str(value), 4)] += 1
            elif name == "flag":
                cells[int(value)] += 1
            else:
                cells[WORDS.get(value, 2)] += 1
    return found


def column(rows, name):
    return [row[name] for row in rows]


def columns(rows):
    return {name: column(rows, name) for name in rows[0]}


def arrays(rows):
    kinds = {"x": np.float64, "kind": np.int64, "flag": np.bool_, "word": object}
    return {name: np.array(values, dtype=kinds[name]) for name, values in columns(rows).items()}


def structured(rows):
    names = list(rows[0])
    kinds = {"x": "f8", "kind": "i4", "flag": "?", "word": "U4"}
    return np.array([tuple(row[n] for n in names) for row in rows], dtype=[(n, kinds[n]) for n in names])


def nullable(rows):
    kinds = {"x": "Float64", "kind": "Int64", "flag": "boolean", "word": "string"}
    return pd.DataFrame({name: pd.array(values, dtype=kinds[name]) for name, values in columns(rows).items()})


def categorical(rows):
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns(rows).items()})
    return frame.astype({"word": "category", "kind": "category"})


def arrow_backed(rows):
    kinds = {"x": pa.float64(), "kind": pa.int32(), "flag": pa.bool_(), "word": pa.large_string()}
    return pd.DataFrame(
        {n: pd.array(pa.array(v, kinds[n]), dtype=pd.ArrowDtype(kinds[n])) for n, v in columns(rows).items()}
    )


def arrow(rows):
    kinds = {"x": pa.float64(), "kind": pa.int16(), "flag": pa.bool_(), "word": pa.dictionary(pa.int32(), pa.string())}
    return pa.table({name: pa.array(values, kinds[name]) for name, values in columns(rows).items()})


def polars(rows):
    kinds = {"x": pl.Float64, "kind": pl.Int8, "flag": pl.Boolean, "word": pl.String}
    return pl.DataFrame(columns(rows), schema={name: kinds[name] for name in rows[0]}, strict=False)


def positional(rows):
    return [[row[name] for name in NAMES] for row in rows]


# What a container can hold: None beside numbers, and NaN that is told apart from None.
CONTAINERS = {
    "dict of arrays": (arrays, False, True),
    "dict of lists": (columns, True, True),
    "dict of tuples": (lambda rows: {n: tuple(v) for n, v in columns(rows).items()}, True, True),
    "mapping of deques": (lambda rows: UserDict({n: deque(v) for n, v in columns(rows).items()}), True, True),
    "list of dicts": (list, True, True),
    "tuple of mappings": (lambda rows: tuple(map(UserDict, rows)), True, True),
    "list of lists": (positional, True, True),
    "list of tuples": (lambda rows: [tuple(row) for row in positional(rows)], True, True),
    "array of objects": (lambda rows: np.array(positional(rows), dtype=object), True, True),
    "structured array": (structured, False, True),
    "pandas": (pd.DataFrame, False, True),
    "pandas with nulls": (nullable, True, False),
    "pandas with categories": (categorical, True, True),
    "pandas on Arrow": (arrow_backed, True, False),
    "polars": (polars, True, True),
    "Arrow table": (arrow, True, True),
    "Arrow batch": (lambda rows: arrow(rows).to_batches()[0], True, True),
}


def rows_of(nulls, nan):
    def maybe(values):
        return st.one_of(st.none(), values) if nulls else values

    row = {
        "x": maybe(st.floats(allow_nan=nan, allow_infinity=True, width=32)),
        "kind": maybe(st.integers(0, 6)),
        "flag": maybe(st.booleans()),
        "word": maybe(st.sampled_from(["a", "b", "c", "3"])),
    }
    shuffled = st.permutations(NAMES)
    lists = st.lists(st.fixed_dictionaries(row), min_size=1, max_size=20)
    return st.tuples(lists, shuffled).map(lambda found: [{n: r[n] for n in found[1]} for r in found[0]])


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_counts_as_its_values_in_any_order_of_columns(container):
    make, nulls, nan = CONTAINERS[container]

    @settings(max_examples=30)
    @given(rows_of(nulls, nan))
    def check(rows):
        assert count(make(rows)) == naive(rows)

    check()


@settings(max_examples=30)
@given(rows_of(True, True))
def test_mappings_of_scalars_one_by_one_count_as_their_values(rows):
    assert count(*rows) == naive(rows)
    assert count(*map(UserDict, rows)) == naive(rows)
    assert count(*({n: v if v is None else np.array(v)[()] for n, v in row.items()} for row in rows)) == naive(rows)


@given(st.lists(st.sampled_from(sorted(CONTAINERS)), min_size=2, max_size=5), st.data())
def test_containers_of_different_kinds_add_up(kinds, data):
    parts = [data.draw(rows_of(*CONTAINERS[kind][1:])) for kind in kinds]
    inputs = [CONTAINERS[kind][0](rows) for kind, rows in zip(kinds, parts, strict=True)]
    assert count(*inputs) == naive([row for rows in parts for row in rows])


NUMBERS = Plan(
    (
        feature("x", "float", NumericAxis(np.array(EDGES), 1, 2)),
        feature("kind", "integer", CategoryAxis(("1", "2", "3"), others=("4",))),
        feature("flag", "boolean", CategoryAxis(("false", "true"))),
    )
)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_array", "lil_matrix"])
@given(st.lists(st.tuples(st.floats(-20, 20), st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=20))
@settings(max_examples=20)
def test_sparse_matrices_count_their_zeros(form, rows):
    X = getattr(scipy.sparse, form)(np.array(rows, dtype=np.float64))
    expected = naive([{"x": x, "kind": kind, "flag": flag} for x, kind, flag in rows])
    expected.pop("word")
    assert count(X, plan=NUMBERS) == expected
    assert count(np.array(rows), plan=NUMBERS) == expected  # a boolean is 0 or 1 in a matrix of numbers


INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">i4", "<f8"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_categories_in_numbers_of_any_width_are_found(dtype):
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo("i1")
    values = [*range(max(info.min, -80), 100), 120, 126, 127]
    known = [str(value) for value in values if value % 3 == 0]
    plan = Plan((feature("c", "integer", CategoryAxis(tuple(known))),))
    _, cells = count({"c": np.array(values, dtype=dtype)}, plan=plan)["c"]
    assert cells == [1] * len(known) + [0, len(values) - len(known)]


class Liar:
    def __float__(self):
        raise RuntimeError("not today")


class Number:
    def __float__(self):
        return 0.5


NAT, DAY = np.datetime64("NaT"), np.datetime64("2024-03-01T13:00")
# Value, and what it is to a number, a category of text, a time and a length; a digit is the cell or hour.
VALUES = [
    (0.5, "2", "2", "type", "type"),
    (np.float32(0.5), "2", "2", "type", "type"),
    (np.int8(5), "3", "2", "type", "type"),
    (True, "2", "2", "type", "type"),
    (Decimal("0.5"), "2", "type", "type", "type"),
    (Fraction(1, 2), "2", "type", "type", "type"),
    (Number(), "2", "type", "type", "type"),
    (10**400, "inf", "2", "type", "type"),
    (-(10**400), "inf", "2", "type", "type"),
    (None, "missing", "missing", "missing", "missing"),
    (pd.NA, "missing", "missing", "missing", "missing"),
    (pd.NaT, "missing", "missing", "missing", "missing"),
    (NAT, "missing", "missing", "missing", "missing"),
    (math.nan, "nan", "missing", "missing", "missing"),
    (-math.inf, "inf", "inf", "type", "type"),
    ("a", "type", "0", "type", "1"),
    ("0.5", "type", "2", "type", "3"),
    (np.str_("b"), "type", "1", "type", "1"),
    (b"a", "type", "type", "type", "type"),
    (1j, "type", "type", "type", "type"),
    (np.complex128(1), "type", "type", "type", "type"),
    ([1.0], "type", "type", "type", "type"),
    (np.array([1.0, 2.0]), "type", "type", "type", "type"),
    ({"a": 1}, "type", "type", "type", "type"),
    (object(), "type", "type", "type", "type"),
    (Liar(), "type", "type", "type", "type"),
    (DAY, "type", "type", "13", "type"),
    (dt.datetime(2024, 3, 1, 13), "type", "type", "13", "type"),
    (dt.datetime(2024, 3, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=2))), "type", "type", "11", "type"),
    (pd.Timestamp("2024-03-01 13:00", tz="Asia/Tokyo"), "type", "type", "4", "type"),
    (dt.date(2024, 3, 1), "type", "type", "0", "type"),
    (dt.timedelta(1), "type", "type", "type", "type"),
]
OF_EACH = {
    "number": feature("v", "float", NumericAxis(np.array(EDGES), 1, 2)),
    "text": feature("v", "string", CategoryAxis(("a", "b"), closed=False)),
    "hour": feature("v.hour", "datetime", CategoryAxis(tuple(map(str, range(24)))), "hour"),
    "length": feature("v.length", "text", NumericAxis(np.arange(24) - 0.5, 0, 23), "length"),
}


@pytest.mark.parametrize("place", range(4), ids=list(OF_EACH))
@pytest.mark.parametrize("case", VALUES, ids=lambda case: f"{type(case[0]).__name__}-{case[0]!r:.20}")
def test_a_value_of_any_type_is_counted_and_never_raised(case, place):
    value, said = case[0], case[1 + place]
    variable = list(OF_EACH.values())[place]
    objects = np.empty(2, dtype=object)
    objects[:] = [value, value]
    for X in (
        [{"v": value}, {"v": value}],
        {"v": [value, value]},
        {"v": objects},
        pd.DataFrame({"v": objects}, dtype=object),
    ):
        invalid, cells = count(X, plan=Plan((variable,)))[variable.name]
        if said.isdigit():
            cell = int(said) + (1 if place == 3 else 0)
            assert (cells[cell], sum(cells), sum(invalid.values())) == (2, 2, 0)
        else:
            assert (sum(cells), invalid) == (0, {**dict.fromkeys(invalid, 0), said: 2})


@pytest.mark.parametrize("place", range(4), ids=list(OF_EACH))
def test_columns_of_two_dimensions_are_of_a_wrong_type_and_the_rest_is_counted(place):
    variable = list(OF_EACH.values())[place]
    other = feature("x", "float", NumericAxis(np.array(EDGES), 1, 2))
    for matrix in (np.ones((3, 2)), np.ones((3, 2), dtype=int), np.full((3, 2), DAY), np.full((3, 2), "a")):
        found = count({"v": matrix, "x": np.zeros(3)}, plan=Plan((variable, other)))
        assert found[variable.name] == ({"missing": 0, "nan": 0, "inf": 0, "type": 3}, [0] * variable.axis.cells)
        assert found["x"][1] == [0, 3, 0, 0, 0]


def test_a_column_that_is_absent_is_missing_in_every_row_and_others_are_extra():
    recorder = Recorder(PLAN, time.time, lambda: None, pytest.fail)
    known = {"x": np.array([0.5, 0.5, 0.5]), "word": np.array(["a", "a", "b"])}
    more = {"new": np.zeros(3), "newer": np.zeros(3)}
    for X in (
        {**known, **more},
        pl.DataFrame({**known, **more}),
        pa.table({**known, **more}),
        pd.DataFrame({**known, **more}),
        [
            dict(zip([*known, *more], values, strict=True))
            for values in zip(*known.values(), *more.values(), strict=True)
        ],
    ):
        assert recorder.observe(X) == 3
    found = recorder.collect()[None]
    for name, missing in (("x", 0), ("word", 0), ("kind", 15), ("flag", 15)):
        tally = found[VariableKey("feature", name)]
        assert (tally.seen, tally.missing) == (15, missing)
    assert recorder.take_extra_columns() == 10
    assert recorder.take_extra_columns() == 0


def test_keys_that_only_some_mappings_have_are_missing_in_the_others():
    found = count([{"x": 0.5}, {"kind": 1}, {}])
    assert found["x"] == ({"missing": 2, "nan": 0, "inf": 0, "type": 0}, [0, 0, 1, 0, 0])
    assert found["kind"] == ({"missing": 2, "nan": 0, "inf": 0, "type": 0}, [1, 0, 0, 0, 0])


def test_masked_values_are_missing():
    found = count({"x": np.ma.array([0.5, 99.0], mask=[False, True])})
    assert found["x"] == ({"missing": 1, "nan": 0, "inf": 0, "type": 0}, [0, 0, 1, 0, 0])


ONCE = {
    "generator": lambda: ({"x": i} for i in range(5)),
    "iterator": lambda: iter([{"x": i} for i in range(5)]),
    "map": lambda: map(int, "12345"),
    "csv reader": lambda: csv.reader(io.StringIO("1\n2\n3\n4\n5\n")),
    "file": lambda: io.StringIO("1\n2\n3\n4\n5\n"),
}


@pytest.mark.parametrize("kind", ONCE)
@pytest.mark.parametrize("plan", [PLAN, None], ids=["with plan", "without"])
def test_what_can_be_read_once_is_left_untouched(kind, plan):
    X = ONCE[kind]()
    recorder = Recorder(plan, time.time, lambda: None, pytest.fail)
    with pytest.raises(UnreadableError):
        recorder.observe(X)
    assert len(list(X)) == 5
    assert recorder.collect() == {}


def test_a_generator_that_is_a_column_is_left_untouched():
    column = (value for value in [1.0, 2.0])
    found = count({"x": column})
    assert found["x"][0]["type"] == 1
    assert list(column) == [1.0, 2.0]


UNREADABLE = {
    "number": 5,
    "text": "rows",
    "bytes": b"rows",
    "object": object(),
    "one dimension": np.zeros(4),
    "three dimensions": np.zeros((2, 4, 1)),
    "other width": np.zeros((2, 3)),
    "list of texts": ["abcd", "abcd"],
    "list of numbers": [1.0, 2.0],
    "ragged rows": [[1, 2, 3, 4], [1, 2, 3]],
    "columns of different length": {"x": [1.0, 2.0], "kind": [1]},
    "column and scalar": {"x": [1.0, 2.0], "kind": 1},
    "series": pd.Series([1.0, 2.0]),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_has_no_columns_says_so(kind):
    with pytest.raises(UnreadableError):
        read_columns(UNREADABLE[kind], NAMES)


def test_frames_whose_columns_have_no_names_are_read_by_position():
    frame = pd.DataFrame(np.array([[0.5, 1, 1]]), columns=[2, 1, 0])
    expected = naive([{"x": 0.5, "kind": 1, "flag": True}])
    expected.pop("word")
    assert count(frame, plan=NUMBERS) == expected


@pytest.mark.parametrize(
    ("X", "names"),
    [
        ({"b": 1, "a": 2, 3: 4}, ["b", "a"]),
        ([{"b": 1}, {"a": 1}], ["b"]),
        (pd.DataFrame({"b": [1], "a": [2]}), ["b", "a"]),
        (pl.DataFrame({"b": [1], "a": [2]}), ["b", "a"]),
        (pa.table({"b": [1], "a": [2]}), ["b", "a"]),
        (np.zeros(2, dtype=[("b", "f8"), ("a", "f8")]), ["b", "a"]),
        (np.zeros((1, 3)), ["x0", "x1", "x2"]),
        ([[1, 2], [3, 4]], ["x0", "x1"]),
        (scipy.sparse.csr_matrix((1, 2)), ["x0", "x1"]),
        (pd.DataFrame(np.zeros((1, 2))), ["x0", "x1"]),
    ],
)
def test_names_of_rows_without_a_profile(X, names):
    assert names_of(X) == names


@pytest.mark.parametrize("X", [5, "rows", ["some", "text"], np.zeros(3), [], [1.0], {}, [[]]], ids=repr)
def test_nothing_is_learnt_from_what_has_no_columns(X):
    recorder = Recorder(None, time.time, lambda: None, pytest.fail)
    with pytest.raises(UnreadableError):
        recorder.observe(X)
    recorder.observe({"x": 1.0})
    assert [key.name for key in recorder.collect()[None]] == ["x"]


def with_buffer(kind):
    """A container over memory that the caller still holds, and a function that overwrites it."""
    n = 1 if kind.endswith("of one") else 5
    values = np.full(n, 0.5)

    def overwrite():
        values[:] = 99.0

    made = {
        "dict": lambda: {"x": values},
        "array": lambda: values.reshape(-1, 1),
        "Arrow": lambda: pa.table({"x": pa.array(values)}),
        "Arrow of one": lambda: pa.record_batch({"x": pa.array(values)}),
        "polars": lambda: pl.DataFrame({"x": values}),
        "polars of one": lambda: {"x": pl.Series(values)},
        "pandas": lambda: pd.DataFrame({"x": pd.Series(values, copy=False)}, copy=False),
        "pandas of one": lambda: pd.DataFrame(values.reshape(-1, 1), columns=["x"], copy=False),
        "series": lambda: {"x": pd.Series(values, copy=False)},
        "buffer": lambda: {"x": memoryview(values)},
        "masked": lambda: {"x": np.ma.array(values)},
        "structured": lambda: values.view([("x", "f8")]),
    }
    return made[kind](), overwrite


BUFFERS = ["dict", "array", "Arrow", "Arrow of one", "polars", "polars of one", "pandas", "pandas of one", "series"]


@pytest.mark.parametrize("kind", [*BUFFERS, "buffer", "masked", "structured"])
def test_what_the_caller_writes_into_its_memory_later_changes_nothing(kind):
    plan = Plan((feature("x", "float", NumericAxis(np.array(EDGES), 1, 2)),))
    X, overwrite = with_buffer(kind)
    recorder = Recorder(plan, time.time, lambda: None, pytest.fail)
    rows = recorder.observe(X)
    overwrite()
    (tally,) = recorder.collect()[None].values()
    assert tally.counts.tolist() == [0, 0, rows, 0, 0]


def test_lists_and_mappings_that_the_caller_changes_later_change_nothing():
    plan = Plan((feature("x", "float", NumericAxis(np.array(EDGES), 1, 2)),))
    recorder = Recorder(plan, time.time, lambda: None, pytest.fail)
    column, row, rows, cells, buffer = [0.5], {"x": 0.5}, [{"x": 0.5}], [[0.5]], array.array("d", [0.5])
    for X in ({"x": column}, row, rows, cells, {"x": buffer}):
        recorder.observe(X)
    column[0] = row["x"] = rows[0]["x"] = cells[0][0] = buffer[0] = 99.0
    rows.append({"x": 1.0})
    (tally,) = recorder.collect()[None].values()
    assert tally.counts.tolist() == [0, 0, 5, 0, 0]
