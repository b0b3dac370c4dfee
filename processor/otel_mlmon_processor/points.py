"""What decoding hands to the fold: frozen points of `ml.*` metrics and parts of profiles. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon_processor.exponential import Exponential
from otel_mlmon_processor.reading import Reading

SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
ENVIRONMENT: Final = "deployment.environment.name"

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


class Group(NamedTuple):
    """What one producer sent in a request."""

    producer: Producer
    points: tuple[Point, ...]
    parts: tuple[ProfilePart, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """A decoded request.

    Args:
        groups: what can be used.
        items: data points, spans or log records in the request.
        refused: by reason, items that can never be used although they bear our names.
        ignored: by reason, items that are none of ours or hold no value.
    """

    groups: tuple[Group, ...]
    items: int
    refused: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
