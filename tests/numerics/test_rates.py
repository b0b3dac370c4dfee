"""Quality rates against scipy's exact intervals, and by simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from otel_mlmon_processor.core.verdict import find_quality
from scipy.stats import binomtest

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.effect import effect
from otel_mlmon.numerics.rates import Rate, count_hidden, count_quality, make_rate
from otel_mlmon.semconv import FeatureInvalidReason, QualityMeasure

TOLERANCE = 0.005
MEASURES = [QualityMeasure.MISSING, QualityMeasure.INVALID, QualityMeasure.OUT_OF_RANGE, QualityMeasure.UNSEEN]
COUNTS = [(0, 1), (0, 500), (1, 500), (7, 500), (499, 500), (500, 500), (3, 1_000_000), (1, 1)]


def exact(count: int, seen: int, alternative: str) -> float:
    """The end of the one-sided exact 95 % interval (Clopper-Pearson)."""
    interval = binomtest(count, seen, alternative=alternative).proportion_ci(0.95, "exact")
    return interval.low if alternative == "greater" else interval.high


@pytest.mark.parametrize(("count", "seen"), COUNTS)
def test_the_lower_bound_is_the_exact_one(count, seen):
    rate = make_rate(count, seen, None)
    assert rate.lower == pytest.approx(exact(count, seen, "greater"), abs=1e-12)
    assert rate.rate == count / seen


@pytest.mark.parametrize(("count", "seen"), COUNTS)
def test_allowed_is_a_tenth_and_a_ten_thousandth_above_the_exact_upper_bound_of_the_reference(count, seen):
    rate = make_rate(0, 10, (count, seen))
    assert rate.allowed == pytest.approx(min(1.1 * exact(count, seen, "less") + 1e-4, 1.0), abs=1e-12)
    assert rate.reference == count / seen


@pytest.mark.parametrize(("count", "hidden"), [(0, 2), (0, 0), (3, 5)])
def test_what_the_reference_cannot_have_seen_is_allowed_as_if_it_had(count, hidden):
    rate = make_rate(0, 10, (count, 1000), hidden=hidden)
    bound = exact(count + hidden, 1000, "less")
    assert rate.allowed == pytest.approx(1.1 * bound + 1e-4, abs=1e-12)
    assert rate.reference == count / 1000


def test_nothing_seen_says_nothing():
    rate = make_rate(0, 0, (5, 100))
    assert (rate.rate, rate.lower, rate.effect) == (0, 0, 0)
    assert make_rate(5, 5, (0, 0)).effect == 0  # a reference of no rows allows anything
    assert make_rate(5, 5, None).effect == 0


@pytest.mark.parametrize(("lower", "allowed"), [(0.5, 0.1), (0.02, 0.01), (0.999, 0.5)])
def test_the_effect_is_that_of_two_cells(lower, allowed):
    rate = Rate(1, 1, 0.0, lower, allowed)
    many = 10**12  # so that the correction for the size of the samples is nothing
    cells = [[round(share * many), round((1 - share) * many)] for share in (lower, allowed)]
    assert rate.effect == pytest.approx(effect(*cells).estimate, rel=1e-6)


def test_a_rate_that_falls_is_no_effect():
    assert make_rate(0, 10_000, (5_000, 10_000)).effect == 0


@cache
def alarms(measure: str, count: int, seen: int, before: tuple[int, int], singles: int = 0) -> bool:
    rate = make_rate(count, seen, before, count_hidden(measure, singles))
    return bool(find_quality("feature", "x", {measure: rate}, TOLERANCE))


def share_of(hits: int, trials: int) -> str:
    interval = binomtest(hits, trials).proportion_ci(0.95, "exact")
    return f"{hits} of {trials}: 95 % interval [{interval.low:.2g}, {interval.high:.2g}]"


@pytest.mark.parametrize("p", [0.0, 0.0002, 0.003, 0.05, 0.5, 0.97])
@pytest.mark.parametrize(("n", "m"), [(200, 500), (1_000, 2_000), (50_000, 20_000)])
def test_no_false_alarm_where_the_rate_has_not_changed(p, n, m):
    """20,000 pairs of samples: the bound of the reference and that of the window must both miss by chance."""
    trials = 20_000
    rng = np.random.default_rng(1)
    pairs = zip(rng.binomial(n, p, trials).tolist(), rng.binomial(m, p, trials).tolist(), strict=True)
    hits = sum(alarms(QualityMeasure.MISSING, count, n, (known, m)) for count, known in pairs)
    print(share_of(hits, trials))
    assert binomtest(hits, trials).proportion_ci(0.95, "exact").high < 0.005, share_of(hits, trials)


@pytest.mark.parametrize(("n", "m"), [(200, 500), (1_000, 2_000), (50_000, 2_000)])
def test_no_false_alarm_beyond_a_range_that_is_that_of_the_reference(n, m):
    """None of m values lies outside their own range, and about 2 in m of the next: in 20,000 pairs of samples."""
    trials = 20_000
    rng = np.random.default_rng(2)
    outside = rng.beta(2, m - 1, trials)  # of uniform values, below the least and above the greatest of m
    hits = sum(alarms(QualityMeasure.OUT_OF_RANGE, count, n, (0, m)) for count in rng.binomial(n, outside).tolist())
    print(share_of(hits, trials))
    assert binomtest(hits, trials).proportion_ci(0.95, "exact").high < 0.01, share_of(hits, trials)


@pytest.mark.parametrize("categories", [20, 300, 5_000])
def test_no_false_alarm_of_categories_that_the_reference_happened_not_to_hold(categories):
    """3,000 pairs of samples of 2,000 values of a Zipf distribution, whose rare categories are many."""
    trials, m = 3_000, 2_000
    rng = np.random.default_rng(4)
    shares = 1 / np.arange(1, categories + 1)
    shares /= shares.sum()
    hits = 0
    for known, seen in zip(rng.multinomial(m, shares, trials), rng.multinomial(m, shares, trials), strict=True):
        singles = int((known == 1).sum())
        hits += alarms(QualityMeasure.UNSEEN, int(seen[known == 0].sum()), m, (0, m), singles)
    print(share_of(hits, trials))
    assert binomtest(hits, trials).proportion_ci(0.95, "exact").high < 0.01, share_of(hits, trials)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_rate_that_rises_is_found(measure):
    """From 1 % of 20,000 to 5 % of 2,000: the effect is 0.04^2 / (0.01 x 0.99) = 0.16, thirty times the tolerance."""
    rng = np.random.default_rng(3)
    rate = make_rate(int(rng.binomial(2_000, 0.05)), 2_000, (int(rng.binomial(20_000, 0.01)), 20_000))
    (found,) = find_quality("feature", "x", {measure: rate}, TOLERANCE)
    assert found.kind == measure
    assert TOLERANCE < found.size < 0.16 * 1.5


@pytest.mark.parametrize("measure", MEASURES)
def test_a_handful_of_values_that_were_never_there_is_found(measure):
    assert find_quality("feature", "x", {measure: make_rate(40, 1_000, (0, 20_000))}, TOLERANCE)


def test_reasons_and_cells_are_counted_in_their_measure():
    reason = FeatureInvalidReason
    invalid = {reason.MISSING: 1, reason.NAN: 2, reason.INF: 4, reason.TYPE: 8}
    none = {QualityMeasure.MISSING: 3, QualityMeasure.INVALID: 12}
    assert count_quality(None, None, invalid) == none
    number = NumericAxis(np.array([-9.0, 0.0, 1.0, 9.0]), 1, 2)  # the range is (0, 1]
    assert count_quality(number, np.array([1, 10, 100, 1_000, 10_000]), invalid) == {
        **none,
        QualityMeasure.OUT_OF_RANGE: 11_011,
    }
    category = CategoryAxis(("a",))
    assert count_quality(category, np.array([9, 7, 5]), invalid) == {**none, QualityMeasure.UNSEEN: 5}
    assert count_quality(category, None, {}) == {
        QualityMeasure.MISSING: 0,
        QualityMeasure.INVALID: 0,
        QualityMeasure.UNSEEN: 0,
    }
