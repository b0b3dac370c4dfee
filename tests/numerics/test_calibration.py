"""What a calibration finds in windows of which the truth is known."""

import json

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from otel_mlmon.numerics.calibration import PEAKS, Calibration, fit_calibration
from otel_mlmon.numerics.expectation import expect_windows
from otel_mlmon.numerics.scales import DAY, SCALES, WEEK

CELLS = 10
MONDAY = 20_004 * DAY
EDGES = ndtri(np.arange(1, CELLS) / CELLS)


def draw(seed, days, rows=200, mean=0.0, session=1):
    """Counts of normal values in equal cells, (windows, cells)."""
    rng, windows = np.random.default_rng(seed), days * DAY
    level = np.broadcast_to(mean, windows)
    chances = np.diff(ndtr(EDGES - level[:, None]), axis=1, prepend=0, append=1)
    return rng.multinomial(rng.poisson(rows / session, windows), chances) * session


def fit(counts, start=MONDAY, missing=None):
    missing = np.zeros(len(counts), dtype=np.int64) if missing is None else missing
    seen = counts.sum(axis=1) + missing
    held = seen > 0
    return fit_calibration(start + np.flatnonzero(held), counts[held], missing[held, None], seen[held])


def daily(amplitude, days):
    return amplitude * np.sin(2 * np.pi * np.arange(days * DAY) / DAY)


def test_independent_rows_have_no_spread_and_no_season():
    c = fit(draw(1, 10))
    assert c.slots == 1
    assert (c.spread[:, [0, 2, 5, 9]] * c.typical[:, None] < [[0.1], [0.1], [0.15], [0.4], [1.0]]).all()
    assert c.typical == pytest.approx([200 * s.length for s in SCALES], rel=0.02)
    assert c.overall == pytest.approx(np.full(CELLS, 1 / CELLS), rel=0.02)
    assert (c.blocks, c.block, c.days, c.windows) == (10, DAY, 10, 10 * DAY)


def test_a_mean_that_wanders_has_its_variance_at_each_scale():
    """An AR(1) of standard deviation 0.1 and 60 minutes; of its mean over L minutes the variance is known."""
    keep = np.exp(-1 / 60)
    noise = np.random.default_rng(2).normal(size=30 * DAY) * 0.1 * np.sqrt(1 - keep**2)
    c = fit(draw(3, 30, rows=1_000, mean=lfilter([1], [1, -keep], noise)))
    lags = np.arange(1, 240)
    for k, scale in enumerate(SCALES):
        n = scale.length
        inside = lags[lags < n]
        share = (1 + 2 * ((1 - inside / n) * keep**inside).sum()) / n
        # The first basis function's slope in the mean is 0.98 of a normal value's.
        assert c.spread[k, 0] == pytest.approx(0.98**2 * 0.01 * share, rel=0.25)


def test_rows_in_sessions_spread_as_many_times_more():
    c = fit(draw(4, 10, rows=1_000, session=50))
    assert c.spread[:, 0] * c.typical == pytest.approx(np.full(5, 49), rel=0.25)
    assert np.median(c.cells * c.typical[:, None]) == pytest.approx(49, rel=0.25)


def test_the_hour_of_the_day_is_used_where_it_explains_something():
    c = fit(draw(5, 10, mean=daily(0.3, 10)))
    assert c.slots == 24
    truth = np.diff(ndtr(EDGES - daily(0.3, 1)[30::60][:, None]), axis=1, prepend=0, append=1)
    assert np.abs(c.shares - truth).max() < 0.01
    assert (c.spread[:4, 0] * c.typical[:4] < 0.5).all()
    assert fit(draw(5, 3, mean=daily(0.3, 3))).slots == 1  # three days are too few to tell


def test_the_hour_of_the_week_needs_four_weeks_and_a_reason():
    weekend = np.where(np.arange(28 * DAY) // DAY % 7 >= 5, 0.3, 0) * np.sin(2 * np.pi * np.arange(28 * DAY) / DAY)
    assert fit(draw(6, 28, mean=weekend)).slots == 168
    assert fit(draw(6, 28, mean=daily(0.3, 28))).slots == 24
    assert fit(draw(6, 14, mean=weekend[: 14 * DAY])).slots in (1, 24)


def test_each_day_is_expected_by_the_others_alone():
    counts = draw(7, 6)
    moved = counts.copy()
    moved[2 * DAY : 3 * DAY] = moved[2 * DAY : 3 * DAY, ::-1] * [0, 0, 0, 0, 0, 1, 1, 1, 1, 5]
    none = np.zeros((6 * DAY, 1), dtype=np.int64)
    before, after = (expect_windows(MONDAY + np.arange(6 * DAY), c, none, c.sum(axis=1)) for c in (counts, moved))
    day = slice(2 * DAY, 3 * DAY)
    shares = lambda e: (e.expected[day] / e.rows[day, None])[0]  # noqa: E731
    assert shares(before) == pytest.approx(shares(after))
    assert before.expected.sum(axis=1) == pytest.approx(before.rows)


def test_days_that_differ_leave_few_degrees_of_freedom():
    level = np.repeat(np.random.default_rng(8).normal(size=14) * 0.1, DAY)
    c = fit(draw(9, 14, rows=1_000, mean=level))
    assert c.freedom[4] < 25
    assert c.daily[0] == pytest.approx(0.01, rel=0.6)
    assert fit(draw(9, 14, rows=1_000)).freedom[4] > 40


def test_wild_windows_are_among_the_peaks_out_of_sample():
    mean = np.zeros(10 * DAY)
    mean[5 * DAY + 600] = 1.0
    calm, wild = fit(draw(10, 10, rows=500)), fit(draw(10, 10, rows=500, mean=mean))
    assert wild.peaks[0, 0, 0] > 300
    assert calm.peaks[0, 0, 0] < 40
    assert wild.peaks[0, 0, 1:].tolist() == pytest.approx(calm.peaks[0, 0, 1:].tolist(), rel=0.3)
    assert (np.diff(calm.peaks, axis=-1) <= 0).all()
    assert calm.peaks.shape == (4, 5, PEAKS)


def test_a_reference_of_one_day_is_cut_into_four_hours():
    c = fit(draw(11, 1, mean=daily(0.3, 1)))
    assert (c.blocks, c.block, c.slots, c.days) == (6, 240, 1, 0)
    assert c.spread[3, 0] > 0.01  # the season, which one day cannot tell from wander


@pytest.mark.parametrize("windows", [1, 2, 7])
def test_hardly_any_windows_are_no_error(windows):
    c = fit(draw(12, 1)[:windows])
    assert c.windows == windows
    for values in (c.spread, c.typical, c.freedom, c.cells, c.rates, c.peaks, c.shares):
        assert np.isfinite(values).all()


def test_no_window_is_one():
    none = np.zeros((0, CELLS), dtype=np.int64)
    with pytest.raises(ValueError, match="no window"):
        fit_calibration(none[:, 0], none, none[:, :1], none[:, 0])


def test_gaps_change_nothing_and_old_days_are_forgotten():
    counts = draw(13, 10)
    counts[(np.arange(10 * DAY) % DAY) < 400] = 0
    assert fit(counts).windows == 10 * (DAY - 400)
    far = np.concatenate([draw(14, 1), np.zeros((100 * DAY, CELLS), dtype=np.int64), draw(13, 10)])
    assert fit(far).to_plain() == fit(draw(13, 10), MONDAY + 101 * DAY).to_plain()


def test_it_goes_through_json_unchanged_and_is_small():
    c = fit(draw(15, 10, mean=daily(0.3, 10)), missing=np.ones(10 * DAY, dtype=np.int64))
    text = json.dumps(c.to_plain())
    again = Calibration.from_plain(json.loads(text))
    assert json.dumps(again.to_plain()) == text
    assert len(text) < 8_000
    assert (c.seen, c.invalid.tolist()) == (int(c.rows.sum()) + 10 * DAY, [10 * DAY])


def test_weeks_begin_where_they_do():
    """The same week, moved by whole weeks, is the same."""
    counts = draw(16, 28, mean=np.where(np.arange(28 * DAY) // DAY % 7 >= 5, 0.3, 0))
    one, other = fit(counts), fit(counts, MONDAY + 5 * WEEK)
    assert one.slots == 168
    assert one.to_plain() == other.to_plain()


def test_bursts_of_single_minutes_make_heavy_tails_of_five():
    rng = np.random.default_rng(17)
    hit = rng.random(10 * DAY) < 0.02
    bursts = fit(draw(18, 10, rows=1_000, mean=np.where(hit, rng.choice([-0.5, 0.5], 10 * DAY), 0)))
    assert bursts.jumps[1] < 30
    assert bursts.jumps[1] < bursts.jumps[2] < bursts.jumps[3]
    assert (fit(draw(18, 10, rows=1_000)).jumps > 100).all()
