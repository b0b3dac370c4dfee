"""Rows that come in bursts say hardly more than the usual ones; and the sessions that a reference shows."""

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import RATES
from otel_mlmon_processor.core.bursts import Bursts

PIECE = 48


def weigh(seen, typical=100.0, clump=1.0, start=0, step=1_000):
    bursts, seen = Bursts(np.full(1, typical), np.full(1, clump)), np.asarray(seen)[np.newaxis]
    parts = [bursts.advance(start + at, seen[:, at : at + step]) for at in range(0, seen.shape[1], step)]
    return np.concatenate(parts, axis=1)[0] / np.maximum(seen[0], 1)


def test_rows_beyond_what_is_usual_count_as_if_each_came_so_many_times():
    seen = np.full(400, 100)
    seen[300:310] = 900
    alike = weigh(seen)
    assert (alike[:300] == 1).all()
    assert alike[300:310] == pytest.approx(9, abs=0.01)
    assert (alike[310:] == 1).all()
    seen[350:360] = 900
    assert weigh(seen)[350:360] == pytest.approx(9, abs=0.01)  # the burst before is none of what is usual


def test_what_fluctuates_as_the_sessions_do_is_no_burst():
    seen = np.full(400, 100)
    seen[300] = 300
    assert weigh(seen, clump=1)[300] == 3
    assert weigh(seen, clump=50)[300] == 1


def test_what_stays_is_usual_within_an_hour_and_so_is_another_rate_than_the_references():
    alike = weigh(np.where(np.arange(400) < 200, 100, 800))
    assert alike[200] > 5
    assert (alike[200 + PIECE :] == 1).all()
    assert (weigh(np.full(200, 5_000))[PIECE:] == 1).all()


def test_after_a_night_the_day_is_what_it_was():
    seen = np.full(3_000, 800)
    seen[1_000:2_000] = 0
    alike = weigh(seen)
    assert (alike[PIECE:1_000] == 1).all()
    assert (alike[2_000:] == 1).all()


def test_one_window_at_a_time_and_from_a_dump_it_is_the_same():
    seen = np.random.default_rng(90).poisson(np.where(np.arange(500) % 100 < 5, 700, 90))
    whole = weigh(seen, start=17)
    for step in (1, 7, 48):
        assert (weigh(seen, start=17, step=step) == whole).all()
    one, other = (Bursts(np.full(1, 100.0), np.ones(1)) for _ in range(2))
    one.advance(17, seen[np.newaxis, :333])
    other.load(one.dump())
    rest = [bursts.advance(350, seen[np.newaxis, 333:]) for bursts in (one, other)]
    assert (rest[0] == rest[1]).all()


@pytest.mark.parametrize("session", [1, 5, 50])
@pytest.mark.parametrize("wander", [0.0, 0.04])
def test_sessions_are_told_from_what_wanders(streams, session, wander):
    rows = 1_000
    nulls = streams.scanner(streams.fit(streams.make(91, 10 * streams.day, rows, session=session, wander=wander))).nulls
    assert nulls.clump == pytest.approx(np.full(3, session), rel=0.15, abs=0.3)


def test_one_session_is_no_evidence_and_four_are(streams):
    """Sessions of 50 rows of which none was missing in the reference, and one is; of rows by themselves 50 would be."""
    reference = streams.make(92, 10 * streams.day, 200, session=50, wander=0, features=1)
    for sessions in (1, 4):
        stream = streams.make(93, 60, 200, session=50, wander=0, features=1)
        stream.rates[0, 0, 40] = 50 * sessions
        stream.seen = stream.counts.sum(axis=0) + stream.rates.sum(axis=0)
        hits = streams.scan(streams.scanner(streams.fit(reference)), stream, streams.next)
        assert {hit.test for hit in hits} == ({RATES} if sessions == 4 else set())
