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
        watermark.note(producer, end, now)
        newest[producer] = (max(end, newest.get(producer, (0, 0))[0]), now)
        live = [end for end, received in newest.values() if now - received <= IDLE]
        fastest = max(end for end, _ in newest.values())
        expected = max(expected, min(live), fastest - SPREAD)
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
