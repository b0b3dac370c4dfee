"""What became of what is sent: to each place, counted; and how long to wait before the next attempt."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LOG: Final = logging.getLogger(__name__)
FIRST: Final = 1.0  # s before the second attempt; then twice as long each time
LONGEST: Final = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class SendingCounters:
    """Of the process, for one endpoint.

    Args:
        purpose: semconv.MonPurpose.
        endpoint: as configured.
        acknowledged: by signal, requests.
        rejected: by signal, items of acknowledged requests that the endpoint did not take.
        failed: by signal and reason, attempts.
        dropped: by signal and reason, requests given up; of events of alarms each.
        pending: requests that wait.
        oldest: time of the oldest thing that has not arrived, seconds since 1970; 0 where all has.
    """

    purpose: str
    endpoint: str
    acknowledged: Mapping[str, int]
    rejected: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    dropped: Mapping[tuple[str, str], int]
    pending: int
    oldest: float


class SendingTally:
    """Counts for one endpoint, thread-safe.

    Args:
        purpose, endpoint: see SendingCounters.
    """

    def __init__(self, purpose: str, endpoint: str) -> None:
        self._purpose, self._endpoint = purpose, endpoint
        self._lock = threading.Lock()
        self._acknowledged: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()

    def acknowledge(self, signal: str, rejected: int, message: str) -> None:
        """A request arrived, all but `rejected` of its items, of which the endpoint says `message`."""
        with self._lock:
            self._acknowledged[signal] += 1
            if rejected:
                self._rejected[signal] += rejected
        if rejected:
            _LOG.warning("%s did not take %d items of %s: %s", self._endpoint, rejected, signal, message)

    def fail(self, signal: str, reason: str) -> None:
        """An attempt failed."""
        with self._lock:
            self._failed[signal, reason] += 1

    def drop(self, signal: str, reason: str, count: int = 1) -> None:
        """Requests, or events of alarms, are given up."""
        if count:
            with self._lock:
                self._dropped[signal, reason] += count

    def counters(self, pending: int = 0, oldest: float = 0.0) -> SendingCounters:
        """A copy."""
        with self._lock:
            return SendingCounters(
                self._purpose,
                self._endpoint,
                dict(self._acknowledged),
                dict(self._rejected),
                dict(self._failed),
                dict(self._dropped),
                pending,
                oldest,
            )


def back_off(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after a number of failed attempts in a row, spread by a fifth either way."""
    return min(FIRST * 2.0 ** min(attempt - 1, 16), LONGEST) * rng.uniform(0.8, 1.2)
