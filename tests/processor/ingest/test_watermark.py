"""How far event time has got, against looking at every producer each time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from otel_mlmon_processor.watermark import Watermark

IDLE, SPREAD = 5, 20
steps = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60), st.integers(0, 4)), max_size=60)


@settings(max_examples=200)
@given(steps, st.integers(0, 60))
def test_it_is_the_slowest_live_producer_never_falls_and_is_not_held_back_too_far(steps, reload_at):
    watermark, newest, now, expected = Watermark(), {}, 0, 0
    for number, (producer, end, passed) in enumerate(steps):
        now += passed
        if end > 20:  # else it is only looked at
            watermark.note(producer, end, now)
            newest[producer] = (max(end, newest.get(producer, (0, 0))[0]), now)
        live = [end for end, received in newest.values() if now - received <= IDLE]
        fastest = max((end for end, _ in newest.values()), default=0)
        expected = max(expected, min(live, default=min(fastest, now - IDLE)), fastest - SPREAD)
        assert watermark.advance(now, IDLE, SPREAD) == expected
        assert len(watermark.heap) <= 4 * len(newest) + 65
        if number == reload_at:
            watermark = Watermark.load(watermark.dump())


def test_who_has_gone_holds_nothing_back():
    watermark = Watermark()
    watermark.note(1, 10, 0)
    watermark.note(2, 50, 0)
    assert watermark.advance(0, 100, 1000) == 10
    watermark.forget(1)
    assert watermark.advance(1, 100, 1000) == 50


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=60))
def test_looking_meanwhile_changes_nothing_of_what_follows(steps):
    """Producers whose clocks are right: what they send is of the past."""
    looked, other, now = Watermark(), Watermark(), 100
    for producer, age, passed, looks in steps:
        now += passed
        if looks:
            looked.advance(now, IDLE, SPREAD)
            continue
        for watermark in (looked, other):
            watermark.advance(now, IDLE, SPREAD)  # as the fold does before it adds anything
            watermark.note(producer, now - age, now)
        assert looked.advance(now, IDLE, SPREAD) == other.advance(now, IDLE, SPREAD)


def test_when_all_have_ended_the_newest_is_shown_and_a_clock_that_is_ahead_is_not_believed():
    watermark = Watermark()
    watermark.note(1, 10, 11)
    watermark.note(2, 1_000, 51)
    watermark.note(3, 50, 52)
    assert [watermark.advance(now, 5, 10_000) for now in (52, 57, 58, 400, 2_000)] == [50, 50, 53, 395, 1_000]
