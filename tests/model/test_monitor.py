"""Calls of a model as spans and counts; what goes wrong inside stays inside."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import math
import threading
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from otel_mlmon import Monitor, semconv
from otel_mlmon.capture import MAX_FEATURES, MAX_LENGTH
from otel_mlmon.config import Settings
from otel_mlmon.profile.document import Profile

FAR = Settings(interval=86_400.0)
CAPTURING = Settings(interval=86_400.0, capture_features=True)
COUNT, ERRORS = semconv.METRIC_ML_FEATURE_COUNT, semconv.METRIC_MLMON_RECORDER_ERRORS
BILLION = 1_000_000_000


class Spans:
    """Spans of a real tracer provider."""

    def __init__(self) -> None:
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def __call__(self):
        return self.exporter.get_finished_spans()


@pytest.fixture
def spans():
    found = Spans()
    yield found
    found.provider.shutdown()


@pytest.fixture
def monitor(sink, spans, make_monitor):
    return make_monitor("m", "1", exporter=sink, temporality="delta", settings=FAR, tracer_provider=spans.provider)


def flushed(monitor, sink):
    assert monitor.flush()
    return sink


# Spans, durations, errors.


def test_a_call_is_a_span_with_the_identity_of_the_model_and_the_size_of_the_batch(monitor, spans, sink):
    with spans.provider.get_tracer("app").start_as_current_span("request") as request:
        with monitor.inference(np.ones((3, 2)), "predict_proba", "sklearn", "1.7") as call:
            inner = trace.get_current_span()
            call.record(np.ones(3))
        assert trace.get_current_span() is request
    span, outer = spans()
    assert (span.name, span.kind, span.status.status_code) == ("predict_proba m", SpanKind.INTERNAL, StatusCode.UNSET)
    assert span.parent.span_id == outer.context.span_id
    assert inner.get_span_context() == span.context  # what the model does inside belongs to it
    assert dict(span.attributes) == {
        semconv.ML_MODEL_NAME: "m",
        semconv.ML_MODEL_VERSION: "1",
        semconv.ML_OPERATION_NAME: "predict_proba",
        semconv.ML_FRAMEWORK_NAME: "sklearn",
        semconv.ML_FRAMEWORK_VERSION: "1.7",
        semconv.ML_INFERENCE_BATCH_SIZE: 3,
    }
    flushed(monitor, sink)
    (duration,) = sink.of(semconv.METRIC_ML_INFERENCE_DURATION)
    assert 0 < duration.point.sum <= (span.end_time - span.start_time) / BILLION
    (batch,) = sink.of(semconv.METRIC_ML_INFERENCE_BATCH_SIZE)
    assert (batch.point.count, batch.point.sum) == (1, 3)
    (info,) = sink.of(semconv.METRIC_ML_MODEL_INFO)
    assert info.attributes[semconv.ML_FRAMEWORK_NAME] == "sklearn"
    assert sink.total(COUNT, name="x0") == 3
    assert sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 3


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, type("Own", (Exception,), {})])
def test_the_exception_of_the_model_passes_as_it_is_and_is_counted(kind, monitor, spans, sink):
    mine = kind("the model's own")
    with pytest.raises(kind) as caught, monitor.inference([[1.0]]):
        raise mine
    assert caught.value is mine
    assert mine.__cause__ is mine.__context__ is None
    (span,) = spans()
    assert span.attributes["error.type"] == kind.__qualname__
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        f"{kind.__qualname__}: the model's own",
    )
    assert [event.name for event in span.events] == ["exception"]
    (duration,) = flushed(monitor, sink).of(semconv.METRIC_ML_INFERENCE_DURATION)
    assert (duration.point.count, duration.attributes["error.type"]) == (1, kind.__qualname__)
    assert sink.total(COUNT, name="x0") == 1  # the model has seen the row
    assert sink.of(ERRORS) == []


def test_an_exception_that_cannot_be_told_is_passed_on_and_its_span_ended(monitor, spans, sink):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    mine = MuteError()
    with pytest.raises(MuteError) as caught, monitor.inference([[1.0]]):
        raise mine
    assert caught.value is mine
    assert spans()[0].attributes["error.type"].endswith("MuteError")
    assert flushed(monitor, sink).total(ERRORS, reason="RuntimeError") == 1


def test_calls_that_have_not_ended_are_active(monitor, sink):
    def fail():
        assert flushed(monitor, sink).of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)[-1].point.value == 2
        raise ValueError("mine")

    with monitor.inference(), pytest.raises(ValueError, match="mine"), monitor.inference():
        fail()
    (level,) = flushed(monitor, sink).of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)[-1:]
    assert level.point.value == 0
    assert (level.data.aggregation_temporality, level.data.is_monotonic) == (AggregationTemporality.CUMULATIVE, False)


def test_nested_calls_have_spans_and_durations_and_count_rows_once_at_the_outermost(sink, spans, make_monitor):
    pipeline, step = (
        make_monitor(name, exporter=sink, temporality="delta", settings=FAR, tracer_provider=spans.provider)
        for name in ("pipeline", "step")
    )
    X = np.ones((4, 1))
    with pipeline.inference(X) as outer:
        for monitor in (pipeline, step):
            with monitor.inference(X) as inner:
                inner.record(np.ones(4))
        outer.record(np.ones(4))
    assert [span.name for span in spans()] == ["predict pipeline", "predict step", "predict pipeline"]
    assert [semconv.ML_INFERENCE_BATCH_SIZE in span.attributes for span in spans()] == [False, False, True]
    flushed(pipeline, sink), flushed(step, sink)
    assert sink.total(semconv.METRIC_ML_INFERENCE_DURATION) == 3
    assert [p.attributes[semconv.ML_MODEL_NAME] for p in sink.of(COUNT)] == ["pipeline"]
    assert sink.total(COUNT) == sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 4


def test_tasks_that_interleave_count_their_own_calls_once(monitor, spans, sink):
    async def request(number, barrier):
        X = np.full((number, 1), 1.0)
        with monitor.inference(X) as call:
            await barrier.wait()  # all calls are under way
            with monitor.inference(X) as nested:
                await asyncio.sleep(0)
                nested.record(np.ones(number))
            call.record(np.ones(number))
            await asyncio.to_thread(lambda: monitor.inference(X).__enter__().__exit__(None, None, None))

    class Barrier:
        def __init__(self, size):
            self.left, self.event = size, asyncio.Event()

        async def wait(self):
            self.left -= 1
            if not self.left:
                self.event.set()
            await self.event.wait()

    async def main():
        barrier = Barrier(10)
        await asyncio.gather(*(request(number, barrier) for number in range(1, 11)))

    asyncio.run(main())
    flushed(monitor, sink)
    assert sink.total(COUNT, name="x0") == sum(range(1, 11))
    assert sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == sum(range(1, 11))
    assert sink.total(semconv.METRIC_ML_INFERENCE_DURATION) == 30
    assert sink.of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)[0].point.value == 0
    outer = {span.context.span_id for span in spans() if span.parent is None}
    assert len(outer) == 10
    assert {span.parent.span_id for span in spans() if span.parent} == outer


def test_a_call_that_ends_in_another_context_is_counted_and_raises_nothing(monitor, sink, caplog):
    """As an asynchronous generator's may, which is closed by whoever collects it."""
    import contextvars

    call = monitor.inference([[1.0]])
    contextvars.copy_context().run(call.__enter__)
    call.__exit__(None, None, None)
    flushed(monitor, sink)
    assert sink.total(semconv.METRIC_ML_INFERENCE_DURATION) == 1
    assert sink.total(ERRORS, reason="ValueError") == 1


# Errors of ours.


class Broken:
    """Fails wherever it is touched."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __len__(self):
        raise RuntimeError("length")

    def __getitem__(self, key):
        raise RuntimeError("item")


class BrokenRows(list):
    def __len__(self):
        raise RuntimeError("length")

    __iter__ = __bool__ = __len__


@pytest.mark.parametrize("X", [Broken(), BrokenRows([[1.0]])], ids=["object", "list"])
def test_an_input_that_fails_when_it_is_read_never_fails_the_call(X, monitor, spans, sink):
    monitor.observe(X, [1.0])
    with monitor.inference(X) as call:
        call.record([1.0])
    flushed(monitor, sink)
    assert sink.total(ERRORS) == 2
    assert sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 2
    assert len(spans()) == 1


def test_an_output_that_cannot_be_read_never_fails_the_call(monitor, sink):
    for y in (Broken(), {"label": [1]}, np.zeros((1, 1, 1))):
        with monitor.inference([[1.0]]) as call:
            call.record(y)
    flushed(monitor, sink)
    assert sink.total(ERRORS) == 3
    assert sink.total(COUNT, name="x0") == 3


class BrokenTracers(trace.TracerProvider):
    def __init__(self, when):
        self.when = when

    def get_tracer(self, *_, **__):
        return self

    def start_span(self, *_, **__):
        if self.when == "start":
            raise RuntimeError("no span")
        return self

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("when", ["start", "later"])
def test_a_tracer_that_fails_takes_nothing_but_the_span(when, sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=FAR, tracer_provider=BrokenTracers(when))
    mine = ValueError("mine")

    def predict():
        with monitor.inference([[1.0]]) as call:
            call.record([1.0])
            raise mine

    with pytest.raises(ValueError, match="mine") as caught:
        predict()
    assert caught.value is mine
    flushed(monitor, sink)
    assert sink.total(ERRORS, reason="RuntimeError") >= 1
    assert sink.total(COUNT, name="x0") == 1
    assert sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 1
    assert sink.total(semconv.METRIC_ML_INFERENCE_DURATION) == 1
    assert sink.of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)[0].point.value == 0


@pytest.mark.parametrize(
    "record", [lambda m, X: m.observe(X), lambda m, X: m.inference(X).__enter__().__exit__(None, None, None)]
)
def test_what_can_be_read_once_is_untouched_and_counted_as_dropped(record, monitor, sink, caplog):
    X = ({"x": value} for value in range(3))
    for what in (X, 5, 6):
        record(monitor, what)
    assert len(list(X)) == 3
    flushed(monitor, sink)
    assert sink.total(semconv.METRIC_MLMON_RECORDER_DROPPED, reason="unreadable") == 3
    assert sink.of(COUNT) == []
    assert len(caplog.records) == 2  # the third says nothing new, and is only counted


def test_columns_that_nobody_knows_are_counted(monitor, sink):
    monitor.observe({"x": 1.0})
    monitor.observe({"x": 1.0, "y": 2.0, "z": 3.0})
    flushed(monitor, sink)
    assert sink.total(semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS) == 2


def test_a_monitor_needs_a_profile_or_a_name():
    with pytest.raises(TypeError, match="NoneType"):
        Monitor(None)
    with pytest.raises(ValueError, match="sideways"):
        Monitor("m", temporality="sideways")


def test_a_closed_monitor_takes_calls_and_counts_nothing(monitor, sink):
    monitor.observe({"x": 1.0})
    monitor.close()
    monitor.close()
    sent = len(sink.requests)
    monitor.observe({"x": 1.0})
    with monitor.inference({"x": 1.0}) as call:
        call.record([1.0])
    assert len(sink.requests) == sent
    assert sink.total(COUNT, name="x") == 1


def test_threads_that_call_at_once_are_counted_exactly(monitor, spans, sink):
    barrier = threading.Barrier(16)

    def run():
        barrier.wait()
        for _ in range(25):
            with monitor.inference(np.ones((2, 1))) as call:
                call.record([1.0, 2.0])

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert monitor.flush()
    flushed(monitor, sink)
    assert sink.total(COUNT, name="x0") == sink.total(semconv.METRIC_ML_PREDICTION_COUNT) == 800
    assert sink.total(semconv.METRIC_ML_INFERENCE_DURATION) == len(spans()) == 400


# Gauges.


def test_identity_and_ages_come_from_the_profile(sink, make_monitor):
    profile = Profile.build(
        {"x": [1.0, 2.0, 3.0]}, model="m", version="2", created="2025-01-02T00:00:00Z", trained="2025-01-01T00:00:00Z"
    )
    now = dt.datetime(2025, 1, 3, tzinfo=dt.timezone.utc).timestamp()
    monitor = make_monitor(profile, exporter=sink, settings=FAR, clock=lambda: now)
    flushed(monitor, sink)
    gauges = {p.metric: p.point.value for p in sink.points}
    assert gauges[semconv.METRIC_ML_REFERENCE_AGE.name] == pytest.approx(86_400)
    assert gauges[semconv.METRIC_ML_MODEL_AGE.name] == pytest.approx(2 * 86_400)
    (info,) = sink.of(semconv.METRIC_ML_MODEL_INFO)
    assert info.attributes[semconv.ML_REFERENCE_HASH] == profile.hash
    assert info.attributes[semconv.ML_MODEL_VERSION] == "2"


def test_a_profile_whose_times_are_none_is_used_without_them(sink, make_monitor):
    from dataclasses import replace

    profile = replace(Profile.build({"x": [1.0, 2.0]}, model="m"), created="yesterday", trained="last year")
    monitor = make_monitor(profile, exporter=sink, settings=FAR)
    monitor.observe({"x": 1.0})
    flushed(monitor, sink)
    assert sink.of(COUNT, name="x")[0].point.value == 1
    assert sink.of(semconv.METRIC_ML_REFERENCE_AGE) == []


# Feature values on spans.


def captured(spans):
    prefix = semconv.ML_FEATURE_VALUE + "."
    return [{k.removeprefix(prefix): v for k, v in s.attributes.items() if k.startswith(prefix)} for s in spans()]


ONE_ROW = [
    {"x": 1.5, "city": "Rome", "n": 3, "flag": True},
    {"x": [1.5], "city": ["Rome"], "n": [3], "flag": [True]},
    {"x": np.array([1.5]), "city": np.array(["Rome"]), "n": np.array([3]), "flag": np.array([True])},
    [{"x": 1.5, "city": "Rome", "n": 3, "flag": True}],
    pd.DataFrame({"x": [1.5], "city": ["Rome"], "n": [3], "flag": [True]}),
    pl.DataFrame({"x": [1.5], "city": ["Rome"], "n": [3], "flag": [True]}),
    pa.table({"x": [1.5], "city": ["Rome"], "n": [3], "flag": [True]}),
]


@pytest.mark.parametrize("X", ONE_ROW, ids=lambda X: type(X).__module__ + "." + type(X).__name__)
def test_no_feature_value_is_on_a_span_unless_it_is_asked_for(X, monitor, spans, sink, make_monitor):
    with monitor.inference(X):
        pass
    assert captured(spans) == [{}]
    assert not any("Rome" in str(value) for value in spans()[0].attributes.values())
    spans.exporter.clear()
    asked = make_monitor("m", exporter=sink, settings=CAPTURING, tracer_provider=spans.provider)
    with asked.inference(X):
        pass
    assert captured(spans) == [{"x": 1.5, "city": "Rome", "n": 3, "flag": True}]


@pytest.fixture
def capturing(sink, spans, make_monitor):
    return make_monitor("m", exporter=sink, temporality="delta", settings=CAPTURING, tracer_provider=spans.provider)


def test_the_environment_asks_for_feature_values(sink, spans, make_monitor, monkeypatch):
    monkeypatch.setenv("OTEL_MLMON_CAPTURE_FEATURES", "true")
    with make_monitor("m", exporter=sink, tracer_provider=spans.provider).inference({"x": 1.5}):
        pass
    assert captured(spans) == [{"x": 1.5}]


def test_only_outermost_calls_of_one_row_carry_values(capturing, spans):
    with capturing.inference(np.ones((2, 2))):
        pass
    with capturing.inference({"x0": 1.0, "x1": 2.0}), capturing.inference({"x0": 1.0, "x1": 2.0}):
        pass
    assert captured(spans) == [{}, {}, {"x0": 1.0, "x1": 2.0}]


def test_values_are_bounded_and_what_has_no_form_is_left_out(capturing, spans, sink):
    day = dt.date(2025, 1, 1)
    row = {
        "text": "é" * 1000,
        "big": 2**70,
        "none": None,
        "bytes": b"x",
        "day": day,
        "nan": math.nan,
        "f": np.float32(0.5),
    }
    with capturing.inference(row):
        pass
    (values,) = captured(spans)
    assert math.isnan(values.pop("nan"))
    assert values == {"text": "é" * MAX_LENGTH, "day": "2025-01-01", "f": 0.5}
    assert flushed(capturing, sink).of(ERRORS) == []


def test_the_number_of_values_is_bounded(spans, sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, settings=CAPTURING, tracer_provider=spans.provider)
    with monitor.inference(np.ones((1, 3 * MAX_FEATURES))):
        pass
    assert list(captured(spans)[0]) == [f"x{i}" for i in range(MAX_FEATURES)]


# The past.

RESOLUTION = 60
MOMENT = dt.datetime(2025, 1, 1, 12, 0, 30, tzinfo=dt.timezone.utc)
SECONDS = MOMENT.timestamp()


@pytest.mark.parametrize(
    "time",
    [
        SECONDS,
        int(SECONDS),
        np.float64(SECONDS),
        np.int64(SECONDS),
        np.array(SECONDS),
        MOMENT,
        MOMENT.replace(tzinfo=None),
        MOMENT.astimezone(dt.timezone(dt.timedelta(hours=5))),
        np.datetime64("2025-01-01T12:00:30"),
        np.datetime64("2025-01-01T12:00:30.000000000"),
        pd.Timestamp(MOMENT),
        pd.Timestamp("2025-01-01 12:00:30"),
        [SECONDS] * 2,
        (SECONDS,) * 2,
        np.array([SECONDS] * 2),
        np.array([int(SECONDS)] * 2),
        [MOMENT] * 2,
        [MOMENT.replace(tzinfo=None)] * 2,
        np.array(["2025-01-01T12:00:30"] * 2, dtype="datetime64[s]"),
        pd.Series([pd.Timestamp(MOMENT)] * 2),
        pd.Series([pd.Timestamp("2025-01-01 12:00:30")] * 2),
        pd.DatetimeIndex([MOMENT] * 2),
        pl.Series([MOMENT.replace(tzinfo=None)] * 2),
        pa.array([MOMENT.replace(tzinfo=None)] * 2),
    ],
    ids=lambda time: f"{type(time).__module__}.{type(time).__name__}",
)
def test_a_time_of_any_kind_puts_rows_into_the_minute_they_belong_to(time, monitor, sink):
    monitor.observe({"x": [1.0, 2.0]}, [1.0, 2.0], time=time)
    flushed(monitor, sink)
    for metric in (COUNT, semconv.METRIC_ML_PREDICTION_COUNT, semconv.METRIC_ML_FEATURE_VALUE):
        (point,) = [p.point for p in sink.of(metric)]
        assert point.time_unix_nano == (int(SECONDS) + 30) * BILLION
        # A start of its own for each export, see `Monitor.collect`.
        assert 0 < point.start_time_unix_nano - (int(SECONDS) - 30) * BILLION < BILLION
    assert sink.total(COUNT, name="x") == 2
    assert sink.of(ERRORS) == []


def minute_of(second):
    """(start, end]: the end of a minute belongs to it."""
    return math.ceil(second / RESOLUTION) * RESOLUTION


times = st.one_of(st.integers(60, 1_000), st.floats(60.5, 1_000, allow_nan=False).map(lambda v: round(v, 3)))


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@settings(max_examples=30)
@given(parts=st.lists(st.lists(times, min_size=1, max_size=8), min_size=1, max_size=4), exports=st.booleans())
def test_rows_of_the_past_are_counted_in_their_minutes(make_sink, temporality, parts, exports):
    """In one export or in several; in any order within an export."""
    sink = make_sink()
    monitor = Monitor("m", exporter=sink, temporality=temporality, settings=FAR)
    try:
        if temporality == "cumulative":  # a total has one time, which does not go back
            parts = [sorted(second for part in parts for second in part)]
        for part in parts:
            monitor.observe({"x": np.arange(len(part)) + 1.0}, time=part)
            if exports:
                assert monitor.flush()
        assert monitor.flush()
    finally:
        monitor.close()
    points = [p.point for p in sink.of(semconv.METRIC_ML_FEATURE_VALUE, name="x")]
    minutes = Counter(minute_of(second) for part in parts for second in part)
    if temporality == "delta":
        found = Counter()
        for point in points:
            found[point.time_unix_nano // BILLION] += point.count
        assert found == minutes
        intervals = [(point.start_time_unix_nano, point.time_unix_nano) for point in points]
        assert len(set(intervals)) == len(intervals)  # nobody takes two parts of one minute for one
        assert all(0 <= end - start <= RESOLUTION * BILLION for start, end in intervals)
    else:
        totals = dict(zip(sorted(minutes), itertools.accumulate(n for _, n in sorted(minutes.items())), strict=True))
        assert {point.time_unix_nano // BILLION: point.count for point in points} == totals
        assert len({point.start_time_unix_nano for point in points}) == 1


@pytest.mark.parametrize(
    "make",
    [
        dict,
        pd.DataFrame,
        pl.DataFrame,
        pa.table,
        lambda columns: pd.DataFrame(columns).to_dict("records"),
        lambda columns: list(map(list, zip(*columns.values(), strict=True))),
        lambda columns: np.column_stack(list(columns.values())),
        lambda columns: {name: list(values) for name, values in columns.items()},
    ],
    ids=["dict", "pandas", "polars", "arrow", "records", "lists", "array", "dict of lists"],
)
@pytest.mark.parametrize("answers", [np.array, list, pd.Series, pl.Series, pa.array])
def test_rows_of_a_batch_go_to_the_minutes_of_their_own_times(make, answers, monitor, sink):
    columns = {"x0": np.array([1.0, 2.0, 4.0, 8.0]), "x1": np.array([1.0, 1.0, 1.0, 1.0])}
    monitor.observe(make(columns), answers([1.0, 2.0, 4.0, 8.0]), time=[90, 200, 61, 120])
    flushed(monitor, sink)
    for metric, attributes in (
        (semconv.METRIC_ML_FEATURE_VALUE, {"name": "x0"}),
        (semconv.METRIC_ML_PREDICTION_VALUE, {}),
    ):
        sums = {p.point.time_unix_nano // BILLION: p.point.sum for p in sink.of(metric, **attributes)}
        assert sums == {120: 13.0, 240: 2.0}
    assert sink.of(ERRORS) == []


@pytest.mark.parametrize(
    "time",
    [-5.0, -86_370.0, math.nan, math.inf, 1e30, "soon", np.datetime64("NaT"), pd.NaT, [61.0, math.nan],
     [61.0, -100.0],     np.array(["2025-01-01", "NaT"], dtype="datetime64[s]"), object()],
    ids=lambda time: "object" if type(time) is object else repr(time),
)  # fmt: skip
def test_a_time_that_no_point_can_have_is_counted_and_stops_nothing(time, monitor, sink):
    monitor.observe({"x": [1.0, 2.0]}, time=time)
    monitor.observe({"x": [1.0, 2.0]}, time=61.0)
    flushed(monitor, sink)
    assert sink.total(ERRORS) == 1
    assert {p.point.time_unix_nano for p in sink.of(COUNT)} == {120 * BILLION}
    assert sink.total(COUNT, name="x") == 2


def test_the_grid_of_the_past_can_be_chosen(sink, make_monitor):
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=FAR, resolution=3600)
    monitor.observe({"x": 1.0}, time=3601.0)
    monitor.observe({"x": 1.0}, time=7200.0)
    monitor.observe({"x": 1.0}, time=7200.5)
    flushed(monitor, sink)
    assert {p.point.time_unix_nano // (3600 * BILLION): p.point.value for p in sink.of(COUNT)} == {2: 2, 3: 1}


def test_ages_of_the_past_are_taken_at_the_end_of_their_window(sink, make_monitor):
    start = np.datetime64("2024-01-01")
    train = {"t": start + np.arange(100).astype("timedelta64[h]")}
    monitor = make_monitor(Profile.build(train, model="m"), exporter=sink, temporality="delta", settings=FAR)
    day = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    monitor.observe({"t": day}, time=day + dt.timedelta(seconds=90))
    flushed(monitor, sink)
    (age,) = [p.point for p in sink.of(semconv.METRIC_ML_FEATURE_VALUE, name="t.age")]
    assert (age.min, age.max) == (120.0, 120.0)


def test_the_past_and_the_present_are_counted_apart(monitor, sink):
    monitor.observe({"x": 1.0}, time=90.0)
    monitor.observe({"x": 2.0})
    monitor.observe({"x": 4.0}, time=90.0)
    flushed(monitor, sink)
    past, present = sorted(
        (p.point for p in sink.of(semconv.METRIC_ML_FEATURE_VALUE)), key=lambda point: point.time_unix_nano
    )
    assert (past.time_unix_nano, past.sum, present.sum) == (120 * BILLION, 5.0, 2.0)


def test_a_version_that_is_no_text_is_told_at_once():
    with pytest.raises(TypeError, match="the version must be text, got 1"):
        Monitor("credit", version=1)
