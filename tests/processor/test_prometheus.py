"""Exposition: what Prometheus reads, how it is named, how much of it there is, and what hostile names can do to it."""

from __future__ import annotations

import dataclasses
import math
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otel_mlmon_processor.config import ALWAYS, SWITCHABLE
from otel_mlmon_processor.core.alarm import Alarm, AlarmState, Suspect
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exporters.families import list_families
from otel_mlmon_processor.exporters.otlp import encode
from otel_mlmon_processor.exporters.prometheus import expose as expose_families
from otel_mlmon_processor.fold import FoldCounters
from otel_mlmon_processor.ingest import Ingest, IngestCounters
from otel_mlmon_processor.sending import SendingCounters
from otel_mlmon_processor.snapshot import Snapshot
from otel_mlmon_processor.windows import ModelKey, OperationHistogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from otel_mlmon.numerics.binning import OTHER, UNSEEN
from otel_mlmon.operations import ROWS, SECONDS
from otel_mlmon.profile.document import Profile

REGISTRY = yaml.safe_load((Path(__file__).parents[2] / "semconv" / "registry.yaml").read_text())
METRICS = {group["metric_name"]: group for group in REGISTRY["groups"] if group["type"] == "metric"}

# What the decision layer and labels bring, each with its own issue.
LATER = {"ml.model.performance", "ml.outcome", "ml.prediction.error", "ml.label.delay"}
# Distributions leave over coarse cells, as shares of the sliding window.
INSTEAD = {
    "ml.feature.value": "ml.feature.distribution",
    "ml.prediction.value": "ml.prediction.distribution",
    "ml.prediction.score": "ml.prediction.distribution",
}
NOW = 1_735_690_000.0  # 1 January 2025, 00:06:40 UTC
SENDING = SendingCounters(
    "forward", "http://h:4317", {"logs": 5}, {"logs": 2}, {("logs", "timeout"): 3}, {("logs", "age"): 4}, 6, NOW - 7
)
HOSTILE = 'a"b\\c\\n\nevil_metric{x="y"} 1\n# HELP evil_metric evil\n# EOF\n größe\t風, }'


def family_name(metric: str, unit: str) -> str:
    """The rules of "Prometheus and OpenMetrics compatibility" of the OpenTelemetry specification, written out again:
    characters that are not allowed become one underscore; the unit is appended in full where the name does not end with
    it; annotations in braces are left out; `_total` and `_ratio` belong to counters and to gauges of unit 1.
    """
    name = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9:_]", "_", metric))
    unit = re.sub(r"\{[^}]*\}", "", unit)
    words = {"": "", "s": "seconds", "By": "bytes", "ms": "milliseconds", "1": "ratio", "%": "percent"}[unit]
    return name if not words or name.endswith(words) else f"{name}_{words}"


NAMES = {family_name(name, group["unit"]): name for name, group in METRICS.items()}


def counters(**changes) -> IngestCounters:
    fold = FoldCounters(9, 3, 2, {"ahead": 1, "no_model": 2}, 1, 5, 2)
    held = IngestCounters(
        received={"metrics": 10, "logs": 1},
        refused={("metrics", "malformed"): 4, ("logs", "overload"): 1},
        ignored={"not_ml": 7, "ahead": 1},
        waiting=0,
        journal_entries=3,
        journal_bytes=900,
        fold=fold,
        models=1,
    )
    return dataclasses.replace(held, **changes)


def expose(models, *, seconds=0.25, held=None, **options) -> str:
    snapshot = Snapshot(tuple(models), seconds, 1, NOW - 5)
    sending = [SENDING] if held is None else []
    return "".join(expose_families(list_families(snapshot, held or counters(), sending, NOW, **options)))


def read(models, **options):
    return {family.name: family for family in text_string_to_metric_families(expose(models, **options))}


def samples_of(families):
    return [sample for family in families.values() for sample in family.samples]


def evaluate(view, profile):
    return evaluate_model(view, profile, tolerance=0.005, measures=ALWAYS | SWITCHABLE)


def operations(attributes):
    rng = np.random.default_rng(0)
    parts = {"ml.inference.duration": SECONDS, "ml.inference.batch.size": ROWS}
    return {
        name: (OperationHistogram(attributes, np.array(edges), rng.integers(0, 9, len(edges) + 1), 12.5),)
        for name, edges in parts.items()
    }


def alarming(views, numbers=3, categories=2, replicas=4, **changes):
    """A model with predictions of both kinds, where everything has changed that can change, everywhere."""
    rng = np.random.default_rng(30)

    def draw(n, shift):
        rows = {f"x{i}": rng.normal(shift, 1, n) for i in range(numbers)}
        rows |= {
            f"c{i}": rng.choice(["a", "b", "c"], n, p=[0.7 - shift / 5, 0.2 + shift / 5, 0.1])
            for i in range(categories)
        }
        return rows | {
            "class": np.where(rng.random(n) < 0.3 + shift / 5, "yes", "no"),
            "score": rng.beta(2 + shift, 5, n),
        }

    held = draw(5_000, 0)
    outputs = {role: held.pop(role) for role in ("class", "score")}
    profile = Profile.build(
        held, model="m", version="1", predictions=outputs, model_hash="ffff",
        created="2025-01-01T00:00:00Z", trained="2024-12-31T00:00:00Z",
    )  # fmt: skip
    parts = {f"r{i}": draw(400, 1 + i % 3) for i in range(replicas)}
    rows = {name: np.concatenate([np.asarray(part[name]) for part in parts.values()]) for name in parts["r0"]}
    view = views.view(
        profile, rows, replicas=parts,
        operations=operations({"ml.operation.name": "predict", "ml.framework.name": "sklearn"}),
        info={"ml.model.name": "m", "ml.model.version": "1", "ml.framework.name": "sklearn", "ml.reference.hash": "h"},
        dropped={
            "mlmon.recorder.dropped": {"unreadable": 3},
            "mlmon.recorder.errors": {"ValueError": 4},
            "mlmon.recorder.extra_columns": {"": 5},
            "mlmon.recorder.unsent": {"": 6},
        },
        active_calls=2,
    )  # fmt: skip
    reasons = {"missing": 5, "nan": 6, "inf": 7, "type": 8}
    totals = {key: dataclasses.replace(counts, invalid=reasons) for key, counts in view.totals.items()}
    return evaluate(dataclasses.replace(view, totals=totals, **changes), profile), profile


@pytest.fixture(scope="module")
def model(views):
    state, _ = alarming(views)
    assert all(one.alarm for one in state.variables.values())
    return dataclasses.replace(state, alarms=alarms_of(state))


def alarms_of(state) -> AlarmState:
    """An alarm of all variables."""
    suspects = tuple(Suspect(key, "mean up 1 sd", 0.1, 2.0, 0.5, 5, 0.0) for key in state.variables)
    alarm = Alarm(60.0, 0.0, "all", suspects)
    every = frozenset(state.variables)
    words = {suspect.variable: suspect.text for suspect in suspects}
    return AlarmState("calibrated", 0, alarm, every, every, 1, 1.0, words)


# ---------------------------------------------------------------- names


def test_every_family_is_one_of_the_registry_with_its_type_and_help(model):
    families = read([model])
    kinds = {"counter": "counter", "gauge": "gauge", "updowncounter": "gauge", "histogram": "histogram"}
    for name, family in families.items():
        group = METRICS[NAMES[name]]
        assert (family.type, family.documentation) == (kinds[group["instrument"]], group["brief"])
        suffixes = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}[family.type]
        assert {sample.name.removeprefix(name) for sample in family.samples} == suffixes


def test_comments_are_written_for_every_family(model):
    """The parsers forgive a comment that is absent; Prometheus's metadata is empty without it."""
    text = expose([model])
    names = {family.name for family in text_string_to_metric_families(text)}
    helps, types = (re.findall(rf"^# {kind} (\S+) ", text, re.MULTILINE) for kind in ("HELP", "TYPE"))
    assert helps == types
    assert len(helps) == len(names)
    assert {name.removesuffix("_total") for name in helps} == names


def test_nothing_is_a_ratio_and_only_counters_are_totals(model):
    for sample in samples_of(read([model])):
        assert not sample.name.endswith("_ratio")
        assert "_total" not in sample.name.removesuffix("_total")


def test_all_that_the_conventions_give_the_processor_is_exposed_or_comes_later(model, views):
    scarce, _ = alarming(views)
    waiting = {key: dataclasses.replace(one, alarm=None, sufficient=False) for key, one in scarce.variables.items()}
    other = dataclasses.replace(scarce.view, key=ModelKey("", "other", "", "m", "2"))
    exposed = {NAMES[name] for name in read([model, dataclasses.replace(scarce, view=other, variables=waiting)])}
    assert set(METRICS) - exposed == LATER | set(INSTEAD)
    assert set(INSTEAD.values()) <= exposed


def test_labels_are_the_attributes_of_the_registry_and_the_service(model):
    service = {"service_namespace", "service_name", "deployment_environment_name"}
    for name, family in read([model]).items():
        group = METRICS[NAMES[name]]
        allowed = {attribute["ref"].replace(".", "_") for attribute in group["attributes"]}
        if "ml_model_name" in allowed:
            allowed |= service
        if family.type == "histogram":
            allowed.add("le")
        for sample in family.samples:
            assert set(sample.labels) <= allowed, sample
            if "ml_model_name" in allowed:
                assert {label: sample.labels[label] for label in (*service, "ml_model_name", "ml_model_version")} == {
                    "service_namespace": "shop",
                    "service_name": "svc",
                    "deployment_environment_name": "prod",
                    "ml_model_name": "m",
                    "ml_model_version": "1",
                }


# ---------------------------------------------------------------- values


def value_of(families, name, **labels):
    found = [s.value for s in samples_of(families) if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_values_are_those_that_were_counted_and_measured(model):
    families = read([model])
    state = model.variables[next(key for key in model.variables if key.name == "x1")]
    for measure, value in state.measures.items():
        shown = value_of(families, "ml_feature_drift", ml_feature_name="x1", ml_drift_measure=measure)
        assert shown == value
    assert value_of(families, "ml_feature_invalid_total", ml_feature_name="x1", ml_feature_invalid_reason="inf") == 7
    assert value_of(families, "ml_feature_count_total", ml_feature_name="x1") == 1_600
    assert value_of(families, "ml_window_rows") == 1_600
    assert value_of(families, "ml_model_replicas") == 4
    assert value_of(families, "ml_reference_rows") == 5_000
    assert value_of(families, "ml_inference_active_calls") == 2
    assert value_of(families, "ml_window_end_seconds") == model.view.end
    assert value_of(families, "mlmon_processor_lag_seconds") == NOW - model.view.watermark
    assert value_of(families, "ml_reference_age_seconds") == 400  # since midnight
    assert value_of(families, "ml_model_age_seconds") == 400 + 86_400
    assert value_of(families, "mlmon_recorder_extra_columns_total") == 5
    assert value_of(families, "mlmon_recorder_unsent_total") == 6
    assert value_of(families, "mlmon_recorder_errors_total", mlmon_reason="ValueError") == 4
    classes = {s.labels["ml_prediction_class"]: s.value for s in families["ml_prediction_class"].samples}
    assert sum(classes.values()) == 1_600
    bounds = [s for s in families["ml_feature_distribution"].samples if s.labels["ml_feature_name"] == "x1"]
    assert [(float(s.labels["ml_cell_upper_bound"]), s.value) for s in bounds] == list(state.distribution)


def test_histograms_are_cumulative_and_end_with_their_count(model):
    families = read([model])
    for metric, name in (
        ("ml.inference.duration", "ml_inference_duration_seconds"),
        ("ml.inference.batch.size", "ml_inference_batch_size"),
    ):
        (held,) = model.view.operations[metric]
        buckets = [s for s in families[name].samples if s.name.endswith("_bucket")]
        assert [float(s.labels["le"]) for s in buckets] == [*held.edges, math.inf]
        assert [s.value for s in buckets] == np.cumsum(held.cells).tolist()
        assert value_of(families, f"{name}_count", ml_operation_name="predict") == held.cells.sum()
        assert value_of(families, f"{name}_sum", ml_operation_name="predict") == 12.5


def test_the_text_is_what_the_python_client_of_prometheus_writes(model):
    """It sorts labels, and writes numbers another way."""
    text = expose([model])
    families = list(text_string_to_metric_families(text))
    theirs = generate_latest(SimpleNamespace(collect=lambda: families)).decode()

    def normalize(page: str) -> list[str]:
        lines = [re.sub(r"\{(.*)\}", lambda m: str(sorted(m[1].split(","))), line) for line in page.splitlines()]
        return [re.sub(r" (\S+)$", lambda m: f" {float(m[1])}", line) if line[0] != "#" else line for line in lines]

    assert normalize(text) == normalize(theirs)


def test_the_health_of_the_processor_needs_no_model():
    families = read([])
    assert all(name.startswith("mlmon_processor_") for name in families)
    assert value_of(families, "mlmon_processor_received_total", mlmon_signal="metrics") == 10
    assert value_of(families, "mlmon_processor_refused_total", mlmon_signal="metrics", mlmon_reason="malformed") == 4
    assert value_of(families, "mlmon_processor_dropped_total", mlmon_reason="ahead") == 2  # decoding's and the fold's
    assert value_of(families, "mlmon_processor_dropped_total", mlmon_reason="not_ml") == 7
    assert value_of(families, "mlmon_processor_profile_conflicts_total") == 2  # the fold's and the folder's
    assert value_of(families, "mlmon_processor_evaluation_duration_seconds") == 0.25
    assert value_of(families, "mlmon_processor_evaluation_end_seconds") == NOW - 5
    place = {"mlmon_purpose": "forward", "mlmon_endpoint": "http://h:4317"}
    assert value_of(families, "mlmon_processor_send_requests_total", mlmon_signal="logs", **place) == 5
    assert value_of(families, "mlmon_processor_send_rejected_total", mlmon_signal="logs", **place) == 2
    assert value_of(families, "mlmon_processor_send_failures_total", mlmon_reason="timeout", **place) == 3
    assert value_of(families, "mlmon_processor_send_dropped_total", mlmon_reason="age", **place) == 4
    assert value_of(families, "mlmon_processor_send_pending", **place) == 6
    assert value_of(families, "mlmon_processor_send_behind_seconds", **place) == 7


def test_what_is_not_known_is_absent_and_never_nan(views):
    rng = np.random.default_rng(31)
    constant = Profile.build({"x": np.full(500, 3.0), "y": rng.normal(size=500)}, model="m", version="1")
    constant = dataclasses.replace(constant, created="soon")
    unknown = {"start": 0.0, "end": 0.0, "watermark": 0.0}
    states = [
        evaluate(views.view(constant, {"x": np.full(500, 4.0), "y": rng.normal(size=20)}), constant),
        evaluate(views.view(None, {}, key=ModelKey("", "none", "", "new", ""), **unknown), None),
        evaluate(views.view(constant, {"x": np.full(9, np.nan)}, key=ModelKey("", "nan", "", "m", "1")), constant),
    ]
    families = read(states)
    assert all(math.isfinite(sample.value) for sample in samples_of(families))
    named = {name: {s.labels["service_name"] for s in family.samples} for name, family in families.items()
             if name.startswith("ml_")}  # fmt: skip
    assert named["ml_model_replicas"] == {"svc", "none", "nan"}
    assert named["ml_window_end_seconds"] == {"svc", "nan"}
    assert named["ml_reference_rows"] == {"svc", "nan"}
    assert "ml_model_age_seconds" not in named  # nobody said when it was trained
    assert "ml_reference_age_seconds" not in named  # what was said is no time
    # Too few of y to say, and an alarm for x: its mean has moved by no finite number of deviations.
    alarms = {s.labels["ml_feature_name"]: s.value for s in families["ml_drift_alarm"].samples
              if s.labels["service_name"] == "svc"}  # fmt: skip
    assert alarms == {"x": 1}
    measures = {s.labels["ml_drift_measure"] for s in families["ml_feature_drift"].samples
                if s.labels["ml_feature_name"] == "x"}  # fmt: skip
    assert not measures & {"wasserstein", "mean_shift"}
    assert "psi" in measures


# ---------------------------------------------------------------- how many


def numbers_of_series(state, profile, **options):
    """Series of each feature, of each output, and of the model beside them."""
    features, outputs, model = Counter(), Counter(), Counter()
    for sample in samples_of(read([state], **options)):
        labels = sample.labels
        if sample.name.startswith("mlmon_processor_") and "ml_model_name" not in labels:
            continue
        if labels.get("ml_feature_name"):
            features[labels["ml_feature_name"]] += 1
        elif labels.get("ml_prediction_signal"):
            outputs[labels["ml_prediction_signal"]] += 1
        elif "ml_prediction_class" in labels:
            outputs["class"] += 1
        else:
            model[sample.name] += 1
    allowed = {}
    for variable in profile.plan.variables:
        labels = getattr(variable.axis, "labels", ())
        allowed[variable.name] = 46 + len(labels) + 1  # the words of an alarm, of five at most
        assert set(labels) >= ({OTHER, UNSEEN} if labels else set())
    return features, outputs, model, allowed


@pytest.mark.parametrize("replicas", [1, 4, 50])
def test_series_are_bounded_while_everything_alarms(views, replicas):
    state, profile = alarming(views, numbers=35, categories=5, replicas=replicas)
    state = dataclasses.replace(state, alarms=alarms_of(state))
    assert sum(bool(one.alarm) for one in state.variables.values()) == 42
    features, outputs, model, allowed = numbers_of_series(state, profile)
    assert len(features) == 40
    assert all(features[name] <= allowed[name] for name in features), features
    assert all(outputs[name] <= allowed[name] for name in outputs), outputs
    assert sum(model.values()) <= 60, model  # of a model of which one method is called
    categories = sum(len(getattr(variable.axis, "labels", ())) for variable in profile.plan.variables)
    total = sum(features.values()) + sum(outputs.values()) + sum(model.values())
    assert total <= 46 * (len(features) + len(outputs)) + categories + 65  # as docs/processor.md says


def test_the_words_of_an_alarm_are_of_the_first_five_that_have_not_calmed_down(views):
    """In the order in which they were told, with since when; none once it is over."""
    state, _ = alarming(views)
    alarms = alarms_of(state)
    told = list(alarms.words)
    suspects = tuple(
        dataclasses.replace(s, since=60.0 * told.index(s.variable)) for s in reversed(alarms.alarm.suspects)
    )
    alarms = dataclasses.replace(
        alarms,
        alarm=dataclasses.replace(alarms.alarm, suspects=suspects),
        active=alarms.active - {told[1]},
        words={key: f"words of {key.name or key.role}" for key in told},
    )

    def shown(alarms):
        families = read([dataclasses.replace(state, alarms=alarms)])
        samples = [s for s in samples_of(families) if s.name == "ml_alarm_start_seconds"]
        return [(s.labels["ml_alarm_text"], s.value) for s in samples]

    left = [key for key in told if key != told[1]][:5]
    assert len(told) > 6
    assert shown(alarms) == [(f"words of {key.name or key.role}", 60.0 * told.index(key)) for key in left]
    assert shown(dataclasses.replace(alarms, alarm=None, active=frozenset(), words={})) == []


def test_the_number_of_replicas_changes_no_number_of_series(views):
    few, many = (numbers_of_series(*alarming(views, replicas=n))[:3] for n in (4, 50))
    assert few == many


def test_a_page_of_many_models_is_never_in_memory(model):
    states = [
        dataclasses.replace(model, view=dataclasses.replace(model.view, key=ModelKey("", "svc", "", f"m{i}", "1")))
        for i in range(400)
    ]
    written = 0
    tracemalloc.start()
    try:
        for block in expose_families(list_families(Snapshot(tuple(states)), counters(), [SENDING], NOW)):
            written += len(block)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written > 10 << 20
    assert most < 2 << 20, most


def test_distributions_can_be_switched_off(model):
    with_, without = read([model]), read([model], distribution=False)
    assert set(with_) - set(without) == {"ml_feature_distribution", "ml_prediction_distribution"}


# ---------------------------------------------------------------- names of others


def test_hostile_names_come_back_as_they_are_and_inject_nothing(views):
    rows = {HOSTILE: np.random.default_rng(32).normal(size=500), f"{HOSTILE}!": np.array([HOSTILE, "b"] * 250)}
    profile = Profile.build(rows, model=HOSTILE, version=HOSTILE)
    bad = {**rows, HOSTILE: np.full(500, np.nan)}
    parts = {HOSTILE: bad, "b": rows}
    both = {name: np.concatenate([bad[name], rows[name]]) for name in rows}
    view = views.view(
        profile, both, replicas=parts, key=ModelKey(*[HOSTILE] * 5), info={"ml.framework.name": HOSTILE},
        operations=operations({"ml.operation.name": HOSTILE, "error.type": HOSTILE}),
        dropped={"mlmon.recorder.errors": {HOSTILE: 1}},
    )  # fmt: skip
    held = counters(refused={("metrics", HOSTILE): 1}, ignored={HOSTILE: 1})
    families = read([evaluate(view, profile)], held=held)
    assert set(families) <= set(NAMES)
    shown = Counter(
        label for sample in samples_of(families) for label, value in sample.labels.items() if value == HOSTILE
    )
    for label in (
        *("ml_model_name", "ml_model_version", "service_name", "service_namespace", "deployment_environment_name"),
        *("ml_feature_name", "ml_feature_category", "ml_framework_name", "ml_operation_name", "error_type"),
        *("service_instance_id", "mlmon_reason"),
    ):
        assert shown[label], label


def test_attributes_that_are_not_of_the_registry_do_not_become_labels(views):
    """A producer may put anything on its info point, also names that would be those of another service."""
    info = {"service.name": "evil", "ml.model.name": "evil", 'x"} 1\nevil': "1", "ml.framework.name": "sklearn"}
    families = read([evaluate(views.view(None, {}, info=info), None)])
    (sample,) = families["ml_model_info"].samples
    assert (sample.labels["service_name"], sample.labels["ml_model_name"]) == ("svc", "m")
    assert sample.labels["ml_framework_name"] == "sklearn"
    assert len(sample.labels) == 6


def test_no_series_is_there_twice(views, model):
    """Models that differ in one part of their key only, where another lacks it."""
    keys = [
        ModelKey("", "svc", "", "m", "1"),
        ModelKey("", "svc", "prod", "m", "1"),
        ModelKey("prod", "svc", "", "m", "1"),
    ]
    keys += [ModelKey("", "", "", "m", "1"), ModelKey("", "svc", "", "m", "")]
    states = [dataclasses.replace(model, view=dataclasses.replace(model.view, key=key)) for key in keys]
    seen = Counter((s.name, tuple(sorted(s.labels.items()))) for s in samples_of(read(states)))
    assert max(seen.values()) == 1


def test_a_retired_model_leaves_no_series(otlp, tmp_path):
    now = [otlp.at(0)]
    ingest = Ingest(tmp_path, clock=lambda: now[0])
    try:
        ingest.submit("metrics", otlp.Sender().request(otlp.Sender().histogram([1, 2, 3, 4], 0, 1)))

        def show():
            models = [evaluate(view, None) for view in ingest.views()]
            return read(models, held=ingest.counters())

        before = show()
        assert value_of(before, "mlmon_processor_models") == 1
        assert "ml_feature_count" in before
        now[0] += 86_401 * 10**9
        after = show()
        assert all(name.startswith("mlmon_processor_") for name in after)
        assert value_of(after, "mlmon_processor_models") == 0
    finally:
        ingest.close()


# ---------------------------------------------------------------- by OTLP


def export(models, instance="i", **options) -> list[ExportMetricsServiceRequest]:
    families = list_families(Snapshot(tuple(models), 0.25, 1, NOW - 5), counters(**options), [SENDING], NOW)
    return [ExportMetricsServiceRequest.FromString(body) for body in encode(families, instance, NOW)]


def points_of(requests):
    """Resource attributes, metric, its data and a point."""
    for resource in (resource for request in requests for resource in request.resource_metrics):
        names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                yield names, metric, data, point


def translate(requests):
    """Samples as the specification makes them of OTLP."""
    for _, metric, _, point in points_of(requests):
        labels = {pair.key.replace(".", "_"): pair.value.string_value for pair in point.attributes}
        name = family_name(metric.name, metric.unit)
        if metric.WhichOneof("data") != "histogram":
            total = "_total" * (metric.WhichOneof("data") == "sum" and metric.sum.is_monotonic)
            yield name + total, labels, getattr(point, point.WhichOneof("value"))
            continue
        yield f"{name}_sum", labels, point.sum
        yield f"{name}_count", labels, point.count
        for bound, count in zip([*point.explicit_bounds, math.inf], np.cumsum(point.bucket_counts), strict=True):
            yield f"{name}_bucket", {**labels, "le": bound}, count


def test_by_otlp_goes_what_metrics_shows(model, views):
    """Each series and each value, of two services and of the processor itself."""
    other = dataclasses.replace(model, view=dataclasses.replace(model.view, key=ModelKey("", "b", "", "m", "")))
    models = [model, other]
    shown = {}
    for sample in samples_of(read(models)):
        labels = {name: float(v) if name == "le" else v for name, v in sample.labels.items() if v}
        shown[sample.name, tuple(sorted(labels.items()))] = sample.value
    sent = [
        ((name, tuple(sorted((label, text) for label, text in labels.items() if text != ""))), value)
        for name, labels, value in translate(export(models))
    ]
    assert len(sent) == len(shown) > 400
    assert dict(sent) == shown


def test_metrics_are_those_of_the_registry_cumulative_and_whole_where_they_count(model):
    since = dataclasses.replace(model, view=dataclasses.replace(model.view, since=NOW - 90, totals_since=NOW - 60))
    begun = {}
    for _, metric, data, point in points_of(export([since], since=NOW - 30, fold_since=NOW - 120)):
        group, kind = METRICS[metric.name], metric.WhichOneof("data")
        assert kind == {"gauge": "gauge", "histogram": "histogram"}.get(group["instrument"], "sum")
        assert (metric.unit, metric.description) == (group["unit"], group["brief"])
        assert point.time_unix_nano == NOW * 1e9
        if kind == "gauge":
            assert not point.start_time_unix_nano
            continue
        assert data.aggregation_temporality == 2  # cumulative
        if kind == "sum":
            assert data.is_monotonic is (group["instrument"] == "counter")
            assert point.WhichOneof("value") == "as_int"
        else:
            assert not point.HasField("min")
        begun.setdefault(NOW - point.start_time_unix_nano / 1e9, set()).add(metric.name)
    assert begun[60] == {"ml.feature.count", "ml.feature.invalid", "ml.feature.category", "ml.prediction.count",
                         "ml.prediction.invalid", "ml.prediction.class"}  # fmt: skip
    assert {"ml.inference.duration", "ml.inference.active_calls", "mlmon.recorder.dropped"} <= begun[90]
    assert begun[120] == {f"mlmon.processor.{name}" for name in ("duplicates", "late", "dropped", "profile.conflicts")}
    assert {"mlmon.processor.received", "mlmon.processor.dropped", "mlmon.processor.send.requests"} <= begun[30]
    assert set(begun) == {30, 60, 90, 120}


def test_resources_are_the_services_of_the_models_told_by_this_processor(model):
    nameless = dataclasses.replace(model, view=dataclasses.replace(model.view, key=ModelKey("", "", "", "m", "1")))
    found = {
        tuple(sorted(names.items())): metric.name for names, metric, _, _ in points_of(export([model, nameless], "p"))
    }
    assert [dict(names) for names in found] == [
        {
            "service.namespace": "shop", "service.name": "svc", "deployment.environment.name": "prod",
            "service.instance.id": "p",
        },
        {"service.name": "unknown_service", "service.instance.id": "p"},
        {"service.name": "otel-mlmon-processor", "service.instance.id": "p"},
    ]  # fmt: skip


def test_requests_are_of_a_size_that_grpc_receives_and_hold_everything_once(model):
    many = [
        dataclasses.replace(model, view=dataclasses.replace(model.view, key=ModelKey("", f"svc{i}", "", "m" * 99, "1")))
        for i in range(60)
    ]
    requests = export(many)
    assert len(requests) > 1
    assert max(request.ByteSize() for request in requests) < 4 << 20
    assert min(request.ByteSize() for request in requests[:-1]) > 2 << 20
    series = Counter((name, tuple(sorted(labels.items()))) for name, labels, _ in translate(requests))
    assert max(series.values()) == 1
    assert len(series) == len(list(translate(export(many[:1])))) + 59 * len(
        [1 for _, labels, _ in translate(export(many[:1])) if "ml_model_name" in labels]
    )


def test_counters_begin_with_the_first_interval_that_was_counted_and_go_on_after_a_restart(otlp, tmp_path):
    """Delta: its start. Cumulative from before the processor was: what was counted before is in the value, so in the
    time too. What the process alone counts begins with the process."""
    now = [otlp.at(10)]

    def read_starts(ingest):
        models = [evaluate(view, None) for view in ingest.views()]
        families = list_families(Snapshot(tuple(models)), ingest.counters(), (), now[0] / 1e9)
        starts = {}
        for body in encode(families, ingest.instance, now[0] / 1e9):
            for names, metric, _, point in points_of([ExportMetricsServiceRequest.FromString(body)]):
                if metric.WhichOneof("data") == "sum":
                    starts[names["service.name"], metric.name] = point.start_time_unix_nano
        return ingest.instance, starts

    ingest = Ingest(tmp_path, clock=lambda: now[0])
    for service, start, temporality in (("delta", 9, otlp.DELTA), ("cumulative", 2, otlp.CUMULATIVE)):
        sender = otlp.Sender(service=service)
        for later in (0, 0.5):
            begin = start + later if temporality == otlp.DELTA else start
            count = sender.count(3 + round(later * 2), begin, 9.5 + later, temporality=temporality)
            ingest.submit("metrics", sender.request(count))
    before = read_starts(ingest)
    assert abs(before[1]["delta", "ml.feature.count"] - otlp.at(9)) < 1_000  # ns, as floats of seconds have them
    assert abs(before[1]["cumulative", "ml.feature.count"] - otlp.at(2)) < 1_000
    ingest.close()
    now[0] = otlp.at(20)
    ingest = Ingest(tmp_path, clock=lambda: now[0])
    ingest.submit("metrics", otlp.Sender(service="delta").request(otlp.Sender(service="delta").count(1, 11, 12)))
    after = read_starts(ingest)
    ingest.close()
    assert after[0] == before[0]  # the identity of what is kept
    own = {("otel-mlmon-processor", f"mlmon.processor.{name}") for name in ("received", "refused")}
    assert {name: after[1][name] for name in before[1] if name not in own} == {
        name: start for name, start in before[1].items() if name not in own
    }
    assert abs(after[1]["otel-mlmon-processor", "mlmon.processor.received"] - otlp.at(20)) < 1_000
