"""An alarm begins, grows and ends."""

import json

import pytest
from otel_mlmon_processor.core.budget import ORDER, SLOW
from otel_mlmon_processor.core.episodes import Episodes
from otel_mlmon_processor.core.scanner import Hit

ALL = range(5)


def hit(window, variable=0, *, scale=1, evidence=1.5, lower=0.1, test=ORDER):
    return Hit(window, scale, variable, test, 0, evidence, lower, (1.0, 2.0), (2.0, 1.0))


def run(episodes, by_window, until, start=0, looked=ALL):
    events = []
    for window in range(start, until):
        events += episodes.advance(window, by_window.get(window, []), looked)
    return [(event.kind, event.window) for event in events]


def test_it_is_raised_held_and_cleared_when_nothing_is_seen_for_a_while():
    episodes = Episodes()
    hits = {10: [hit(10)], 20: [hit(20, evidence=0.6)]}
    assert run(episodes, hits, 60) == [("raise", 10), ("clear", 35)]
    assert episodes.current is None


def test_what_only_holds_does_not_raise():
    assert run(Episodes(), {10: [hit(10, evidence=0.99)]}, 60) == []


def test_a_weak_hit_of_a_longer_scale_does_not_hold_what_a_short_one_raised():
    weak = {w: [hit(w, scale=240, evidence=0.7)] for w in range(11, 40)}
    assert run(Episodes(), {10: [hit(10)], **weak}, 60) == [("raise", 10), ("clear", 25)]


def test_a_long_scale_has_more_patience():
    """Its looks are 48 windows apart."""
    hits = {48: [hit(48, scale=240)], 96: [hit(96, scale=240)]}
    assert run(Episodes(), hits, 300) == [("raise", 48), ("clear", 192)]
    hourly = {60: [hit(60, scale=60, test=SLOW)], 120: [hit(120, scale=60, test=SLOW, evidence=0.8)]}
    assert run(Episodes(), hourly, 300) == [("raise", 60), ("clear", 216)]


def test_silence_clears_nothing():
    episodes = Episodes()
    assert run(episodes, {10: [hit(10)]}, 12) == [("raise", 10)]
    assert run(episodes, {}, 400, start=12, looked=()) == []
    assert run(episodes, {}, 500, start=400) == [("clear", 413)]


def test_variables_join_and_are_ranked_by_their_share():
    episodes = Episodes()
    hits = {10: [hit(10, 3, lower=0.1, scale=5)], 12: [hit(12, 1, lower=0.3, evidence=4.0)]}
    assert run(episodes, hits, 13) == [("raise", 10), ("grow", 12)]
    current = episodes.current
    assert [s.variable for s in current.suspects] == [1, 3]
    assert current.shares == pytest.approx([0.75, 0.25])
    assert (current.since, current.raised, current.evidence) == (6, 10, 4.0)
    assert episodes.held == {1, 3}
    assert run(episodes, {}, 60, start=13) == [("clear", 27)]


def test_one_that_has_recovered_is_still_named_when_all_is_over():
    episodes = Episodes()
    hits = {10: [hit(10, 3)], **{w: [hit(w, 1)] for w in range(12, 40)}}
    events = []
    for window in range(70):
        events += episodes.advance(window, hits.get(window, []), ALL)
    assert [s.variable for s in events[-1].episode.suspects] == [1, 3]
    assert events[-1].episode.cleared == events[-1].window == 54


def test_a_muted_variable_is_not_heard_until_its_mute_expires():
    hits = {w: [hit(w)] for w in (10, 50)}
    assert run(Episodes({0: 50}), hits, 60) == [("raise", 50)]
    assert run(Episodes({1: 50}), hits, 12) == [("raise", 10)]


def test_it_goes_on_from_a_dump():
    one, other = Episodes(), Episodes()
    hits = {10: [hit(10, 3)], 12: [hit(12, 1, scale=15)]}
    run(one, hits, 20)
    other.load(json.loads(json.dumps(one.dump())))
    assert other.current == one.current
    assert run(one, {}, 100, start=20) == run(other, {}, 100, start=20)
