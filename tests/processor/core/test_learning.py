"""Learning from production what is normal."""

import numpy as np
import pytest
from otel_mlmon_processor.core.learning import Learning
from otel_mlmon_processor.pack import flatten, pack, unflatten, unpack


def feed(learning, stream, start):
    for w in range(stream.seen.shape[1]):
        learning.advance(start + w, stream.counts[..., w], stream.rates[..., w])


def plain(calibrations):
    return [c and c.to_plain() for c in calibrations]


def without(streams, stream, holes):
    """The calibration of what is left when these windows of variables are taken out."""
    for f, hours in holes:
        for values in (stream.counts, stream.rates, stream.seen):
            values[..., f, hours] = 0
    return plain(streams.fit(stream))


@pytest.fixture(scope="module")
def week(streams):
    return streams.make(31, 8 * streams.day, 60, features=2, season=0.2)


def test_after_seven_days_it_is_calibrated_as_a_reference_of_these_days_is(streams, week):
    learning = Learning([streams.cells] * 2, 7)
    assert learning.phase == "learning"
    feed(learning, week.part(0, 7 * streams.day), streams.start)
    assert (learning.days, learning.phase) == (6, "learning")  # the last hour is not over
    feed(learning, week.part(7 * streams.day, 7 * streams.day + 1), streams.start + 7 * streams.day)
    assert (learning.days, learning.phase) == (7, "provisional")
    assert plain(learning.calibrate()) == plain(streams.fit(week.part(0, 7 * streams.day)))
    assert learning.refused.tolist() == [0, 0]


@pytest.mark.parametrize("fault", ["missing", "stuck", "cluster", "moved"])
def test_an_obviously_broken_period_is_not_learnt(streams, fault):
    """All values missing, one constant value, rows of a single kind, or a mean that moved by two deviations."""
    stream = streams.make(31, 8 * streams.day, 60, features=2, season=0.2)
    when = slice(3 * streams.day + 120, 3 * streams.day + 420)  # five hours
    rows = stream.counts[:, 0, when].sum(axis=0)
    if fault == "moved":
        moved = streams.make(32, 300, 60, features=1, mean=2.0)
        stream.counts[:, 0, when] = moved.counts[:, 0]
    else:
        stream.counts[:, 0, when] = 0
    if fault == "missing":
        stream.rates[0, 0, when] = rows
    elif fault == "stuck":
        stream.counts[4, 0, when] = rows
    elif fault == "cluster":
        stream.counts[2, 0, when], stream.counts[3, 0, when] = rows // 2, rows - rows // 2
    stream.seen = stream.counts.sum(axis=0) + stream.rates[:4].sum(axis=0)
    learning = Learning([streams.cells] * 2, 7)
    feed(learning, stream.part(0, 7 * streams.day + 1), streams.start)
    assert learning.refused.tolist() == [5, 0]
    assert plain(learning.calibrate()) == without(streams, stream.part(0, 7 * streams.day), [(0, when)])


def test_hours_in_which_most_variables_are_broken_are_not_learnt_of_any(streams):
    stream = streams.make(31, 8 * streams.day, 60, features=3)
    when = slice(2 * streams.day, 2 * streams.day + 120)
    for f in (0, 1):
        stream.counts[:, f, when] = 0
        stream.counts[f, f, when] = 60
    learning = Learning([streams.cells] * 3, 7)
    feed(learning, stream.part(0, 7 * streams.day + 1), streams.start)
    assert learning.refused.tolist() == [2, 2, 2]


def test_what_comes_back_each_day_is_a_season_and_is_learnt(streams):
    """At night a single value: far from all other hours, and as the nights are."""
    stream = streams.make(31, 8 * streams.day, 60, features=1)
    night = np.arange(stream.seen.shape[1]) % streams.day < 180
    stream.counts[:, 0, night] = 0
    stream.counts[7, 0, night] = 60
    learning = Learning([streams.cells], 7)
    feed(learning, stream.part(0, 7 * streams.day + 1), streams.start)
    assert (learning.days, learning.refused.tolist()) == (7, [0])


def test_sessions_of_alike_rows_are_not_called_broken(streams):
    learning = Learning([streams.cells] * 2, 7)
    feed(learning, streams.make(36, 7 * streams.day + 1, 50, features=2, session=50, season=0.5), streams.start)
    assert learning.refused.tolist() == [0, 0]


def test_an_hour_that_was_told_to_be_broken_is_not_learnt(streams, week):
    learning = Learning([streams.cells] * 2, 7)
    feed(learning, week.part(0, 7 * streams.day), streams.start)
    learning.tell(streams.start + 61, [1])
    feed(learning, week.part(7 * streams.day, 7 * streams.day + 1), streams.start + 7 * streams.day)
    assert learning.refused.tolist() == [0, 1]
    kept = streams.make(31, 8 * streams.day, 60, features=2, season=0.2).part(0, 7 * streams.day)
    assert plain(learning.calibrate()) == without(streams, kept, [(1, slice(60, 120))])


def test_a_variable_that_was_hardly_there_is_not_known(streams):
    stream = streams.make(31, 8 * streams.day, 60, features=2)
    stream.counts[:, 1, 3 * streams.day :] = 0
    learning = Learning([streams.cells] * 2, 7)
    feed(learning, stream.part(0, 7 * streams.day + 1), streams.start)
    known, unknown = learning.calibrate()
    assert known is not None
    assert unknown is None


def test_days_with_hardly_any_traffic_do_not_count(streams):
    rows = np.where(np.arange(8 * streams.day) % streams.day < 300, 60, 0)
    learning = Learning([streams.cells], 7)
    feed(learning, streams.make(34, 8 * streams.day, rows, features=1), streams.start)
    assert (learning.days, learning.phase) == (0, "learning")


def test_fourteen_days_are_enough(streams):
    learning = Learning([streams.cells], 7)
    feed(learning, streams.make(35, 14 * streams.day + 1, 20, features=1), streams.start)
    assert learning.phase == "learnt"


def test_rolling_it_knows_the_newest_days(streams):
    stream = streams.make(35, 11 * streams.day + 1, 20, features=1)
    learning = Learning([streams.cells], 7, most=7, rolling=True)
    feed(learning, stream, streams.start)
    assert (learning.phase, learning.days) == ("rolling", 7)
    newest = stream.part(4 * streams.day, 11 * streams.day)
    assert plain(learning.calibrate()) == plain(streams.fit(newest, streams.start + 4 * streams.day))
    first, last = learning.span
    assert (first, last) == ((streams.start + 4 * streams.day) // 60, (streams.start + 11 * streams.day) // 60 - 1)


@pytest.mark.parametrize("cut", [1_999, 2_000, 3 * 1_440])
def test_it_goes_on_from_a_dump(streams, week, cut):
    one, other = Learning([streams.cells] * 2, 7), Learning([streams.cells] * 2, 7)
    feed(one, week.part(0, cut), streams.start)
    one.tell(streams.start + 1_990, [0])
    other.load(unflatten(unpack(pack(flatten(one.dump())))))
    for learning in (one, other):
        feed(learning, week.part(cut, 7 * streams.day + 1), streams.start + cut)
    assert other.days == 7
    assert plain(one.calibrate()) == plain(other.calibrate())
    assert one.refused.tolist() == other.refused.tolist() == [1, 0]
    assert one.size == other.size


def test_what_was_learnt_can_be_summed(streams, week):
    learning = Learning([streams.cells] * 2, 7)
    for w in range(streams.day + 1):
        learning.advance(streams.start + w, week.counts[..., w], week.rates[..., w], np.array([1.5, -0.5]))
    day = week.part(0, streams.day)
    for f, total in enumerate(learning.total()):
        assert total.counts.tolist() == [*day.counts[:, f].sum(axis=1), *day.rates[:, f].sum(axis=1)]
        assert (total.seen, total.sum) == (day.seen[f].sum(), (1.5, -0.5)[f] * streams.day)


def test_nothing_seen_is_nothing_learnt(streams):
    assert Learning([streams.cells], 7).calibrate() == [None]


def test_memory_is_what_the_docs_say(streams):
    """Of a variable with 20 cells for 14 days: 0.2 MB at 50 rows a minute, 0.3 MB at 1,000."""
    rng = np.random.default_rng(37)
    for rows, most in ((50, 200_000), (1_000, 300_000)):
        learning = Learning([20], 7)
        chances = np.full(20, 1 / 20)
        rates = np.zeros((7, 1), dtype=np.int64)
        for w in range(2 * streams.day + 1):
            learning.advance(streams.start + w, rng.multinomial(rows, chances)[:, np.newaxis], rates)
        held = learning.size - 27 * 60 * 4  # without the hour that is being filled
        assert held * 7 < most
