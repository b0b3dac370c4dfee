"""Replicas all at once: what each alone has counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.windows import VariableKey

from otel_mlmon import Profile, semconv

C = VariableKey("feature", "c")
OF_C = {semconv.ML_FEATURE_NAME: "c"}
small = st.integers(0, 5)


def exponential(sender, counts, start, end):
    metric = sender.histogram([0], start, end, edges=[])
    (held,) = metric.histogram.data_points
    made = Metric(name=metric.name)
    made.exponential_histogram.aggregation_temporality = metric.histogram.aggregation_temporality
    point = made.exponential_histogram.data_points.add(
        start_time_unix_nano=held.start_time_unix_nano, time_unix_nano=held.time_unix_nano, scale=1, sum=sum(counts)
    )
    point.attributes.extend(held.attributes)
    point.positive.bucket_counts.extend(counts)
    point.count = sum(counts)
    return made


def metrics(sender, kind, counts, minute):
    """One of what a replica may send in a minute."""
    when = minute, minute + 1
    if kind == "label":
        label = {**OF_C, semconv.ML_FEATURE_CATEGORY: f"label {counts[0]}"}
        return sender.count(counts[1], *when, name=semconv.METRIC_ML_FEATURE_CATEGORY.name, labels=label)
    if kind == "invalid":
        reason = {semconv.ML_FEATURE_INVALID_REASON: "nan" if counts[0] else "missing"}
        return sender.count(counts[1], *when, name=semconv.METRIC_ML_FEATURE_INVALID.name, labels=reason)
    if kind == "exponential":
        return exponential(sender, counts, *when)
    edges = [0.0, 1.0, 2.0] if kind == "some" else [0.5, 1.0, 2.5]
    return sender.histogram(counts, *when, edges=edges, total=None if counts[0] == 5 else float(counts[0]))


KINDS = ("some", "other", "exponential")
sent = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["some", "some", "other", "exponential", "label", "invalid"]),
        st.lists(small, min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=15,
)


@given(sent=sent)
def test_each_replica_has_what_it_has_alone(otlp, sent):
    senders = {name: otlp.Sender(name, name) for name in "abcz"}
    names = sorted({name for name, _, _ in sent} | {"z"})
    whole, alone = Fold(), {name: Fold() for name in names}
    # Which bounds are the newest is a matter of the whole model.
    nothing = [metrics(senders["z"], *each) for each in zip(KINDS, [[0] * 4] * 3, range(3), strict=True)]
    for fold in (whole, *alone.values()):
        fold.apply(otlp.at(0), decode_metrics(senders["z"].request(*nothing)))
    for minute, (name, kind, counts) in enumerate(sent):
        batch = senders[name].request(metrics(senders[name], kind, counts, minute))
        for fold in (whole, alone[name]):
            fold.apply(otlp.at(len(sent)), decode_metrics(batch))
    (view,) = whole.views()
    by_name = {name: fold.views()[0] for name, fold in alone.items()}
    assert len(view.replicas) == len(names)
    for key in (otlp.X, C):
        groups = view.replicas.of(key)
        assert sorted(name for group in groups for name in group.names) == names
        for group in groups:
            for row, name in enumerate(group.names):
                held = by_name[name].totals.get(key)
                assert group.invalid[row] == (sum(held.invalid.values()) if held else 0)
                labels = {label: int(n[row]) for label, n in (group.categories or {}).items() if n[row]}
                assert labels == (dict(held.categories or {}) if held else {})
                if held is None or held.cells is None or not held.cells.sum():
                    assert group.cells is None or not group.cells[row].sum()
                    continue
                assert group.exponential == held.exponential
                assert np.array_equal(group.edges, held.edges)
                assert np.array_equal(group.cells[row], held.cells)
                assert group.sums[row] == pytest.approx(np.nan if held.sum is None else held.sum, nan_ok=True)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_same_replicas_are_named_whether_they_come_at_once_or_one_by_one(otlp, views, labelled):
    rng = np.random.default_rng(5)
    rows = {"x": rng.normal(size=20_000), "c": rng.choice(["Rome", "Oslo"], 20_000)}
    profile = Profile.build(rows, model="m", version="1")
    fold, parts = Fold(), {}
    for number in range(8):
        name = f"r{number}"
        part = {"x": rng.normal(2.0 * (number == 3), 1, 500), "c": rng.choice(["Rome", "Oslo"], 500, p=[0.4, 0.6])}
        if number == 5:
            part = {"x": np.where(np.arange(500) < 100, np.nan, part["x"]), "c": np.full(500, "Oslo")}
        parts[name] = part
        held = views.variables(profile, part)
        sender, sent = otlp.Sender(name, name), []
        for label, count in held[C].categories.items():
            labels = {**OF_C, semconv.ML_FEATURE_CATEGORY: label}
            sent.append(sender.count(count, 0, 1, name=semconv.METRIC_ML_FEATURE_CATEGORY.name, labels=labels))
        x = held[otlp.X]
        sent.append(sender.histogram(x.cells.tolist(), 0, 1, edges=x.edges, total=x.sum))
        for reason, count in x.invalid.items():
            labels = {semconv.ML_FEATURE_INVALID_REASON: reason}
            sent.append(sender.count(count, 0, 1, name=semconv.METRIC_ML_FEATURE_INVALID.name, labels=labels))
        fold.apply(otlp.at(1), decode_metrics(sender.request(*sent)))
    (view,) = fold.views()
    merged = {name: np.concatenate([part[name] for part in parts.values()]) for name in rows}
    key = C if labelled else otlp.X
    at_once, one_by_one = (
        evaluate_model(each, profile, tolerance=0.005).variables[key].replicas
        for each in (view, views.view(profile, merged, replicas=parts))
    )
    assert len(at_once) == 3
    assert [each.replica for each in at_once][: 1 if labelled else 2] == ["r5", "r3"][: 1 if labelled else 2]
    for one, other in zip(at_once, one_by_one, strict=True):
        assert (one.replica, one.lower, one.text) == (other.replica, pytest.approx(other.lower), other.text)


@pytest.mark.parametrize(("standbys", "named"), [(0, ["a", "r"]), (2, ["a", "r"])])
def test_replicas_that_counted_nothing_are_not_compared(otlp, views, standbys, named):
    rng = np.random.default_rng(7)
    profile = Profile.build({"x": rng.normal(size=20_000)}, model="m", version="1")

    def fold_of(rows):
        fold = Fold()
        for name, values in rows.items():
            x = views.variables(profile, {"x": values})[otlp.X]
            sender = otlp.Sender(name, name)
            sent = [sender.histogram(x.cells.tolist(), 0, 1, edges=x.edges, total=x.sum)]
            sent.append(sender.count(len(values), 0, 1))
            fold.apply(otlp.at(1), decode_metrics(sender.request(*sent)))
        (view,) = fold.views()
        return evaluate_model(view, profile, tolerance=0.005).variables[otlp.X].replicas

    idle = {f"s{number}": np.zeros(0) for number in range(standbys)}
    found = fold_of({"a": rng.normal(2, 1, 1_000), "r": rng.normal(size=1_000), **idle})
    assert [each.replica for each in found] == named
    assert fold_of({"a": rng.normal(2, 1, 1_000), **idle}) == ()
