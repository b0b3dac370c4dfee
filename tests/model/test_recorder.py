"""Rows of many threads are counted exactly and held in bounded memory; without a profile as OTLP's histograms say."""

from __future__ import annotations

import gc
import math
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, getcontext

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.profile.document import Plan, Variable
from otel_mlmon.recorder import BLOCK_ROWS, WAITING_BLOCKS, Block, Recorder
from otel_mlmon.schema import add_tallies
from otel_mlmon.tallies import VariableKey

X, WORD, VALUE = VariableKey("feature", "x"), VariableKey("feature", "word"), VariableKey("value", "value")
EDGES = np.arange(16) - 0.5
PLAN = Plan(
    (
        Variable("x", "x", "feature", "float", "identity", NumericAxis(EDGES, 0, 15), (0,)),
        Variable("word", "word", "feature", "string", "identity", CategoryAxis(("a", "b")), (0,)),
        Variable("value", "", "value", "float", "identity", NumericAxis(EDGES, 0, 15), (0,)),
    )
)


@pytest.fixture
def frequent_switches():
    """Threads take turns as often as they can, so that what is not guarded breaks."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def make_recorder(plan, on_full=lambda: None):
    return Recorder(plan, time.time, on_full, pytest.fail)


KINDS = [
    lambda x, word: {"x": float(x[0]), "word": word[0]},
    lambda x, word: {"word": word, "x": x},
    lambda x, word: pd.DataFrame({"word": word, "x": x}),
    lambda x, word: pl.DataFrame({"x": x, "word": word}),
    lambda x, word: pa.table({"x": x, "word": word}),
    lambda x, word: [{"x": a, "word": b} for a, b in zip(x.tolist(), word, strict=True)],
    lambda x, word: [[a, b] for a, b in zip(x.tolist(), word, strict=True)],
    lambda x, word: pd.DataFrame({"x": x[:1], "word": word[:1]}),
]


@pytest.mark.parametrize("plan", [PLAN, None], ids=["profile", "none"])
@pytest.mark.parametrize("woken", [True, False])
def test_sixteen_threads_with_inputs_of_all_kinds_are_counted_exactly_while_others_collect(
    plan, woken, frequent_switches
):
    recorder, totals, running = make_recorder(plan), {}, True
    if woken:  # as the export thread does
        recorder = make_recorder(plan, lambda: recorder.count_waiting())
    recorder.observe({"x": 0.0, "word": "a"})  # what is learnt
    expected = [Counter({0.0: 1}), Counter({"a": 1}), Counter()]
    lock = threading.Lock()

    def collect():
        while running:
            for tallies in recorder.collect().values():
                add_tallies(totals, tallies)

    def call(number):
        rng = np.random.default_rng(number)
        mine = Counter(), Counter(), Counter()
        for turn in range(60):
            n = int(rng.integers(1, 300))
            x, word = rng.integers(0, 15, n).astype(float), rng.choice(["a", "b"], n).tolist()
            made = KINDS[(number + turn) % len(KINDS)](x, word)
            rows = recorder.observe(made, x)
            mine[0].update(x[:rows].tolist()), mine[1].update(word[:rows]), mine[2].update(x.tolist())
        with lock:
            for total, part in zip(expected, mine, strict=True):
                total.update(part)

    collecting = threading.Thread(target=collect)
    collecting.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(call, range(16)))
    finally:
        running = False
        collecting.join()
    for tallies in recorder.collect().values():
        add_tallies(totals, tallies)
    for key, numbers in ((X, expected[0]), (VALUE, expected[2])):
        tally = totals[key]
        assert (tally.valid, tally.seen) == (numbers.total(), numbers.total())
        assert tally.sum == sum(value * n for value, n in numbers.items())  # whole numbers, so exactly
        if plan is not None:
            assert tally.counts.tolist() == [0, *(numbers[float(value)] for value in range(15)), 0]
        else:
            assert tally.exponential.valid == numbers.total()
            assert tally.exponential.zero == numbers[0.0]
    assert totals[WORD].labels == expected[1]
    assert recorder.collect() == {}


def test_matrices_of_threads_are_counted_exactly(frequent_switches):
    plan = Plan((PLAN.variables[0],))
    recorder, totals = make_recorder(plan), Counter()
    parts = [np.random.default_rng(i).integers(0, 15, (1 + 97 * i, 1)).astype(np.float32) for i in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(recorder.observe, parts))
    for part in parts:
        totals.update(part[:, 0].tolist())
    assert recorder.collect()[None][X].counts.tolist() == [0, *(totals[float(value)] for value in range(15)), 0]


def test_a_collection_waits_for_what_another_thread_is_counting():
    """What was recorded before `collect` is in what it gives, although a thread had taken the block over already."""
    plan = Plan((PLAN.variables[1],))
    entered, gate = threading.Event(), threading.Event()

    class Slow(list):
        def __iter__(self):
            entered.set()
            gate.wait(30)
            return super().__iter__()

    recorder = make_recorder(plan)
    column = np.empty(BLOCK_ROWS, dtype=object)
    column[:] = "a"
    column[0] = None
    recorder.observe({"word": column})
    recorder._full[0].tuples = Slow([("a",)])  # the seam: counting begins and stands still
    counting = threading.Thread(target=recorder.count_waiting)
    counting.start()
    assert entered.wait(30)
    found = []
    collecting = threading.Thread(target=lambda: found.append(recorder.collect()))
    collecting.start()
    collecting.join(0.2)
    assert not found
    gate.set()
    counting.join(30)
    collecting.join(30)
    assert found[0][None][WORD].seen == BLOCK_ROWS + 1


def blocks():
    gc.collect()
    return sum(isinstance(thing, Block) for thing in gc.get_objects())


@pytest.mark.parametrize(
    "record",
    [
        lambda recorder, window: recorder.observe({"x": 1.0, "word": "a"}, window=window),
        lambda recorder, window: recorder.observe({"x": [1.0], "word": ["a"]}, window=window),
        lambda recorder, window: recorder.observe(pd.DataFrame({"x": [1.0] * 9, "word": ["a"] * 9}), window=window),
        lambda recorder, window: recorder.observe(None, [1.0], window=window),
    ],
    ids=["row", "batch", "frame", "output"],
)
def test_a_long_past_that_is_replayed_at_once_is_held_in_bounded_memory(record):
    recorder, before = make_recorder(PLAN), blocks()
    for minute in range(200):
        record(recorder, (minute, minute + 1))
    assert blocks() - before <= WAITING_BLOCKS + 2
    assert len(recorder.collect()) == 200


def test_a_matrix_of_each_minute_of_a_long_past_is_held_in_bounded_memory():
    recorder, before = make_recorder(Plan((PLAN.variables[0],))), blocks()
    for minute in range(200):
        recorder.observe(np.ones((1, 1)), window=(minute, minute + 1))
    assert blocks() - before <= WAITING_BLOCKS + 2
    assert {window: tallies[X].valid for window, tallies in recorder.collect().items()} == {
        (minute, minute + 1): 1 for minute in range(200)
    }


def test_large_outputs_are_counted_as_soon_as_a_block_of_them_is_there():
    woken = []
    recorder = make_recorder(PLAN, lambda: woken.append(1))
    for _ in range(3):
        recorder.observe(None, np.ones(BLOCK_ROWS))
    assert len(woken) == 3


def test_batches_of_no_rows_count_nothing():
    recorder = make_recorder(PLAN)
    frame = pd.DataFrame({"x": np.zeros(0), "word": np.zeros(0, dtype=object)})
    inputs = [frame, pl.from_pandas(frame), pa.Table.from_pandas(frame), frame.to_dict("list"), [], np.zeros((0, 2))]
    assert [recorder.observe(X, []) for X in inputs] == [0] * len(inputs)
    assert all(tally.seen == 0 for tallies in recorder.collect().values() for tally in tallies.values())


def test_after_a_restart_nothing_of_before_is_counted():
    recorder = make_recorder(PLAN)
    recorder.observe({"x": 1.0, "word": "a", "more": 1}, 1.0)
    recorder.restart()
    recorder.observe({"x": 2.0, "word": "b"})
    (tallies,) = recorder.collect().values()
    assert (tallies[X].sum, tallies[WORD].labels, VALUE in tallies) == (2.0, {"b": 1}, False)
    assert recorder.take_extra_columns() == 0


def test_a_profile_without_features_takes_rows_of_any_kind_and_counts_outputs():
    recorder = make_recorder(Plan((PLAN.variables[2],)))
    for rows in ({}, {"x": 1.0}, pd.DataFrame({"x": [1.0] * 20})):
        recorder.observe(rows, [3.0])
    (tallies,) = recorder.collect().values()
    assert {key: tally.valid for key, tally in tallies.items()} == {VALUE: 3}


# Without a profile.


def exponential(values):
    recorder = make_recorder(None)
    for part in np.array_split(np.array(values), 3):
        recorder.observe({"x": part})
    return recorder.collect()[None][X]


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).lognormal(0, 3, 3000),
        np.random.default_rng(2).uniform(99.9, 100.1, 3000),
        np.random.default_rng(3).pareto(0.5, 3000),
        np.array([3.7] * 5),
        np.array([0.0, 0.0, 1e-300, 1e300]),
    ],
    ids=["lognormal", "narrow", "heavy", "constant", "extreme"],
)
def test_the_exponential_histogram_is_that_of_the_sdk(values):
    """The SDK takes positive values only, one by one; ours come in three parts that are merged."""
    reader = InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})
    provider = MeterProvider([reader])
    histogram = provider.get_meter("oracle").create_histogram("x")
    for value in values.tolist():
        histogram.record(value)
    (theirs,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    provider.shutdown()
    tally = exponential(values)
    ours = tally.exponential
    assert (ours.scale, ours.zero, tally.valid) == (theirs.scale, theirs.zero_count, theirs.count)
    assert (tally.min, tally.max) == (theirs.min, theirs.max)
    assert tally.sum == pytest.approx(theirs.sum, rel=1e-12)

    def reached(offset, counts):  # by bucket that holds some
        return {offset + i: n for i, n in enumerate(counts) if n}

    # The SDK takes a logarithm of float64 for a bucket's bound, so a value next to one may be in the next bucket.
    mine, other = (
        reached(ours.positive.offset, ours.positive.counts.tolist()),
        reached(theirs.positive.offset, theirs.positive.bucket_counts),
    )
    assert sum((Counter(mine) - Counter(other)).values()) <= len(values) // 1000


getcontext().prec = 60


def naive_bucket(size: float, scale: int) -> int:
    """From the data model: bucket i holds sizes in (base^i, base^(i + 1)] with base = 2^(2^-scale)."""
    exact = (Decimal(size).ln() / Decimal(2).ln()) * Decimal(2) ** scale
    near = exact.to_integral_value()
    return int(near if abs(exact - near) < Decimal("1e-30") else exact.to_integral_value("ROUND_CEILING")) - 1


sizes = st.one_of(st.floats(-1e6, 1e6, allow_subnormal=False), st.integers(-40, 40).map(lambda n: 2.0**n))


@given(st.lists(sizes.filter(lambda v: v == 0 or abs(v) > 1e-300), min_size=1, max_size=30))
def test_values_of_either_sign_are_in_the_buckets_of_the_data_model(values):
    tally = exponential(values)
    shape = tally.exponential
    assert shape.zero == values.count(0.0)
    for buckets, signed in (
        (shape.positive, [v for v in values if v > 0]),
        (shape.negative, [-v for v in values if v < 0]),
    ):
        expected = Counter(naive_bucket(size, shape.scale) for size in signed)
        found = {buckets.offset + i: n for i, n in enumerate(buckets.counts.tolist()) if n}
        assert found == expected
        assert len(buckets.counts) <= 160
    assert tally.sum == pytest.approx(math.fsum(values), rel=1e-12, abs=1e-6)


def test_values_that_are_none_are_counted_apart_without_a_profile():
    recorder = make_recorder(None)
    recorder.observe({"x": [1.0, math.nan, math.inf, None, "a", -1.0], "word": ["a", None, math.nan, "b", b"x", "a"]})
    recorder.observe({"x": [2.0]})  # a column that is absent
    tallies = recorder.collect()[None]
    x, word = tallies[X], tallies[WORD]
    assert (x.valid, x.missing, x.nan, x.inf, x.wrong_type, x.seen) == (3, 1, 1, 1, 1, 7)
    assert (dict(word.labels), word.missing, word.wrong_type, word.seen) == ({"a": 2, "b": 1}, 3, 1, 7)
