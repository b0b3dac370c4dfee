"""Counts out of the process: our own thread, a wrapper for the application's exporter, the profile as an event."""

from __future__ import annotations

import gzip
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import Counter, ObservableCounter
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Gauge,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_mlmon import semconv
from otel_mlmon.config import Settings, temporality_preference
from otel_mlmon.points import split_metrics
from otel_mlmon.processes import importing

if TYPE_CHECKING:
    import requests
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AnyValue

    from otel_mlmon.profile.document import Profile

logger = logging.getLogger(__name__)

REQUEST_BYTES: Final = 3 << 20  # gRPC receives 4 MiB by default
PART_BYTES: Final = 1 << 20
PENDING_REQUESTS: Final = 64
PROFILE_SECONDS: Final = 3600.0


class Collectable(Protocol):
    """What a monitor offers to those who export."""

    @property
    def resource(self) -> Resource: ...  # noqa: D102
    @property
    def scope(self) -> InstrumentationScope: ...  # noqa: D102
    def collect(self, temporality: AggregationTemporality) -> list[Metric]: ...  # noqa: D102
    def hand_over(self) -> None: ...  # noqa: D102
    def give_up(self, points: int) -> None: ...  # noqa: D102


def make_metric_exporter(settings: Settings) -> MetricExporter | None:
    """The exporter that the environment asks for; None for none. Imported when used."""
    if settings.disabled or not settings.exporters:
        return None
    if "otlp" not in settings.exporters:
        return ConsoleMetricExporter()
    with importing:
        if settings.protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

            return HttpExporter(session=make_session())
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()


def make_log_exporter(settings: Settings) -> LogRecordExporter | None:
    """An exporter for the profile event alone, never the application's log pipeline; where metrics go by OTLP."""
    if settings.disabled or "otlp" not in settings.exporters:
        return None
    with importing:
        if settings.protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter

            return HttpExporter(session=make_session())
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

        return OTLPLogExporter()


def make_session() -> requests.Session:
    """A session that trusts OTEL_EXPORTER_OTLP_CERTIFICATE where REQUESTS_CA_BUNDLE is set too; plain ones do not."""
    import requests

    class Session(requests.Session):
        def merge_environment_settings(self, *args: Any, **options: Any) -> Any:
            merged = super().merge_environment_settings(*args, **options)
            return merged if self.verify is True else {**merged, "verify": self.verify}

    return Session()


@cache
def find_suppression() -> Callable[[], AbstractContextManager[None]]:
    """What keeps instrumented gRPC and HTTP clients from tracing our exports; without that package there are none."""
    with importing:
        try:
            from opentelemetry.instrumentation.utils import suppress_instrumentation
        except ImportError:
            return nullcontext
        return suppress_instrumentation


def profile_records(
    profile: Profile, resource: Resource, scope: InstrumentationScope, now: int
) -> list[ReadableLogRecord]:
    """The profile event: the gzipped document in parts of at most PART_BYTES; `now` in ns since 1970."""
    body = gzip.compress(profile.to_bytes(), mtime=0)
    parts = [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]
    records = []
    for number, part in enumerate(parts, 1):
        attributes: dict[str, AnyValue] = {
            semconv.ML_MODEL_NAME: profile.model,
            semconv.ML_MODEL_VERSION: profile.version,
            semconv.ML_REFERENCE_HASH: profile.hash,
            semconv.ML_REFERENCE_PART: number,
            semconv.ML_REFERENCE_PARTS: len(parts),
        }
        record = LogRecord(
            timestamp=now,
            observed_timestamp=now,
            severity_number=SeverityNumber.INFO,
            body=part,
            attributes=attributes,
            event_name=semconv.EVENT_ML_REFERENCE_PROFILE,
        )
        records.append(ReadableLogRecord(record, resource, scope))
    return records


def make_metrics_data(resource: Resource, scope: InstrumentationScope, metrics: Sequence[Metric]) -> MetricsData:
    """One request."""
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


class Backlog:
    """Requests that were not acknowledged, oldest first; the next must wait for them. Not thread-safe.

    A delta is sent again unchanged, never merged with the next; beyond PENDING_REQUESTS the oldest is given up and
    counted. A cumulative total is superseded by the next, so nothing is kept.
    """

    def __init__(self, temporality: AggregationTemporality) -> None:
        self._temporality = temporality
        self._waiting: deque[tuple[MetricsData, Collectable]] = deque()

    def collect(self, *monitors: Collectable, resource: Resource | None = None) -> None:
        """Add what monitors have counted; their own resource where none is given."""
        cumulative = self._temporality is AggregationTemporality.CUMULATIVE
        if cumulative:
            self._waiting.clear()
        for monitor in monitors:
            for group in split_metrics(monitor.collect(self._temporality), REQUEST_BYTES):
                if cumulative or not self._waiting or _holds_deltas(group):
                    data = make_metrics_data(resource or monitor.resource, monitor.scope, group)
                    self._waiting.append((data, monitor))
        while len(self._waiting) > PENDING_REQUESTS and not cumulative:
            data, monitor = self._waiting.popleft()
            monitor.give_up(_count_points(data))

    def send(self, exporter: MetricExporter, timeout_millis: float) -> bool:
        """Send what waits; False where some of it was not acknowledged."""
        while self._waiting:
            data, _ = self._waiting[0]
            if exporter.export(data, timeout_millis=timeout_millis) is not MetricExportResult.SUCCESS:
                return False
            self._waiting.popleft()
        return True


def _holds_deltas(metrics: Sequence[Metric]) -> bool:
    """Whether something would be lost with them; levels and gauges are sent anew each time."""
    delta = AggregationTemporality.DELTA
    return any(not isinstance(m.data, Gauge) and m.data.aggregation_temporality is delta for m in metrics)


def _count_points(data: MetricsData) -> int:
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


class Sender:
    """Sends a monitor's counts and profile, and keeps what was not acknowledged. One call at a time."""

    def __init__(
        self,
        monitor: Collectable,
        profile: Profile | None,
        *,
        exporter: MetricExporter | None,
        settings: Settings,
        temporality: AggregationTemporality,
    ) -> None:
        self._monitor, self._profile, self._settings = monitor, profile, settings
        self._given, self._temporality = exporter, temporality
        self._handed_over = False
        self._records: list[ReadableLogRecord] = []
        self.restart()

    def restart(self) -> None:
        """Forget connections, locks and what waits: for the child of a fork."""
        self._lock = threading.Lock()
        self._metrics: MetricExporter | None = self._given
        self._logs: LogRecordExporter | None = None
        self._backlog = Backlog(self._temporality)
        self._next_profile = 0.0

    def hand_over(self) -> None:
        """Somebody else collects the metrics from now on; the profile is still sent from here."""
        self._handed_over = True

    def send(self) -> bool:
        """Send all that was recorded before the call; False where something was not acknowledged."""
        with self._lock, find_suppression()():
            sent = self._handed_over or self._send_metrics()  # first, as they are not to be had again
            return self._send_profile() and sent

    @property
    def connected(self) -> bool:
        """Whether there is a connection of ours."""
        return self._logs is not None or (self._given is None and self._metrics is not None)

    def pause(self, timeout: float) -> bool:
        """Close connections and open none until `resume`; ends an export that takes longer than `timeout` seconds.

        False where even that did not make it end; there is nothing to resume then.
        """
        paused = self._lock.acquire(timeout=timeout)
        self._disconnect()
        if not paused and (paused := self._lock.acquire(timeout=timeout)):
            self._disconnect()
        return paused

    def resume(self) -> None:
        """Connections may be opened again."""
        self._lock.release()

    def _disconnect(self) -> None:
        exporters = None if self._given else self._metrics, self._logs
        self._metrics, self._logs = self._given, None
        for exporter in exporters:
            if exporter is not None:
                exporter.shutdown()

    def _send_metrics(self) -> bool:
        exporter = self._metrics = self._metrics or make_metric_exporter(self._settings)
        if exporter is None:
            return True
        self._backlog.collect(self._monitor)
        return self._backlog.send(exporter, self._settings.timeout * 1000)

    def _send_profile(self) -> bool:
        if self._profile is None or time.monotonic() < self._next_profile:
            return True
        if self._logs is None:
            self._logs = make_log_exporter(self._settings) if self._given is None else None
        if self._logs is None:
            return True
        if not self._records:
            self._records = profile_records(self._profile, self._monitor.resource, self._monitor.scope, time.time_ns())
        for record in self._records:  # one request each, so that none is too large
            if self._logs.export([record]) is not LogRecordExportResult.SUCCESS:
                return False
        self._records = []
        self._next_profile = time.monotonic() + PROFILE_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
        return True


class ExportThread:
    """Counts full blocks when woken, sends every `interval` seconds. A daemon; started at the first row.

    Args:
        count: counts what waits.
        send: sends what was counted.
        interval: seconds.
    """

    def __init__(self, count: Callable[[], None], send: Callable[[], bool], interval: float) -> None:
        self._count, self._send, self._interval = count, send, interval
        self._wake = threading.Event()
        self._stopping = self._delivered = False
        self._thread = threading.Thread(target=self._run, name="otel-mlmon-export", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """A block is full."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        """Send what is left and end; does not wait for it."""
        self._stopping = True
        self._wake.set()

    def stop(self, timeout: float) -> bool:
        """The same; False where that took longer than `timeout` seconds. What was not delivered is told of."""
        self.ask_to_stop()
        self._thread.join(timeout)
        if not self._delivered:
            logger.warning("the last export was not acknowledged, and what it held is lost; the exporter says why")
        return not self._thread.is_alive()

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stopping:
            self._wake.wait(max(due - time.monotonic(), 0.0))
            self._wake.clear()
            try:
                with importing:  # as numpy and pandas do on first use
                    self._count()
                if time.monotonic() >= due and not self._stopping:
                    due = time.monotonic() + self._interval
                    self._send()
            except Exception:
                logger.exception("an export failed; the next is in %g s", self._interval)
        try:
            self._delivered = self._send()
        except Exception:
            logger.exception("the last export failed")


class MonitoredExporter(MetricExporter):
    """An exporter that appends the points of monitors to what the application's own reader exports.

    Resource and connection are then the application's:

        reader = PeriodicExportingMetricReader(MonitoredExporter(OTLPMetricExporter(), monitor))

    The SDK's readers export nothing where the application has counted nothing, so they need one instrument at least.

    Args:
        exporter: that does the sending.
        monitors: whose points are appended.
        temporality: of these points; by default what the environment prefers.
        preferences: `preferred_temporality` and `preferred_aggregation` of the application's metrics, as the exporter
            was given them; by default what the environment prefers.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        *monitors: Collectable,
        temporality: AggregationTemporality | None = None,
        **preferences: Any,
    ) -> None:
        super().__init__(**{**_preferences(), **preferences})
        delta = temporality_preference() in ("delta", "lowmemory")
        preferred = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self._exporter, self._monitors, self._temporality = exporter, monitors, temporality or preferred
        self._backlog, self._process = Backlog(self._temporality), os.getpid()
        for monitor in monitors:
            monitor.hand_over()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export the application's metrics, then the monitors'."""
        result = self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        resource = metrics_data.resource_metrics[0].resource if metrics_data.resource_metrics else None
        if self._process != os.getpid():  # what waited before a fork is the parent's
            self._backlog, self._process = Backlog(self._temporality), os.getpid()
        self._backlog.collect(*self._monitors, resource=resource)
        return result if self._backlog.send(self._exporter, timeout_millis) else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown(timeout_millis, **kwargs)


def _preferences() -> dict[str, Any]:
    """Those of the environment, as the SDK's OTLP exporters read them."""
    preference, delta = temporality_preference(), AggregationTemporality.DELTA
    kinds = {"delta": (Counter, ObservableCounter, HistogramInstrument), "lowmemory": (Counter, HistogramInstrument)}
    preferences: dict[str, Any] = {"preferred_temporality": dict.fromkeys(kinds.get(preference, ()), delta)}
    aggregation = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
    if aggregation == "base2_exponential_bucket_histogram":
        preferences["preferred_aggregation"] = {HistogramInstrument: ExponentialBucketHistogramAggregation()}
    return preferences
