"""Passes on what is none of ours, untouched, from the journal: at least once, in order, one request at a time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon_processor.decode import OURS
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.journal import DamagedEntryError, Entry, JournalError, Outbox
from otel_mlmon_processor.otlp_client import Client, UnsentError
from otel_mlmon_processor.reasons import GivenUp
from otel_mlmon_processor.sending import LONGEST, SendingCounters, SendingTally, back_off

AGE: Final[GivenUp] = "age"
SIZE: Final[GivenUp] = "size"
INTERNAL: Final[GivenUp] = "internal"
NO_FORWARD: Final[GivenUp] = "no_forward"
_LOOK: Final = 1.0  # s between looks at the bounds while an endpoint is away

_LOG = logging.getLogger(__name__)


def strip(signal: str, body: bytes) -> bytes:
    """A request without metrics of the registry and profiles; the same bytes where there are none, b"" without a rest.

    Spans are all passed on: those of calls belong to the application's traces.
    """
    request: Any
    if signal == semconv.MonSignal.METRICS:
        request = ExportMetricsServiceRequest.FromString(body)
        removed = _prune(request.resource_metrics, "scope_metrics", "metrics", lambda metric: metric.name in OURS)
    elif signal == semconv.MonSignal.LOGS:
        request, profile = ExportLogsServiceRequest.FromString(body), semconv.EVENT_ML_REFERENCE_PROFILE
        removed = _prune(request.resource_logs, "scope_logs", "log_records", lambda r: r.event_name == profile)
    else:
        return body
    return request.SerializeToString() if removed else body


def _prune(resources: Any, scopes: str, items: str, ours: Callable[[Any], bool]) -> int:
    """Remove items, and scopes and resources of which nothing is left; how many items went."""
    removed = sum(_remove(getattr(scope, items), ours) for resource in resources for scope in getattr(resource, scopes))
    if removed:
        for resource in resources:
            _remove(getattr(resource, scopes), lambda scope: not getattr(scope, items))
        _remove(resources, lambda resource: not getattr(resource, scopes))
    return removed


def _remove(held: Any, unwanted: Callable[[Any], bool]) -> int:
    places = [i for i, item in enumerate(held) if unwanted(item)]
    for i in reversed(places):
        del held[i]
    return len(places)


def count_abandoned(abandoned: Mapping[str, int]) -> SendingCounters:
    """Of requests, by signal, that waited for an endpoint that is no longer in the settings."""
    dropped: dict[tuple[str, str], int] = {(signal, NO_FORWARD): count for signal, count in abandoned.items()}
    return SendingCounters(semconv.MonPurpose.FORWARD, "", {}, {}, {}, dropped, 0, 0.0)


class Forwarder:
    """Sends what waits in the journal to one endpoint, on a thread of its own.

    Args:
        ingest: has the journal.
        client: the endpoint's.
        endpoint: its name, for people and counters.
        most_bytes: in the journal; beyond it the oldest are given up.
        most_age: seconds after which a request is given up.
        clock: nanoseconds since 1970.
        rng: spreads attempts.
    """

    def __init__(
        self,
        ingest: Ingest,
        client: Client,
        endpoint: str,
        *,
        most_bytes: int,
        most_age: float,
        clock: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._ingest, self._client, self._endpoint = ingest, client, endpoint
        self._most_bytes, self._most_age, self._clock, self._rng = most_bytes, most_age, clock, rng
        self._tally = SendingTally(semconv.MonPurpose.FORWARD, endpoint)
        self._oldest = 0
        self._failures, self._due = 0, 0.0  # in a row; not before this moment of the monotonic clock
        self._said: set[tuple[str, str]] = set()  # signals and reasons that the log has named
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlmon-forward", daemon=True)

    def start(self) -> None:
        """Begin to send; what waited before a restart goes first."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End within about `timeout` seconds; what was not sent stays in the journal."""
        self._stop.set()
        self._ingest.outbox.set()
        self._thread.join(timeout)
        self._client.close()
        self._thread.join(timeout)

    def counters(self) -> SendingCounters:
        """What became of the requests."""
        return self._tally.counters(self._ingest.outbox_size()[0], self._oldest / 1e9)

    def _run(self) -> None:
        outbox, after = Outbox(self._ingest.path), 0
        while not self._stop.is_set():
            self._ingest.outbox.clear()
            try:
                entry = outbox.next(after)
            except DamagedEntryError as damaged:
                _LOG.error("a request is not forwarded: %s", damaged)
                self._tally.drop(damaged.entry.signal, INTERNAL)
                self._ingest.settle(damaged.entry)
                after = damaged.entry.seq
                continue
            except JournalError as error:  # such as a disk that fails
                _LOG.error("forwarding pauses: %s", error)
                self._stop.wait(LONGEST)
                continue
            self._oldest = entry.received_ns if entry else 0
            if entry is None:
                if not self._stop.is_set():  # set before the event that was cleared
                    self._ingest.outbox.wait()
            elif self._is_settled(entry):
                self._ingest.settle(entry)
                after = entry.seq
        outbox.close()

    def _is_settled(self, entry: Entry) -> bool:
        """Whether the request has been sent, or is given up; waits where it must be tried again."""
        reason: str | None = self._exceeds(entry)
        if reason is None:
            left = self._due - time.monotonic()
            if left > 0:
                self._stop.wait(min(left, _LOOK))
                return False
            try:
                self._send(entry)
                return True
            except UnsentError as error:
                self._tally.fail(entry.signal, error.reason)
                if error.passing:
                    self._delay(error)
                    return False
                reason = error.reason
                if (entry.signal, reason) not in self._said:
                    self._said.add((entry.signal, reason))
                    _LOG.warning("%s does not take %s, which are dropped: %s", self._endpoint, entry.signal, error)
            except Exception:  # of our own code: it must not stop the others
                _LOG.exception("a request could not be forwarded")
                reason = INTERNAL
        self._tally.drop(entry.signal, reason)
        return True

    def _exceeds(self, entry: Entry) -> GivenUp | None:
        """The bound that is exceeded by what waits."""
        if self._clock() - entry.received_ns > self._most_age * 1e9:
            return AGE
        return SIZE if self._ingest.outbox_size()[1] > self._most_bytes else None

    def _send(self, entry: Entry) -> None:
        rest = strip(entry.signal, entry.body)
        if rest:
            self._tally.acknowledge(entry.signal, *self._client.send(entry.signal, rest))
        if self._failures:
            _LOG.info("forwarding to %s works again", self._endpoint)
        self._failures = 0

    def _delay(self, error: UnsentError) -> None:
        self._failures += 1
        if self._failures == 1:
            _LOG.warning("forwarding to %s failed and is tried again: %s", self._endpoint, error)
        wait = back_off(self._failures, self._rng) if error.after is None else error.after
        self._due = time.monotonic() + min(wait, LONGEST)
