"""Names of the semantic conventions `ml.*` and `mlmon.*`. Generated from semconv/registry.yaml by `make generate`: do not edit."""

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """A metric of the registry: name, instrument, UCUM unit, description."""

    name: str
    instrument: str
    unit: str
    description: str


# Which model, and what did it do.
ML_MODEL_NAME: Final = "ml.model.name"
ML_MODEL_VERSION: Final = "ml.model.version"
ML_MODEL_HASH: Final = "ml.model.hash"
ML_FRAMEWORK_NAME: Final = "ml.framework.name"
ML_FRAMEWORK_VERSION: Final = "ml.framework.version"
ML_OPERATION_NAME: Final = "ml.operation.name"
ML_INFERENCE_BATCH_SIZE: Final = "ml.inference.batch.size"

# Which feature, and which of its values.
ML_FEATURE_NAME: Final = "ml.feature.name"
ML_FEATURE_VALUE: Final = "ml.feature.value"
ML_FEATURE_CATEGORY: Final = "ml.feature.category"
ML_FEATURE_INVALID_REASON: Final = "ml.feature.invalid.reason"
ML_PREDICTION_CLASS: Final = "ml.prediction.class"
ML_OUTCOME_PREDICTED: Final = "ml.outcome.predicted"
ML_OUTCOME_ACTUAL: Final = "ml.outcome.actual"
ML_SEGMENT_NAME: Final = "ml.segment.name"
ML_SEGMENT_VALUE: Final = "ml.segment.value"

# The profile against which is compared, and who sent a point.
ML_REFERENCE_HASH: Final = "ml.reference.hash"
ML_REFERENCE_PART: Final = "ml.reference.part"
ML_REFERENCE_PARTS: Final = "ml.reference.parts"
ML_PRODUCER_INCARNATION: Final = "ml.producer.incarnation"

# What was measured.
ML_DRIFT_MEASURE: Final = "ml.drift.measure"
ML_ALARM_STATE: Final = "ml.alarm.state"
ML_ALARM_TEXT: Final = "ml.alarm.text"
ML_PREDICTION_SIGNAL: Final = "ml.prediction.signal"
ML_QUALITY_MEASURE: Final = "ml.quality.measure"
ML_CELL_UPPER_BOUND: Final = "ml.cell.upper_bound"
ML_PERFORMANCE_METRIC: Final = "ml.performance.metric"
ML_PERFORMANCE_KIND: Final = "ml.performance.kind"

# The health of otel-mlmon itself.
MLMON_REASON: Final = "mlmon.reason"
MLMON_SIGNAL: Final = "mlmon.signal"
MLMON_ENDPOINT: Final = "mlmon.endpoint"
MLMON_PURPOSE: Final = "mlmon.purpose"

# Events.
EVENT_ML_REFERENCE_PROFILE: Final = "ml.reference.profile"
EVENT_ML_ALARM: Final = "ml.alarm"

# Metrics.
METRIC_ML_INFERENCE_DURATION: Final = Metric(
    "ml.inference.duration",
    "histogram",
    "s",
    "Duration of a call, failed ones too.",
)
METRIC_ML_INFERENCE_BATCH_SIZE: Final = Metric(
    "ml.inference.batch.size",
    "histogram",
    "{row}",
    "Rows in a call.",
)
METRIC_ML_INFERENCE_ACTIVE_CALLS: Final = Metric(
    "ml.inference.active_calls",
    "updowncounter",
    "{call}",
    "Calls that have begun and not ended.",
)
METRIC_ML_FEATURE_VALUE: Final = Metric(
    "ml.feature.value",
    "histogram",
    "{value}",
    "Distribution of a numeric feature over the cells of its profile; exponential without a profile. Its sum may fall, as values may be negative.",
)
METRIC_ML_FEATURE_COUNT: Final = Metric(
    "ml.feature.count",
    "counter",
    "{value}",
    "Values of a feature seen, valid or not.",
)
METRIC_ML_FEATURE_CATEGORY: Final = Metric(
    "ml.feature.category",
    "counter",
    "{value}",
    "Values of a categorical feature by category.",
)
METRIC_ML_FEATURE_INVALID: Final = Metric(
    "ml.feature.invalid",
    "counter",
    "{value}",
    "Values that are in no cell, by reason.",
)
METRIC_ML_PREDICTION_VALUE: Final = Metric(
    "ml.prediction.value",
    "histogram",
    "{value}",
    "Distribution of predicted numbers.",
)
METRIC_ML_PREDICTION_CLASS: Final = Metric(
    "ml.prediction.class",
    "counter",
    "{prediction}",
    "Predictions by class.",
)
METRIC_ML_PREDICTION_SCORE: Final = Metric(
    "ml.prediction.score",
    "histogram",
    "{score}",
    "Distribution of the score of the positive class (two classes) or of the predicted class.",
)
METRIC_ML_PREDICTION_COUNT: Final = Metric(
    "ml.prediction.count",
    "counter",
    "{prediction}",
    "Predictions seen, valid or not, by output.",
)
METRIC_ML_PREDICTION_INVALID: Final = Metric(
    "ml.prediction.invalid",
    "counter",
    "{prediction}",
    "Predictions that are in no cell, by output and reason.",
)
METRIC_ML_OUTCOME: Final = Metric(
    "ml.outcome",
    "counter",
    "{prediction}",
    "Predicted against actual class, when labels arrive.",
)
METRIC_ML_PREDICTION_ERROR: Final = Metric(
    "ml.prediction.error",
    "histogram",
    "{value}",
    "Predicted less actual number, when labels arrive.",
)
METRIC_ML_LABEL_DELAY: Final = Metric(
    "ml.label.delay",
    "histogram",
    "s",
    "Time from a prediction to its label.",
)
METRIC_ML_MODEL_INFO: Final = Metric(
    "ml.model.info",
    "gauge",
    "{model}",
    "One for each model that is live; its attributes are the model's identity.",
)
METRIC_ML_MODEL_AGE: Final = Metric(
    "ml.model.age",
    "gauge",
    "s",
    "Time since the model was trained, where the profile says when.",
)
METRIC_ML_REFERENCE_AGE: Final = Metric(
    "ml.reference.age",
    "gauge",
    "s",
    "Time since the profile was built.",
)
METRIC_ML_REFERENCE_ROWS: Final = Metric(
    "ml.reference.rows",
    "gauge",
    "{row}",
    "Rows that the profile was built from.",
)
METRIC_MLMON_RECORDER_DROPPED: Final = Metric(
    "mlmon.recorder.dropped",
    "counter",
    "{row}",
    "Rows that the recorder did not count, by reason.",
)
METRIC_MLMON_RECORDER_ERRORS: Final = Metric(
    "mlmon.recorder.errors",
    "counter",
    "{error}",
    "Errors inside the instrumentation, which the caller never sees, by exception type.",
)
METRIC_MLMON_RECORDER_EXTRA_COLUMNS: Final = Metric(
    "mlmon.recorder.extra_columns",
    "counter",
    "{column}",
    "Columns of the input that the profile does not know, over all batches.",
)
METRIC_MLMON_RECORDER_UNSENT: Final = Metric(
    "mlmon.recorder.unsent",
    "counter",
    "{point}",
    "Points given up because too many waited for a backend that was away; cumulative totals hold them all the same.",
)
METRIC_ML_FEATURE_DRIFT: Final = Metric(
    "ml.feature.drift",
    "gauge",
    "{distance}",
    "Difference between reference and current distribution over the sliding window.",
)
METRIC_ML_PREDICTION_DRIFT: Final = Metric(
    "ml.prediction.drift",
    "gauge",
    "{distance}",
    "The same for what the model says.",
)
METRIC_ML_DRIFT_EVIDENCE: Final = Metric(
    "ml.drift.evidence",
    "gauge",
    "{threshold}",
    "How sure the alarm is, over what the budget asks for; 1 and more raises it. Of the variables of an alarm.",
)
METRIC_ML_DRIFT_ALARM: Final = Metric(
    "ml.drift.alarm",
    "gauge",
    "{alarm}",
    "1 while the feature or prediction is part of an alarm, 0 while it is not; absent while there is too little data to say.",
)
METRIC_ML_ALARM_BUDGET: Final = Metric(
    "ml.alarm.budget",
    "gauge",
    "{alarm}",
    "False alarms that the model may raise in 30 days; absent where alarms are decided on the sliding window alone.",
)
METRIC_ML_ALARM_RAISED: Final = Metric(
    "ml.alarm.raised",
    "gauge",
    "{alarm}",
    "Alarms that the model has raised in the last 30 days.",
)
METRIC_ML_ALARM_LEARNING: Final = Metric(
    "ml.alarm.learning",
    "gauge",
    "{flag}",
    "1 while what is normal is being learnt from production, 0 once it is known.",
)
METRIC_ML_ALARM_LEARNT: Final = Metric(
    "ml.alarm.learnt",
    "gauge",
    "{day}",
    "Days of production that what is normal has been learnt from, 0 where the profile says it; from 7 on it is known.",
)
METRIC_ML_ALARM_REFUSED: Final = Metric(
    "ml.alarm.refused",
    "gauge",
    "{flag}",
    "1 where what is normal is not learnt for want of memory; then there is no budget.",
)
METRIC_ML_ALARM_START: Final = Metric(
    "ml.alarm.start",
    "gauge",
    "s",
    "While an alarm is on, begin of what its variables rest on (five at most, the largest share first when it was told), seconds since 1970.",
)
METRIC_ML_DRIFT_TOLERANCE: Final = Metric(
    "ml.drift.tolerance",
    "gauge",
    "{distance}",
    "The smallest effect D that is said to be a change.",
)
METRIC_ML_DRIFT_INSUFFICIENT: Final = Metric(
    "ml.drift.insufficient",
    "gauge",
    "{flag}",
    "1 while the window holds fewer than five values a cell, so that nothing is decided.",
)
METRIC_ML_DRIFT_REPLICA: Final = Metric(
    "ml.drift.replica",
    "gauge",
    "{distance}",
    "While an alarm is active, the effect of the replicas (three at most) that differ most from the others.",
)
METRIC_ML_MODEL_REPLICAS: Final = Metric(
    "ml.model.replicas",
    "gauge",
    "{replica}",
    "Replicas that sent within the sliding window.",
)
METRIC_ML_FEATURE_QUALITY: Final = Metric(
    "ml.feature.quality",
    "gauge",
    "{share}",
    "A data-quality rate over the sliding window.",
)
METRIC_ML_FEATURE_QUALITY_CHANGE: Final = Metric(
    "ml.feature.quality.change",
    "gauge",
    "{share}",
    "That rate less the reference's.",
)
METRIC_ML_FEATURE_DISTRIBUTION: Final = Metric(
    "ml.feature.distribution",
    "gauge",
    "{share}",
    "Share of the sliding window's values that are at most the upper bound of a cell; about 20 coarse cells.",
)
METRIC_ML_PREDICTION_DISTRIBUTION: Final = Metric(
    "ml.prediction.distribution",
    "gauge",
    "{share}",
    "The same for what the model says.",
)
METRIC_ML_MODEL_PERFORMANCE: Final = Metric(
    "ml.model.performance",
    "gauge",
    "{score}",
    "How good the model is.",
)
METRIC_ML_WINDOW_END: Final = Metric(
    "ml.window.end",
    "gauge",
    "s",
    "End of the sliding window that was evaluated, seconds since 1970; ahead while its newest part fills.",
)
METRIC_ML_WINDOW_ROWS: Final = Metric(
    "ml.window.rows",
    "gauge",
    "{row}",
    "Rows in the sliding window, as seen by its fullest feature or output.",
)
METRIC_MLMON_PROCESSOR_RECEIVED: Final = Metric(
    "mlmon.processor.received",
    "counter",
    "{item}",
    "Points, spans or log records acknowledged.",
)
METRIC_MLMON_PROCESSOR_REFUSED: Final = Metric(
    "mlmon.processor.refused",
    "counter",
    "{request}",
    "Requests refused, by reason; handshakes of TLS that failed (over HTTP alone, gRPC tells nobody) and scrapes are of no signal.",
)
METRIC_MLMON_PROCESSOR_DUPLICATES: Final = Metric(
    "mlmon.processor.duplicates",
    "counter",
    "{point}",
    "Points that had been counted before.",
)
METRIC_MLMON_PROCESSOR_LATE: Final = Metric(
    "mlmon.processor.late",
    "counter",
    "{point}",
    "Points that came behind the watermark; those within the allowed lateness are counted in their window, older ones in totals only.",
)
METRIC_MLMON_PROCESSOR_DROPPED: Final = Metric(
    "mlmon.processor.dropped",
    "counter",
    "{item}",
    "Items that were acknowledged and not used, by reason.",
)
METRIC_MLMON_PROCESSOR_JOURNAL_PENDING: Final = Metric(
    "mlmon.processor.journal.pending",
    "gauge",
    "{request}",
    "Requests in the journal since the last checkpoint.",
)
METRIC_MLMON_PROCESSOR_WAITING: Final = Metric(
    "mlmon.processor.waiting",
    "gauge",
    "{request}",
    "Requests that are being taken in; beyond `limits.requests` clients are asked to come again.",
)
METRIC_MLMON_PROCESSOR_LAG: Final = Metric(
    "mlmon.processor.lag",
    "gauge",
    "s",
    "Now less the watermark.",
)
METRIC_MLMON_PROCESSOR_EVALUATION_DURATION: Final = Metric(
    "mlmon.processor.evaluation.duration",
    "gauge",
    "s",
    "Time the last evaluation took, with its rests.",
)
METRIC_MLMON_PROCESSOR_EVALUATION_END: Final = Metric(
    "mlmon.processor.evaluation.end",
    "gauge",
    "s",
    "When the last evaluation ended, seconds since 1970; all that is exposed of models is from then.",
)
METRIC_MLMON_PROCESSOR_MODELS: Final = Metric(
    "mlmon.processor.models",
    "gauge",
    "{model}",
    "Models held.",
)
METRIC_MLMON_PROCESSOR_PROFILE_CONFLICTS: Final = Metric(
    "mlmon.processor.profile.conflicts",
    "counter",
    "{profile}",
    "Profiles of one model and version that differ; a folder goes before an event, else the newest is used.",
)
METRIC_MLMON_PROCESSOR_SEND_REQUESTS: Final = Metric(
    "mlmon.processor.send.requests",
    "counter",
    "{request}",
    "Requests sent on and acknowledged.",
)
METRIC_MLMON_PROCESSOR_SEND_REJECTED: Final = Metric(
    "mlmon.processor.send.rejected",
    "counter",
    "{item}",
    "Items of acknowledged requests that the endpoint did not take.",
)
METRIC_MLMON_PROCESSOR_SEND_FAILURES: Final = Metric(
    "mlmon.processor.send.failures",
    "counter",
    "{attempt}",
    "Attempts to send that were not acknowledged, by reason.",
)
METRIC_MLMON_PROCESSOR_SEND_DROPPED: Final = Metric(
    "mlmon.processor.send.dropped",
    "counter",
    "{request}",
    "Requests that were to be passed on and were given up, by reason.",
)
METRIC_MLMON_PROCESSOR_SEND_PENDING: Final = Metric(
    "mlmon.processor.send.pending",
    "gauge",
    "{request}",
    "Requests in the journal that wait to be passed on.",
)
METRIC_MLMON_PROCESSOR_SEND_BEHIND: Final = Metric(
    "mlmon.processor.send.behind",
    "gauge",
    "s",
    "Time since the last export that arrived, or age of the oldest request that waits to be passed on.",
)


class FeatureInvalidReason:
    """Values of `ml.feature.invalid.reason`."""

    MISSING: Final = "missing"
    NAN: Final = "nan"
    INF: Final = "inf"
    TYPE: Final = "type"


class DriftMeasure:
    """Values of `ml.drift.measure`."""

    PSI: Final = "psi"
    PSI_CORRECTED: Final = "psi_corrected"
    JS: Final = "js"
    KS: Final = "ks"
    WASSERSTEIN: Final = "wasserstein"
    MEAN_SHIFT: Final = "mean_shift"
    HELLINGER: Final = "hellinger"
    CHI2: Final = "chi2"
    LINF: Final = "linf"
    EFFECT: Final = "effect"
    EFFECT_LOWER: Final = "effect_lower"


class AlarmState:
    """Values of `ml.alarm.state`."""

    RAISE: Final = "raise"
    GROW: Final = "grow"
    CLEAR: Final = "clear"


class PredictionSignal:
    """Values of `ml.prediction.signal`."""

    VALUE: Final = "value"
    CLASS: Final = "class"
    SCORE: Final = "score"


class QualityMeasure:
    """Values of `ml.quality.measure`."""

    MISSING: Final = "missing"
    INVALID: Final = "invalid"
    OUT_OF_RANGE: Final = "out_of_range"
    UNSEEN: Final = "unseen"


class PerformanceKind:
    """Values of `ml.performance.kind`."""

    REALIZED: Final = "realized"
    ESTIMATED: Final = "estimated"


class MonSignal:
    """Values of `mlmon.signal`."""

    METRICS: Final = "metrics"
    TRACES: Final = "traces"
    LOGS: Final = "logs"


class MonPurpose:
    """Values of `mlmon.purpose`."""

    EXPORT: Final = "export"
    FORWARD: Final = "forward"
