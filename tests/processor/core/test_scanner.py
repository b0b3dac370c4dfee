"""What raises a hit, what must not, and that the order of work changes no bit."""

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import CELLS, ORDER, RATES, SMOOTH

from otel_mlmon.numerics.scales import DAY
from otel_mlmon.numerics.windows import RATES as RATE_NAMES


def loudest(hits):
    return max(hits, key=lambda hit: hit.evidence)


# ---------------------------------------------------------------- one window at a time, or many


def test_one_window_at_a_time_gives_the_same_bits_as_many(streams):
    moved = streams.make(2, 700, 200, mean=np.where(np.arange(700) > 200, 0.3, 0), missing=0.02)
    many = streams.scan(streams.scanner(streams.calibrations), moved, streams.next, step=700)
    assert len({hit.scale for hit in many}) >= 4
    order = lambda hit: (hit.window, hit.scale, hit.variable, hit.test)  # noqa: E731
    for step in (1, 7, 240):
        some = streams.scan(streams.scanner(streams.calibrations), moved, streams.next, step=step)
        assert sorted(some, key=order) == sorted(many, key=order)


def test_a_dump_goes_on_where_it_was(streams):
    moved = streams.make(2, 600, 200, mean=0.3)
    whole = streams.scanner(streams.calibrations)
    streams.scan(whole, moved.part(0, 333), streams.next)
    resumed = streams.scanner(streams.calibrations)
    resumed.load(whole.dump())
    rest = moved.part(333, 600)
    assert streams.scan(resumed, rest, streams.next + 333) == streams.scan(whole, rest, streams.next + 333)


def test_a_dump_stays_what_it_was_while_the_scanner_goes_on(streams):
    moved = streams.make(2, 600, 200, mean=0.3)
    scanner = streams.scanner(streams.calibrations)
    streams.scan(scanner, moved.part(0, 333), streams.next)
    before, rest = scanner.dump(), moved.part(333, 600)
    once = streams.scan(scanner, rest, streams.next + 333)
    scanner.load(before)
    assert streams.scan(scanner, rest, streams.next + 333) == once


def test_windows_without_values_may_be_left_out(streams):
    moved = streams.make(2, 600, np.where((np.arange(600) // 50) % 3 == 1, 0, 200), mean=0.3)
    all_windows = streams.scan(streams.scanner(streams.calibrations), moved, streams.next, step=50)
    scanner, some = streams.scanner(streams.calibrations), []
    for at in range(0, 600, 50):
        if (at // 50) % 3 != 1:
            some += streams.scan(scanner, moved.part(at, at + 50), streams.next + at, step=50)
    order = lambda hit: (hit.window, hit.scale, hit.variable, hit.test)  # noqa: E731
    assert sorted(some, key=order) == sorted(all_windows, key=order)


def test_windows_must_come_in_order(streams):
    scanner, stream = streams.scanner(streams.calibrations), streams.make(2, 2, 200)
    streams.scan(scanner, stream, streams.next)
    with pytest.raises(ValueError, match="in order"):
        streams.scan(scanner, stream, streams.next)


# ---------------------------------------------------------------- what is seen


def test_a_moved_mean_is_seen_and_only_where_it_moved(streams):
    moved = streams.make(3, 120, 1_000)
    there = streams.make(3, 120, 1_000, mean=0.5)
    moved.counts[:, 1] = there.counts[:, 1]
    moved.seen[:] = moved.counts.sum(axis=0)
    hits = streams.scan(streams.scanner(streams.calibrations), moved, streams.next)
    assert {hit.variable for hit in hits} == {1}
    assert loudest(hits).test in (ORDER, SMOOTH)
    assert min(hit.window for hit in hits) - streams.next < 5
    first = min(hits, key=lambda hit: hit.window)
    assert sum(first.counts) == pytest.approx(sum(first.expected))
    assert first.lower > 0.005


def test_bursts_that_come_together_by_chance_are_no_alarm(streams):
    """A reference with bursts of 2 % of its minutes of which no three of one sign are within five minutes."""
    days, rng = 10, np.random.default_rng(5)
    sign = np.where(rng.random(days * DAY) < 0.02, rng.choice([-1, 1], days * DAY), 0)
    together = np.convolve(sign, np.ones(5), mode="same")
    sign[np.abs(together) >= 3] = 0
    calibrations = streams.fit(streams.make(6, days * DAY, 1_000, wander=0, mean=0.5 * sign))
    mean = np.zeros(60)
    mean[[30, 32, 33]] = 0.5
    three = streams.make(7, 60, 1_000, wander=0, mean=mean)
    assert not [h for h in streams.scan(streams.scanner(calibrations), three, streams.next) if h.evidence >= 1]
    stays = streams.make(7, 60, 1_000, wander=0, mean=np.where(np.arange(60) >= 30, 0.5, 0))
    hits = streams.scan(streams.scanner(calibrations), stays, streams.next)
    assert min(hit.window for hit in hits) - streams.next < 36


def test_a_cell_that_takes_from_all_others_is_seen(streams):
    moved = streams.make(4, 60, 1_000, features=3)
    taken = np.random.default_rng(1).binomial(moved.counts[:, 0], 0.1)
    moved.counts[:, 0] -= taken
    moved.counts[4, 0] += taken.sum(axis=0)
    hits = [h for h in streams.scan(streams.scanner(streams.calibrations), moved, streams.next) if h.test == CELLS]
    assert {(hit.variable, hit.part) for hit in hits} == {(0, 4)}


def test_missing_values_are_seen_and_are_no_values(streams):
    """NaN is counted apart: the distribution of the values has not moved."""
    for reason in (0, 1):
        moved = streams.make(5, 30, 200)
        moved.rates[reason, 2] = 20
        moved.seen[2] += 20
        hits = streams.scan(streams.scanner(streams.calibrations), moved, streams.next)
        assert {(h.variable, h.test, RATE_NAMES[h.part]) for h in hits} == {(2, RATES, RATE_NAMES[reason])}


def test_one_of_a_thousand_is_not_averaged_away(streams):
    alike = [streams.calibrations[0]] * 1_000
    calm = streams.make(6, 30, 1_000, features=20)
    wide = [np.tile(a, (1, 50, 1)) for a in (calm.counts, calm.rates)]
    wide[0][:, 777] = streams.make(7, 30, 1_000, features=1, mean=0.5).counts[:, 0]
    hits = streams.scanner(alike).advance(streams.next, *wide, wide[0].sum(axis=0))
    assert {hit.variable for hit in hits} == {777}


# ---------------------------------------------------------------- what is not drift


def check_quiet(streams, calibrations, stream, start, **options):
    hits = streams.scan(streams.scanner(calibrations, **options), stream, start)
    assert [hit for hit in hits if hit.evidence >= 1] == []


@pytest.mark.parametrize("session", [1, 5, 50])
@pytest.mark.parametrize(("before", "after"), [(1_000, 10), (100, 10_000), (50, 50)])
def test_more_or_fewer_rows_are_no_drift_whatever_sessions_they_come_in(streams, session, before, after):
    windows = 12 * streams.day
    rows = np.where(np.arange(windows) < 10 * streams.day, before, after)
    stream = streams.make(8, windows, rows, session=session, features=4)
    reference, rest = stream.part(0, 10 * streams.day), stream.part(10 * streams.day, windows)
    check_quiet(streams, streams.fit(reference), rest, streams.next)


def test_identical_shares_never_alarm_at_any_size(streams):
    share = np.round(streams.calibrations[0].overall * 1_000).astype(np.int64)
    share[-1] += 1_000 - share.sum()
    for times in (1, 7, 1_000):
        counts = np.tile(share[:, None, None] * times, (1, 3, 300))
        scanner = streams.scanner(streams.calibrations)
        none = np.zeros((7, 3, 300), dtype=np.int64)
        assert scanner.advance(streams.next, counts, none, counts.sum(axis=0)) == []


def test_a_change_below_the_tolerance_is_none_with_a_million_rows(streams):
    """D of a mean that moved by 0.06 is 0.0036 less what the cells do not see; the tolerance 0.005."""
    moved = streams.make(9, 300, 1_000_000, wander=0.0, mean=0.06)
    check_quiet(streams, streams.calibrations, moved, streams.next)
    more = streams.make(9, 300, 1_000_000, wander=0.0, mean=0.3)
    assert streams.scan(streams.scanner(streams.calibrations), more, streams.next)


def test_nights_without_traffic_are_no_drift(streams):
    windows = 14 * streams.day
    rows = np.where(np.arange(windows) % streams.day < 420, 0, 200)
    stream = streams.make(10, windows, rows, season=0.2)
    check_quiet(
        streams, streams.fit(stream.part(0, 10 * streams.day)), stream.part(10 * streams.day, windows), streams.next
    )


def test_nights_without_traffic_that_the_reference_did_not_know_are_none_either(streams):
    rows = np.where(np.arange(3 * streams.day) % streams.day < 420, 0, 200)
    check_quiet(streams, streams.calibrations, streams.make(11, 3 * streams.day, rows, missing=0.01), streams.next)


def test_a_deployment_that_changes_the_row_rate_is_no_drift(streams):
    rows = np.where(np.arange(2 * streams.day) < streams.day, 200, 1_700)
    check_quiet(streams, streams.calibrations, streams.make(12, 2 * streams.day, rows, missing=0.01), streams.next)


def test_a_replica_less_is_no_drift(streams):
    rows = np.where((np.arange(2 * streams.day) // 90) % 2 == 0, 200, 133)
    check_quiet(streams, streams.calibrations, streams.make(13, 2 * streams.day, rows, missing=0.01), streams.next)


def test_retries_of_rows_that_were_seen_are_no_drift(streams):
    """For ten minutes every row comes three times, as such bursts were in the reference too."""
    stream = streams.make(14, 14 * streams.day, 200, features=4)
    burst = np.arange(14 * streams.day) % 500 < 10
    stream.counts[..., burst] *= 3
    stream.seen[..., burst] *= 3
    check_quiet(
        streams,
        streams.fit(stream.part(0, 10 * streams.day)),
        stream.part(10 * streams.day, 14 * streams.day),
        streams.next,
    )


def test_a_batch_job_at_midnight_is_no_drift(streams):
    """Twenty times the rows, and other ones, for five minutes each night."""
    minutes = np.arange(14 * streams.day) % streams.day
    job = minutes < 5
    stream = streams.make(15, minutes.size, np.where(job, 4_000, 200), mean=np.where(job, 0.8, 0), features=4)
    check_quiet(
        streams,
        streams.fit(stream.part(0, 10 * streams.day)),
        stream.part(10 * streams.day, minutes.size),
        streams.next,
    )


def test_an_hour_that_arrives_at_once_is_no_drift(streams):
    stream = streams.make(16, streams.day, 200, missing=0.01)
    late = slice(600, 660)
    for values in (stream.counts, stream.rates, stream.seen):
        values[..., 659] = values[..., late].sum(axis=-1)
        values[..., 600:659] = 0
    check_quiet(streams, streams.calibrations, stream, streams.next)


def test_a_reference_of_one_day_says_what_it_can(streams):
    stream = streams.make(17, 4 * streams.day, 200, season=0.2, features=4)
    calibrations = streams.fit(stream.part(0, streams.day))
    assert {c.slots for c in calibrations} == {1}
    check_quiet(streams, calibrations, stream.part(streams.day, 4 * streams.day), streams.start + streams.day)
    moved = streams.make(18, 300, 200, mean=2.0, features=4)
    assert streams.scan(streams.scanner(calibrations), moved, streams.start + streams.day)


@pytest.mark.parametrize("windows", [0, 1, 2])
def test_hardly_any_windows(streams, windows):
    """Of production and of the reference."""
    few = streams.make(19, windows, 200) if windows else streams.make(19, 1, 200).part(0, 0)
    assert streams.scan(streams.scanner(streams.calibrations), few, streams.next) == []
    if windows:
        scanner = streams.scanner(streams.fit(few))
        assert streams.scan(scanner, streams.make(20, 600, 200), streams.start + windows) == []


def test_too_few_values_are_not_judged(streams):
    moved = streams.make(21, 4, 9, mean=3.0)
    assert streams.scan(streams.scanner(streams.calibrations), moved, streams.next - streams.next % 240) == []
    many = streams.make(21, 4, 300, mean=3.0)
    assert streams.scan(streams.scanner(streams.calibrations, least_rows=2_000), many, streams.next) == []
    assert streams.scan(streams.scanner(streams.calibrations), many, streams.next)
