"""Memory is bounded whatever arrives: what is new is refused where there is none left, and what is there goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import Caps, FoldSettings
from otel_mlmon_processor.reckoning import size_of_places

from otel_mlmon import semconv

MEGABYTE = 10**6
CAPS = Caps(memory=20 * MEGABYTE, spare=MEGABYTE)
WIDE = [float(edge) for edge in range(1_000)]
VICTIM = 3.0  # its only value


class Floods:
    """Requests of one hostile process, each with something new."""

    def __init__(self, otlp) -> None:
        self._otlp, self._sender = otlp, otlp.Sender("bad", "bad")

    def make(self, kind: str, number: int) -> bytes:
        sender, cumulative = self._sender, {"temporality": self._otlp.CUMULATIVE}
        name = {semconv.ML_FEATURE_NAME: f"x{number}"}
        when = number / 1e3, (number + 1) / 1e3
        if kind == "wide histograms":
            return sender.request(sender.histogram([1] * 1_001, *when, edges=WIDE, labels=name))
        if kind == "wide histograms of a model's operation":
            labels, metric = {"error.type": f"e{number}"}, semconv.METRIC_ML_INFERENCE_DURATION.name
            return sender.request(sender.histogram([1] * 4_000, *when, edges=[*map(float, range(3_999))], name=metric,
                                                   labels=labels))  # fmt: skip
        if kind == "long attributes":
            labels = {f"k{i}": f"{number}" + "x" * 1_000 for i in range(25)}
            return sender.request(sender.count(1, *when, labels=labels))
        if kind == "lives of a wide histogram":
            return sender.request(sender.histogram([1] * 1_001, *when, edges=WIDE, **cumulative))
        # Series that begin small, and grow when all are there.
        edges = WIDE if number >= 5_000 else [0.0]
        labels = {"k": str(number % 5_000)}
        return sender.request(
            sender.histogram([1] * (len(edges) + 1), 0, number / 1e3 + 1, edges=edges, labels=labels, **cumulative)
        )


KINDS = {
    "wide histograms": 20,
    "wide histograms of a model's operation": 700,
    "long attributes": 1_000,
    "lives of a wide histogram": 3_000,
    "histograms that become wide": 8_000,
}


def make_fold(**caps) -> Fold:
    return Fold(FoldSettings(caps=replace(CAPS, operations=10_000, **caps)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_takes_memory_is_refused_where_there_is_none_left(otlp, kind):
    fold, victim, floods = make_fold(), otlp.Sender("v", "v", service="victim"), Floods(otlp)
    state, refused, at = fold._state, 0, 0

    def send(body):
        nonlocal at
        at += 10**6
        return fold.apply(otlp.at(20) + at, decode_metrics(body))

    assert not send(victim.request(victim.histogram([1, 0], 0, 1, edges=[VICTIM])))
    for number in range(KINDS[kind]):
        found = send(floods.make(kind, number))
        assert found.keys() <= {"memory", "bounds_changed"}
        refused += found["memory"]
        assert state.memory.held <= CAPS.memory
    assert 0 < refused < KINDS[kind]
    assert CAPS.memory - state.memory.held < 3 * MEGABYTE  # it was used
    assert state.memory.held == state.measure()
    assert fold.counters().dropped["memory"] == refused
    for minute in range(1, 20):  # the oldest and quietest goes on, with windows
        assert not send(victim.request(victim.histogram([1, 0], minute, minute + 1, edges=[VICTIM])))
    (view,) = [view for view in fold.views() if view.key.service == "victim"]
    assert view.totals[otlp.X].cells.tolist() == view.window[otlp.X].cells.tolist() == [20, 0]
    again = Fold.load(fold.dump(), fold.settings)
    assert again._state.memory.held == state.memory.held
    assert again.dump() == fold.dump()


def test_what_is_forgotten_gives_its_memory_back(otlp):
    fold, floods = make_fold(), Floods(otlp)
    state = fold._state
    first = otlp.Sender("v", "v")
    fold.apply(otlp.at(0), decode_metrics(first.request(first.count(1, 0, 1))))
    little = state.memory.held
    for kind in KINDS:
        for number in range(100):
            fold.apply(otlp.at(1), decode_metrics(floods.make(kind, number)))
    assert state.memory.held > 15 * MEGABYTE
    day = 24 * 60 + 2
    fold.apply(otlp.at(day), decode_metrics(first.request(first.count(1, day - 1, day))))
    assert state.memory.held == state.measure()
    assert len(state.producers) == 1
    later = 2 * day
    other = otlp.Sender("v", "v", service="another")
    fold.apply(otlp.at(later), decode_metrics(other.request(other.count(1, later - 1, later))))
    assert [key.service for key in state.models] == ["another"]
    assert state.memory.held == state.measure()
    assert abs(state.memory.held - little) < 1_000
    assert (
        state.spare.held == sum(g.spared for model in state.models.values() for g in model.generations.values()) < 100
    )


def test_more_windows_than_are_kept_need_spare_room_and_count_in_totals_without(otlp):
    """Each length of interval has windows of its own, as has what one producer sends ahead of another."""
    settings = FoldSettings(caps=replace(CAPS, spare=100_000), idle_timeout=1e6)
    fold, state = Fold(settings), None
    steady, other = otlp.Sender("s", "s"), otlp.Sender("o", "o")
    total = 0
    for minute in range(400):
        metrics = [steady.request(steady.histogram([1] * 1_001, minute, minute + 1, edges=WIDE))]
        metrics += [
            other.request(other.histogram([1] * 1_001, minute + 1 - span, minute + 1, edges=WIDE)) for span in (4, 12)
        ]
        for body in metrics:
            total += 1
            assert not fold.apply(otlp.at(minute + 1), decode_metrics(body))
        state = fold._state
        assert state.spare.held <= 100_000 + 9_000
    (view,) = fold.views()
    assert view.totals[otlp.X].cells.tolist() == [total] * 1_001
    assert 0 < fold.counters().dropped["no_window"] < 2 * 400
    (model,) = state.models.values()
    (generation,) = model.generations.values()
    held = sum(map(len, generation.windows.values()))
    assert settings.reserved < held <= settings.reserved + 100_000 // 8_000 + 1


def test_a_replica_without_room_to_grow_is_not_told_apart_by_a_part_of_its_counts(otlp):
    fold = Fold(FoldSettings(caps=replace(CAPS, spare=10_000)))
    first, second = otlp.Sender("a", "a"), otlp.Sender("b", "b")
    for sender in (first, second):
        fold.apply(otlp.at(1), decode_metrics(sender.request(sender.histogram([1, 0], 0, 1, edges=[0.0]))))
    (view,) = fold.views()
    assert len(view.replicas) == 2
    wide = {semconv.ML_FEATURE_NAME: "w"}
    for sender in (first, second):
        body = sender.request(sender.histogram([1] * 1_001, 1, 2, edges=WIDE, labels=wide))
        assert not fold.apply(otlp.at(2), decode_metrics(body))
    (view,) = fold.views()
    (group,) = view.replicas.of(otlp.X)
    assert group.names == ["a"]
    assert view.totals[otlp.X].cells.tolist() == [2, 0]
    assert fold._state.spare.held <= 10_000


def test_places_have_room_for_every_window(otlp):
    """The reckoning is what windows take when all of them are full."""
    settings = FoldSettings()
    fold, sender = Fold(settings), otlp.Sender()
    for minute in range(settings.horizon + 10):
        body = sender.request(sender.histogram([1] * 1_001, minute, minute + 1, edges=WIDE))
        fold.apply(otlp.at(minute + 1), decode_metrics(body))
    ((generation,),) = [list(model.generations.values()) for model in fold._state.models.values()]
    held = [tally for spans in generation.windows.values() for tally in spans.values()]
    taken = sum(tally.nbytes for tally in [*held, generation.total, generation.running])
    reckoned = size_of_places(generation.layout.nbytes, settings)
    assert 0.9 * reckoned < taken <= reckoned
