"""The detector of slow drift: what it sees, and how often it is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import SLOW, split_budget
from otel_mlmon_processor.core.nulls import prepare_nulls
from otel_mlmon_processor.core.slow import SlowDetector


def make_detector(streams, copies, budget=1.0):
    calibrations = [streams.calibrations[0]] * copies
    split = split_budget(budget, [None] * copies)
    return SlowDetector(prepare_nulls(calibrations, split), split)


def test_on_average_it_grows_by_no_more_than_one_an_hour(streams):
    """So that M >= A is expected once in A hours at most; here over 400 variables without change or wander."""
    detector, rng = make_detector(streams, 400), np.random.default_rng(1)
    for hour in range(1, 101):
        scores = [rng.normal(size=400) * np.sqrt(12_000) for _ in range(4)]
        list(detector.advance(scores, np.full(400, 12_000.0)))
        if hour % 25 == 0:
            assert np.exp(detector.level).mean() <= hour


def test_a_mean_within_its_dead_zone_is_no_drift(streams):
    detector, rng = make_detector(streams, 100), np.random.default_rng(2)
    n = 12_000.0
    for _ in range(24 * 14):
        scores = [rng.normal(size=100) * np.sqrt(n) + n * detector.tau[j] for j in range(4)]
        assert not [f for f, _, evidence in detector.advance(scores, np.full(100, n)) if evidence >= 1]


def test_a_small_steady_change_is_seen_in_days(streams):
    detector, rng = make_detector(streams, 30), np.random.default_rng(3)
    n, found = 12_000.0, {}
    for hour in range(24 * 14):
        scores = [rng.normal(size=30) * np.sqrt(n * 2) for _ in range(4)]
        scores[0][7] += n * 4 * detector.tau[0, 7]
        for f, order, evidence in detector.advance(scores, np.full(30, n)):
            if evidence >= 1:
                found.setdefault((f, order), hour)
    assert set(found) == {(7, 0)}
    assert found[7, 0] < 24 * 7


def test_one_wild_hour_is_none(streams):
    detector = make_detector(streams, 3)
    n = np.full(3, 12_000.0)
    for hour in range(48):
        scores = [np.full(3, 12_000.0 * 1.5 if hour == 10 else 0.0) for _ in range(4)]
        assert not [e for _, _, e in detector.advance(scores, n) if e >= 1]


def test_hours_without_rows_say_nothing(streams):
    detector = make_detector(streams, 2)
    none = [np.zeros(2) for _ in range(4)]
    list(detector.advance(none, np.full(2, 100.0)))
    before = detector.level.copy()
    list(detector.advance(none, np.zeros(2)))
    assert np.array_equal(detector.level, before)


def test_a_short_reference_has_no_slow_drift(streams):
    one_day = streams.fit(streams.make(4, streams.day, 200, features=1))
    split = split_budget(1.0, [None])
    assert not SlowDetector(prepare_nulls(one_day, split), split).usable.any()


def test_a_ramp_is_seen_by_the_scanner(streams):
    """0.02 sd a day, too slow for any scale at 50 rows."""
    windows = 10 * streams.day
    calibrations = streams.fit(streams.make(5, 10 * streams.day, 50, wander=0.0))
    moved = streams.make(6, windows, 50, wander=0.0, mean=0.02 * np.arange(windows) / streams.day)
    hits = streams.scan(streams.scanner(calibrations), moved, streams.next)
    slow = [hit for hit in hits if hit.test == SLOW]
    assert slow
    assert slow[0].part == 0
    assert slow[0].counts[-1] + slow[0].counts[-2] > slow[0].expected[-1] + slow[0].expected[-2]


def test_it_goes_on_from_a_dump(streams):
    rng = np.random.default_rng(7)
    one, other = make_detector(streams, 2), make_detector(streams, 2)
    hours = [([rng.normal(size=2) * 300 for _ in range(4)], np.full(2, 12_000.0)) for _ in range(10)]
    for scores, rows in hours[:5]:
        list(one.advance(scores, rows))
    other.load(one.dump())
    for scores, rows in hours[5:]:
        assert list(one.advance(scores, rows)) == list(other.advance(scores, rows))
    assert one.level == pytest.approx(other.level, rel=0)


def test_where_days_are_wild_one_day_is_not_enough(streams):
    split = split_budget(1.0, [None])
    nulls = prepare_nulls(streams.calibrations[:1], split)
    first = {}
    for heavy in (1.0, 1.5):
        detector, n = SlowDetector(replace(nulls, heavy=np.array([heavy])), split), 12_000.0
        for hour in range(24 * 4):
            scores = [np.full(1, 6 * n * detector.tau[0, 0] * (j == 0)) for j in range(4)]
            if any(evidence >= 1 for _, _, evidence in detector.advance(scores, np.full(1, n))):
                first.setdefault(heavy, hour)
    assert first[1.0] < 24 <= first[1.5] < 72
