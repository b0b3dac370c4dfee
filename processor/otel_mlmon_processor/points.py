"""Frozen points of `ml.*` metrics and parts of profiles. Values only."""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_mlmon_processor.exponential import Exponential
from otel_mlmon_processor.reading import Reading

SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
ENVIRONMENT: Final = "deployment.environment.name"

LARGEST_COUNT: Final = 2**48  # so that thousands of points of this size still add up in 64 bits
LATEST_TIME: Final = 2**63 - 1

GAUGE: Final = 0
DELTA: Final = 1
CUMULATIVE: Final = 2


class Producer(NamedTuple):
    """Who counted: one process, as its resource and scope name it; "" where a part is absent."""

    namespace: str  # service.namespace
    service: str  # service.name
    instance: str  # service.instance.id
    environment: str  # deployment.environment.name
    incarnation: str  # random per process, renewed after fork


Value = Reading | Exponential
Attributes = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One data point. Times are nanoseconds since 1970; `start` is 0 where unknown; attributes are sorted by name."""

    metric: str
    attributes: Attributes
    temporality: int  # GAUGE, DELTA or CUMULATIVE
    start: int
    end: int
    value: Value


class ProfilePart(NamedTuple):
    """A part of a gzipped profile document, as a log event brought it; parts count from 1."""

    model: str
    version: str
    hash: str
    part: int
    parts: int
    body: bytes
