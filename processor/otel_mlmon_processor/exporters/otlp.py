"""The families by OTLP: every interval, cumulative, to each endpoint on a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, SEVERITY_NUMBER_WARN
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
)

from otel_mlmon import semconv
from otel_mlmon_processor.exporters.events import EventQueue, EventRecord
from otel_mlmon_processor.exporters.families import Family, Sample, name_model, name_service
from otel_mlmon_processor.otlp_client import AGENT, Client, UnsentError
from otel_mlmon_processor.points import SERVICE_INSTANCE, SERVICE_NAME
from otel_mlmon_processor.reasons import GivenUp
from otel_mlmon_processor.sending import SendingCounters, SendingTally, back_off
from otel_mlmon_processor.windows import ModelKey, OperationHistogram

INTERNAL: Final[GivenUp] = "internal"
REQUEST_BYTES: Final = 3 << 20  # gRPC receives 4 MiB by default
SCOPE: Final = "otel_mlmon_processor"
SERVICE: Final = "otel-mlmon-processor"
UNKNOWN: Final = "unknown_service"  # as SDKs call it
_HEADER: Final = 512  # bytes of a resource and its scope, and of a metric's head, at most about

_LOG = logging.getLogger(__name__)


def encode(families: Iterable[Family], instance: str, now: float) -> Iterator[bytes]:
    """Requests of at most about REQUEST_BYTES.

    The resource is the service whose model it is, told by this processor: service.instance.id is the processor's, so
    that no two processors write the same series. Points carry the service's names too, as the labels of /metrics do:
    what a backend makes of resources differs.

    Args:
        families: what to send.
        instance: the processor's.
        now: time of all points, seconds since 1970.
    """
    request, time = _Request(instance), round(now * 1e9)
    for family in families:
        for sample in family.samples:
            if request.size > REQUEST_BYTES:
                yield request.message.SerializeToString()
                request = _Request(instance)
            request.add(family.metric, sample, time)
    if request.size:
        yield request.message.SerializeToString()


def encode_events(events: Iterable[EventRecord], instance: str, now: float) -> bytes:
    """A request of log records, one for each event: when, of which model, and what it says."""
    request = ExportLogsServiceRequest()
    for event in events:
        resource = request.resource_logs.add()
        service = _service(event.key)
        names = {SERVICE_NAME: UNKNOWN, **(name_service(service) if service else {}), SERVICE_INSTANCE: instance}
        _annotate(resource.resource.attributes, names)
        scope = resource.scope_logs.add()
        scope.scope.name, scope.scope.version = SCOPE, AGENT.partition("/")[2]
        over = event.kind == semconv.AlarmState.CLEAR
        record = scope.log_records.add(
            event_name=semconv.EVENT_ML_ALARM,
            time_unix_nano=round(event.time * 1e9),
            observed_time_unix_nano=round(now * 1e9),
            severity_number=SEVERITY_NUMBER_INFO if over else SEVERITY_NUMBER_WARN,
            severity_text="INFO" if over else "WARN",
        )
        record.body.string_value = event.text
        _annotate(record.attributes, {**name_model(event.key), semconv.ML_ALARM_STATE: event.kind})
    return request.SerializeToString()


class _Request:
    """Gathers points by resource and metric."""

    def __init__(self, instance: str) -> None:
        self.message = ExportMetricsServiceRequest()
        self.size = 0
        self._instance = instance
        self._scopes: dict[ModelKey | None, ScopeMetrics] = {}
        self._metrics: dict[tuple[ModelKey | None, str], Metric] = {}

    def add(self, metric: semconv.Metric, sample: Sample, time: int) -> None:
        place = (_service(sample.model), metric.name)
        held = self._metrics.get(place)
        if held is None:
            held = self._metrics[place] = self._scope(place[0]).metrics.add(
                name=metric.name, description=metric.description, unit=metric.unit
            )
            self.size += _HEADER
        self.size += _add_point(held, metric.instrument, sample, time).ByteSize() + 8

    def _scope(self, service: ModelKey | None) -> ScopeMetrics:
        scope = self._scopes.get(service)
        if scope is None:
            resource = self.message.resource_metrics.add()
            names = {SERVICE_NAME: UNKNOWN, **name_service(service)} if service else {SERVICE_NAME: SERVICE}
            _annotate(resource.resource.attributes, {**names, SERVICE_INSTANCE: self._instance})
            scope = self._scopes[service] = resource.scope_metrics.add()
            scope.scope.name, scope.scope.version = SCOPE, AGENT.partition("/")[2]
            self.size += _HEADER
        return scope


def _service(key: ModelKey | None) -> ModelKey | None:
    """The key of all models of a service."""
    return key._replace(model="", version="") if key is not None else None


def _add_point(metric: Metric, instrument: str, sample: Sample, time: int) -> NumberDataPoint | HistogramDataPoint:
    value, start = sample.value, min(round(sample.since * 1e9), time)
    point: Any
    if isinstance(value, OperationHistogram):
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        point = metric.histogram.data_points.add(start_time_unix_nano=start, time_unix_nano=time)
        point.explicit_bounds.extend(value.edges.tolist())
        point.bucket_counts.extend(value.cells.tolist())
        point.count, point.sum = int(value.cells.sum()), value.sum
    else:
        if instrument == "gauge":
            point = metric.gauge.data_points.add(time_unix_nano=time)
        else:
            metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.sum.is_monotonic = instrument == "counter"
            point = metric.sum.data_points.add(start_time_unix_nano=start, time_unix_nano=time)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
    _annotate(point.attributes, sample.label())
    return point  # type: ignore[no-any-return]  # of one of the two


def _annotate(attributes: Any, values: Mapping[str, str]) -> None:
    for name, text in values.items():
        pair: KeyValue = attributes.add(key=name)
        pair.value.string_value = text


class OtlpExporter:
    """Sends the newest families to one endpoint, every `interval` seconds; again sooner where it failed.

    What is sent is always the newest: counters are cumulative and lose nothing; gauges of the time in which the
    endpoint was away are not sent later (a collector's queue does that). `events` wait until the endpoint takes them.

    Args:
        client: the endpoint's.
        endpoint: its name, for people, counters and what is saved.
        families: lists what to send at a moment (seconds since 1970).
        instance: the processor's.
        interval: seconds.
        clock: seconds since 1970.
        rng: spreads attempts.
    """

    def __init__(
        self,
        client: Client,
        endpoint: str,
        families: Callable[[float], Iterable[Family]],
        *,
        instance: str,
        interval: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._client, self.endpoint, self._families = client, endpoint, families
        self._instance, self._interval, self._clock, self._rng = instance, interval, clock, rng
        self._tally = SendingTally(semconv.MonPurpose.EXPORT, endpoint)
        self._arrived = clock()  # moment of what was last acknowledged whole
        self._failures = 0  # in a row
        self.events = EventQueue(self._tally)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlmon-export", daemon=True)

    def start(self) -> None:
        """Export now, and every interval from now on."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Export once more where the endpoint is there, then end within about `timeout` seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._client.close()

    def counters(self) -> SendingCounters:
        """What became of the exports."""
        return self._tally.counters(oldest=self._arrived)

    def _run(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            wait = self._export()
        if not self._failures:
            self._export()

    def _export(self) -> float:
        """Seconds until the next export."""
        now = self._clock()
        try:
            self._send_events(now)
            for body in encode(self._families(now), self._instance, now):
                self._send(semconv.MonSignal.METRICS, body)
        except UnsentError as error:
            self._failures += 1
            self._tally.fail(semconv.MonSignal.METRICS, error.reason)
            if self._failures == 1:
                _LOG.warning("export to %s failed and is tried again: %s", self.endpoint, error)
            wait = back_off(self._failures, self._rng) if error.after is None else error.after
            return min(wait, self._interval) if error.passing else self._interval
        except Exception:
            _LOG.exception("export to %s failed", self.endpoint)
            return self._interval
        if self._failures:
            _LOG.info("export to %s works again", self.endpoint)
        self._arrived, self._failures = now, 0
        return min(max(now + self._interval - self._clock(), 0.0), self._interval)

    def _send_events(self, now: float) -> None:
        """Those that wait. An endpoint that takes no logs is no reason to keep the metrics from it."""
        while batch := self.events.take():
            try:
                self._send(semconv.MonSignal.LOGS, encode_events(batch, self._instance, now))
            except UnsentError as error:
                if error.passing:
                    self.events.put_back()
                    raise
                self._tally.fail(semconv.MonSignal.LOGS, error.reason)
                _LOG.warning("%s takes no events: %s", self.endpoint, error)
            except Exception:  # of our own code: it must not stop the others
                _LOG.exception("events could not be sent to %s", self.endpoint)
                self._tally.drop(semconv.MonSignal.LOGS, INTERNAL, len(batch))
            self.events.settle()

    def _send(self, signal: str, body: bytes) -> None:
        self._tally.acknowledge(signal, *self._client.send(signal, body))
