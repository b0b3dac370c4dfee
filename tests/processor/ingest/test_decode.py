"""Decoding: what OTLP allows is read, what cannot be counted is refused by reason and costs nothing else."""

from __future__ import annotations

import contextlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.decode import MalformedError, decode_logs, decode_metrics, decode_traces
from otel_mlmon_processor.forms import Forms
from otel_mlmon_processor.point_values import DecodeLimits, TooManyPointsError
from otel_mlmon_processor.points import CUMULATIVE, DELTA

from otel_mlmon import semconv

HISTOGRAM = semconv.METRIC_ML_FEATURE_VALUE.name
COUNTER = semconv.METRIC_ML_FEATURE_COUNT.name


def decode_one(otlp, change, base="histogram", sender=None):
    """The batch of a good point and one that `change` has changed."""
    sender = sender or otlp.Sender()
    good = sender.count(1, 0, 1)
    if base == "histogram":
        metric = sender.histogram([1, 2, 3, 4], 0, 1, total=1.0)
        point = metric.histogram.data_points[0]
    else:
        metric = sender.count(3, 0, 1)
        point = metric.sum.data_points[0]
    change(metric, point)
    batch = decode_metrics(sender.request(good, metric))
    assert batch.items == 2
    assert batch.groups[0].points[0].value.counts == 1
    return batch


def put(target, name, value):
    if isinstance(value, list):
        getattr(target, name)[:] = value
    else:
        setattr(target, name, value)


@pytest.mark.parametrize(
    ("reason", "field", "value"),
    [
        ("counts", "count", 11),
        ("counts", "count", 0),
        ("cells", "bucket_counts", [1, 2, 3]),
        ("cells", "bucket_counts", []),
        ("cells", "explicit_bounds", [0.0, 1.0]),
        ("bounds", "explicit_bounds", [0.0, 2.0, 1.0]),
        ("bounds", "explicit_bounds", [0.0, 1.0, 1.0]),
        ("bounds", "explicit_bounds", [0.0, 1.0, math.inf]),
        ("bounds", "explicit_bounds", [-math.inf, 0.0, 1.0]),
        ("bounds", "explicit_bounds", [0.0, math.nan, 1.0]),
        ("too_large", "count", 2**64 - 1),
        ("counts", "bucket_counts", [2**63 + 10, 2**63, 0, 0]),  # adds up to 10 if it wraps
        ("counts", "bucket_counts", [2**64 - 1, 11, 0, 0]),
        ("sum", "sum", math.nan),
        ("sum", "sum", -math.inf),
        ("time", "time_unix_nano", 0),
        ("time", "time_unix_nano", 2**64 - 1),
        ("time", "start_time_unix_nano", 2**64 - 1),
    ],
)
def test_a_histogram_that_makes_no_sense_is_refused(otlp, reason, field, value):
    batch = decode_one(otlp, lambda _, point: put(point, field, value))
    assert batch.refused == {reason: 1}


@pytest.mark.parametrize(
    ("reason", "value"), [("negative", -1), ("not_an_integer", 1.5), ("not_an_integer", math.nan), ("too_large", 2**60)]
)
def test_a_count_that_is_none_is_refused(otlp, reason, value):
    def change(_, point):
        if isinstance(value, float):
            point.as_double = value
        else:
            point.as_int = value

    assert decode_one(otlp, change, "counter").refused == {reason: 1}


def test_a_whole_number_sent_as_a_float_is_read(otlp):
    batch = decode_one(otlp, lambda _, point: put(point, "as_double", 5.0), "counter")
    assert batch.groups[0].points[1].value.counts == 5


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("instrument", lambda metric, _: metric.gauge.data_points.add(time_unix_nano=1)),
        ("instrument", lambda metric, _: put(metric, "name", COUNTER)),
        ("temporality", lambda metric, _: put(metric.histogram, "aggregation_temporality", 0)),
        ("temporality", lambda metric, _: put(metric.histogram, "aggregation_temporality", 7)),
        ("attributes", lambda _, point: point.attributes.add(key="k").value.array_value.values.add(int_value=1)),
        ("attributes", lambda _, point: [point.attributes.add(key=f"k{i}") for i in range(40)]),
        ("attribute_size", lambda _, point: put(point.attributes.add(key="k").value, "string_value", "x" * 2000)),
        ("too_many_cells", lambda _, point: put(point, "bucket_counts", [0] * 5000)),
    ],
)
def test_what_is_not_of_the_registry_or_too_large_is_refused(otlp, reason, change):
    assert decode_one(otlp, change).refused == {reason: 1}


def test_a_counter_that_may_fall_is_refused(otlp):
    batch = decode_one(otlp, lambda metric, _: put(metric.sum, "is_monotonic", False), "counter")
    assert batch.refused == {"instrument": 1}


def test_points_that_only_end_a_stream_are_ignored(otlp):
    assert decode_one(otlp, lambda _, point: put(point, "flags", 1)).ignored == {"no_recorded_value": 1}


def test_other_metrics_are_counted_and_not_read(otlp):
    sender = otlp.Sender()
    body = sender.request(sender.count(1, 0, 1, name="http.server.request.count"), Metric(name="empty"))
    batch = decode_metrics(body)
    assert (batch.groups, batch.items, batch.ignored) == ((), 1, {"not_ml": 1})


def test_what_is_read_is_what_was_sent(otlp):
    sender = otlp.Sender("pod-1", "abc", "shop", "retail", "prod", {"k8s.node.name": "n1"})
    histogram = sender.histogram([1, 0, 2, 0], 3, 4, total=2.5, labels={semconv.ML_FEATURE_NAME: "price"})
    counter = sender.count(7, 0, 4, temporality=CUMULATIVE, labels={semconv.ML_FEATURE_NAME: "price"})
    (group,) = decode_metrics(sender.request(histogram, counter)).groups
    assert group.producer == ("retail", "shop", "pod-1", "prod", "abc")
    first, second = group.points
    assert (first.metric, first.temporality, first.start, first.end) == (HISTOGRAM, DELTA, otlp.at(3), otlp.at(4))
    assert dict(first.attributes)[semconv.ML_FEATURE_NAME] == "price"
    assert list(first.attributes) == sorted(first.attributes)
    assert np.frombuffer(first.value.bounds).tolist() == [0.0, 1.0, 2.0]
    assert first.value.cells.tolist() == [1, 0, 2, 0]
    assert first.value.sum == 2.5
    assert (second.temporality, second.value.counts) == (CUMULATIVE, 7)


def test_a_sum_that_was_not_sent_is_unknown(otlp):
    sender = otlp.Sender()
    (group,) = decode_metrics(sender.request(sender.histogram([1, 0, 0, 0], 0, 1))).groups
    assert group.points[0].value.sum is None


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("counts", {"count": 4}),
        ("scale", {"scale": 21}),
        ("scale", {"scale": -11}),
        ("bounds", {"zero_threshold": math.inf}),
        ("bounds", {"zero_threshold": -1.0}),
        ("sum", {"sum": math.nan}),
        ("bounds", {"offset": 2**31 - 1}),
        ("too_many_cells", {"cells": 10_000}),
    ],
)
def test_an_exponential_histogram_that_makes_no_sense_is_refused(otlp, reason, changes):
    sender = otlp.Sender()
    metric = Metric(name=HISTOGRAM)
    metric.exponential_histogram.aggregation_temporality = DELTA
    point = metric.exponential_histogram.data_points.add(time_unix_nano=otlp.at(1), count=3, zero_count=1)
    point.positive.bucket_counts.extend([1, 1])
    sender.label(point, HISTOGRAM, {})
    assert decode_metrics(sender.request(metric)).refused == {}
    for field, value in changes.items():
        if field == "offset":
            point.positive.offset = value
        elif field == "cells":
            point.positive.bucket_counts.extend([0] * value)
        else:
            setattr(point, field, value)
    assert decode_metrics(sender.request(metric)).refused == {reason: 1}


def field(number, body):
    """A field of bytes as protobuf writes it: tag, length, body."""
    length, sizes = len(body), bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *sizes, length]) + body


def fixed(number, kind, values):
    """Numbers of eight bytes, each with a tag of its own: the spelling that is not packed."""
    return b"".join(bytes([number << 3 | 1]) + struct.pack(kind, value) for value in values)


@pytest.mark.parametrize("split", [False, True])
def test_numbers_that_are_not_packed_or_packed_in_parts_are_read_the_same(otlp, split):
    sender = otlp.Sender()
    metric = sender.histogram([1, 2, 3, 4], 0, 1, total=2.5)
    usual = sender.request(metric)
    point = metric.histogram.data_points[0]
    spelled = fixed(2, "<Q", [point.start_time_unix_nano]) + fixed(3, "<Q", [point.time_unix_nano])
    spelled += fixed(4, "<Q", [point.count]) + fixed(5, "<d", [point.sum])
    if split:
        spelled += field(6, struct.pack("<QQ", 1, 2)) + field(6, struct.pack("<QQ", 3, 4))
        spelled += field(7, struct.pack("<dd", 0.0, 1.0)) + field(7, struct.pack("<d", 2.0))
    else:
        spelled += fixed(6, "<Q", point.bucket_counts) + fixed(7, "<d", point.explicit_bounds)
    spelled += b"".join(field(9, pair.SerializeToString()) for pair in point.attributes)
    held = ExportMetricsServiceRequest.FromString(usual).resource_metrics[0]
    histogram = field(1, spelled) + bytes([2 << 3, DELTA])
    scope = field(1, held.scope_metrics[0].scope.SerializeToString())
    scope += field(2, field(1, HISTOGRAM.encode()) + field(9, histogram))
    body = field(1, field(1, held.resource.SerializeToString()) + field(2, scope))
    assert body != usual
    assert decode_metrics(body) == decode_metrics(usual)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 2**40), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_each_of_many_histograms_is_read_as_it_is(otlp, lists, data):
    sender = otlp.Sender()
    metrics = [sender.histogram(counts, 0, 1, edges=range(len(counts) - 1)) for counts in lists]
    request = Metric()
    request.CopyFrom(metrics[0])
    for metric in metrics[1:]:
        request.histogram.data_points.append(metric.histogram.data_points[0])
    broken = data.draw(st.sets(st.integers(0, len(lists) - 1)))
    for place in broken:
        request.histogram.data_points[place].count += 1
    batch = decode_metrics(sender.request(request))
    assert batch.refused.get("counts", 0) == len(broken)
    read = [point.value.cells.tolist() for group in batch.groups for point in group.points]
    assert read == [counts for place, counts in enumerate(lists) if place not in broken]


def test_what_is_no_request_is_malformed():
    for decode, name in ((decode_metrics, "Metrics"), (decode_logs, "Logs"), (decode_traces, "Trace")):
        with pytest.raises(MalformedError, match=f"not an opentelemetry.proto.*Export{name}ServiceRequest"):
            decode(b"\xff\xff\xff")


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_called_malformed(body):
    for decode in (decode_metrics, decode_logs, decode_traces):
        with contextlib.suppress(MalformedError):
            decode(body)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_request_is_read_or_called_malformed(otlp, data):
    sender = otlp.Sender()
    body = bytearray(sender.request(sender.histogram([1, 2, 3, 4], 0, 1, total=3.0), sender.count(5, 0, 1)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        batch = decode_metrics(bytes(body))
    except MalformedError:
        return
    for group in batch.groups:
        for point in group.points:
            assert point.end > 0
            assert point.metric in {HISTOGRAM, COUNTER}


def test_profile_parts_are_read_and_bad_ones_refused(otlp):
    sender = otlp.Sender()
    (group,) = decode_logs(sender.profile("h", {1: b"one", 2: b"two"}, 2)).groups
    assert [(p.model, p.version, p.hash, p.part, p.parts, p.body) for p in group.parts] == [
        ("m", "1", "h", 1, 2, b"one"),
        ("m", "1", "h", 2, 2, b"two"),
    ]
    for bodies, parts in (({0: b"x"}, 1), ({3: b"x"}, 2), ({1: b""}, 1), ({1: b"x"}, 1000), ({1: b"x" * 3_000_000}, 1)):
        assert decode_logs(sender.profile("h", bodies, parts)).refused == {"profile_part": 1}
    other = ExportLogsServiceRequest()
    other.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    assert decode_logs(other.SerializeToString()).ignored == {"not_ml": 1}


def test_spans_are_counted():
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="GET /")
    batch = decode_traces(request.SerializeToString())
    assert (batch.items, batch.ignored) == (1, {"not_ml": 1})


def test_a_sender_whose_name_is_no_text_is_refused(otlp):
    request = ExportMetricsServiceRequest.FromString(otlp.Sender().request(otlp.Sender().count(1, 0, 1)))
    request.resource_metrics[0].resource.attributes[0].value.array_value.values.add(int_value=1)
    batch = decode_metrics(request.SerializeToString())
    assert (batch.groups, batch.refused) == ((), {"identity": 1})


def test_limits_can_be_set(otlp):
    sender = otlp.Sender()
    body = sender.request(sender.histogram([1, 2, 3, 4], 0, 1))
    assert decode_metrics(body, DecodeLimits(cells=3)).refused == {"too_many_cells": 1}


@pytest.mark.parametrize("known", [False, True], ids=["new", "come again"])
@pytest.mark.parametrize("parts", [1, 3], ids=["one process", "three processes"])
def test_points_of_a_request_are_limited_those_of_others_do_not_count(otlp, known, parts):
    def make(points: int) -> bytes:
        sender = otlp.Sender()
        metrics = [sender.count(1, 0, 1, labels={"ml.feature.name": str(i)}) for i in range(points)]
        others = [sender.count(1, 0, 1, name=name) for name in ("http.server.requests", "ml.feature.drift") * 10]
        return sender.request(*metrics, *others)

    forms, limits = Forms() if known else None, DecodeLimits(points=3)
    for _ in range(3 * known):
        decode_metrics(make(3 // parts), limits, forms)
    assert decode_metrics(make(3 // parts) * parts, limits, forms).items == 3 + 20 * parts
    with pytest.raises(TooManyPointsError, match="a request may hold 3 points"):
        decode_metrics(make(3 // parts) * parts + make(1), limits, forms)
