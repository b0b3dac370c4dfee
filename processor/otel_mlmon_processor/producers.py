"""Producers and their series: which place of which model a point's attributes mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon_processor.generation import Generation
from otel_mlmon_processor.layout import CATEGORY, CELLS, EXPONENTIAL, INVALID, SEEN, Place, Slot
from otel_mlmon_processor.model import Model
from otel_mlmon_processor.pack import Table
from otel_mlmon_processor.points import Attributes
from otel_mlmon_processor.reasons import Unusable
from otel_mlmon_processor.streams import Cumulative, Intervals, dump_streams, load_streams
from otel_mlmon_processor.windows import ModelKey, Role, VariableKey

NUMBERS: Final = "numbers"  # a histogram: its place depends on its bounds
OPERATION: Final = "operation"
LEVEL: Final = "level"
INFO: Final = "info"
DROPPED: Final = "dropped"

_OPERATION_ATTRIBUTES: Final = frozenset({semconv.ML_FRAMEWORK_NAME, semconv.ML_OPERATION_NAME, "error.type"})

# Metric -> kind, role (None: the attribute says which output) and the attribute that holds the detail.
_COUNTED: Final[dict[str, tuple[str, Role | None, str]]] = {
    semconv.METRIC_ML_FEATURE_VALUE.name: (NUMBERS, "feature", ""),
    semconv.METRIC_ML_FEATURE_COUNT.name: (SEEN, "feature", ""),
    semconv.METRIC_ML_FEATURE_CATEGORY.name: (CATEGORY, "feature", semconv.ML_FEATURE_CATEGORY),
    semconv.METRIC_ML_FEATURE_INVALID.name: (INVALID, "feature", semconv.ML_FEATURE_INVALID_REASON),
    semconv.METRIC_ML_PREDICTION_VALUE.name: (NUMBERS, "value", ""),
    semconv.METRIC_ML_PREDICTION_SCORE.name: (NUMBERS, "score", ""),
    semconv.METRIC_ML_PREDICTION_CLASS.name: (CATEGORY, "class", semconv.ML_PREDICTION_CLASS),
    semconv.METRIC_ML_PREDICTION_COUNT.name: (SEEN, None, ""),
    semconv.METRIC_ML_PREDICTION_INVALID.name: (INVALID, None, semconv.ML_FEATURE_INVALID_REASON),
}
_SIGNALS: Final[dict[str, Role]] = {
    semconv.PredictionSignal.VALUE: "value",
    semconv.PredictionSignal.CLASS: "class",
    semconv.PredictionSignal.SCORE: "score",
}
_REASONS: Final = frozenset(
    {
        semconv.FeatureInvalidReason.MISSING,
        semconv.FeatureInvalidReason.NAN,
        semconv.FeatureInvalidReason.INF,
        semconv.FeatureInvalidReason.TYPE,
    }
)
_OTHER_KINDS: Final = {
    semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name: LEVEL,
    semconv.METRIC_ML_MODEL_INFO.name: INFO,
    semconv.METRIC_MLMON_RECORDER_DROPPED.name: DROPPED,
    semconv.METRIC_MLMON_RECORDER_ERRORS.name: DROPPED,
    semconv.METRIC_MLMON_RECORDER_EXTRA_COLUMNS.name: DROPPED,
    semconv.METRIC_MLMON_RECORDER_UNSENT.name: DROPPED,
}


class UnusableError(Exception):
    """A point cannot be placed; the argument is the reason."""

    def __init__(self, reason: Unusable) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What a metric and its attributes say; one object for all producers that send them.

    Args:
        metric, attributes: as they came.
        model, version: of which model.
        kind: SEEN, INVALID, CATEGORY, NUMBERS, OPERATION, LEVEL, INFO or DROPPED.
        digest: hash of the profile the counts were made with.
        variable: of the counts of a feature or an output.
        detail: the category, or the reason.
        rest: attributes that are kept apart in operational histograms.
    """

    metric: str
    attributes: Attributes
    model: str
    version: str
    kind: str
    digest: str = ""
    variable: VariableKey | None = None
    detail: str = ""
    rest: Attributes = ()


def interpret(metric: str, attributes: Attributes) -> Meaning:
    """What a point is about.

    Raises:
        UnusableError: an attribute that is needed is absent, or has a value that is not known.
    """
    given = dict(attributes)
    model, version = given.get(semconv.ML_MODEL_NAME, ""), given.get(semconv.ML_MODEL_VERSION, "")
    if not model:
        raise UnusableError("no_model")
    if semconv.ML_SEGMENT_NAME in given:
        raise UnusableError("segment")  # a share of values that the plain points have counted already
    counted = _COUNTED.get(metric)
    if counted is None:
        kind = _OTHER_KINDS.get(metric, OPERATION)
        detail = given.get(semconv.MLMON_REASON, "") if kind == DROPPED else ""
        rest = tuple(pair for pair in attributes if pair[0] in _OPERATION_ATTRIBUTES) if kind == OPERATION else ()
        return Meaning(metric, attributes, model, version, kind, detail=detail, rest=rest)
    kind, role, key = counted
    if role is None:
        role = _SIGNALS.get(given.get(semconv.ML_PREDICTION_SIGNAL, ""))
        if role is None:
            raise UnusableError("no_signal")
    name = given.get(semconv.ML_FEATURE_NAME, "") if role == "feature" else ""
    if role == "feature" and not name:
        raise UnusableError("no_feature")
    if key and key not in given:
        raise UnusableError("no_category" if kind == CATEGORY else "no_reason")
    detail = given[key] if key else ""
    if kind == INVALID and detail not in _REASONS:
        raise UnusableError("no_reason")
    digest = given.get(semconv.ML_REFERENCE_HASH, "")
    return Meaning(metric, attributes, model, version, kind, digest, VariableKey(role, name), detail)


class Series:
    """Points with the same metric and attributes from one producer, mutable.

    `number` is its bit in the producer's intervals. `slot` is the place of its counts as far as known; for histograms
    that of the newest bounds.
    """

    __slots__ = ("_first", "_others", "generation", "meaning", "model", "number", "slot")

    def __init__(self, number: int, meaning: Meaning, model: Model, generation: Generation | None) -> None:
        self.number = number
        self.meaning = meaning
        self.model = model
        self.generation = generation
        self.slot: Slot | None = None
        # Cumulative streams by start time; hardly ever more than one, and a dictionary takes as much room as a stream.
        self._first: Cumulative | None = None
        self._others: dict[int, Cumulative] | None = None

    @property
    def cumulatives(self) -> list[Cumulative]:
        """Its cumulative streams."""
        return [*([self._first] if self._first is not None else []), *(self._others or {}).values()]

    def find(self, start: int) -> Cumulative | None:
        """The cumulative stream with a start time."""
        first = self._first
        if first is not None and first.start == start:
            return first
        return self._others.get(start) if self._others is not None else None

    def keep(self, stream: Cumulative) -> None:
        """Hold one more cumulative stream."""
        if self._first is None:
            self._first = stream
        else:
            self._others = self._others or {}
            self._others[stream.start] = stream


@dataclass(slots=True, eq=False)
class ProducerState:
    """What is known of one process, mutable. Its environment is that of its first request, whatever is added later."""

    number: int
    namespace: str
    service: str
    instance: str
    environment: str
    received: int = 0
    next_series: int = 0
    intervals: Intervals = field(default_factory=Intervals)
    series: dict[Meaning, Series] = field(default_factory=dict)

    def key(self, model: str, version: str) -> ModelKey:
        """The merge key of a model that this producer serves."""
        return ModelKey(self.namespace, self.service, self.environment, model, version)

    def dump(self, meanings: Table[Meaning], bounds: Table[bytes]) -> list[Any]:
        """As plain values, for the checkpoint; what many producers share is in the tables."""
        series = list(self.series.values())
        streams = [each.cumulatives for each in series]
        return [
            [self.number, self.namespace, self.service, self.instance, self.environment],
            self.received,
            self.next_series,
            self.intervals.dump(),
            np.array([meanings.place(each.meaning) for each in series], dtype=np.int64),
            np.array([each.number for each in series], dtype=np.int64),
            np.array([len(each) for each in streams], dtype=np.int64),
            dump_streams([stream for each in streams for stream in each], bounds),
        ]

    @classmethod
    def load(
        cls, plain: list[Any], models: dict[ModelKey, Model], meanings: list[Meaning], bounds: list[bytes]
    ) -> ProducerState:
        """What `dump` gave, with the tables."""
        (number, namespace, service, instance, environment), received, next_series, intervals, *columns, held = plain
        producer = cls(number, namespace, service, instance, environment, received, next_series)
        producer.intervals = Intervals.load(intervals)
        streams = load_streams(held, bounds)
        for place, number, cumulatives in zip(*[column.tolist() for column in columns], strict=True):
            meaning = meanings[place]
            model = models[producer.key(meaning.model, meaning.version)]
            generation = model.generations[meaning.digest] if meaning.variable else None
            series = producer.series[meaning] = Series(number, meaning, model, generation)
            for stream in islice(streams, cumulatives):
                series.keep(stream)
        return producer


def place_of(meaning: Meaning, bounds: bytes | None) -> Place:
    """The place of a feature's or output's count; `bounds` is None for exponential histograms and plain counts."""
    if meaning.variable is None:
        raise ValueError(f"{meaning.kind} has no place among the variables")
    if meaning.kind != NUMBERS:
        return Place(meaning.variable, meaning.kind, meaning.detail)
    return Place(meaning.variable, EXPONENTIAL) if bounds is None else Place(meaning.variable, CELLS, bounds)
