"""Events of alarms that wait for an endpoint. Those that it has not taken are saved with the alarms' state."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from otel_mlmon import semconv
from otel_mlmon_processor.core.alarm import AlarmEvent
from otel_mlmon_processor.reasons import GivenUp
from otel_mlmon_processor.sending import SendingCounters, SendingTally
from otel_mlmon_processor.windows import ModelKey

FULL: Final[GivenUp] = "full"
NO_EXPORT: Final[GivenUp] = "no_export"
EVENTS: Final = 1_000  # that wait at most, beside those under way
BATCH: Final = 100  # events in a request; some kB each at most, and gRPC receives 4 MiB by default


class EventRecord(NamedTuple):
    """What is sent of an event: plain values, which can wait on the disk."""

    key: ModelKey
    kind: str
    time: float
    text: str


class EventQueue:
    """Those of one endpoint, oldest first; thread-safe: the evaluation tells and saves, the exporter sends.

    Args:
        tally: counts what is dropped.
    """

    def __init__(self, tally: SendingTally) -> None:
        self._tally, self._lock = tally, threading.Lock()
        self._waiting: list[EventRecord] = []
        self._sending: list[EventRecord] = []  # not among the others: nobody knows yet whether they are taken

    def tell(self, key: ModelKey, event: AlarmEvent) -> None:
        """Have an event sent; of more than EVENTS the oldest are dropped."""
        with self._lock:
            self._waiting.append(EventRecord(key, event.kind, event.time, event.say()))
            self._trim()

    def restore(self, saved: Iterable[Sequence[Any]]) -> None:
        """Have those sent that were `unsent` when they were saved."""
        with self._lock:
            self._waiting += [EventRecord(ModelKey(*key), *others) for key, *others in saved]
            self._trim()

    def unsent(self) -> list[EventRecord]:
        """Those that the endpoint has not taken, as far as is known."""
        with self._lock:
            return [*self._sending, *self._waiting]

    def take(self) -> list[EventRecord]:
        """The next to send; until `settle` or `put_back` they are still unsent."""
        with self._lock:
            self._sending, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            return self._sending

    def settle(self) -> None:
        """Those that were taken need not be sent any more."""
        with self._lock:
            self._sending = []

    def put_back(self) -> None:
        """Those that were taken wait again, before all others."""
        with self._lock:
            self._sending, self._waiting = [], self._sending + self._waiting
            self._trim()

    def _trim(self) -> None:
        excess = max(len(self._waiting) - EVENTS, 0)
        del self._waiting[:excess]
        self._tally.drop(semconv.MonSignal.LOGS, FULL, excess)


def count_unclaimed(events: int) -> SendingCounters:
    """Of events that waited for endpoints that are no longer in the settings."""
    dropped: dict[tuple[str, str], int] = {(semconv.MonSignal.LOGS, NO_EXPORT): events}
    return SendingCounters(semconv.MonPurpose.EXPORT, "", {}, {}, {}, dropped, 0, 0.0)
