"""The monitor of one model in one process: what a user touches."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, MetricExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from otel_mlmon import semconv
from otel_mlmon.capture import feature_attributes
from otel_mlmon.columns import UnreadableError
from otel_mlmon.config import Settings, read_settings
from otel_mlmon.encoding import epoch_seconds
from otel_mlmon.export import ExportThread, Sender
from otel_mlmon.guard import Errors, enter, is_outermost, leave
from otel_mlmon.operations import Call, Operations, OperationTotals
from otel_mlmon.points import MetricPoints
from otel_mlmon.processes import EXIT_SECONDS, children, open_monitors
from otel_mlmon.profile.document import Profile
from otel_mlmon.recorder import Recorder, Window
from otel_mlmon.replay import select_rows, windows_of
from otel_mlmon.schema import Tallies, add_tallies

SCOPE: Final = "otel_mlmon"
_BILLION: Final = 1_000_000_000

Temporality = AggregationTemporality | str | None


class Monitor:
    """Counts what a model sees and says and how it is called, and sends the counts over OTLP.

        monitor = Monitor(profile)
        with monitor.inference(X) as call:
            y = model.predict(X)
            call.record(y)

    Nothing of it raises into the caller's code once it is made, and what is expensive happens on a thread of its own.

    Args:
        profile: the model's profile, or its name where there is none yet.
        version: of the model, where there is no profile.
        exporter: an OTLP metric exporter to use; by default one is made from the OTEL_* environment.
        resource: of the points; by default the application's tracer provider's, else from the environment.
        temporality: "cumulative" or "delta"; by default what the environment prefers.
        tracer_provider: for spans; by default the global one.
        settings: instead of the environment's.
        clock: seconds since 1970.
        resolution: seconds; the grid that `time=` is rounded up to.

    Raises:
        TypeError: the profile is neither a Profile nor a name, or the version is no text.
    """

    def __init__(
        self,
        profile: Profile | str,
        version: str = "",
        *,
        exporter: MetricExporter | None = None,
        resource: Resource | None = None,
        temporality: Temporality = None,
        tracer_provider: TracerProvider | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
        resolution: float = 60.0,
    ) -> None:
        if not isinstance(profile, (Profile, str)):
            raise TypeError(f"a Profile or a model's name is needed, got {type(profile).__name__}")
        if not isinstance(version, str):
            raise TypeError(f"the version must be text, got {version!r}")
        self.profile = profile if isinstance(profile, Profile) else None
        self.model = profile.model if isinstance(profile, Profile) else profile
        self.version = profile.version if isinstance(profile, Profile) else version
        self._settings = settings or read_settings()
        self._clock, self._resolution = clock, round(resolution * _BILLION)
        self._base = {semconv.ML_MODEL_NAME: self.model, semconv.ML_MODEL_VERSION: self.version}
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._given_resource = resource
        # Now, as its detectors need threads, which cannot start any more when the interpreter ends.
        self._default_resource = resource or Resource.create()
        self._framework: dict[str, str] = {}
        self._temporality = _temporality(temporality or self._settings.temporality)
        self._recorder = Recorder(self.profile.plan if self.profile else None, clock, self._wake, self.note)
        self._sender = Sender(
            self,
            self.profile,
            exporter=exporter,
            settings=self._settings,
            temporality=self._temporality,
        )
        self._closed = False
        self._begin()
        open_monitors.add(self)

    def _begin(self) -> None:
        """Start anew: at first, and in the child of a fork."""
        self._operations, self._errors = Operations(), Errors()
        self._collect_lock, self._thread_lock = threading.Lock(), threading.Lock()
        self._thread: ExportThread | None = None
        self._started = self._collected = round(self._clock() * _BILLION)
        self._totals: Tallies = {}
        self._totals_start: int | None = None
        self._totals_end = 0
        self._exports = self._forks = 0
        self._live = False
        self._operation_totals = OperationTotals()
        self._resource: Resource | None = None
        self.scope = InstrumentationScope(SCOPE, attributes={semconv.ML_PRODUCER_INCARNATION: os.urandom(8).hex()})

    # Recording.

    def inference(
        self, X: Any = None, operation: str = "predict", framework: str = "", framework_version: str = ""
    ) -> Inference:
        """A context for one call of the model: span, duration, errors, batch size, features.

        Features are counted on entry, so that a model may change X in place; within another recorded call only span and
        duration are.

        Args:
            X: the rows, in whatever form the model takes them; an iterator is left untouched.
            operation: name of the method.
            framework: library of the model.
            framework_version: its version.
        """
        return Inference(self, X, operation, framework, framework_version)

    def observe(self, X: Any = None, y: Any = None, *, time: Any = None, classes: Sequence[Any] | None = None) -> None:
        """Count rows and outputs, without span or duration.

        Args:
            X: rows, or None.
            y: outputs: values, classes or scores (see `read_outputs`), or a mapping {"value" | "class" | "score": ...}.
            time: when it was, for replaying the past: seconds since 1970, a datetime or datetime64 (UTC where it has no
                zone), or an array of one for each row.
            classes: labels of the columns of scores.
        """
        try:
            if self._closed:
                return
            if time is None:
                self._take(X, y, None, classes)
                return
            for rows, window in windows_of(time, self._resolution):
                self._take(select_rows(X, rows), select_rows(y, rows), window, classes)
        except UnreadableError as error:
            self._operations.drop("unreadable")
            self._errors.note(error, "reading the input")
        except Exception as error:
            self._errors.note(error, "recording")

    def _take(self, X: Any, y: Any, window: Window | None, classes: Sequence[Any] | None) -> int:
        if self._thread is None:
            self._start_thread()
        return self._recorder.observe(X, y, window=window, classes=classes)

    def _start_thread(self) -> None:
        with self._thread_lock:
            if self._thread is None and not self._closed:
                thread = ExportThread(self._recorder.count_waiting, self._sender.send, self._settings.interval)
                thread.start()
                self._thread = thread
                children.watch()

    def _wake(self) -> None:
        if self._thread is not None:
            self._thread.wake()

    def note(self, error: BaseException) -> None:
        """Count an error of ours."""
        self._errors.note(error, "recording")

    def begin_call(self, call: Inference) -> None:
        """A call begins; for `Inference`."""
        call.operations = self._operations
        call.operations.begin(call)
        if self._thread is None:
            self._start_thread()
        operation, framework, _ = call.call
        if framework and not self._framework:
            self._framework = {
                semconv.ML_FRAMEWORK_NAME: framework,
                semconv.ML_FRAMEWORK_VERSION: call.framework_version,
            }
        try:
            if call.outermost and call.X is not None and not self._closed:
                call.rows = self._take(call.X, None, None, None)
        except UnreadableError as error:
            self._operations.drop("unreadable")
            self._errors.note(error, "reading the input")
        except Exception as error:
            self._errors.note(error, "recording")
        span = self._tracer.start_span(
            f"{operation} {self.model}", kind=SpanKind.INTERNAL, attributes=self._span_attributes(call)
        )
        call.span, call.context = span, attach(trace.set_span_in_context(span))
        if self._settings.capture_features and call.rows == 1 and span.is_recording():
            span.set_attributes(feature_attributes(call.X, self._recorder.columns))

    def _span_attributes(self, call: Inference) -> dict[str, Any]:
        operation, framework, _ = call.call
        attributes: dict[str, Any] = {**self._base, semconv.ML_OPERATION_NAME: operation}
        if framework:
            attributes[semconv.ML_FRAMEWORK_NAME] = framework
            attributes[semconv.ML_FRAMEWORK_VERSION] = call.framework_version
        if call.rows is not None:
            attributes[semconv.ML_INFERENCE_BATCH_SIZE] = call.rows
        return attributes

    def end_call(self, call: Inference, seconds: float, error: BaseException | None) -> None:
        """A call has ended; for `Inference`."""
        kind = type(error).__qualname__ if error is not None else ""
        counted = call.call._replace(error=kind) if kind else call.call
        if call.operations is not None:  # in the child of a fork those of the parent, which counts the call itself
            call.operations.end(call, counted, seconds, call.rows)
        if call.context is not None:
            detach(call.context)
            call.context = None
        if call.span is None:
            return
        try:
            if error is not None:
                call.span.set_attribute("error.type", kind)
                call.span.record_exception(error)
                call.span.set_status(Status(StatusCode.ERROR, f"{kind}: {error}"))
        finally:
            call.span.end()

    # Sending.

    def flush(self) -> bool:
        """Send all that was recorded before the call; False where it was not acknowledged."""
        try:
            return self._sender.send()
        except Exception as error:
            self._errors.note(error, "flushing")
            return False

    def close(self, timeout: float = EXIT_SECONDS) -> None:
        """Send what is left and stop; waits at most `timeout` seconds. Idempotent, and called at exit."""
        if self._closed:
            return
        self._closed = True
        with self._thread_lock:
            thread = self._thread
        if (thread is None or thread.stop(timeout)) and self._sender.pause(timeout):
            self._sender.resume()
        open_monitors.discard(self)  # last, as a fork in between must still reach it

    def ask_to_close(self) -> None:
        """Begin to send what is left; `close` waits for it."""
        if self._thread is not None:
            self._thread.ask_to_stop()

    def hand_over(self) -> None:
        """Somebody else collects the metrics from now on (see `MonitoredExporter`)."""
        self._sender.hand_over()

    def give_up(self, points: int) -> None:
        """So many points will not be sent; for those who export."""
        self._operations.give_up(points)

    @property
    def resource(self) -> Resource:
        """Who sends; has a service.instance.id, made for each process where the application gives none."""
        if self._resource is None:
            given = (
                self._given_resource or getattr(trace.get_tracer_provider(), "resource", None) or self._default_resource
            )
            if not given.attributes.get(SERVICE_INSTANCE_ID):
                given = given.merge(Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())}))
            self._resource = given
        return self._resource

    def collect(self, temporality: AggregationTemporality) -> list[Metric]:
        """All that was recorded since the last call (delta) or the start (cumulative), as the SDK's public types.

        For those who export; two who collect from one monitor would each get a part.
        """
        with self._collect_lock:
            windows = self._recorder.collect()
            operations = self._operations.collect()
            operations.errors = self._errors.collect()
            operations.extra_columns = self._recorder.take_extra_columns()
            now = max(round(self._clock() * _BILLION), self._collected + 1)
            points = MetricPoints(temporality, self._base, self.profile.hash if self.profile else "")
            replayed = sorted((window, tallies) for window, tallies in windows.items() if window is not None)
            live = windows.get(None, {})
            if temporality is AggregationTemporality.DELTA:
                # Receivers know a delta by its interval, so a window whose rows go out in several exports must have a
                # start of its own in each: later by the number of the export, in nanoseconds.
                self._exports += 1
                for (start, end), tallies in replayed:
                    points.add_tallies(tallies, start + self._exports % (end - start), end)
                points.add_tallies(live, self._collected, now)
                points.add_operations(operations, self._collected, now)
            else:
                for (start, end), tallies in replayed:
                    self._add_cumulative(points, tallies, start, end)
                self._live = self._live or bool(live)
                if self._live:
                    self._add_cumulative(points, live, self._started, now)
                elif self._totals and not replayed:  # the past that was replayed has not moved on to now
                    points.add_tallies(self._totals, self._totals_start or 0, self._totals_end)
                self._operation_totals.merge(operations)
                points.add_operations(self._operation_totals, self._started, now)
            self._collected = now
            self._add_gauges(points, now)
            return points.metrics()

    def _add_cumulative(self, points: MetricPoints, tallies: Tallies, start: int, end: int) -> None:
        add_tallies(self._totals, tallies)
        if self._totals_start is None:
            self._totals_start = start
        self._totals_end = max(self._totals_end, end)
        points.add_tallies(self._totals, self._totals_start, self._totals_end)

    def _add_gauges(self, points: MetricPoints, now: int) -> None:
        points.add_level(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS, self._operations.active, self._started, now)
        info = dict(self._framework)
        if self.profile is not None:
            info[semconv.ML_REFERENCE_HASH] = self.profile.hash
            if self.profile.model_hash:
                info[semconv.ML_MODEL_HASH] = self.profile.model_hash
            for metric, text in (
                (semconv.METRIC_ML_REFERENCE_AGE, self.profile.created),
                (semconv.METRIC_ML_MODEL_AGE, self.profile.trained),
            ):
                if (moment := _parse_time(text)) is not None:
                    points.add_gauge(metric, {}, now / _BILLION - moment, now)
        points.add_gauge(semconv.METRIC_ML_MODEL_INFO, info, 1, now)

    # Forking.

    def prepare_fork(self, timeout: float) -> bool:
        """Before a fork: close connections of ours, as gRPC's do not survive one, and open none until it is done.

        True where there was one.
        """
        connected = self._sender.connected
        self._forks += self._sender.pause(timeout)
        return connected

    def resume(self) -> None:
        """After a fork, in the parent."""
        if self._forks:
            self._forks -= 1
            self._sender.resume()

    def restart(self) -> None:
        """In the child of a fork: what the parent has counted stays the parent's."""
        self._recorder.restart()
        if self._given_resource is None:
            own = Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())}).merge(OTELResourceDetector().detect())
            self._default_resource = self._default_resource.merge(own)
        self._begin()
        self._sender.restart()


class Inference:
    """One call of a model; see `Monitor.inference`."""

    __slots__ = (
        "X",
        "_monitor",
        "_start",
        "_token",
        "call",
        "context",
        "framework_version",
        "operations",
        "outermost",
        "rows",
        "span",
    )

    def __init__(self, monitor: Monitor, X: Any, operation: str, framework: str, framework_version: str) -> None:
        self._monitor, self.X, self.framework_version = monitor, X, framework_version
        self.call = Call(operation, framework, "")
        self.outermost = False
        self.rows: int | None = None
        self.operations: Operations | None = None
        self.span: trace.Span | None = None
        self.context: Any = None
        self._token: object = None
        self._start = time.perf_counter()

    def record(self, y: Any, classes: Sequence[Any] | None = None) -> None:
        """Count what the model said; see `Monitor.observe`."""
        if self.outermost:
            self._monitor.observe(None, y, classes=classes)

    def __enter__(self) -> Inference:
        try:
            self.outermost = is_outermost()
            self._token = enter()
            self._begin()
            self._start = time.perf_counter()
            return self
        except BaseException as error:  # what a signal raises: the caller does not come to `__exit__`
            self._end(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        try:
            self._end(error)
        except BaseException:  # the same; what was done is not done again
            self._end(error)
            raise

    def _begin(self) -> None:
        try:
            self._monitor.begin_call(self)
        except Exception as error:
            self._monitor.note(error)

    def _end(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._start
        try:
            if self._token is not None:
                leave(self._token)
                self._token = None
        except ValueError as ours:  # entered in another context, as a generator may be
            self._monitor.note(ours)
        except RuntimeError:  # left, and interrupted then
            pass
        try:
            self._monitor.end_call(self, seconds, error)
        except Exception as ours:
            self._monitor.note(ours)


def _temporality(value: AggregationTemporality | str) -> AggregationTemporality:
    if isinstance(value, AggregationTemporality):
        return value
    if value.lower() not in ("delta", "cumulative"):
        raise ValueError(f"temporality is 'delta' or 'cumulative', got {value!r}")
    return AggregationTemporality[value.upper()]


def _parse_time(text: str) -> float | None:
    try:
        return epoch_seconds(dt.datetime.fromisoformat(text.replace("Z", "+00:00")))
    except ValueError:
        return None
