"""Single cases of the fold: identity, time, profiles, operation, caps."""

from __future__ import annotations

import gzip

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otel_mlmon_processor.decode import decode_logs, decode_metrics
from otel_mlmon_processor.fold import Dump, Fold, FormatError
from otel_mlmon_processor.fold_settings import Caps, FoldSettings
from otel_mlmon_processor.forms import Forms
from otel_mlmon_processor.model import Model
from otel_mlmon_processor.pack import pack
from otel_mlmon_processor.views import build
from otel_mlmon_processor.windows import ModelKey, VariableKey

from otel_mlmon import semconv
from otel_mlmon.profile.document import Profile, ProfileError

HOUR = 60.0  # minutes


def feed(otlp, fold, *requests, received=10.0):
    refused = {}
    for body in requests:
        refused.update(fold.apply(otlp.at(received), decode_metrics(body)))
    return refused


def one(fold):
    (view,) = fold.views()
    return view


# ------------------------------------------------------------------ identity


def test_another_path_that_enriches_the_resource_counts_nothing_twice(otlp):
    fold = Fold()
    plain = otlp.Sender()
    enriched = otlp.Sender(environment="prod", extra={"k8s.pod.name": "p", "host.name": "h"})
    feed(otlp, fold, plain.request(plain.count(5, 0, 1)), enriched.request(enriched.count(5, 0, 1)))
    assert one(fold).totals[otlp.X].seen == 5
    assert fold.counters().duplicates == 1
    # The producer stays where it was first seen, so that one model does not become two.
    feed(otlp, fold, enriched.request(enriched.count(7, 1, 2)))
    assert one(fold).key == ModelKey("", "svc", "", "m", "1")
    assert one(fold).totals[otlp.X].seen == 12


@pytest.mark.parametrize(
    "changed",
    [{"instance": "b"}, {"incarnation": "j"}, {"service": "other"}, {"namespace": "team"}],
)
def test_another_producer_has_counts_of_its_own(otlp, changed):
    fold = Fold()
    # An incarnation is random, and would tell more than a namespace.
    known = {"incarnation": ""} if "namespace" in changed else {}
    first, second = otlp.Sender(**known), otlp.Sender(**known, **changed)
    feed(otlp, fold, first.request(first.count(5, 0, 1)), second.request(second.count(5, 0, 1)))
    assert sum(view.totals[otlp.X].seen for view in fold.views()) == 10
    assert fold.counters().duplicates == 0


def test_what_is_merged_is_told_apart_by_environment_model_and_version(otlp):
    fold = Fold()
    senders = [otlp.Sender(str(i), str(i), environment=env) for i, env in enumerate(["", "prod", "staging", "prod"])]
    for sender in senders:
        feed(otlp, fold, sender.request(sender.count(1, 0, 1)))
    feed(otlp, fold, senders[0].request(senders[0].count(1, 1, 2, labels={semconv.ML_MODEL_VERSION: "2"})))
    counts = {(view.key.environment, view.key.version): view.totals[otlp.X].seen for view in fold.views()}
    assert counts == {("", "1"): 1, ("prod", "1"): 2, ("staging", "1"): 1, ("", "2"): 1}


def test_processes_without_instance_or_incarnation_are_told_apart_by_their_start(otlp):
    fold = Fold()
    sender = otlp.Sender("", "")
    for start in (0, 0.5):
        for end in (1, 2):
            point = sender.count(10 * end, start, end, temporality=otlp.CUMULATIVE)
            feed(otlp, fold, sender.request(point))
    assert one(fold).totals[otlp.X].seen == 40


def test_streams_that_each_began_at_a_time_of_their_own_are_counted_once(otlp):
    """As in Node.js, whose SDK starts a delta where the first value was recorded; more of them than intervals kept."""
    fold, sender, other = Fold(FoldSettings(caps=Caps(intervals=400))), otlp.Sender(), otlp.Sender("b")
    feed(otlp, fold, other.request(other.count(1, 0, 1, labels={semconv.ML_FEATURE_NAME: "x0"})))

    def send(minute):
        points = [
            sender.count(1, minute + i / 1_000, minute + 1, labels={semconv.ML_FEATURE_NAME: f"x{i}"})
            for i in range(400)
        ]
        feed(otlp, fold, sender.request(*points))

    for minute in (0, 1, 1, 2, 2):
        send(minute)
    assert [counts.seen for counts in one(fold).totals.values()] == [4] + [3] * 399
    assert (len(one(fold).totals), fold.counters().duplicates, dict(fold.counters().dropped)) == (400, 800, {})


def test_what_one_process_sends_in_several_scopes_is_one_models(otlp):
    """As in Node.js, where each feature has a meter; no sum, min, max, instance or incarnation is sent."""
    fold, sender = Fold(), otlp.Sender("", "")
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for name in ("x", "y"):
        scope = resource.scope_metrics.add()
        sender.annotate(resource.resource, scope.scope)
        scope.scope.name = f"feature/{name}"
        labels = {semconv.ML_FEATURE_NAME: name}
        scope.metrics.append(sender.count(6, 0, 1, labels=labels))
        scope.metrics.append(sender.histogram([1, 2, 3, 0], 0, 1, labels=labels))
    feed(otlp, fold, request.SerializeToString(), request.SerializeToString())
    assert fold.counters().producers == 1
    for name in ("x", "y"):
        counts = one(fold).totals[VariableKey("feature", name)]
        assert (counts.seen, counts.cells.tolist(), counts.sum) == (6, [1, 2, 3, 0], None)


def test_changed_bounds_under_one_start_are_counted_as_dropped_and_go_on(otlp):
    fold, sender = Fold(), otlp.Sender()

    def send(counts, end, edges):
        metric = sender.histogram(counts, 0, end, edges=edges, temporality=otlp.CUMULATIVE)
        return feed(otlp, fold, sender.request(metric))

    send([1, 1], 1, [0.0])
    assert send([2, 2], 2, [5.0]) == {"bounds_changed": 1}
    send([2, 3], 3, [5.0])
    counts = one(fold).totals[otlp.X]
    assert (counts.edges.tolist(), counts.cells.tolist()) == ([5.0], [0, 1])


# ------------------------------------------------------------------ time


def test_points_from_the_future_are_in_the_totals_and_open_no_window(otlp):
    fold, sender = Fold(), otlp.Sender()
    feed(otlp, fold, sender.request(sender.count(1, 8, 9)), received=10)
    feed(otlp, fold, sender.request(sender.count(1, 14, 15)), received=10)
    feed(otlp, fold, sender.request(sender.count(1, 15, 15.1)), received=10)
    view = one(fold)
    assert view.totals[otlp.X].seen == 3
    assert view.window[otlp.X].seen == 2
    assert view.watermark == pytest.approx(otlp.at(15) / 1e9)
    assert fold.counters().dropped == {"ahead": 1}


def test_the_watermark_waits_for_the_slowest_and_not_for_the_idle(otlp):
    fold = Fold(FoldSettings(idle_timeout=120))
    slow, fast = otlp.Sender("slow", "s"), otlp.Sender("fast", "f")
    feed(otlp, fold, slow.request(slow.count(1, 0, 1)), received=1)
    for minute in range(1, 5):
        feed(otlp, fold, fast.request(fast.count(1, minute, minute + 1)), received=minute + 1)
        waited = minute + 1 - 1 <= 2  # minutes since the slow one was heard
        expected = otlp.at(1 if waited else minute + 1) / 1e9
        assert one(fold).watermark == pytest.approx(expected)
    feed(otlp, fold, slow.request(slow.count(1, 1, 2)), received=6)  # it is alive, and late
    assert one(fold).watermark == pytest.approx(otlp.at(5) / 1e9)
    assert fold.counters().late == 1
    assert one(fold).window[otlp.X].seen == 6


def test_rows_of_producers_that_have_ended_are_shown_though_nothing_comes_after_them(otlp):
    fold, times = Fold(FoldSettings(idle_timeout=120)), (1, 2.5, 3.1, 4.6)
    first, second = otlp.Sender("a", "i"), otlp.Sender("a", "j")
    feed(otlp, fold, first.request(first.count(4, 0, 1)), received=1)
    feed(otlp, fold, second.request(second.count(3, 1, 2)), received=2)
    shown = []
    for now in times:
        view = build(fold.capture(one(fold).key, now=otlp.at(now)))
        shown.append((round(view.watermark / 60 - otlp.at(0) / 60e9, 3), view.window[otlp.X].seen))
    assert shown == [(1, 4), (1, 4), (2, 7), (2, 7)]


def test_looking_changes_nothing_of_what_is_folded_later(otlp):
    """As a restart replays what came, and not who looked when."""
    one_looked_at, other = (Fold(FoldSettings(idle_timeout=120, display=600)) for _ in range(2))
    for fold in (one_looked_at, other):
        senders = [otlp.Sender(name, name) for name in "ab"]
        for minute in (0, 1, 2, 7, 8, 30):
            for sender in senders[: 1 + minute % 2]:
                if fold is one_looked_at:
                    for key in fold.models():
                        fold.capture(key, now=otlp.at(minute + 0.9))
                feed(otlp, fold, sender.request(sender.count(1, minute, minute + 1)), received=minute + 1)
        feed(otlp, fold, senders[1].request(senders[1].count(1, 8, 9)), received=30)
    assert one_looked_at.dump() == other.dump()
    assert other.counters().late


def test_operational_points_do_not_move_time(otlp):
    fold, sender = Fold(), otlp.Sender()
    feed(otlp, fold, sender.request(sender.count(1, 0, 1)), received=1)
    duration = sender.histogram([1, 0, 0, 0], 4, 5, name=semconv.METRIC_ML_INFERENCE_DURATION.name)
    feed(otlp, fold, sender.request(duration), received=5)
    assert one(fold).watermark == pytest.approx(otlp.at(1) / 1e9)


@pytest.mark.parametrize(("minutes", "shown"), [(2, True), (60, True), (61, False), (3000, False)])
def test_a_long_interval_counts_where_it_fits(otlp, minutes, shown):
    fold, sender = Fold(FoldSettings(display=3600)), otlp.Sender()
    point = sender.count(9, 5000 - minutes, 5000, temporality=otlp.CUMULATIVE)
    feed(otlp, fold, sender.request(point), received=5000)
    assert one(fold).totals[otlp.X].seen == 9
    assert one(fold).window[otlp.X].seen == (9 if shown else 0)


def test_a_first_point_since_an_unknown_time_counts_in_totals_only(otlp):
    fold, sender = Fold(), otlp.Sender()
    point = sender.count(9, 0, 1, temporality=otlp.CUMULATIVE)
    point.sum.data_points[0].start_time_unix_nano = 0
    feed(otlp, fold, sender.request(point))
    assert (one(fold).totals[otlp.X].seen, one(fold).window[otlp.X].seen) == (9, 0)


def test_the_sliding_window_slides(otlp):
    fold, sender = Fold(FoldSettings(display=180)), otlp.Sender()
    seen = []
    for minute in (0, 1, 2, 3, 4, 9, 10):
        feed(otlp, fold, sender.request(sender.count(10**minute, minute, minute + 1)), received=minute + 1)
        seen.append(one(fold).window[otlp.X].seen)
    assert seen == [1, 11, 111, 1110, 11100, 10**9, 10**9 + 10**10]
    assert one(fold).end == otlp.at(11) / 1e9
    assert one(fold).start == otlp.at(8) / 1e9
    assert one(fold).totals[otlp.X].seen == 11111 + 10**9 + 10**10


def test_a_silent_model_is_forgotten_and_may_come_back(otlp):
    fold = Fold(FoldSettings(retire=600))
    first, second = otlp.Sender("a", "i"), otlp.Sender("b", "j", service="other")
    feed(otlp, fold, first.request(first.count(1, 0, 1)), received=1)
    feed(otlp, fold, second.request(second.count(1, 0, 1)), received=10)
    assert len(fold.views()) == 2
    assert len(fold.models(otlp.at(12))) == 1  # by the clock of the one who looks
    feed(otlp, fold, second.request(second.count(1, 11, 12)), received=12)
    assert one(fold).key.service == "other"
    assert (fold.counters().producers, fold.counters().streams) == (1, 1)
    fold = Fold.load(fold.dump(), fold.settings)
    feed(otlp, fold, first.request(first.count(3, 12, 13)), received=13)
    assert {view.key.service: view.totals[otlp.X].seen for view in fold.views()} == {"other": 2, "svc": 3}


# ------------------------------------------------------------------ what is counted


def test_features_outputs_categories_and_invalid_values_have_their_places(otlp):
    fold, sender = Fold(), otlp.Sender()
    name = {semconv.ML_FEATURE_NAME: "city"}
    score = {semconv.ML_PREDICTION_SIGNAL: "score"}
    label = semconv.ML_PREDICTION_CLASS
    reason = semconv.ML_FEATURE_INVALID_REASON
    category = semconv.ML_FEATURE_CATEGORY
    metrics = [
        sender.count(6, 0, 1, labels=name),
        sender.count(3, 0, 1, name=semconv.METRIC_ML_FEATURE_CATEGORY.name, labels={**name, category: "Rome"}),
        sender.count(1, 0, 1, name=semconv.METRIC_ML_FEATURE_CATEGORY.name, labels={**name, category: "_UNSEEN_"}),
        sender.count(2, 0, 1, name=semconv.METRIC_ML_FEATURE_INVALID.name, labels={**name, reason: "missing"}),
        sender.histogram([1, 2], 0, 1, edges=[0.5], name=semconv.METRIC_ML_PREDICTION_SCORE.name, total=1.75),
        sender.count(4, 0, 1, name=semconv.METRIC_ML_PREDICTION_COUNT.name, labels=score),
        sender.count(1, 0, 1, name=semconv.METRIC_ML_PREDICTION_INVALID.name, labels={**score, reason: "nan"}),
        sender.count(4, 0, 1, name=semconv.METRIC_ML_PREDICTION_CLASS.name, labels={label: "late"}),
    ]
    feed(otlp, fold, sender.request(*metrics))
    for counts in (one(fold).window, one(fold).totals):
        city, scores, classes = (
            counts[VariableKey(*key)] for key in (("feature", "city"), ("score", ""), ("class", ""))
        )
        assert (city.seen, dict(city.invalid), dict(city.categories)) == (6, {"missing": 2}, {"Rome": 3, "_UNSEEN_": 1})
        assert (scores.seen, dict(scores.invalid), scores.cells.tolist(), scores.sum) == (4, {"nan": 1}, [1, 2], 1.75)
        assert (classes.seen, dict(classes.categories)) == (4, {"late": 4})  # no count was sent: seen in cells
        assert city.cells is None
        assert scores.categories is None
    city, scores, classes = (
        one(fold).replicas.of(VariableKey(*key))[0] for key in (("feature", "city"), ("score", ""), ("class", ""))
    )
    assert (city.names, city.invalid.tolist(), city.cells, scores.categories) == (["a"], [2], None, None)
    assert {label: counts.tolist() for label, counts in city.categories.items()} == {"Rome": [3], "_UNSEEN_": [1]}
    assert (scores.invalid.tolist(), scores.cells.tolist(), scores.sums.tolist()) == ([1], [[1, 2]], [1.75])
    assert classes.categories["late"].tolist() == [4]


def test_an_unknown_sum_makes_the_sum_unknown(otlp):
    fold, sender = Fold(FoldSettings(display=60)), otlp.Sender()
    feed(otlp, fold, sender.request(sender.histogram([1, 0, 0, 0], 0, 1)))
    feed(otlp, fold, sender.request(sender.histogram([1, 0, 0, 0], 1, 2, total=-3.5)))
    assert one(fold).totals[otlp.X].sum is None
    assert one(fold).window[otlp.X].sum == -3.5  # the window no longer holds the first


def test_counts_under_another_profile_are_kept_apart(otlp):
    fold = Fold(FoldSettings(idle_timeout=120))
    hashed = semconv.ML_REFERENCE_HASH
    old, new = otlp.Sender("a", "i"), otlp.Sender("b", "j")

    def send(sender, digest, minute, count):
        feed(
            otlp,
            fold,
            sender.request(sender.count(count, minute, minute + 1, labels={hashed: digest})),
            received=minute + 1,
        )

    send(old, "h1", 0, 1)
    assert one(fold).reference_hash == "h1"
    send(new, "h2", 0, 10)
    send(old, "h1", 1, 1)  # both live: the one that began last is shown
    view = one(fold)
    assert (view.reference_hash, view.totals[otlp.X].seen, dict(view.others)) == ("h2", 10, {"h1": 2})
    for minute in range(2, 6):  # back to the old one
        send(old, "h1", minute, 1)
    view = one(fold)
    assert (view.reference_hash, view.totals[otlp.X].seen, dict(view.others)) == ("h1", 6, {"h2": 1})


def test_replicas_are_shown_over_the_last_half_to_whole_window(otlp):
    fold = Fold(FoldSettings(display=600))
    for instance in ("a", "b"):
        sender = otlp.Sender(instance, instance)
        for minute in range(20 if instance == "a" else 12):
            feed(otlp, fold, sender.request(sender.histogram([1, 0, 2, 0], minute, minute + 1)), received=30)
    view = one(fold)
    assert view.watermark == pytest.approx(otlp.at(20) / 1e9)  # all of "a" came first
    (counts,) = view.replicas.of(otlp.X)
    assert (counts.names, counts.cells.tolist()) == (["a", "b"], [[10, 0, 20, 0], [2, 0, 4, 0]])
    assert view.active_replicas == 2


def test_operation_is_merged_over_the_models_life(otlp):
    fold, senders = Fold(), [otlp.Sender("a", "i"), otlp.Sender("b", "j")]
    operation = semconv.ML_OPERATION_NAME
    durations, calls = semconv.METRIC_ML_INFERENCE_DURATION.name, semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name
    drops, reason = semconv.METRIC_MLMON_RECORDER_DROPPED.name, {semconv.MLMON_REASON: "buffer_full"}
    for sender in senders:
        metrics = [
            sender.histogram([1, 2, 3, 4], 0, 1, name=durations, total=2.0, labels={operation: "predict"}),
            sender.count(3, 0, 1, name=calls, temporality=otlp.CUMULATIVE, monotonic=False),
            sender.count(5, 0, 1, name=drops, labels=reason),
        ]
        feed(otlp, fold, sender.request(*metrics), received=1)
    fold = Fold.load(fold.dump())
    (duration,) = one(fold).operations[semconv.METRIC_ML_INFERENCE_DURATION.name]
    assert (duration.cells.tolist(), duration.sum) == ([2, 4, 6, 8], 4.0)
    assert dict(duration.attributes) == {semconv.ML_OPERATION_NAME: "predict"}
    assert one(fold).dropped[semconv.METRIC_MLMON_RECORDER_DROPPED.name] == {"buffer_full": 10}
    assert one(fold).active_calls == 6
    level = senders[0].count(
        1, 0, 9, name=semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name, temporality=otlp.CUMULATIVE, monotonic=False
    )
    feed(otlp, fold, senders[0].request(level), received=9)  # the other has been silent for long
    assert one(fold).active_calls == 1


def test_the_newest_identity_is_shown(otlp):
    fold, sender = Fold(), otlp.Sender()
    for end, version in ((2, "1.7"), (1, "1.6")):
        metric = sender.count(1, 0, end, name=semconv.METRIC_ML_MODEL_INFO.name)
        gauge = type(metric)(name=metric.name)
        point = gauge.gauge.data_points.add(time_unix_nano=otlp.at(end), as_int=1)
        sender.label(point, metric.name, {semconv.ML_FRAMEWORK_VERSION: version})
        feed(otlp, fold, sender.request(gauge))
    assert one(fold).info[semconv.ML_FRAMEWORK_VERSION] == "1.7"


# ------------------------------------------------------------------ caps


@pytest.mark.parametrize(
    ("cap", "reason", "labels"),
    [
        ("models", "too_many_models", semconv.ML_MODEL_NAME),
        ("variables", "too_many_features", semconv.ML_FEATURE_NAME),
        ("generations", "too_many_profiles", semconv.ML_REFERENCE_HASH),
        ("streams", "too_many_streams", semconv.ML_FEATURE_NAME),
        ("places", "too_many_places", semconv.ML_FEATURE_NAME),
    ],
)
def test_the_newcomer_is_refused_and_counted_and_the_old_go_on(otlp, cap, reason, labels):
    fold, sender = Fold(FoldSettings(caps=Caps(**{cap: 3}))), otlp.Sender()
    for number in range(6):
        refused = feed(otlp, fold, sender.request(sender.count(1, 0, 1, labels={labels: f"n{number}"})))
        assert refused == ({reason: 1} if number >= 3 else {})
    assert feed(otlp, fold, sender.request(sender.count(5, 1, 2, labels={labels: "n0"}))) == {}
    assert fold.counters().dropped == {reason: 3}


def test_producers_categories_and_bounds_have_caps(otlp):
    fold = Fold(FoldSettings(caps=Caps(producers=2, categories=2, bounds=1)))
    for number in range(3):
        sender = otlp.Sender(f"r{number}", "")
        refused = feed(otlp, fold, sender.request(sender.count(1, 0, 1)))
    assert refused == {"too_many_producers": 1}
    sender, category = otlp.Sender("r0", ""), semconv.ML_FEATURE_CATEGORY
    for number in range(3):
        metric = sender.count(1, 0, 1, name=semconv.METRIC_ML_FEATURE_CATEGORY.name, labels={category: f"c{number}"})
        refused = feed(otlp, fold, sender.request(metric))
    assert refused == {"too_many_categories": 1}
    feed(otlp, fold, sender.request(sender.histogram([1, 0], 0, 1, edges=[0.0])))
    assert feed(otlp, fold, sender.request(sender.histogram([1, 0], 1, 2, edges=[1.0]))) == {"too_many_bounds": 1}


@pytest.mark.parametrize(
    ("reason", "name", "labels"),
    [
        ("no_model", semconv.METRIC_ML_FEATURE_COUNT.name, {semconv.ML_MODEL_NAME: ""}),
        ("no_feature", semconv.METRIC_ML_FEATURE_COUNT.name, {semconv.ML_FEATURE_NAME: ""}),
        ("no_category", semconv.METRIC_ML_FEATURE_CATEGORY.name, {}),
        ("no_reason", semconv.METRIC_ML_FEATURE_INVALID.name, {}),
        ("no_signal", semconv.METRIC_ML_PREDICTION_COUNT.name, {}),
        ("segment", semconv.METRIC_ML_FEATURE_COUNT.name, {semconv.ML_SEGMENT_NAME: "region"}),
    ],
)
def test_points_that_do_not_say_what_they_are_about_are_refused(otlp, reason, name, labels):
    fold, sender = Fold(), otlp.Sender()
    good = sender.count(1, 0, 1)
    assert feed(otlp, fold, sender.request(sender.count(1, 0, 1, name=name, labels=labels), good)) == {reason: 1}
    assert one(fold).totals[otlp.X].seen == 1


# ------------------------------------------------------------------ profiles


class StoredProfile:
    """As much of a profile as the store looks at."""

    def __init__(self, text: bytes) -> None:
        try:
            kind, self.hash, self.model, self.version, self.created = text.decode().split()
        except ValueError:
            raise ProfileError("not five words") from None
        assert kind == "profile"


def packed(digest, created, version="1", padding=0) -> bytes:
    return gzip.compress(f"profile {digest} m {version} {created}{' ' * padding}".encode())


def feed_profile(otlp, fold, body):
    return dict(fold.apply(otlp.at(1), decode_logs(body)))


def test_a_profile_in_parts_is_put_together_in_any_order(otlp):
    fold, sender = Fold(parse=StoredProfile), otlp.Sender()
    document = packed("h", "2026-01-01")
    cut = {1: document[:7], 2: document[7:20], 3: document[20:]}
    for number in (3, 1):
        assert feed_profile(otlp, fold, sender.profile("h", {number: cut[number]}, 3)) == {}
    assert fold.profiles() == {}
    fold = Fold.load(fold.dump(), parse=StoredProfile)
    other = otlp.Sender("b", "j")
    feed_profile(otlp, fold, other.profile("h", {2: cut[2]}, 3))  # parts of another sender are no help
    assert fold.profiles() == {}
    feed_profile(otlp, fold, sender.profile("h", {2: cut[2]}, 3))
    ((key, (profile,)),) = fold.profiles().items()
    assert (key, profile.hash) == (ModelKey("", "svc", "", "m", "1"), "h")
    fold = Fold.load(fold.dump(), parse=StoredProfile)
    assert fold.profiles()[key][0].hash == "h"


def test_the_newest_profile_comes_first_and_conflicts_are_counted(otlp):
    fold, sender = Fold(FoldSettings(caps=Caps(profiles=2)), parse=StoredProfile), otlp.Sender()
    for digest, created in (("h2", "2026-02"), ("h1", "2026-01"), ("h3", "2026-03"), ("h3", "2026-03")):
        feed_profile(otlp, fold, sender.profile(digest, {1: packed(digest, created)}, 1))
    (held,) = fold.profiles().values()
    assert [profile.hash for profile in held] == ["h3", "h2"]
    assert fold.counters().conflicts == 2


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("profile_not_gzip", b"no gzip"),
        ("profile_not_gzip", packed("h", "2026")[:-10]),
        ("profile_invalid", gzip.compress(b"nonsense")),
        ("profile_mismatch", packed("other", "2026")),
        ("profile_mismatch", packed("h", "2026", version="9")),
        ("profile_too_large", packed("h", "2026", padding=10_000)),
    ],
    ids=["no gzip", "cut off", "nonsense", "another hash", "another version", "too large"],
)
def test_a_profile_that_is_none_is_refused(otlp, reason, body):
    fold = Fold(FoldSettings(caps=Caps(profile_bytes=5000)), parse=StoredProfile)
    assert feed_profile(otlp, fold, otlp.Sender().profile("h", {1: body}, 1)) == {reason: 1}
    assert fold.profiles() == {}


def test_parts_that_wait_for_others_are_bounded_in_number_and_bytes_and_the_oldest_is_given_up(otlp):
    fold, sender = Fold(FoldSettings(caps=Caps(assemblies=3, assembly_bytes=1_000)), parse=StoredProfile), otlp.Sender()
    for digest in ("h1", "h2", "h3"):
        assert feed_profile(otlp, fold, sender.profile(digest, {1: b"x"}, 2)) == {}
    assert feed_profile(otlp, fold, sender.profile("h4", {1: b"x"}, 2)) == {"profile_incomplete": 1}
    assert feed_profile(otlp, fold, sender.profile("h5", {1: bytes(999)}, 2)) == {"profile_incomplete": 2}
    assert feed_profile(otlp, fold, sender.profile("h6", {1: bytes(1_001)}, 2)) == {"profile_incomplete": 3}
    body = packed("h7", "2026")
    for number, part in ((1, body[:9]), (2, body[9:])):
        assert feed_profile(otlp, fold, sender.profile("h7", {number: part}, 2)) == {}
    ((held,),) = fold.profiles().values()
    assert held.hash == "h7"


def test_profiles_of_all_models_are_bounded_in_bytes_and_those_that_are_there_stay(otlp):
    body = packed("h", "2026", padding=1_000)
    size = len(gzip.decompress(body))
    fold, sender = Fold(FoldSettings(caps=Caps(document_bytes=2 * size)), parse=StoredProfile), otlp.Sender()
    for digest in ("h1", "h2"):
        assert feed_profile(otlp, fold, sender.profile(digest, {1: packed(digest, "2026", padding=999)}, 1)) == {}
    late = packed("h3", "2027", padding=999)
    assert feed_profile(otlp, fold, sender.profile("h3", {1: late}, 1)) == {"too_many_profiles": 1}
    ((*held,),) = fold.profiles().values()
    assert {profile.hash for profile in held} == {"h1", "h2"}


def test_a_real_profile_travels(otlp):
    np = pytest.importorskip("numpy")
    rng = np.random.default_rng(7)
    profile = Profile.build({"x": rng.normal(size=500)}, model="m", version="1")
    body = gzip.compress(profile.to_bytes())
    fold, sender = Fold(), otlp.Sender()
    third = len(body) // 3
    cut = {1: body[:third], 2: body[third : 2 * third], 3: body[2 * third :]}
    feed_profile(otlp, fold, sender.profile(profile.hash, cut, 3))
    ((received,),) = Fold.load(fold.dump()).profiles().values()
    assert received.hash == profile.hash


# ------------------------------------------------------------------ the dump


@pytest.mark.parametrize("data", [b"", b"nothing", pack([99, [0, 0], [], []])])
def test_a_dump_that_cannot_be_read_is_a_clear_error(data):
    with pytest.raises(FormatError, match=r"checkpoint (cannot be read|has format 99)"):
        Fold.load(Dump([data], {}))


# ------------------------------------------------------------------ a dump that is made while the fold goes on


def one_more(otlp, sender, fold, forms):
    fold.apply(otlp.at(10.5), decode_metrics(sender.request(*both(sender, 5)), forms=forms))


def another_profile(otlp, sender, fold, forms):
    feed(otlp, fold, sender.request(sender.count(1, 6, 7, labels={semconv.ML_REFERENCE_HASH: "h2"})), received=10.5)


def another_process(otlp, sender, fold, forms):
    other = otlp.Sender("z", "z")
    feed(otlp, fold, other.request(other.count(1, 6, 7), other.count(1, 6, 7, labels={semconv.ML_MODEL_NAME: "new"})))


def a_duration(otlp, sender, fold, forms):
    name = semconv.METRIC_ML_INFERENCE_DURATION.name
    feed(otlp, fold, sender.request(sender.histogram([1, 0, 0, 0], 6, 7, name=name)), received=10.5)


def a_look(otlp, sender, fold, forms):
    fold.capture(fold.models()[0], now=otlp.at(600))


def all_are_forgotten(otlp, sender, fold, forms):
    other = otlp.Sender("z", "z", service="other")
    feed(otlp, fold, other.request(other.count(1, 5_000, 5_001)), received=5_001)


def both(sender, minute):
    return sender.histogram([1, 2, 0, 1], minute, minute + 1, total=3.0), sender.count(4, minute, minute + 1)


@pytest.mark.parametrize("change", [one_more, another_profile, another_process, a_duration, a_look, all_are_forgotten])
def test_a_dump_says_what_was_when_it_was_begun(otlp, change):
    fold, sender, slow, forms = Fold(), otlp.Sender(), otlp.Sender("b", "j"), Forms()
    feed(otlp, fold, slow.request(slow.count(1, 0, 1)), received=5)
    for minute in range(5):
        fold.apply(otlp.at(10), decode_metrics(sender.request(*both(sender, minute)), forms=forms))
    before = fold.dump()
    begun = fold.begin_dump()
    change(otlp, sender, fold, forms)
    assert fold.dump() != before
    assert Fold.load(begun.finish()).dump() == Fold.load(before).dump()


@pytest.mark.parametrize("digest", ["", "h2"])
def test_a_dump_has_what_is_forgotten_after_it_was_begun(otlp, digest):
    """A process while its model stays, or a profile while its model and processes stay."""
    fold, sender, silent = Fold(), otlp.Sender(), otlp.Sender("b", "j")
    feed(otlp, fold, sender.request(sender.count(1, 0, 1)), received=1)
    if not digest:
        feed(otlp, fold, silent.request(silent.count(1, 0, 1)), received=1)
    labels = {semconv.ML_REFERENCE_HASH: digest} if digest else {}
    day = 24 * 60
    feed(otlp, fold, sender.request(sender.count(1, day, day + 1, labels=labels)), received=day + 1)
    before, held = fold.dump(), fold.counters()
    begun = fold.begin_dump()
    other = otlp.Sender("z", "z", service="other")
    feed(otlp, fold, other.request(other.count(1, day + 2, day + 3)), received=day + 3)
    now = fold.counters()
    assert (now.producers, now.streams) == (held.producers + bool(digest), held.streams)  # one came, one went
    assert Fold.load(begun.finish()).dump() == Fold.load(before).dump()


def test_who_is_forgotten_has_only_the_models_written_that_knew_it(otlp):
    fold, day = Fold(), 24 * 60

    def send(service, instance, minute):
        sender = otlp.Sender(instance, instance, service=service)
        fold.apply(otlp.at(minute), decode_metrics(sender.request(sender.count(1, minute - 1, minute))))

    for service, instance, minute in [("a", "old", 1), ("a", "new", day), ("b", "new", day), ("c", "new", day)]:
        send(service, instance, minute)
    dump = fold.begin_dump()
    send("c", "new", day + 2)  # and "old" is forgotten
    assert len(fold._state.producers) == 3
    left = {part.key.service for part in fold._state._dumping._left if isinstance(part, Model)}
    assert left == {"b"}
    dump.finish()


def test_two_dumps_at_once_are_each_of_its_own_moment(otlp):
    fold, sender, moments = Fold(), otlp.Sender(), []
    for minute in range(3):
        feed(otlp, fold, sender.request(sender.count(1, minute, minute + 1)))
        moments.append((fold.begin_dump(), minute + 1))
    feed(otlp, fold, sender.request(sender.count(1, 3, 4)))
    for begun, seen in moments:
        assert one(Fold.load(begun.finish())).totals[otlp.X].seen == seen
