"""What comes again alike is read by its form: the points, refusals and counts are those of reading in full."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor import forms as forms_module
from otel_mlmon_processor.decode import MalformedError, decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.forms import Forms

from otel_mlmon import Monitor, Profile, semconv

CUMULATIVE = 2
EXTREME = [0, 1, 2**48, 2**48 + 1, 2**63 - 1, 2**63, 2**64 - 1, 0x7FF8 << 48, 0x7FF0 << 48]  # also NaN and infinity


class Keep(MetricExporter):
    """Keeps what it is given, as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def export(self, metrics_data, *_, **__) -> MetricExportResult:
        self.bodies.append(encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS

    def force_flush(self, *_, **__) -> bool:
        return True

    def shutdown(self, *_, **__) -> None:
        pass


def expand(batch):
    """All that a batch says, blocks as the points that they stand for."""
    groups = [
        (group.producer, group.points if group.block is None else group.block.points(), group.parts)
        for group in batch.groups
    ]
    return groups, batch.items, dict(batch.refused), dict(batch.ignored)


def read(body, forms=None):
    try:
        return expand(decode_metrics(body, forms=forms))
    except MalformedError:
        return "malformed"


def count_blocks(batch) -> int:
    return sum(group.block is not None for group in batch.groups)


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_what_a_monitor_exports_is_read_by_its_form_from_the_third_time_on(temporality):
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(6)]
    rows = {name: rng.normal(size=2_000) for name in names} | {"c": rng.choice(["gas", "oil"], 2_000)}
    profile = Profile.build(rows, model="m", version="1", predictions=rng.random(2_000))
    keep = Keep()
    monitor = Monitor(profile, exporter=keep, resource=Resource({"service.name": "s"}), temporality=temporality)
    forms, one, other = Forms(), Fold(), Fold()
    blocks = []
    for minute in range(6):
        batch = {name: rng.normal(size=500) for name in names} | {"c": rng.choice(["gas", "oil"], 500)}
        with monitor.inference(batch) as call:
            call.record(rng.random(500))
        assert monitor.flush()
        for body in keep.bodies:
            assert read(body, forms) == read(body)
            decoded = decode_metrics(body, forms=forms)
            blocks.append(count_blocks(decoded))
            assert one.apply(minute, decoded) == other.apply(minute, decode_metrics(body))
        keep.bodies.clear()
    monitor.close()
    assert all(blocks[2:])
    assert one.dump() == other.dump()


@st.composite
def requests(draw, otlp):
    """Requests of two replicas, of the same series each time or of some; sent twice, out of order, after resets."""
    senders = [otlp.Sender("a", "i"), otlp.Sender("b", "j")]
    totals = {}
    bodies = []
    for _ in range(draw(st.integers(4, 14))):
        number, mode = draw(st.integers(0, 1)), draw(st.sampled_from([otlp.DELTA, otlp.CUMULATIVE]))
        sender, minute = senders[number], draw(st.integers(0, 8))
        if draw(st.integers(0, 9)) == 0:
            totals.clear()  # counters begin anew, without saying so
        start = minute if mode == otlp.DELTA else draw(st.sampled_from([0, 0, 0, 1]))
        metrics = []
        for name in ("x", "y"):
            cells = np.array(draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
            if mode == otlp.CUMULATIVE:
                cells = totals[number, name] = totals.get((number, name), 0) + cells
            labels = {semconv.ML_FEATURE_NAME: name}
            edges = draw(st.sampled_from([otlp.EDGES] * 7 + [(0.0, 1.0, 3.0)]))
            more = {"temporality": mode, "labels": labels}
            total = draw(st.sampled_from([float(cells.sum()), 0.1 * float(cells.sum())]))
            metrics.append(sender.histogram(cells.tolist(), start, minute + 1, edges=edges, total=total, **more))
            metrics.append(sender.count(int(cells.sum()), start, minute + 1, **more))
        if draw(st.integers(0, 4)) == 0:
            metrics.append(sender.count(1, start, minute + 1, name="app.other", temporality=mode))
        bodies.append(sender.request(*metrics))
        if draw(st.integers(0, 3)) == 0:
            bodies.append(draw(st.sampled_from(bodies)))
        if draw(st.integers(0, 5)) == 0:
            bodies.append(bodies[-1] + bodies[0])  # as a collector puts requests together
    return bodies


def test_folded_they_give_the_same_state_to_the_bit(otlp):
    blocks = []

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def check(data):
        forms, one, other = Forms(), Fold(), Fold()
        for number, body in enumerate(data.draw(requests(otlp))):
            decoded, full = decode_metrics(body, forms=forms), decode_metrics(body)
            assert expand(decoded) == expand(full)
            at = otlp.at(9 + number / 60)
            assert one.apply(at, decoded) == other.apply(at, full)
            blocks.append(count_blocks(decoded))
        assert one.dump() == other.dump()

    check()
    assert sum(blocks) > 100


def make_known(otlp):
    """Forms, and a request of a known one: two histograms, a counter, an up-down counter, a gauge, a foreign metric."""
    sender = otlp.Sender()
    forms = Forms()
    for minute in range(3):
        gauge = ExportMetricsServiceRequest().resource_metrics.add().scope_metrics.add().metrics.add(name="app.load")
        gauge.gauge.data_points.add(time_unix_nano=otlp.at(minute), as_double=0.5 + minute)
        calls = sender.count(
            3, 0, minute + 1, name="ml.inference.active_calls", temporality=CUMULATIVE, monotonic=False
        )
        body = sender.request(
            sender.histogram([1, 2, 3, minute], minute, minute + 1, total=1.5),
            sender.histogram([minute, 0, 2, 3], minute, minute + 1, total=2.5, labels={semconv.ML_FEATURE_NAME: "y"}),
            sender.count(6 + minute, minute, minute + 1),
            calls,
            gauge,
        )
        decoded = decode_metrics(body, forms=forms)
    assert count_blocks(decoded) == 1
    assert decoded.ignored == {"not_ml": 1}
    return forms, body


@pytest.fixture(scope="module")
def known(otlp):
    return make_known(otlp)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_the_bytes_it_is_read_as_in_full(known, data):
    forms, body = known
    changed = bytearray(body)
    words = st.sampled_from(EXTREME)
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        else:
            at = data.draw(st.integers(0, len(body) - 8))
            changed[at : at + 8] = struct.pack("<Q", data.draw(words))
    if data.draw(st.integers(0, 3)) == 0:
        cut = data.draw(st.integers(0, len(body)))
        changed = changed[:cut] + changed[cut + data.draw(st.integers(1, 9)) :]
    assert read(bytes(changed), forms) == read(bytes(changed))


@pytest.mark.parametrize("value", EXTREME)
def test_each_number_is_checked_as_in_full(otlp, value):
    forms, body = make_known(otlp)
    ((size, (shape,)),) = forms._shapes.items()
    offset = len(body) - size
    for place in [*shape.places.tolist(), *range(*shape.cells[1], 8)]:
        at = offset + place
        changed = body[:at] + struct.pack("<Q", value) + body[at + 8 :]
        assert read(changed, forms) == read(changed), place


def test_forms_that_are_in_use_do_not_make_way_for_what_comes_once(otlp, monkeypatch):
    monkeypatch.setattr(forms_module, "_MOST_BYTES", 4_000)
    forms = Forms()

    def send(name, minute):
        sender = otlp.Sender(model={semconv.ML_MODEL_NAME: name, semconv.ML_MODEL_VERSION: "1"})
        return count_blocks(decode_metrics(sender.request(sender.count(5, minute, minute + 1)), forms=forms))

    for minute in range(4):
        send("kept", minute)
    for number in range(300):
        for _ in range(3):
            send("m" * (number % 90 + 1), number)
        assert send("kept", number)
    assert forms._bytes <= 4_000
    for minute in range(2_000):
        send("busy", minute)
    assert send("busy", 0)


def test_a_number_that_cannot_be_used_each_time_does_not_make_forms(otlp):
    """As of calls under way, which are below zero where a process counts them wrongly."""
    sender, forms = otlp.Sender(), Forms()
    name = semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name
    for minute in range(30):
        level = -1 if minute > 5 else 1
        body = sender.request(
            sender.count(level, 0, minute + 1, name=name, temporality=CUMULATIVE, monotonic=False),
            sender.count(5, minute, minute + 1),
        )
        assert read(body, forms) == read(body)
    assert forms._held == 1


def test_many_shapes_of_one_length_are_not_all_tried(otlp):
    """Of messages that somebody makes so that each has its numbers elsewhere."""
    forms = Forms()
    for name in range(40):
        names = "m" * (name + 1), "v" * (40 - name)
        sender = otlp.Sender(model=dict(zip((semconv.ML_MODEL_NAME, "x"), names, strict=True)))
        for minute in range(3):
            body = sender.request(
                otlp.Sender(model={semconv.ML_MODEL_NAME: names[0]}).count(5, minute, minute + 1),
                otlp.Sender(model={semconv.ML_MODEL_NAME: names[1]}).count(5, minute, minute + 1),
                sender.count(5, minute, minute + 1),
            )
            assert read(body, forms) == read(body)
    assert max(map(len, forms._shapes.values())) == forms_module._MOST_SHAPES
