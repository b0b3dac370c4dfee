"""Periods and segments against the same data compared one part at a time."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

import otel_mlmon
from otel_mlmon.comparison.groups import date_of, start_of
from otel_mlmon.profile.sources import SourceError

DAY = 86_400


def test_days_are_those_of_the_data(frame, checked, feature):
    a, b = frame(seed=1), frame(seed=2)
    b.loc[b["when"] >= "2026-01-16", "distance"] *= 1.5
    result = otel_mlmon.compare(a, b, time_column="when")
    document = checked(result)
    days = b["when"].dt.date.astype(str).value_counts().sort_index()
    assert document["periods"] == {"unit": "day", "starts": list(days.index), "rows": days.tolist()}
    found = feature(result, "distance")
    assert found.since == "2026-01-16"
    assert found.periods.changed[:15] == (False,) * 15
    for i, day in ((0, "2026-01-01"), (20, "2026-01-21")):
        alone = otel_mlmon.compare(a, b[b["when"].dt.date.astype(str) == day], time_column="when")
        drift = feature(alone, "distance").drift
        assert found.periods.effect[i] == pytest.approx(drift["effect"], rel=1e-9)
        assert found.periods.effect_lower[i] == pytest.approx(drift["effect_lower"], rel=1e-9)
        assert found.periods.mean_shift[i] == pytest.approx(drift["mean_shift"], rel=1e-9)
        assert feature(result, "delay").periods.missing[i] == feature(alone, "delay").current.missing


def test_the_order_of_rows_does_not_matter(frame):
    a, b = frame(seed=1), frame(seed=2)
    ordered = otel_mlmon.compare(a, b, time_column="when", by="carrier").to_dict()
    mixed = otel_mlmon.compare(a, b.sample(frac=1, random_state=0), time_column="when", by="carrier").to_dict()
    assert mixed["periods"] == ordered["periods"]
    for one, other in zip(ordered["features"], mixed["features"], strict=True):
        assert one["periods"]["changed"] == other["periods"]["changed"]
        assert one["segments"] == other["segments"]


@pytest.mark.parametrize(("days", "unit"), [(100, "day"), (101, "week"), (800, "month")])
def test_many_days_become_weeks_and_months(days, unit):
    when = np.datetime64("2024-01-03") + np.arange(days).astype("timedelta64[D]")
    data = {"x": np.arange(days) % 7 + 0.5, "t": when}
    result = otel_mlmon.compare(data, data, time_column="t")
    assert result.periods["unit"] == unit
    assert sum(result.periods["rows"]) == days
    first = dt.date.fromisoformat(result.periods["starts"][0])
    assert first == {"day": dt.date(2024, 1, 3), "week": dt.date(2024, 1, 1), "month": dt.date(2024, 1, 1)}[unit]
    fixed = otel_mlmon.compare(data, data, time_column="t", period="month")
    assert fixed.periods["unit"] == "month"


@pytest.mark.parametrize("days", [150, 900])
def test_weeks_and_months_have_the_rows_of_the_calendar(days):
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.sort(rng.integers(0, days, 5_000)), unit="D")
    data = {"x": rng.normal(size=5_000), "t": when.to_numpy()}
    found = otel_mlmon.compare(data, data, time_column="t").periods
    rule = {"week": "W-SUN", "month": "M"}[found["unit"]]
    expected = when.to_series().dt.to_period(rule).value_counts().sort_index()
    assert found["starts"] == [str(period.start_time.date()) for period in expected.index]
    assert found["rows"] == expected.tolist()


def test_since_is_told_only_where_it_explains_the_change(frame, feature):
    a, b = frame(20_000, seed=1), frame(20_000, seed=2)
    for days, since in (((20, 30), "2026-01-21"), ((0, 30), None), ((2, 20), None)):
        part = (b["when"].dt.day > days[0]) & (b["when"].dt.day <= days[1])
        changed = b.assign(distance=b["distance"].where(~part, b["distance"] * 2))
        if days == (2, 20):  # and two days at the end, by chance
            changed.loc[b["when"].dt.day > 28, "distance"] *= 2
        result = otel_mlmon.compare(a, changed, time_column="when")
        assert feature(result, "distance").since == since


def test_periods_begin_on_mondays_and_firsts():
    for day in range(19_000, 20_000):
        date = date_of(day)
        assert date_of(start_of(day, "week")) == date - dt.timedelta(days=date.weekday())
        assert date_of(start_of(day, "month")) == date.replace(day=1)
        assert start_of(day, "day") == day


def test_what_time_is_covered_is_told(frame, told, checked):
    a, b = frame(seed=1), frame(seed=2)
    gap = b[(b["when"] < "2026-01-05") | (b["when"] >= "2026-01-08")]
    result = otel_mlmon.compare(a, gap, time_column="when")
    document = checked(result)
    time = document["current"]["time"]
    assert (time["days"], time["empty_days"]) == (30, 3)
    assert time["first"][:10] == "2026-01-01"
    assert told(result, "time") == [
        ("note", "rows", "3 of 30 days have no row"),
        ("note", "rows", "begin 2026-01-01, before the reference ends (2026-01-30)"),
    ]


def test_naive_times_are_those_of_the_zone(frame):
    a, b = frame(seed=1), frame(seed=2)
    late = b.assign(when=pd.Timestamp("2026-01-01T23:30:00"))
    assert otel_mlmon.compare(a, late, time_column="when").periods["starts"] == ["2026-01-01"]
    there = otel_mlmon.compare(a, late, time_column="when", timezone="America/New_York")
    assert there.periods["starts"] == ["2026-01-02"]
    text = late.assign(when="2026-01-01T23:30:00-05:00")
    assert otel_mlmon.compare(a, text, time_column="when").periods["starts"] == ["2026-01-02"]


def test_rows_without_a_time_are_in_no_period(frame):
    a, b = frame(seed=1), frame(seed=2)
    b.loc[:99, "when"] = pd.NaT
    result = otel_mlmon.compare(a, b, time_column="when")
    assert sum(result.periods["rows"]) == len(b) - 100
    assert result.current.rows == len(b)


def test_segments_are_compared_with_their_own_reference(frame, checked, feature, told):
    a, b = frame(20_000, seed=1), frame(20_000, seed=2)
    for side in (a, b):  # carriers differ from one another all along
        side["distance"] += side["carrier"].map({"UA": 0, "AA": 300, "DL": 900, "B6": 2_000})
    result = otel_mlmon.compare(a, b, by="carrier", exclude=["when"])
    document = checked(result)
    assert result.passed
    sizes = a["carrier"].value_counts()
    assert dict(zip(document["segments"]["names"], document["segments"]["reference_rows"], strict=True)) == dict(sizes)
    b.loc[b["carrier"] == "B6", "distance"] *= 1.2
    result = otel_mlmon.compare(a, b, by="carrier", exclude=["when"])
    ((level, label, _),) = told(result, "segment") or told(result, "drift")
    assert (level, label) == ("drift", "distance")
    at = document["segments"]["names"].index("B6")
    alone = otel_mlmon.compare(a[a["carrier"] == "B6"], b[b["carrier"] == "B6"], exclude=["when"])
    found = feature(result, "distance").segments
    assert found.changed[at]
    assert found.mean_shift[at] == pytest.approx(feature(alone, "distance").drift["mean_shift"], rel=1e-9)
    assert [c for i, c in enumerate(found.changed) if i != at] == [False] * 3
    assert feature(result, "carrier").changed is False


def test_a_segment_is_named_where_the_whole_has_not_changed(frame, told):
    a, b = frame(40_000, seed=1), frame(40_000, seed=2)
    b.loc[b["carrier"] == "B6", "delay"] += 15
    result = otel_mlmon.compare(a, b, by="carrier", exclude=["when"], tolerance=0.01)
    assert told(result, "drift") == []
    ((level, label, text),) = told(result, "segment")
    assert (level, label) == ("drift", "delay")
    assert text.startswith("in 'B6': mean up 0.48 sd")
    assert not result.passed


def test_a_profile_has_no_segments(frame):
    """Compared with all of it, each segment would differ."""
    a, b = frame(seed=1), frame(seed=2)
    profile = otel_mlmon.Profile.build(a, model="m", exclude=["when"])
    with pytest.raises(SourceError, match="by: a profile knows its rows as a whole only; give the data"):
        otel_mlmon.compare(profile, b, by="carrier", exclude=["when"])


@pytest.mark.parametrize("by", ["stops", "weekend"])
def test_segments_by_integers_and_booleans(frame, by):
    a, b = frame(seed=1), frame(seed=2)
    result = otel_mlmon.compare(a, b, by=by, exclude=["when"])
    sizes = {str(name).lower(): size for name, size in b[by].value_counts().items()}
    assert dict(zip(result.segments["names"], result.segments["current_rows"], strict=True)) == sizes
