"""What can happen between a counter and the processor, case by case: in the end each count is there once.

test_machine.py has all of it at once, against an oracle of what was recorded.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import FoldSettings

from otel_mlmon import semconv

HOUR = 60.0  # minutes
VALUE = semconv.METRIC_ML_FEATURE_VALUE.name
CALLS = semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name
NONE = MappingProxyType({})


@pytest.fixture
def fold():
    return Fold(FoldSettings(display=4 * 3600.0))


@pytest.fixture
def feed(otlp, fold):
    """Folds requests; gives what was refused. They are received at the end of what they tell of, where not said."""

    def apply(*bodies, received=10.0, into=fold):
        refused = {}
        for body in bodies:
            refused |= into.apply(otlp.at(received), decode_metrics(body))
        return refused

    return apply


def spread(otlp, sender, counts, start, end, *, scale=0, temporality=None):
    """An exponential histogram: counts by bucket index."""
    metric = Metric(name=VALUE)
    metric.exponential_histogram.aggregation_temporality = temporality or otlp.DELTA
    point = metric.exponential_histogram.data_points.add(scale=scale, count=sum(counts.values()))
    point.start_time_unix_nano, point.time_unix_nano = otlp.at(start), otlp.at(end)
    point.positive.offset = min(counts)
    point.positive.bucket_counts.extend(counts.get(i, 0) for i in range(min(counts), max(counts) + 1))
    sender.label(point, VALUE, {semconv.ML_FEATURE_NAME: "z"})
    return metric


def send(otlp, sender, number, start, end, temporality, labels=NONE):  # noqa: PLR0917 -- a point, in OTLP's order
    """A request with a sum, an explicit and an exponential histogram, each of `number` values."""
    options = {"temporality": temporality}
    return sender.request(
        sender.count(number, start, end, labels=labels, **options),
        sender.histogram([number, 0, 0, 0], start, end, total=float(-number), labels=labels, **options),
        spread(otlp, sender, {3: number}, start, end, **options),
    )


def count(fold):
    """Values of all models; sum, explicit and exponential histogram must agree."""
    seen = cells = buckets = 0
    for view in fold.views():
        for variable, counts in view.totals.items():
            if variable.name == "x":
                seen += counts.seen
                cells += int(counts.cells.sum())
                assert counts.sum == -counts.cells.sum()
            else:
                buckets += int(counts.cells.sum())
    assert seen == cells == buckets
    return seen


both = pytest.mark.parametrize("temporality", [1, 2], ids=["delta", "cumulative"])


# ------------------------------------------------------------------ the same again


@both
@pytest.mark.parametrize("later", [0.0, HOUR], ids=["at_once", "an_hour_later"])
def test_a_request_that_comes_twice(otlp, fold, feed, temporality, later):
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    body = send(otlp, sender, 5, 0, 1, temporality)
    feed(body, received=1)
    for minute in range(1, 1 + int(later)):  # an export a minute in between
        feed(
            send(otlp, sender, 1 if delta else 5 + minute, minute if delta else 0, minute + 1, temporality),
            received=minute + 1,
        )
    assert count(fold) == 5 + later
    feed(body, received=1 + later)
    assert count(fold) == 5 + later
    assert fold.counters().duplicates == 3
    assert not fold.counters().dropped


@both
def test_a_request_that_comes_by_two_paths_one_of_which_enriches_the_resource(otlp, fold, feed, temporality):
    plain = otlp.Sender()
    enriched = otlp.Sender(namespace="shop", environment="prod", extra={"k8s.pod.name": "p", "host.name": "h"})
    for minute in range(4):
        start, number = (minute, 5) if temporality == otlp.DELTA else (0, 5 * (minute + 1))
        pair = [send(otlp, sender, number, start, minute + 1, temporality) for sender in (plain, enriched)]
        feed(*(pair if minute % 2 else pair[::-1]))
    assert count(fold) == 20
    assert fold.counters().duplicates == 12
    # It stays where it was first seen, so that one model does not become two.
    assert [(view.key.namespace, view.key.environment) for view in fold.views()] == [("shop", "prod")]


@both
def test_the_parts_of_a_split_request_by_different_paths(otlp, fold, feed, temporality):
    sender, enriched = otlp.Sender(), otlp.Sender(extra={"host.name": "h"})
    options = {"temporality": temporality}
    parts = [
        sender.request(sender.count(5, 0, 1, **options)),
        enriched.request(sender.histogram([5, 0, 0, 0], 0, 1, total=-5.0, **options)),
        sender.request(spread(otlp, sender, {3: 5}, 0, 1, **options)),
    ]
    feed(*parts, *parts[::-1])
    assert count(fold) == 5


def test_a_delta_that_is_no_longer_remembered_is_refused_and_not_counted_again(otlp, fold, feed):
    """So many intervals of a producer are kept exactly; of what is older only that its time is settled."""
    few = Fold(FoldSettings(caps=type(fold.settings.caps)(intervals=256)))
    sender = otlp.Sender()
    bodies = [send(otlp, sender, 1, minute, minute + 1, otlp.DELTA) for minute in range(300)]
    feed(*bodies, into=few)
    assert feed(*bodies[:10], into=few) == {"too_old": 3}
    assert count(few) == 300


def test_after_a_producer_has_been_forgotten_its_old_requests_are_new(otlp, fold, feed):
    """What `retire` means, for a day by default: nothing is remembered for ever."""
    sender, other = otlp.Sender(), otlp.Sender("b", "j")
    feed(send(otlp, sender, 5, 0, 1, otlp.DELTA), received=1)
    feed(send(otlp, other, 1, 0, 1, otlp.DELTA), received=12 * HOUR)
    feed(send(otlp, other, 1, 1, 2, otlp.DELTA), received=25 * HOUR)
    feed(send(otlp, sender, 5, 0, 1, otlp.DELTA), received=25 * HOUR)
    assert count(fold) == 12


# ------------------------------------------------------------------ order and intervals


@both
def test_requests_in_any_order(otlp, feed, temporality):
    sender, rng = otlp.Sender(), np.random.default_rng(5)
    delta = temporality == otlp.DELTA
    bodies = [
        send(otlp, sender, 3 if delta else 3 * end, end - 1 if delta else 0, end, temporality) for end in range(1, 9)
    ]
    for _ in range(20):
        fold = Fold()
        feed(*(bodies[i] for i in rng.permutation(len(bodies))), into=fold)
        assert count(fold) == 24


def test_delta_intervals_that_overlap_or_leave_gaps_are_counts_of_their_own(otlp, fold, feed):
    sender = otlp.Sender()
    intervals = [(0, 1), (0.5, 1.5), (0.5, 1), (0, 2), (5, 6), (3, 4), (6, 6), (8, 7)]
    for start, end in intervals * 2:
        feed(send(otlp, sender, 1, start, end, otlp.DELTA))
    assert count(fold) == len(intervals)


def test_cumulative_points_of_which_some_are_lost(otlp, fold, feed):
    sender = otlp.Sender()
    feed(*(send(otlp, sender, 2 * end, 0, end, otlp.CUMULATIVE) for end in (1, 2, 7, 60)))
    assert count(fold) == 120


# ------------------------------------------------------------------ counters that begin again


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_counter_that_begins_again_at_a_new_start_time_in_any_order(otlp, fold, feed, order):
    """Also where it has more than before, which no falling cell shows."""
    sender = otlp.Sender()
    sent = [(5, 0, 1), (7, 0, 2), (6, 2, 3), (20, 2, 4)]
    feed(*(send(otlp, sender, *sent[i], otlp.CUMULATIVE) for i in order))
    assert count(fold) == 27


def test_a_counter_that_begins_again_without_a_new_start_time_is_seen_by_a_cell_that_falls(otlp, fold, feed):
    sender = otlp.Sender()
    bodies = [send(otlp, sender, number, 0, end, otlp.CUMULATIVE) for number, end in [(5, 1), (7, 2), (3, 3), (9, 4)]]
    feed(*bodies)
    assert count(fold) == 16
    feed(*bodies)  # what was sent before it began again is known still
    assert count(fold) == 16


def test_a_counter_that_begins_again_unseen_is_the_case_that_nobody_can_tell(otlp, fold, feed):
    """7, then 9 that are all new: without a new start time or a cell that falls they look like 2 more."""
    sender = otlp.Sender()
    feed(*(send(otlp, sender, number, 0, end, otlp.CUMULATIVE) for number, end in [(7, 1), (9, 2)]))
    assert count(fold) == 9


@both
@pytest.mark.parametrize("instance", ["same", "new"])
@pytest.mark.parametrize("marked", [True, False], ids=["with_an_incarnation", "without"])
def test_a_replica_that_restarts(otlp, fold, feed, temporality, instance, marked):  # noqa: PLR0917 -- fixtures
    """The last requests of the former process come after the first of the next."""
    first = otlp.Sender("a", "i" if marked else "")
    second = otlp.Sender("a" if instance == "same" else "b", "j" if marked else "")
    delta = temporality == otlp.DELTA
    old = [
        send(otlp, first, 5, 0, 1, temporality),
        send(otlp, first, 6 if delta else 11, 1 if delta else 0, 2, temporality),
    ]
    new = [
        send(otlp, second, 2, 2.5, 3, temporality),
        send(otlp, second, 3 if delta else 5, 3 if delta else 2.5, 4, temporality),
    ]
    feed(old[0], new[0], old[1], new[1], *old, *new)
    assert count(fold) == 16


def test_processes_that_nothing_but_their_start_tells_apart(otlp, fold, feed):
    sender = otlp.Sender("", "")
    feed(*(send(otlp, sender, 10 * end, start, end, otlp.CUMULATIVE) for end in (1, 2) for start in (0, 0.5)))
    assert count(fold) == 40


# ------------------------------------------------------------------ clocks


@both
@pytest.mark.parametrize("skew", [-7.0, 7.0], ids=["behind", "ahead"])
def test_a_clock_that_is_minutes_off(otlp, fold, feed, temporality, skew):
    """From further ahead than allowed, counts are in the totals and in no window."""
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    for end in range(1, 11):
        number = 1 if delta else end
        feed(send(otlp, sender, number, skew + (end - 1 if delta else 0), skew + end, temporality), received=end)
    assert count(fold) == 10
    shown = 0 if skew > 0 else 10
    assert sum(view.window[otlp.X].seen for view in fold.views()) == shown


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_jumps_between_deltas(otlp, fold, feed, jump):
    sender = otlp.Sender()
    bodies = [
        send(otlp, sender, 1, 100, 101, otlp.DELTA),
        send(otlp, sender, 2, 101, 102 + jump, otlp.DELTA),  # its interval may end before it begins
        send(otlp, sender, 3, 102 + jump, 103 + jump, otlp.DELTA),
    ]
    feed(*bodies, *bodies[::-1], received=103)
    assert count(fold) == 6
    assert fold.counters().duplicates == 9


def test_a_clock_that_is_set_back_between_cumulative_points(otlp, fold, feed):
    """Counts go on although their times begin anew; SDKs stamp a point with the time of its collection."""
    sender = otlp.Sender()
    bodies = [send(otlp, sender, number, 0, end, otlp.CUMULATIVE) for number, end in [(5, 70), (7, 11), (9, 12)]]
    feed(*bodies, received=12)
    assert count(fold) == 9
    feed(*bodies, *bodies[::-1], received=13)
    assert count(fold) == 9
    feed(send(otlp, sender, 12, 0, 71, otlp.CUMULATIVE), received=71)  # the clock has come so far again
    assert count(fold) == 12
    fold = Fold.load(fold.dump(), fold.settings)
    feed(*bodies, into=fold)
    assert count(fold) == 12


def test_the_rest_of_a_time_that_came_before(otlp, fold, feed):
    sender = otlp.Sender()
    feed(*(send(otlp, sender, number, 0, 1, otlp.CUMULATIVE) for number in (5, 8, 5, 8)))
    assert count(fold) == 8


# ------------------------------------------------------------------ what changes in the middle


@both
def test_bounds_that_change_in_the_middle_of_a_stream(otlp, feed, fold, temporality):
    """With a new start time, as OpenTelemetry's data model asks for; deltas need none."""
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    sent = [
        ([1, 2], [0.0], 0, 1),
        ([2, 3, 4], [0.0, 5.0], 1, 2),
        ([1, 1] if delta else [2, 3], [0.0], 2 if delta else 0, 3),
    ]
    bodies = [
        sender.request(sender.histogram(counts, start, end, edges=edges, temporality=temporality))
        for counts, edges, start, end in sent
    ]
    feed(*bodies, *bodies)
    (model,) = fold._state.models.values()
    (generation,) = model.generations.values()
    held = {
        len(s.place.detail) // 8: generation.total.ints[s.offset : s.offset + s.size].tolist()
        for s in generation.layout.slots
    }
    assert held == {1: [2, 3], 2: [2, 3, 4]}


def test_cumulative_bounds_that_change_without_a_new_start_are_refused_and_counted(otlp, fold, feed):
    """How many of the new cells are new nobody can tell; the next point's increase is counted again."""
    sender = otlp.Sender()

    def request(counts, end, edges):
        metric = sender.histogram(counts, 0, end, edges=edges, temporality=otlp.CUMULATIVE)
        return sender.request(metric)

    first, changed = request([1, 1], 1, [0.0]), request([2, 2], 2, [5.0])
    assert feed(first) == {}
    assert feed(changed) == {"bounds_changed": 1}
    assert feed(request([2, 3], 3, [5.0]), first, changed) == {}
    (view,) = fold.views()
    assert (view.totals[otlp.X].edges.tolist(), view.totals[otlp.X].cells.tolist()) == ([5.0], [0, 1])
    assert fold.counters().dropped == {"bounds_changed": 1}


@both
def test_exponential_buckets_that_become_coarser_in_the_middle_of_a_stream(otlp, fold, feed, temporality):
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    points = [
        ({4: 1, 5: 2}, 1, 0, 1),
        ({2: 3, 40: 5} if delta else {2: 6, 40: 5}, 0, 1 if delta else 0, 2),
    ]
    bodies = [
        sender.request(spread(otlp, sender, counts, start, end, scale=scale, temporality=temporality))
        for counts, scale, start, end in points
    ]
    feed(*bodies, *bodies[::-1])
    (view,) = fold.views()
    ((_, counts),) = view.totals.items()
    assert counts.cells[counts.cells > 0].tolist() == [6, 5]
    assert counts.edges.tolist() == [-5e-324, 5e-324, 4.0, 8.0, 2.0**40, 2.0**41]


@both
def test_a_profile_that_is_replaced_while_data_flows(otlp, fold, feed, temporality):
    """Counts under either profile are kept apart; what comes late is counted with the profile that it was made with."""
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    bodies = {}
    for digest, first in (("old", 0), ("new", 3)):
        labels = {semconv.ML_REFERENCE_HASH: digest}
        bodies[digest] = [
            send(otlp, sender, 2 if delta else 2 * (end - first), end - 1 if delta else first, end, temporality, labels)
            for end in (first + 1, first + 2, first + 3)
        ]
    feed(bodies["old"][0], bodies["old"][1], bodies["new"][0], bodies["new"][1], bodies["old"][2], bodies["new"][2])
    feed(*bodies["old"], *bodies["new"])
    (model,) = fold._state.models.values()
    assert {digest: held.total.ints[0] for digest, held in model.generations.items() if digest != "h"} == {
        "old": 6,
        "new": 6,
    }
    (view,) = fold.views()
    assert view.totals[otlp.X].seen == 6


@both
def test_several_versions_live_at_once(otlp, fold, feed, temporality):
    """In one process, too."""
    sender, delta = otlp.Sender(), temporality == otlp.DELTA
    for minute in range(3):
        for version, number in (("1", 2), ("2", 5)):
            metric = sender.count(
                number if delta else number * (minute + 1),
                minute if delta else 0,
                minute + 1,
                temporality=temporality,
                labels={semconv.ML_MODEL_VERSION: version},
            )
            feed(*[sender.request(metric)] * 2)
    assert {view.key.version: view.totals[otlp.X].seen for view in fold.views()} == {"1": 6, "2": 15}


# ------------------------------------------------------------------ gauges


def test_a_level_is_the_newest_of_each_process_whatever_order_they_come_in(otlp, fold, feed):
    senders = [otlp.Sender("a", "i"), otlp.Sender("b", "j")]
    options = {"name": CALLS, "temporality": otlp.CUMULATIVE, "monotonic": False}
    bodies = [s.request(s.count(n, 0, end, **options)) for s in senders for end, n in ((1, 4), (3, 2), (2, 9))]
    feed(*bodies, *bodies[::-1])
    (view,) = fold.views()
    assert view.active_calls == 4


def test_changes_of_a_level_add_up(otlp, fold, feed):
    sender = otlp.Sender()
    options = {"name": CALLS, "temporality": otlp.DELTA, "monotonic": False}
    bodies = [sender.request(sender.count(n, end - 1, end, **options)) for end, n in ((2, -3), (1, 4), (3, 1))]
    feed(*bodies, *bodies)
    (view,) = fold.views()
    assert view.active_calls == 2


def test_the_newest_identity_is_shown_whatever_order_they_come_in(otlp, fold, feed):
    sender = otlp.Sender()
    bodies = []
    for end, version in ((1, "1.5"), (3, "1.7"), (2, "1.6")):
        gauge = Metric(name=semconv.METRIC_ML_MODEL_INFO.name)
        point = gauge.gauge.data_points.add(time_unix_nano=otlp.at(end), as_int=1)
        sender.label(point, gauge.name, {semconv.ML_FRAMEWORK_VERSION: version})
        bodies.append(sender.request(gauge))
    feed(*bodies, *bodies)
    (view,) = fold.views()
    assert view.info[semconv.ML_FRAMEWORK_VERSION] == "1.7"
