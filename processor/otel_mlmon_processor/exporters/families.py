"""The snapshot as families of series: the one list of what leaves the processor. Pure; the exporters present it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, NamedTuple

from otel_mlmon import semconv
from otel_mlmon.numerics.rates import Rate
from otel_mlmon_processor.core.alarm import AlarmState
from otel_mlmon_processor.intake import IngestCounters
from otel_mlmon_processor.points import ENVIRONMENT, SERVICE_INSTANCE, SERVICE_NAME, SERVICE_NAMESPACE
from otel_mlmon_processor.sending import SendingCounters
from otel_mlmon_processor.snapshot import ModelState, Snapshot, VariableState
from otel_mlmon_processor.windows import ModelKey, OperationHistogram, VariableCounts, VariableKey

# What identifies a model; producers may send anything beside it.
_IDENTITY: Final = (
    semconv.ML_MODEL_HASH,
    semconv.ML_REFERENCE_HASH,
    semconv.ML_FRAMEWORK_NAME,
    semconv.ML_FRAMEWORK_VERSION,
)
TOLD: Final = 5  # variables of an alarm whose words are shown
_NONE: Final[Mapping[str, str]] = {}


class Sample(NamedTuple):
    """The value of one series.

    Args:
        model: whose it is; None of the processor's own.
        attributes: those beside the model's.
        value: counts of whole items are integers.
        since: when a counter was zero, seconds since 1970; 0 of gauges.
    """

    model: ModelKey | None
    attributes: Mapping[str, str]
    value: float | OperationHistogram
    since: float = 0.0

    def label(self) -> dict[str, str]:
        """All attributes; those of the service where they are known."""
        return {**(name_model(self.model) if self.model is not None else _NONE), **self.attributes}


class Family(NamedTuple):
    """A metric of the registry with its series, to be read once: each is made when it is asked for, as there may be
    millions.
    """

    metric: semconv.Metric
    samples: Iterable[Sample]


def name_service(key: ModelKey) -> dict[str, str]:
    """The service that a model is part of, as far as it is known."""
    service = {SERVICE_NAMESPACE: key.namespace, SERVICE_NAME: key.service, ENVIRONMENT: key.environment}
    return {name: value for name, value in service.items() if value}


def name_model(key: ModelKey) -> dict[str, str]:
    """Attributes of every series of a model."""
    return {**name_service(key), semconv.ML_MODEL_NAME: key.model, semconv.ML_MODEL_VERSION: key.version}


def list_families(
    snapshot: Snapshot,
    counters: IngestCounters,
    sending: Iterable[SendingCounters],
    now: float,
    *,
    distribution: bool = True,
) -> Iterator[Family]:
    """All families; those that have no samples too.

    Args:
        snapshot: the newest.
        counters: of what was taken in.
        sending: of each place to which something is sent.
        now: seconds since 1970.
        distribution: whether coarse histograms are among them.
    """
    yield from _model_families(snapshot.models, now)
    yield from _variable_families(snapshot.models, distribution)
    yield from _count_families(snapshot.models)
    yield from _operation_families(snapshot.models)
    yield from _health_families(snapshot, counters)
    yield from _sending_families(list(sending), counters.since, now)


def _model_families(models: Sequence[ModelState], now: float) -> Iterator[Family]:
    def each(metric: semconv.Metric, value: Callable[[ModelState], float | None]) -> Family:
        values = ((model.view.key, value(model), model.view.since) for model in models)
        level = metric.instrument == "updowncounter"
        return Family(
            metric, (Sample(key, _NONE, v, since if level else 0.0) for key, v, since in values if v is not None)
        )

    info = (Sample(m.view.key, {n: m.view.info[n] for n in _IDENTITY if n in m.view.info}, 1) for m in models)
    yield Family(semconv.METRIC_ML_MODEL_INFO, info)
    yield each(semconv.METRIC_ML_MODEL_REPLICAS, lambda m: m.view.active_replicas)
    yield each(semconv.METRIC_ML_DRIFT_TOLERANCE, lambda m: m.tolerance)

    def of(metric: semconv.Metric, value: Callable[[AlarmState], float]) -> Family:
        refused = metric is semconv.METRIC_ML_ALARM_REFUSED
        return each(metric, lambda m: value(m.alarms) if m.alarms and (refused or not m.alarms.refused) else None)

    yield of(semconv.METRIC_ML_ALARM_BUDGET, lambda a: a.budget)
    yield of(semconv.METRIC_ML_ALARM_RAISED, lambda a: a.raised)
    yield of(semconv.METRIC_ML_ALARM_LEARNING, lambda a: int(a.phase in ("learning", "provisional")))
    yield of(semconv.METRIC_ML_ALARM_LEARNT, lambda a: a.days)
    yield of(semconv.METRIC_ML_ALARM_REFUSED, lambda a: int(a.refused))
    yield each(semconv.METRIC_ML_REFERENCE_ROWS, lambda m: m.profile.rows if m.profile else None)
    yield each(semconv.METRIC_ML_REFERENCE_AGE, lambda m: _age(m.profile.created, now) if m.profile else None)
    yield each(semconv.METRIC_ML_MODEL_AGE, lambda m: _age(m.profile.trained, now) if m.profile else None)
    yield each(semconv.METRIC_ML_WINDOW_ROWS, lambda m: m.rows)
    yield each(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS, lambda m: m.view.active_calls)
    yield each(semconv.METRIC_ML_WINDOW_END, lambda m: m.view.end or None)
    yield each(semconv.METRIC_MLMON_PROCESSOR_LAG, lambda m: now - m.view.watermark if m.view.end else None)


def _age(moment: str, now: float) -> float | None:
    """Seconds since a moment in a profile, ISO 8601 in UTC; None where it is another text."""
    try:
        read = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return None
    return now - (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()


def _name_variable(key: VariableKey) -> dict[str, str]:
    if key.role == "feature":
        return {semconv.ML_FEATURE_NAME: key.name}
    return {semconv.ML_PREDICTION_SIGNAL: key.role}


_Variable = tuple[ModelKey, Mapping[str, str], VariableState]


def _variable_families(models: Sequence[ModelState], distribution: bool) -> Iterator[Family]:
    def variables() -> Iterator[_Variable]:
        return ((m.view.key, _name_variable(key), s) for m in models for key, s in m.variables.items())

    def features() -> Iterator[_Variable]:
        return (one for one in variables() if semconv.ML_FEATURE_NAME in one[1])

    def outputs() -> Iterator[_Variable]:
        return (one for one in variables() if semconv.ML_FEATURE_NAME not in one[1])

    yield Family(semconv.METRIC_ML_FEATURE_DRIFT, _list_drift(features()))
    yield Family(semconv.METRIC_ML_PREDICTION_DRIFT, _list_drift(outputs()))
    decided = (Sample(m, names, int(bool(s.alarm))) for m, names, s in variables() if s.alarm is not None)
    yield Family(semconv.METRIC_ML_DRIFT_ALARM, decided)
    evidence = (
        Sample(model.view.key, _name_variable(suspect.variable), suspect.evidence)
        for model in models
        if model.alarms is not None and model.alarms.alarm is not None
        for suspect in model.alarms.alarm.suspects
    )
    yield Family(semconv.METRIC_ML_DRIFT_EVIDENCE, evidence)
    told = (
        Sample(model.view.key, {**_name_variable(key), semconv.ML_ALARM_TEXT: text}, since)
        for model in models
        for key, text, since in _list_told(model.alarms)
    )
    yield Family(semconv.METRIC_ML_ALARM_START, told)
    waiting = (Sample(m, names, 1) for m, names, s in variables() if s.sufficient is False and s.alarm is None)
    yield Family(semconv.METRIC_ML_DRIFT_INSUFFICIENT, waiting)
    apart = (Sample(m, {**ns, SERVICE_INSTANCE: r.replica}, r.lower) for m, ns, s in variables() for r in s.replicas)
    yield Family(semconv.METRIC_ML_DRIFT_REPLICA, apart)
    rates = (Sample(m, names, rate.rate) for m, names, rate in _list_rates(features()))
    yield Family(semconv.METRIC_ML_FEATURE_QUALITY, rates)
    changes = (Sample(m, ns, r.rate - r.reference) for m, ns, r in _list_rates(features()) if r.reference is not None)
    yield Family(semconv.METRIC_ML_FEATURE_QUALITY_CHANGE, changes)
    if distribution:
        yield Family(semconv.METRIC_ML_FEATURE_DISTRIBUTION, _list_shares(features()))
        yield Family(semconv.METRIC_ML_PREDICTION_DISTRIBUTION, _list_shares(outputs()))


def _list_drift(variables: Iterable[_Variable]) -> Iterator[Sample]:
    for model, names, state in variables:
        for measure, value in state.measures.items():
            if math.isfinite(value):
                yield Sample(model, {**names, semconv.ML_DRIFT_MEASURE: measure}, value)


def _list_rates(features: Iterable[_Variable]) -> Iterator[tuple[ModelKey, Mapping[str, str], Rate]]:
    for model, names, state in features:
        for what, rate in state.quality.items():
            yield model, {**names, semconv.ML_QUALITY_MEASURE: what}, rate


def _list_shares(variables: Iterable[_Variable]) -> Iterator[Sample]:
    for model, names, state in variables:
        for bound, share in state.distribution:
            yield Sample(model, {**names, semconv.ML_CELL_UPPER_BOUND: write_bound(bound)}, share)


def _list_told(alarms: AlarmState | None) -> list[tuple[VariableKey, str, float]]:
    """Variables of an alarm that have not calmed down, with their words and since when."""
    if alarms is None or alarms.alarm is None:
        return []
    since = {suspect.variable: suspect.since for suspect in alarms.alarm.suspects}
    active = [(key, text, since[key]) for key, text in alarms.words.items() if key in alarms.active]
    return active[:TOLD]


def write_bound(value: float) -> str:
    """An upper bound as text."""
    return "+Inf" if value == math.inf else repr(value)


def _count_families(models: Sequence[ModelState]) -> Iterator[Family]:
    """Counters over the life of the models; what is summed here is what the replicas recorded."""
    reason = semconv.ML_FEATURE_INVALID_REASON

    def each(
        metric: semconv.Metric, features: bool, read: Callable[[VariableCounts], Mapping[str, int]], name: str
    ) -> Family:
        signal = metric is not semconv.METRIC_ML_PREDICTION_CLASS
        samples = (
            Sample(
                model.view.key,
                {**(_name_variable(key) if signal else _NONE), **({name: what} if name else _NONE)},
                n,
                model.view.totals_since,
            )
            for model in models
            for key, counts in model.view.totals.items()
            if (key.role == "feature") is features
            for what, n in read(counts).items()
        )
        return Family(metric, samples)

    for features, count, invalid, category, name in (
        (True, semconv.METRIC_ML_FEATURE_COUNT, semconv.METRIC_ML_FEATURE_INVALID,
         semconv.METRIC_ML_FEATURE_CATEGORY, semconv.ML_FEATURE_CATEGORY),
        (False, semconv.METRIC_ML_PREDICTION_COUNT, semconv.METRIC_ML_PREDICTION_INVALID,
         semconv.METRIC_ML_PREDICTION_CLASS, semconv.ML_PREDICTION_CLASS),
    ):  # fmt: skip
        yield each(count, features, lambda counts: {"": counts.seen}, "")
        yield each(invalid, features, lambda counts: counts.invalid, reason)
        yield each(category, features, lambda counts: counts.categories or {}, name)


def _operation_families(models: Sequence[ModelState]) -> Iterator[Family]:
    """Histograms of calls, and what the recorders did not count, over the life of the models."""
    views = [model.view for model in models]
    for metric in (semconv.METRIC_ML_INFERENCE_DURATION, semconv.METRIC_ML_INFERENCE_BATCH_SIZE):
        yield Family(
            metric, [Sample(v.key, h.attributes, h, v.since) for v in views for h in v.operations.get(metric.name, ())]
        )
    for metric in (
        semconv.METRIC_MLMON_RECORDER_DROPPED,
        semconv.METRIC_MLMON_RECORDER_ERRORS,
        semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS,
        semconv.METRIC_MLMON_RECORDER_UNSENT,
    ):
        yield Family(
            metric,
            [
                Sample(view.key, {semconv.MLMON_REASON: why} if why else _NONE, n, view.since)
                for view in views
                for why, n in view.dropped.get(metric.name, {}).items()
            ],
        )


def _health_families(snapshot: Snapshot, counters: IngestCounters) -> Iterator[Family]:
    signal, reason, since, fold = semconv.MLMON_SIGNAL, semconv.MLMON_REASON, counters.since, counters.fold
    received = [Sample(None, {signal: s}, n, since) for s, n in counters.received.items()]
    yield Family(semconv.METRIC_MLMON_PROCESSOR_RECEIVED, received)
    refused = [Sample(None, {signal: s, reason: why}, n, since) for (s, why), n in counters.refused.items()]
    yield Family(semconv.METRIC_MLMON_PROCESSOR_REFUSED, refused)
    dropped = {why: (n, counters.fold_since) for why, n in fold.dropped.items()}
    for why, n in counters.ignored.items():  # of this process alone
        dropped[why] = (dropped.get(why, (0, 0.0))[0] + n, since)
    dropping = [Sample(None, {reason: why}, n, start) for why, (n, start) in dropped.items()]
    yield Family(semconv.METRIC_MLMON_PROCESSOR_DROPPED, dropping)
    for metric, value, start in (
        (semconv.METRIC_MLMON_PROCESSOR_DUPLICATES, fold.duplicates, counters.fold_since),
        (semconv.METRIC_MLMON_PROCESSOR_LATE, fold.late, counters.fold_since),
        (semconv.METRIC_MLMON_PROCESSOR_JOURNAL_PENDING, counters.journal_entries, 0.0),
        (semconv.METRIC_MLMON_PROCESSOR_WAITING, counters.waiting, 0.0),
        (semconv.METRIC_MLMON_PROCESSOR_EVALUATION_DURATION, snapshot.seconds, 0.0),
        (semconv.METRIC_MLMON_PROCESSOR_EVALUATION_END, snapshot.end, 0.0),
        (semconv.METRIC_MLMON_PROCESSOR_MODELS, counters.models, 0.0),
        (semconv.METRIC_MLMON_PROCESSOR_PROFILE_CONFLICTS, fold.conflicts + snapshot.conflicts, counters.fold_since),
    ):
        yield Family(metric, [Sample(None, _NONE, value, start)])


def _sending_families(sending: Sequence[SendingCounters], since: float, now: float) -> Iterator[Family]:
    names = {s: {semconv.MLMON_PURPOSE: s.purpose, semconv.MLMON_ENDPOINT: s.endpoint} for s in sending}
    signal, reason = semconv.MLMON_SIGNAL, semconv.MLMON_REASON
    for metric, held in (
        (semconv.METRIC_MLMON_PROCESSOR_SEND_REQUESTS, [(s, s.acknowledged) for s in sending]),
        (semconv.METRIC_MLMON_PROCESSOR_SEND_REJECTED, [(s, s.rejected) for s in sending]),
    ):
        counts = [Sample(None, {**names[s], signal: which}, n, since) for s, by in held for which, n in by.items()]
        yield Family(metric, counts)
    for metric, reasons in (
        (semconv.METRIC_MLMON_PROCESSOR_SEND_FAILURES, [(s, s.failed) for s in sending]),
        (semconv.METRIC_MLMON_PROCESSOR_SEND_DROPPED, [(s, s.dropped) for s in sending]),
    ):
        counts = [
            Sample(None, {**names[s], signal: which, reason: why}, n, since)
            for s, by_reason in reasons
            for (which, why), n in by_reason.items()
        ]
        yield Family(metric, counts)
    pending = [Sample(None, names[s], s.pending) for s in sending]
    yield Family(semconv.METRIC_MLMON_PROCESSOR_SEND_PENDING, pending)
    behind = [Sample(None, names[s], max(now - s.oldest, 0.0) if s.oldest else 0.0) for s in sending]
    yield Family(semconv.METRIC_MLMON_PROCESSOR_SEND_BEHIND, behind)
