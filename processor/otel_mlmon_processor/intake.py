"""Values around taking in requests: settings, outcomes, refusals, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc

from otel_mlmon_processor.fold import FoldCounters
from otel_mlmon_processor.point_values import DecodeLimits
from otel_mlmon_processor.reasons import Reason, Refusal


class RefusedError(Exception):
    """A request is not accepted.

    Args:
        code: for the client; RESOURCE_EXHAUSTED and UNAVAILABLE mean that it may try again.
        reason: short and of a bounded number, for counting.
        message: for people.
        retry_after: seconds after which to try again, where that can help.
    """

    def __init__(self, code: grpc.StatusCode, reason: Refusal, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


def name_client(host: str, port: object) -> str:
    """Who sends: an address; on this machine, where all have the same, a connection."""
    return f"{host}:{port}" if host in ("127.0.0.1", "::1") else host


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an accepted request.

    Args:
        items: data points, spans or log records in it.
        refused: by reason, those that can never be used.
    """

    items: int
    refused: Mapping[Reason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How requests are taken in.

    Args:
        pending: requests that may wait for their commit, each client's an equal share; further ones are asked to come
            again.
        pending_bytes: the same in bytes.
        retry_after: seconds after which they are asked to come.
        checkpoint_bytes: a checkpoint is made when the journal holds so much,
        checkpoint_age: or when the last one is so old, in seconds.
        limits: sizes in a request.
    """

    pending: int = 128
    pending_bytes: int = 64 * 1024 * 1024
    retry_after: float = 1.0
    checkpoint_bytes: int = 64 * 1024 * 1024
    checkpoint_age: float = 60.0
    limits: DecodeLimits = field(default_factory=DecodeLimits)


@dataclass(frozen=True, slots=True)
class IngestCounters:
    """Of the process (received, refused, ignored) and of the fold, which outlives it.

    Args:
        received: by signal, items of acknowledged requests.
        refused: by signal and reason, requests that were not accepted.
        ignored: by reason, acknowledged items that are none of ours or hold no value.
        journal_entries, journal_bytes: since the last checkpoint.
        fold: what became of the points.
        models: held.
        waiting: requests that are being taken in.
        since, fold_since: when the process and when the fold began, seconds since 1970.
    """

    received: Mapping[str, int]
    refused: Mapping[tuple[str, Reason], int]
    ignored: Mapping[Reason, int]
    journal_entries: int
    journal_bytes: int
    fold: FoldCounters
    models: int
    waiting: int = 0
    since: float = 0.0
    fold_since: float = 0.0


NO_COUNTERS: Final = IngestCounters(
    received={},
    refused={},
    ignored={},
    journal_entries=0,
    journal_bytes=0,
    fold=FoldCounters(0, 0, 0, {}, 0, 0, 0),
    models=0,
)
