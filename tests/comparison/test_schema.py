"""Each difference that is none of distribution, and that what only looks like one is left alone."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_mlmon
from otel_mlmon.comparison.units import LEVELS, Conversion, recognise_conversion

KINDS = ("gone", "new", "type", "unit", "missing_code", "constant", "renamed", "unseen", "duplicates")


def compare(a, b, **options):
    return otel_mlmon.compare(a, b, **({"exclude": ["when"]} | options))


@pytest.fixture
def sides(frame):
    return frame(seed=1), frame(seed=2)


def test_unchanged_data_has_none(sides, told):
    result = compare(*sides)
    for kind in KINDS:
        assert told(result, kind) == []


def test_columns_gone_and_new(sides, told, checked, feature):
    a, b = sides
    result = compare(a, b.drop(columns="delay").assign(extra=1))
    checked(result)
    assert told(result, "gone") == [("fault", "delay", "the column is gone")]
    assert told(result, "new") == [("fault", "extra", "a new column")]
    assert feature(result, "delay").changed
    assert feature(result, "delay").text == "the column is gone"
    assert told(result, "missing") == []  # said once
    profile = otel_mlmon.Profile.build(a, model="m", exclude=["when", "weekend"])
    assert told(compare(profile, b), "new") == [("note", "weekend", "a new column")]  # which the model may not take


@pytest.mark.parametrize(
    ("column", "make", "text"),
    [
        ("distance", lambda c: c.map("{:,.1f}".format), "type float -> string, such as "),
        ("carrier", lambda c: c.map({"UA": 1, "AA": 2, "DL": 3, "B6": 4}), "type string -> integer"),
        ("weekend", lambda c: c.map({True: "yes", False: "no"}), "type boolean -> string, such as "),
        (
            "delay",
            lambda c: pd.Timestamp("2026-01-01") + pd.to_timedelta(c.fillna(0), unit="m"),
            "type float -> datetime",
        ),
    ],
)
def test_a_changed_type(sides, told, column, make, text):
    a, b = sides
    ((level, label, said),) = told(compare(a, b.assign(**{column: make(b[column])})), "type")
    assert (level, label) == ("fault", column)
    assert said.startswith(text)


def test_numbers_of_another_kind_are_a_note(sides, told):
    a, b = sides
    result = compare(a, b.assign(stops=b["stops"].astype(float), weekend=b["weekend"].astype(int)))
    assert result.passed
    assert told(result, "type") == [
        ("note", "stops", "type integer -> float"),
        ("note", "weekend", "type boolean -> integer"),
    ]


@pytest.mark.parametrize(
    ("factor", "offset", "text"),
    [
        (1.609344, 0, "unit changed: x 1.609, as miles to km"),
        (1 / 1.609344, 0, "unit changed: x 0.6214, as km to miles"),
        (0.45359237, 0, "unit changed: x 0.4536, as pounds to kg"),
        (1.8, 32, "unit changed: x 1.8 + 32, as degrees Celsius to Fahrenheit"),
        (1 / 1.8, -32 / 1.8, "unit changed: x 0.5556 - 17.78, as degrees Fahrenheit to Celsius"),
        (1, 273.15, "unit changed: + 273.1, as degrees Celsius to kelvin"),
        (60, 0, "unit changed: x 60, as minutes to seconds"),
        (100, 0, "unit changed: x 100, as a unit to hundredths (percent, cents)"),
        (0.001, 0, "unit changed: x 0.001, as thousandths (milli-) to a unit"),
        (-1, 0, "unit changed: x -1, as the sign turned round"),
    ],
)
def test_a_changed_unit(told, factor, offset, text):
    rng = np.random.default_rng(4)
    a, b = ({"x": rng.normal(15, 3, 20_000)} for _ in range(2))
    result = otel_mlmon.compare(a, {"x": b["x"] * factor + offset})
    assert told(result, "unit") == [("fault", "x", text)]
    assert told(result, "drift") == []


def test_a_factor_or_offset_without_a_name_is_drift(told):
    rng = np.random.default_rng(4)
    a, b = (rng.gamma(2, 10, 20_000) for _ in range(2))
    ((level, _, text),) = told(otel_mlmon.compare({"x": a}, {"x": b * 2.7}), "unit")
    assert level == "drift"
    assert re.fullmatch(r"all values x 2\.(6[5-9]|7[0-5]?), the shape is the same", text)
    ((_, _, text),) = told(otel_mlmon.compare({"x": a}, {"x": b + 400}), "unit")
    assert re.fullmatch(r"all values \+ (399|400)(\.\d)?, the shape is the same", text)


def test_a_moved_mean_or_another_shape_is_no_unit(told):
    rng = np.random.default_rng(4)
    a = {"x": rng.normal(0, 1, 20_000)}
    for b in (
        rng.normal(0.5, 1, 20_000),
        rng.normal(0, 1.5, 20_000),
        rng.standard_t(3, 20_000),
        rng.gamma(2, 1, 20_000),
    ):
        result = otel_mlmon.compare(a, {"x": b})
        assert not result.passed
        assert told(result, "unit") == []


@given(st.floats(1.3, 1e6), st.integers(0, 99))
def test_any_factor_is_recognised(factor, seed):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(1, 0.7, 5_000)
    quantiles = np.quantile(values, LEVELS)
    found = recognise_conversion(quantiles, quantiles * factor, values.std())
    assert found is not None
    assert found.factor == pytest.approx(factor, rel=0.011)


def test_a_conversion_can_be_read():
    assert str(Conversion(1.8, 32.0, "degrees Celsius to Fahrenheit")).startswith("unit changed: x 1.8 + 32, as")
    assert recognise_conversion(np.zeros(49), np.ones(49), 0.0) is None


@pytest.mark.parametrize("code", [-999, 9999, -1])
def test_a_code_for_missing_values(sides, told, code):
    a, b = sides
    b["distance"] = np.where(np.arange(len(b)) % 50 == 0, code, b["distance"])
    ((level, label, text),) = told(compare(a, b), "missing_code")
    assert (level, label) == ("fault", "distance")
    assert text == f"{code} in 2.0 % of the values, as a code for missing ones"


def test_zero_where_values_were_missing(sides, told):
    a, b = sides
    b["delay"] = b["delay"].fillna(0.0)
    ((level, label, text),) = told(compare(a, b), "missing_code")
    assert (level, label) == ("fault", "delay")
    assert text.startswith("0 in ")
    assert text.endswith(" % were missing, as a code for missing ones")


def test_a_common_value_is_no_code_where_fewer_are_missing(told):
    """Whole minutes of delay: each value has a share of its own, and more flights near 0 are no code."""
    rng = np.random.default_rng(2)
    a, b = (np.round(rng.laplace(0, scale, 40_000)) for scale in (25, 15))
    a[rng.random(a.size) < 0.02] = np.nan
    b[rng.random(b.size) < 0.009] = np.nan
    assert told(otel_mlmon.compare({"x": a}, {"x": b}), "missing_code") == []
    assert told(otel_mlmon.compare(otel_mlmon.Profile.build({"x": a}, model="m"), {"x": b}), "missing_code") == []


def test_a_unit_of_values_that_are_few_and_uneven(told):
    rng = np.random.default_rng(3)
    routes = np.round(rng.gamma(2, 500, 200))
    a, b = (rng.choice(routes, 27_000) for _ in range(2))
    assert told(otel_mlmon.compare({"x": a}, {"x": b * 1.609344}), "unit") == [
        ("fault", "x", "unit changed: x 1.609, as miles to km")
    ]


@pytest.mark.parametrize("code", ["N/A", "null", "", "?"])
def test_a_text_for_missing_values(sides, told, code):
    a, b = sides
    b["carrier"] = np.where(np.arange(len(b)) % 25 == 0, code, b["carrier"])
    ((level, _, text),) = told(compare(a, b), "missing_code")
    assert level == "fault"
    assert text == f"{code!r} in 4.0 % of the values, as a code for missing ones"


def test_values_that_were_there_before_are_no_codes(sides, told):
    a, b = sides
    for side in (a, b):
        side["delay"] = side["delay"].fillna(-1)
        side["distance"] = np.where(np.arange(len(side)) % 50 == 0, -999, side["distance"])
    assert told(compare(a, b), "missing_code") == []


def test_a_column_that_does_not_vary_any_more(sides, told):
    a, b = sides
    result = compare(a, b.assign(distance=5.0, carrier="UA"))
    assert told(result, "constant") == [
        ("fault", "carrier", "the same in all rows, 'UA'"),
        ("fault", "distance", "the same in all rows, 5"),
    ]
    assert told(result, "drift") == []
    assert told(compare(a.assign(distance=5.0), b.assign(distance=5.0)), "constant") == []


@pytest.mark.parametrize("write", [str.lower, "{} ".format, " {}".format, lambda name: name.replace("_", " ")])
def test_categories_written_another_way(told, write):
    rng = np.random.default_rng(1)
    names = ["New_York", "Los_Angeles", "Chi_Cago"]
    a, b = (pd.Series(rng.choice(names, 3_000, p=[0.6, 0.3, 0.1])) for _ in range(2))
    result = otel_mlmon.compare({"city": a}, {"city": b.map(write)})
    ((level, _, text),) = told(result, "renamed")
    assert level == "fault"
    for name in names:
        assert f"'{name}' is now '{write(name)}'" in text
    assert told(result, "unseen") == []
    assert told(result, "drift") == []


def test_new_and_lost_categories(sides, told):
    a, b = sides
    b["carrier"] = b["carrier"].replace("B6", "WN")
    result = compare(a, b)
    ((level, _, text),) = told(result, "unseen")
    assert (level, text[:12]) == ("drift", "new: 'WN' 5.")
    ((level, _, text),) = told(result, "category_gone")
    assert (level, text[:11]) == ("note", "gone: 'B6' ")
    b["carrier"] = np.where(np.arange(len(b)) == 7, "ZZ", a["carrier"])
    rare = compare(a, b)
    assert rare.passed
    assert [level for level, _, _ in told(rare, "unseen")] == ["note"]


def test_missing_values(sides, told):
    a, b = sides
    b["distance"] = b["distance"].mask(np.arange(len(b)) % 20 == 0)
    assert told(compare(a, b), "missing") == [("fault", "distance", "missing 0 % -> 5.0 %")]


def test_repeated_rows(sides, told, checked):
    a, b = sides
    result = compare(a, pd.concat([b, b.iloc[:2_000]]))
    document = checked(result)
    assert told(result, "duplicates") == [("fault", "rows", "duplicates 0 % -> 25 %")]
    assert document["current"]["duplicates"] == 0.25
    assert document["reference"]["duplicates"] == 0


def test_repeated_rows_are_estimated_in_bounded_memory(told):
    rng = np.random.default_rng(0)
    unique = rng.normal(size=(300_000, 3))
    result = otel_mlmon.compare(unique[:50_000], iter([*np.split(unique, 10), unique[:30_000]]))
    assert result.current.duplicates == pytest.approx(30_000 / 330_000, abs=0.01)


def test_rows_that_repeat_by_their_nature_are_no_finding(told):
    rng = np.random.default_rng(0)
    a, b = ({"x": rng.integers(0, 5, n), "y": rng.choice(["a", "b"], n)} for n in (5_000, 9_000))
    result = otel_mlmon.compare(a, b)
    assert result.reference.duplicates > 0.99
    assert told(result, "duplicates") == []
