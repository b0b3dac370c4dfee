"""Names without end: each attack meets a cap, is counted by reason, costs no more memory, and harms nobody else."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import Caps, FoldSettings

from otel_mlmon import semconv

CAPS = Caps(
    models=30, producers=30, streams=300, variables=30, categories=30, bounds=3, generations=3, operations=30,
    places=500, spare=40_000,
)  # fmt: skip
ATTACKS = {
    "models": "too_many_models",
    "versions": "too_many_models",
    "features": "too_many_features",
    "categories": "too_many_categories",
    "bounds": "too_many_bounds",
    "profile hashes": "too_many_profiles",
    "attributes": "too_many_streams",
    "operations": "too_many_operations",
    "start times": "too_many_streams",
    "instances": "too_many_producers",
    "incarnations": "too_many_producers",
    "services": "too_many_producers",
}


def make_request(otlp, attack: str, number: int) -> bytes:
    """One that brings one new name."""
    sender, name = otlp.Sender(), f"{number:06}" + "x" * 200
    label = {
        "models": semconv.ML_MODEL_NAME,
        "versions": semconv.ML_MODEL_VERSION,
        "features": semconv.ML_FEATURE_NAME,
        "profile hashes": semconv.ML_REFERENCE_HASH,
        "attributes": "k",
    }.get(attack)
    if label is not None:
        return sender.request(sender.count(1, 0, 1, labels={label: name}))
    if attack == "categories":
        metric = semconv.METRIC_ML_FEATURE_CATEGORY.name
        return sender.request(sender.count(1, 0, 1, name=metric, labels={semconv.ML_FEATURE_CATEGORY: name}))
    if attack == "bounds":
        return sender.request(sender.histogram([1, 0], 0, 1, edges=[float(number)], labels={"k": name}))
    if attack == "operations":
        metric = semconv.METRIC_ML_INFERENCE_DURATION.name
        return sender.request(sender.histogram([1, 0], 0, 1, edges=[0.5], name=metric, labels={"error.type": name}))
    if attack == "start times":
        return sender.request(sender.count(1, number / 1e6, 1, temporality=otlp.CUMULATIVE))
    if attack == "instances":
        sender = otlp.Sender(instance=name)
    elif attack == "incarnations":
        sender = otlp.Sender(incarnation=name)
    else:
        sender = otlp.Sender(service=name)
    return sender.request(sender.count(1, 0, 1))


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_without_end_are_refused_by_reason_and_take_no_memory(otlp, attack):
    fold, victim, at = Fold(FoldSettings(caps=CAPS)), otlp.Sender("victim", "v", service="victim"), 0

    def send(body: bytes):
        nonlocal at
        at += 10**6
        return fold.apply(otlp.at(1) + at, decode_metrics(body))

    send(victim.request(victim.count(7, 0, 1)))
    seen = 0
    for number in range(600):
        seen += send(make_request(otlp, attack, number)).total()
    tracemalloc.start()
    try:
        held = []
        for start in (600, 1_000):
            for number in range(start, start + 400):
                send(make_request(otlp, attack, number))
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    counters = fold.counters()
    assert set(counters.dropped) == {ATTACKS[attack]}
    assert seen >= 299
    assert held[1] - held[0] < 1_000_000  # as much as the caches of what is read may grow by 400 names
    assert counters.streams <= CAPS.streams
    assert counters.producers <= CAPS.producers
    assert send(victim.request(victim.count(5, 1, 2))) == {}  # the oldest and quietest goes on
    (view,) = [view for view in fold.views() if view.key.service == "victim"]
    assert view.totals[otlp.X].seen == 12


def test_replicas_beyond_the_memory_for_them_are_counted_and_not_told_apart(otlp):
    fold = Fold(FoldSettings(caps=Caps(spare=32)))
    for number in range(10):
        sender = otlp.Sender(f"r{number}", f"i{number}")
        assert not fold.apply(otlp.at(1), decode_metrics(sender.request(sender.count(1, 0, 1))))
    (view,) = fold.views()
    assert view.totals[otlp.X].seen == view.window[otlp.X].seen == 10
    assert view.active_replicas == 10
    (counts,) = view.replicas.of(otlp.X)
    assert counts.names == ["r0", "r1", "r2", "r3"]
