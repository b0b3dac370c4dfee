"""Gaps are not drift: what traffic does without any feature having changed. More of it is in test_scanner.py."""

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import CELLS, ORDER, RATES

from otel_mlmon.numerics.windows import RATES as RATE_NAMES

MISSING = RATE_NAMES.index("missing")
MANY = 1_000_000


def check_quiet(streams, calibrations, stream, **options):
    hits = streams.scan(streams.scanner(calibrations, **options), stream, streams.next)
    assert [hit for hit in hits if hit.evidence >= 1] == []


def cut(streams, stream, days=10):
    """Reference and production."""
    return stream.part(0, days * streams.day), stream.part(days * streams.day, stream.seen.shape[1])


def by_time(streams, before, after, days=1):
    """Rows of the ten days of the reference, and of production."""
    return np.where(np.arange((10 + days) * streams.day) < 10 * streams.day, before, after)


# ---------------------------------------------------------------- rows of which there are more or fewer


@pytest.mark.parametrize("session", [5, 50])
@pytest.mark.parametrize(("before", "after"), [(50, 5_000), (1_000, 10)])
@pytest.mark.parametrize("missing", [0.01, 0.0001])
def test_missing_values_in_sessions_are_no_drift_at_a_hundredth_or_a_hundred_times_the_rows(
    streams, session, before, after, missing
):
    """Of 1 in 10,000 the reference holds a handful of sessions, or none."""
    rows = by_time(streams, before, after)
    stream = streams.make(50, rows.size, rows, session=session, missing=missing, wander=0, features=2)
    reference, rest = cut(streams, stream)
    check_quiet(streams, streams.fit(reference), rest)


def test_bursts_of_other_users_that_few_rows_hide_are_no_drift_with_a_hundred_times_the_rows(streams):
    """In 2 % of the minutes the mean is half a deviation off: 3.5 standard errors of 50 rows, and 35 of 5,000."""
    rng, rows = np.random.default_rng(62), by_time(streams, 50, 5_000)
    burst = np.where(rng.random(rows.size) < 0.02, rng.choice([-0.5, 0.5], rows.size), 0.0)
    stream = streams.make(63, rows.size, rows, wander=0, mean=burst)
    reference, rest = cut(streams, stream)
    check_quiet(streams, streams.fit(reference), rest)


@pytest.mark.parametrize("retries", [3, 10])
def test_retries_that_the_reference_did_not_know_are_no_drift(streams, retries):
    """Twice a day for ten minutes every row comes several times, missing values too."""
    stream = streams.make(51, 2 * streams.day, 200, missing=0.01)
    burst = np.arange(stream.seen.shape[1]) % 720 < 10
    for values in (stream.counts, stream.rates, stream.seen):
        values[..., burst] *= retries
    check_quiet(streams, streams.calibrations, stream)


def test_a_fault_within_a_burst_is_seen(streams):
    """Ten times the rows for ten minutes, of one a third missing, of one the mean moved by half a deviation."""
    rows = np.where(np.arange(600) // 10 == 50, 2_000, 200)
    stream = streams.make(59, 600, rows, missing=0.01)
    stream.counts[:, 1] = streams.make(60, 600, rows, features=1, mean=np.where(rows > 200, 0.5, 0)).counts[:, 0]
    lost = np.random.default_rng(61).binomial(stream.counts[:, 0], np.where(rows > 200, 1 / 3, 0))
    stream.counts[:, 0] -= lost
    stream.rates[MISSING, 0] += lost.sum(axis=0)
    stream.seen = stream.counts.sum(axis=0) + stream.rates.sum(axis=0)
    hits = streams.scan(streams.scanner(streams.calibrations), stream, streams.next)
    assert {hit.variable for hit in hits} == {0, 1}
    assert min(hit.window for hit in hits if hit.variable == 0) == streams.next + 500
    assert min(hit.window for hit in hits if hit.variable == 1) < streams.next + 510


def test_an_hour_of_sessions_that_arrives_at_once_is_no_drift(streams):
    rows = by_time(streams, 200, 200)
    reference, rest = cut(streams, streams.make(52, rows.size, rows, session=50, missing=0.001, features=2))
    for values in (rest.counts, rest.rates, rest.seen):
        values[..., 659] = values[..., 600:660].sum(axis=-1)
        values[..., 600:659] = 0
    check_quiet(streams, streams.fit(reference), rest)


def test_a_day_of_gaps_is_no_drift(streams):
    """A night without traffic, then a replica less, an hour that comes at once, retries, ten times the rows."""
    minutes = np.arange(streams.day)
    rows = np.select([minutes < 400, minutes < 600, minutes >= 1_200], [0, 130, 2_000], 200)
    stream = streams.make(53, minutes.size, rows, missing=0.01)
    for values in (stream.counts, stream.rates, stream.seen):
        values[..., 759] = values[..., 700:760].sum(axis=-1)
        values[..., 700:759] = 0
        values[..., 900:910] *= 3
    check_quiet(streams, streams.calibrations, stream)


# ---------------------------------------------------------------- tiny true changes at huge n


def direction(streams, kind):
    """How the shares of equal cells change, up to a factor; they sum to 0."""
    middles = (np.arange(streams.cells) + 0.5) / streams.cells - 0.5
    if kind == "mean":
        return middles
    if kind == "spread":
        return middles**2 - (middles**2).mean()
    return np.where(np.arange(streams.cells) == 3, streams.cells - 1, -1)


@pytest.fixture(scope="module")
def exact(streams):
    """Calibrations of ten days at a million rows a window, in equal cells and 1 % missing."""
    return streams.fit(streams.make(54, 10 * streams.day, MANY, wander=0, missing=0.01, features=2))


@pytest.mark.parametrize("kind", ["mean", "spread", "cell"])
def test_a_true_change_of_the_cells_below_the_tolerance_is_none_with_a_million_rows(streams, exact, kind):
    """D = sum (p - q)^2 / q: 0.8 of the tolerance is none at any scale; 1.5 times it is one at once."""
    rng = np.random.default_rng(55)
    q = np.full(streams.cells, 1 / streams.cells)
    way = direction(streams, kind)
    for size, expected in ((0.8, set()), (1.5, {ORDER, CELLS} if kind != "cell" else {CELLS})):
        p = q + way * np.sqrt(size * 0.005 / (way**2 / q).sum())
        assert ((p - q) ** 2 / q).sum() == pytest.approx(size * 0.005)
        stream = streams.make(56, 300, MANY, wander=0, missing=0.01, features=2)
        stream.counts[:, 0] = rng.multinomial(stream.counts[:, 0].sum(axis=0), p).T
        hits = streams.scan(streams.scanner(exact), stream, streams.next)
        assert {hit.variable for hit in hits} == ({0} if expected else set())
        assert {hit.test for hit in hits} >= expected


def test_a_true_change_of_a_rate_below_the_tolerance_is_none_with_a_million_rows(streams, exact):
    """Of two cells, missing or not, against the 1.11 % that are allowed where the reference has 1 %."""
    rng = np.random.default_rng(57)
    allowed = 0.0111
    for size, alarms in ((0.8, False), (1.5, True)):
        share = allowed + np.sqrt(size * 0.005 * allowed * (1 - allowed))
        stream = streams.make(58, 300, MANY, wander=0, missing=0.01, features=2)
        missing = rng.binomial(stream.seen[0], share)
        stream.counts[:, 0] = rng.multinomial(stream.seen[0] - missing, np.full(streams.cells, 1 / streams.cells)).T
        stream.rates[MISSING, 0] = missing
        hits = streams.scan(streams.scanner(exact), stream, streams.next)
        assert {(hit.variable, hit.test) for hit in hits} == ({(0, RATES)} if alarms else set())
