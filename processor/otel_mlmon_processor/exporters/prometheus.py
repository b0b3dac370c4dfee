"""The snapshot as Prometheus metrics: a custom collector, exposed in the text and the OpenMetrics format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from otel_mlmon import semconv
from otel_mlmon_processor.intake import IngestCounters
from otel_mlmon_processor.snapshot import ModelState, Snapshot, VariableState
from otel_mlmon_processor.windows import ModelKey, OperationHistogram, VariableCounts, VariableKey

# What the OpenTelemetry specification makes of units in names; annotations in braces are left out.
_UNITS: Final = {"s": "seconds", "By": "bytes"}
# What identifies a model; producers may send anything beside it.
_IDENTITY: Final = (
    semconv.ML_MODEL_HASH,
    semconv.ML_REFERENCE_HASH,
    semconv.ML_FRAMEWORK_NAME,
    semconv.ML_FRAMEWORK_VERSION,
)

Samples = Iterable[tuple[Mapping[str, str], float]]


def prometheus_name(metric: semconv.Metric) -> str:
    """Name of a metric family by the OpenTelemetry rules; exposition appends `_total` to counters."""
    name = metric.name.replace(".", "_")
    unit = _UNITS.get(metric.unit, "")
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def label(attribute: str) -> str:
    """Name of a label by the OpenTelemetry rules."""
    return attribute.replace(".", "_")


def model_labels(key: ModelKey) -> dict[str, str]:
    """Labels of every series of a model; those of the service where they are known."""
    service = {
        "service_namespace": key.namespace,
        "service_name": key.service,
        "deployment_environment_name": key.environment,
    }
    known = {name: value for name, value in service.items() if value}
    return {**known, label(semconv.ML_MODEL_NAME): key.model, label(semconv.ML_MODEL_VERSION): key.version}


class SnapshotCollector(Collector):
    """Yields metric families of the newest snapshot.

    Args:
        snapshot: gives the newest.
        counters: gives the processor's own counters.
        clock: seconds since 1970.
        distribution: whether coarse histograms are exposed.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        counters: Callable[[], IngestCounters],
        clock: Callable[[], float],
        *,
        distribution: bool = True,
    ) -> None:
        self._snapshot, self._counters, self._clock = snapshot, counters, clock
        self._show_distribution = distribution

    def collect(self) -> Iterator[Metric]:
        """Families with at least one sample."""
        snapshot = self._snapshot()
        families = (
            *_model_families(snapshot.models, self._clock()),
            *_variable_families(snapshot.models, self._show_distribution),
            *_count_families(snapshot.models),
            *_operation_families(snapshot.models),
            *_health_families(snapshot, self._counters()),
        )
        return (family for family in families if family.samples)


def _family(metric: semconv.Metric, samples: Samples) -> Metric:
    """A counter or gauge; all samples have a label for each name that any of them has."""
    held = list(samples)
    names = list(dict.fromkeys(name for labels, _ in held for name in labels))
    kind = CounterMetricFamily if metric.instrument == "counter" else GaugeMetricFamily
    family: Metric = kind(prometheus_name(metric), metric.description, labels=names, unit=_UNITS.get(metric.unit, ""))
    for labels, value in held:
        family.add_metric([labels.get(name, "") for name in names], value)  # type: ignore[attr-defined]  # both have it
    return family


def _model_families(models: Sequence[ModelState], now: float) -> Iterator[Metric]:
    def each(value: Callable[[ModelState], float]) -> Samples:
        return [(model_labels(model.view.key), value(model)) for model in models]

    known = [model for model in models if model.view.end]
    info = [
        ({**model_labels(m.view.key), **{label(n): m.view.info[n] for n in _IDENTITY if n in m.view.info}}, 1.0)
        for m in models
    ]
    yield _family(semconv.METRIC_ML_MODEL_INFO, info)
    yield _family(semconv.METRIC_ML_MODEL_REPLICAS, each(lambda m: m.view.active_replicas))
    yield _family(semconv.METRIC_ML_DRIFT_TOLERANCE, each(lambda m: m.tolerance))
    profiles = [(model_labels(m.view.key), m.profile.rows) for m in models if m.profile is not None]
    yield _family(semconv.METRIC_ML_REFERENCE_ROWS, profiles)
    ages = [
        (metric, model_labels(m.view.key), now - since)
        for m in models
        if m.profile is not None
        for metric, moment in (
            (semconv.METRIC_ML_REFERENCE_AGE, m.profile.created),
            (semconv.METRIC_ML_MODEL_AGE, m.profile.trained),
        )
        if (since := _seconds(moment)) is not None
    ]
    for metric in (semconv.METRIC_ML_REFERENCE_AGE, semconv.METRIC_ML_MODEL_AGE):
        yield _family(metric, [(labels, age) for which, labels, age in ages if which is metric])
    yield _family(semconv.METRIC_ML_WINDOW_ROWS, each(lambda m: m.rows))
    yield _family(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS, each(lambda m: m.view.active_calls))
    yield _family(semconv.METRIC_ML_WINDOW_END, [(model_labels(m.view.key), m.view.end) for m in known])
    yield _family(
        semconv.METRIC_MLMON_PROCESSOR_LAG, [(model_labels(m.view.key), now - m.view.watermark) for m in known]
    )


def _seconds(moment: str) -> float | None:
    """Seconds since 1970 of a moment in a profile, ISO 8601 in UTC; None where it is another text."""
    try:
        read = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()


def _variables(models: Sequence[ModelState]) -> Iterator[tuple[VariableKey, dict[str, str], VariableState]]:
    """Every variable with its labels."""
    for model in models:
        labels = model_labels(model.view.key)
        for key, state in model.variables.items():
            yield key, {**labels, **_variable_label(key)}, state


def _variable_label(key: VariableKey) -> dict[str, str]:
    if key.role == "feature":
        return {label(semconv.ML_FEATURE_NAME): key.name}
    return {label(semconv.ML_PREDICTION_SIGNAL): key.role}


def _variable_families(models: Sequence[ModelState], distribution: bool) -> Iterator[Metric]:
    variables = list(_variables(models))
    features = [(labels, state) for key, labels, state in variables if key.role == "feature"]
    outputs = [(labels, state) for key, labels, state in variables if key.role != "feature"]
    measure, quality = label(semconv.ML_DRIFT_MEASURE), label(semconv.ML_QUALITY_MEASURE)
    for metric, states in ((semconv.METRIC_ML_FEATURE_DRIFT, features), (semconv.METRIC_ML_PREDICTION_DRIFT, outputs)):
        yield _family(
            metric,
            [
                ({**labels, measure: name}, v)
                for labels, s in states
                for name, v in s.measures.items()
                if np.isfinite(v)
            ],
        )
    decided = [(labels, state) for _, labels, state in variables if state.alarm is not None]
    yield _family(semconv.METRIC_ML_DRIFT_ALARM, [(labels, float(bool(s.alarm))) for labels, s in decided])
    waiting = [(labels, 1.0) for _, labels, s in variables if s.sufficient is False and s.alarm is None]
    yield _family(semconv.METRIC_ML_DRIFT_INSUFFICIENT, waiting)
    replica = "service_instance_id"
    apart = [({**labels, replica: r.replica}, r.lower) for _, labels, s in variables for r in s.replicas]
    yield _family(semconv.METRIC_ML_DRIFT_REPLICA, apart)
    rates = [({**labels, quality: name}, rate) for labels, s in features for name, rate in s.quality.items()]
    yield _family(semconv.METRIC_ML_FEATURE_QUALITY, [(labels, rate.rate) for labels, rate in rates])
    changes = [(labels, rate.rate - rate.reference) for labels, rate in rates if rate.reference is not None]
    yield _family(semconv.METRIC_ML_FEATURE_QUALITY_CHANGE, changes)
    if distribution:
        upper = label(semconv.ML_CELL_UPPER_BOUND)
        for metric, states in (
            (semconv.METRIC_ML_FEATURE_DISTRIBUTION, features),
            (semconv.METRIC_ML_PREDICTION_DISTRIBUTION, outputs),
        ):
            yield _family(
                metric,
                [({**labels, upper: _bound(bound)}, share) for labels, s in states for bound, share in s.distribution],
            )


def _bound(value: float) -> str:
    return "+Inf" if np.isposinf(value) else repr(value)


def _count_families(models: Sequence[ModelState]) -> Iterator[Metric]:
    """Counters over the life of the models; what is summed here is what the replicas recorded."""
    held = [
        (key, {**model_labels(model.view.key), **_variable_label(key)}, counts)
        for model in models
        for key, counts in model.view.totals.items()
    ]
    reason = label(semconv.ML_FEATURE_INVALID_REASON)
    category, predicted = label(semconv.ML_FEATURE_CATEGORY), label(semconv.ML_PREDICTION_CLASS)

    def of(wanted: bool) -> list[tuple[dict[str, str], VariableCounts]]:
        return [(labels, counts) for key, labels, counts in held if (key.role == "feature") is wanted]

    for metric, invalid, features in (
        (semconv.METRIC_ML_FEATURE_COUNT, semconv.METRIC_ML_FEATURE_INVALID, True),
        (semconv.METRIC_ML_PREDICTION_COUNT, semconv.METRIC_ML_PREDICTION_INVALID, False),
    ):
        yield _family(metric, [(labels, counts.seen) for labels, counts in of(features)])
        yield _family(
            invalid, [({**ls, reason: why}, n) for ls, counts in of(features) for why, n in counts.invalid.items()]
        )
    for metric, name, features in (
        (semconv.METRIC_ML_FEATURE_CATEGORY, category, True),
        (semconv.METRIC_ML_PREDICTION_CLASS, predicted, False),
    ):
        samples = [
            ({**ls, name: text}, n) for ls, counts in of(features) for text, n in (counts.categories or {}).items()
        ]
        if not features:
            samples = [
                ({k: v for k, v in ls.items() if k != label(semconv.ML_PREDICTION_SIGNAL)}, n) for ls, n in samples
            ]
        yield _family(metric, samples)


def _operation_families(models: Sequence[ModelState]) -> Iterator[Metric]:
    for metric in (semconv.METRIC_ML_INFERENCE_DURATION, semconv.METRIC_ML_INFERENCE_BATCH_SIZE):
        held = [
            ({**model_labels(model.view.key), **{label(k): v for k, v in histogram.attributes.items()}}, histogram)
            for model in models
            for histogram in model.view.operations.get(metric.name, ())
        ]
        names = list(dict.fromkeys(name for labels, _ in held for name in labels))
        unit = _UNITS.get(metric.unit, "")
        family = HistogramMetricFamily(prometheus_name(metric), metric.description, labels=names, unit=unit)
        for labels, histogram in held:
            family.add_metric([labels.get(name, "") for name in names], _buckets(histogram), histogram.sum)
        yield family
    reason = label(semconv.MLMON_REASON)
    for metric in (
        semconv.METRIC_MLMON_RECORDER_DROPPED,
        semconv.METRIC_MLMON_RECORDER_ERRORS,
        semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS,
        semconv.METRIC_MLMON_RECORDER_UNSENT,
    ):
        samples = [
            ({**model_labels(model.view.key), **({reason: why} if why else {})}, float(n))
            for model in models
            for why, n in model.view.dropped.get(metric.name, {}).items()
        ]
        yield _family(metric, samples)


def _buckets(histogram: OperationHistogram) -> list[tuple[str, float]]:
    bounds = [*map(_bound, histogram.edges.tolist()), "+Inf"]
    return list(zip(bounds, np.cumsum(histogram.cells).astype(float).tolist(), strict=True))


def _health_families(snapshot: Snapshot, counters: IngestCounters) -> Iterator[Metric]:
    signal, reason = label(semconv.MLMON_SIGNAL), label(semconv.MLMON_REASON)
    none: dict[str, str] = {}
    dropped: dict[str, int] = dict(counters.ignored)
    for why, n in counters.fold.dropped.items():
        dropped[why] = dropped.get(why, 0) + n
    yield _family(semconv.METRIC_MLMON_PROCESSOR_RECEIVED, [({signal: s}, n) for s, n in counters.received.items()])
    refused = [({signal: s, reason: why}, n) for (s, why), n in counters.refused.items()]
    yield _family(semconv.METRIC_MLMON_PROCESSOR_REFUSED, refused)
    yield _family(semconv.METRIC_MLMON_PROCESSOR_DROPPED, [({reason: why}, n) for why, n in dropped.items()])
    singles: tuple[tuple[semconv.Metric, Any], ...] = (
        (semconv.METRIC_MLMON_PROCESSOR_DUPLICATES, counters.fold.duplicates),
        (semconv.METRIC_MLMON_PROCESSOR_LATE, counters.fold.late),
        (semconv.METRIC_MLMON_PROCESSOR_JOURNAL_PENDING, counters.journal_entries),
        (semconv.METRIC_MLMON_PROCESSOR_EVALUATION_DURATION, snapshot.seconds),
        (semconv.METRIC_MLMON_PROCESSOR_MODELS, counters.models),
        (semconv.METRIC_MLMON_PROCESSOR_PROFILE_CONFLICTS, counters.fold.conflicts + snapshot.conflicts),
    )
    for metric, value in singles:
        yield _family(metric, [(none, value)])
