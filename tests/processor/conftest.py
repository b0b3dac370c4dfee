"""Requests as a producer would send them, built from the OTLP messages; and views of rows, without a wire."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.windows import ModelKey, ModelView, ReplicaCounts, VariableCounts, VariableKey

from otel_mlmon import semconv
from otel_mlmon.numerics.binning import OTHER, UNSEEN, CategoryAxis

MINUTE = 60 * 10**9
EPOCH = 29_000_000  # a minute in 2025: times below are minutes after it
DELTA, CUMULATIVE = 1, 2
EDGES = (0.0, 1.0, 2.0)
NONE: Mapping[str, str] = {}


def at(minute: float) -> int:
    """Nanoseconds of a time given in minutes."""
    return EPOCH * MINUTE + round(minute * MINUTE)


def annotate(attributes, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        pair = attributes.add()
        pair.key = key
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = str(value)


@dataclass(frozen=True)
class Sender:
    """One process, as its requests name it."""

    instance: str = "a"
    incarnation: str = "i"
    service: str = "svc"
    namespace: str = ""
    environment: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, str] = field(
        default_factory=lambda: {
            semconv.ML_MODEL_NAME: "m",
            semconv.ML_MODEL_VERSION: "1",
            semconv.ML_REFERENCE_HASH: "h",
        }
    )

    def annotate(self, resource, scope) -> None:
        names = {
            "service.name": self.service,
            "service.namespace": self.namespace,
            "service.instance.id": self.instance,
            "deployment.environment.name": self.environment,
        }
        annotate(resource.attributes, {key: value for key, value in names.items() if value} | dict(self.extra))
        scope.name = "otel_mlmon"
        if self.incarnation:
            annotate(scope.attributes, {semconv.ML_PRODUCER_INCARNATION: self.incarnation})

    def request(self, *metrics: Metric) -> bytes:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        scope = resource.scope_metrics.add()
        self.annotate(resource.resource, scope.scope)
        scope.metrics.extend(metrics)
        return request.SerializeToString()

    def profile(self, digest: str, bodies: Mapping[int, bytes], parts: int, version: str = "1") -> bytes:
        """A logs request with some parts of a profile."""
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        scope = resource.scope_logs.add()
        self.annotate(resource.resource, scope.scope)
        for number, body in bodies.items():
            record = scope.log_records.add()
            record.event_name = semconv.EVENT_ML_REFERENCE_PROFILE
            record.body.bytes_value = body
            names = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: version, semconv.ML_REFERENCE_HASH: digest}
            annotate(record.attributes, {**names, semconv.ML_REFERENCE_PART: number, semconv.ML_REFERENCE_PARTS: parts})
        return request.SerializeToString()

    def histogram(
        self,
        counts: Sequence[int],
        start: float,
        end: float,
        *,
        edges: Iterable[float] = EDGES,
        name: str = semconv.METRIC_ML_FEATURE_VALUE.name,
        temporality: int = DELTA,
        total: float | None = None,
        labels: Mapping[str, str] = NONE,
    ) -> Metric:
        """A histogram point over the minutes (start, end]."""
        metric = Metric(name=name)
        metric.histogram.aggregation_temporality = temporality
        point = metric.histogram.data_points.add(start_time_unix_nano=at(start), time_unix_nano=at(end))
        point.explicit_bounds.extend(edges)
        point.bucket_counts.extend(counts)
        point.count = sum(counts)
        if total is not None:
            point.sum = total
        self.label(point, name, labels)
        return metric

    def count(
        self,
        count: int,
        start: float,
        end: float,
        *,
        name: str = semconv.METRIC_ML_FEATURE_COUNT.name,
        temporality: int = DELTA,
        monotonic: bool = True,
        labels: Mapping[str, str] = NONE,
    ) -> Metric:
        """A counter's point over the minutes (start, end]."""
        metric = Metric(name=name)
        metric.sum.aggregation_temporality = temporality
        metric.sum.is_monotonic = monotonic
        point = metric.sum.data_points.add(start_time_unix_nano=at(start), time_unix_nano=at(end), as_int=count)
        self.label(point, name, labels)
        return metric

    def label(self, point, name: str, labels: Mapping[str, str]) -> None:
        """Attributes of a point: the model's, and `labels`."""
        given = {**self.model, **labels}
        if name.startswith(semconv.METRIC_ML_FEATURE_VALUE.name.rpartition(".")[0]):
            given.setdefault(semconv.ML_FEATURE_NAME, "x")
        annotate(point.attributes, given)


class Otlp:
    """What these tests share."""

    MINUTE, EPOCH, EDGES, DELTA, CUMULATIVE = MINUTE, EPOCH, EDGES, DELTA, CUMULATIVE
    X = VariableKey("feature", "x")
    Sender = Sender
    at = staticmethod(at)
    annotate = staticmethod(annotate)

    @classmethod
    def count_in(cls, directory: Path) -> int:
        """Values of X in a data directory."""
        ingest = Ingest(directory)
        try:
            return sum(view.totals[cls.X].seen for view in ingest.views())
        finally:
            ingest.close()


@pytest.fixture(scope="session")
def otlp() -> type[Otlp]:
    return Otlp


@pytest.fixture
def filled(otlp, tmp_path):
    """A data directory as of a killed processor: a checkpoint of 3 requests (12 values), and 2 (8 values) after it."""
    ingest = Ingest(tmp_path / "live")
    sender = otlp.Sender()
    for minute in range(5):
        if minute == 3:
            ingest.checkpoint()
        ingest.submit("metrics", sender.request(sender.count(4, minute, minute + 1)))
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    ingest.close()
    return tmp_path / "killed"


class Apart(dict[str, Mapping[VariableKey, VariableCounts]]):
    """Replicas one by one."""

    def of(self, key: VariableKey) -> list[ReplicaCounts]:
        return [
            ReplicaCounts(
                [name],
                np.array([sum(held.invalid.values())]),
                held.edges,
                None if held.cells is None else held.cells[None],
                np.array([np.nan if held.sum is None else held.sum]),
                None if held.categories is None else {k: np.array([n]) for k, n in held.categories.items()},
                held.exponential,
            )
            for name, variables in self.items()
            if (held := variables.get(key)) is not None
        ]


class Views:
    """Views of a model straight from rows, counted one by one as the wire's rules say."""

    KEY = ModelKey("shop", "svc", "prod", "m", "1")

    @staticmethod
    def count(variable, values) -> VariableCounts:
        """Counts of a variable's values: cells (lower, upper] of numbers, labels of categories, and what has none."""
        axis = variable.axis
        if isinstance(axis, CategoryAxis):
            held = [None if value is None else str(value) for value in np.asarray(values, dtype=object).tolist()]
            if variable.dtype == "boolean":
                held = [value and value.lower() for value in held]
            missing = held.count(None)
            known = {**dict.fromkeys(axis.others, OTHER), **{name: name for name in axis.names}}
            labels = Counter(known.get(value, UNSEEN) for value in held if value is not None)
            return VariableCounts(len(held), {"missing": missing} if missing else {}, categories=dict(labels))
        numbers = np.asarray(values, dtype=np.float64)
        finite = numbers[np.isfinite(numbers)]
        invalid = {"nan": int(np.isnan(numbers).sum()), "inf": int(np.isinf(numbers).sum())}
        cells = np.bincount(np.searchsorted(axis.edges, finite, side="left"), minlength=axis.edges.size + 1)
        return VariableCounts(
            numbers.size,
            {reason: count for reason, count in invalid.items() if count},
            np.array(axis.edges),
            cells,
            float(finite.sum()),
        )

    @classmethod
    def variables(cls, profile, rows) -> dict[VariableKey, VariableCounts]:
        """Counts of a mapping from names (of outputs: their role) to values."""
        return {
            VariableKey(v.role, v.name if v.role == "feature" else ""): cls.count(v, rows[v.name])
            for v in (profile.plan.variables if profile is not None else ())
            if v.name in rows
        }

    @classmethod
    def view(cls, profile, rows, *, key=KEY, replicas=None, **changes) -> ModelView:
        """The view of rows, or of the rows of replicas."""
        window = rows if isinstance(next(iter(rows.values()), None), VariableCounts) else cls.variables(profile, rows)
        given = {
            "key": key,
            "reference_hash": profile.hash if profile is not None else "",
            "start": 1_735_686_000.0,
            "end": 1_735_689_600.0,
            "watermark": 1_735_689_599.0,
            "window": window,
            "totals": window,
            "replicas": Apart({name: cls.variables(profile, part) for name, part in (replicas or {}).items()}),
            "active_replicas": len(replicas or {"a": {}}),
            "operations": {},
            "active_calls": 0,
            "info": {},
            "dropped": {},
        }
        return ModelView(**{**given, **changes})


@pytest.fixture(scope="session")
def views() -> type[Views]:
    return Views
