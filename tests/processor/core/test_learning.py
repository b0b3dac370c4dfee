"""Learning from production what is normal."""

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import CELLS, RATES
from otel_mlmon_processor.core.learning import Learning


def feed(learning, stream, start):
    hits = []
    for w in range(stream.seen.shape[1]):
        hits += learning.advance(start + w, stream.counts[..., w], stream.rates[..., w], stream.seen[:, w])
    return hits


@pytest.fixture(scope="module")
def week(streams):
    return streams.make(31, 8 * streams.day, 60, features=2, season=0.2)


def test_after_seven_days_it_is_calibrated_as_a_reference_of_these_days_is(streams, week):
    learning = Learning([streams.cells] * 2, 7)
    assert learning.phase == "learning"
    assert feed(learning, week.part(0, 7 * streams.day), streams.start) == []
    assert (learning.days, learning.phase) == (6, "learning")  # the last hour is not over
    feed(learning, week.part(7 * streams.day, 7 * streams.day + 1), streams.start + 7 * streams.day)
    assert (learning.days, learning.phase) == (7, "provisional")
    learnt, built = learning.calibrate(), streams.fit(week.part(0, 7 * streams.day))
    assert [c.to_plain() for c in learnt] == [c.to_plain() for c in built]


def test_an_obviously_broken_period_is_told_and_not_learnt(streams, week):
    """For five hours half a feature's values are missing, and for three another one is somewhere else."""
    broken = streams.make(31, 8 * streams.day, 60, features=2, season=0.2)
    gone = slice(3 * streams.day, 3 * streams.day + 300)
    broken.rates[0, 0, gone] = 4 * broken.counts[:, 0, gone].sum(axis=0)
    moved = slice(4 * streams.day, 4 * streams.day + 180)
    broken.counts[:, 1, moved] = 0
    broken.counts[0, 1, moved] = 60
    broken.seen = broken.counts.sum(axis=0) + broken.rates[:4].sum(axis=0)
    learning = Learning([streams.cells] * 2, 7)
    hits = feed(learning, broken.part(0, 7 * streams.day + 1), streams.start)
    assert {(h.variable, h.test, h.part) for h in hits} == {(0, RATES, 0), (1, CELLS, 0)}
    assert learning.refused.tolist() == [5, 3]
    kept = broken.part(0, 7 * streams.day)
    for f, hours in ((0, gone), (1, moved)):
        for values in (kept.counts, kept.rates, kept.seen):
            values[..., f, hours] = 0
    assert [c.to_plain() for c in learning.calibrate()] == [c.to_plain() for c in streams.fit(kept)]


def test_what_the_profile_says_is_held_against_the_first_hour(streams):
    reference = np.full((streams.cells, 2), 1 / streams.cells)
    away = streams.make(32, 61, 60, features=2, mean=1.5)
    hits = feed(Learning([streams.cells] * 2, 7, reference, np.zeros((7, 2))), away, streams.start)
    assert [(hit.variable, hit.test) for hit in hits] == [(0, CELLS), (1, CELLS)]
    small = streams.make(33, 61, 60, features=2, mean=0.3)
    assert feed(Learning([streams.cells] * 2, 7, reference, np.zeros((7, 2))), small, streams.start) == []


def test_days_with_hardly_any_traffic_do_not_count(streams):
    rows = np.where(np.arange(8 * streams.day) % streams.day < 300, 60, 0)
    learning = Learning([streams.cells], 7)
    feed(learning, streams.make(34, 8 * streams.day, rows, features=1), streams.start)
    assert (learning.days, learning.phase) == (0, "learning")


def test_fourteen_days_are_enough(streams):
    learning = Learning([streams.cells], 7)
    stream = streams.make(35, 16 * streams.day, 20, features=1)
    feed(learning, stream.part(0, 14 * streams.day + 1), streams.start)
    assert learning.phase == "learnt"
    before = learning.calibrate()[0].to_plain()
    feed(learning, stream.part(14 * streams.day + 1, 16 * streams.day), streams.start + 14 * streams.day + 1)
    assert learning.calibrate()[0].to_plain() == before


def test_it_goes_on_from_a_dump(streams, week):
    one, other = Learning([streams.cells] * 2, 7), Learning([streams.cells] * 2, 7)
    feed(one, week.part(0, 2_000), streams.start)
    other.load(one.dump())
    for learning in (one, other):
        feed(learning, week.part(2_000, 5_000), streams.start + 2_000)
    assert [c.to_plain() for c in one.calibrate()] == [c.to_plain() for c in other.calibrate()]


def test_nothing_seen_is_nothing_learnt(streams):
    assert Learning([streams.cells], 7).calibrate() == [None]
