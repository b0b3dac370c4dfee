"""Values of single OTLP points, read and checked. Pure.

What cannot be used raises UnreadablePointError with the reason.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
)

from otel_mlmon_processor.points import Attributes, Counts, Explicit, Exponential

LARGEST_COUNT: Final = 2**48  # so that thousands of points of this size still add up in 64 bits
LATEST_TIME: Final = 2**63 - 1
_COMMON_BOUNDS: Final = 256


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Sizes above which a point is refused.

    Args:
        cells: of a histogram.
        attributes: of a point.
        text: characters of an attribute's name or value.
        profile_part: bytes of a part of a profile.
        profile_parts: parts of a profile.
    """

    cells: int = 4096
    attributes: int = 32
    text: int = 1024
    profile_part: int = 2 * 1024 * 1024
    profile_parts: int = 64


DEFAULT_LIMITS: Final = DecodeLimits()


class UnreadablePointError(Exception):
    """One point cannot be used; the argument is the reason."""


def read_times(start: int, end: int) -> tuple[int, int]:
    """Start and end of a point, of a sensible size."""
    if not 0 < end <= LATEST_TIME or start > LATEST_TIME:
        raise UnreadablePointError("time")
    return start, end


def read_attributes(attributes: Sequence[KeyValue], limits: DecodeLimits) -> Attributes:
    """Attributes of a point, sorted, their values as text."""
    if len(attributes) > limits.attributes:
        raise UnreadablePointError("attributes")
    read = [(pair.key, pair.value.string_value or read_text(pair.value)) for pair in attributes]
    read.sort()
    for key, value in read:
        if len(key) > limits.text or len(value) > limits.text:
            raise UnreadablePointError("attribute_size")
    return tuple(read)


def read_text(value: AnyValue) -> str:
    """An attribute's value as text; lists and maps have none."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return str(value.int_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "double_value":
        return repr(value.double_value)
    if kind is None:
        return ""
    raise UnreadablePointError("attributes")


def read_explicit(point: HistogramDataPoint, limits: DecodeLimits) -> Explicit:
    """A histogram over explicit bounds."""
    cells = len(point.bucket_counts)
    if cells > limits.cells:
        raise UnreadablePointError("too_many_cells")
    if cells != len(point.explicit_bounds) + 1:
        raise UnreadablePointError("cells")  # also histograms without cells: they have no distribution to count
    counts = _count_cells(point.bucket_counts[:], point.count)
    counts.setflags(write=False)
    bounds = tuple(point.explicit_bounds)
    packed = _pack_bounds(bounds) if len(bounds) <= _COMMON_BOUNDS else _pack_bounds.__wrapped__(bounds)
    if packed is None:
        raise UnreadablePointError("bounds")
    return Explicit(packed, counts, _read_sum(point))


@functools.lru_cache(maxsize=1024)  # a profile's bounds come again with every point; only short ones are kept
def _pack_bounds(values: tuple[float, ...]) -> bytes | None:
    """Bytes of the bounds; None where they are not finite and ascending."""
    bounds = np.array(values, dtype=np.float64)
    if not np.isfinite(bounds).all() or (bounds[1:] <= bounds[:-1]).any():
        return None
    return bounds.tobytes()


def read_exponential(point: ExponentialHistogramDataPoint, limits: DecodeLimits) -> Exponential:
    """An exponential histogram."""
    positive, negative = point.positive, point.negative
    if len(positive.bucket_counts) + len(negative.bucket_counts) > limits.cells:
        raise UnreadablePointError("too_many_cells")
    if not -10 <= point.scale <= 20:
        raise UnreadablePointError("scale")
    reach = 1100 << max(point.scale, 0)  # 2**1100 is beyond every float
    for buckets in (positive, negative):
        if not -reach <= buckets.offset <= reach - len(buckets.bucket_counts):
            raise UnreadablePointError("bounds")
    if not 0 <= point.zero_threshold < math.inf:
        raise UnreadablePointError("bounds")
    _count_cells([*positive.bucket_counts, *negative.bucket_counts, point.zero_count], point.count)
    return Exponential(
        point.scale,
        point.zero_threshold,
        point.zero_count,
        positive.offset,
        tuple(positive.bucket_counts),
        negative.offset,
        tuple(negative.bucket_counts),
        _read_sum(point),
    )


def _count_cells(cells: list[int], count: int) -> Counts:
    """Counts of the cells, checked: none is absurd and they add up. They are unsigned on the wire."""
    if count > LARGEST_COUNT:
        raise UnreadablePointError("too_large")
    if sum(cells) != count:  # so none is larger than the count
        raise UnreadablePointError("counts")
    return np.array(cells, dtype=np.int64)


def _read_sum(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> float | None:
    if not point.HasField("sum"):
        return None
    if not math.isfinite(point.sum):
        raise UnreadablePointError("sum")
    return point.sum


def read_level(point: NumberDataPoint, _: DecodeLimits) -> int:
    """A whole number; also one that was sent as a float."""
    kind = point.WhichOneof("value")
    value: float = point.as_int if kind == "as_int" else point.as_double
    if kind is None or not math.isfinite(value) or value != int(value):
        raise UnreadablePointError("not_an_integer")
    if abs(value) > LARGEST_COUNT:
        raise UnreadablePointError("too_large")
    return int(value)


def read_count(point: NumberDataPoint, limits: DecodeLimits) -> int:
    """A whole number that is not negative."""
    value = read_level(point, limits)
    if value < 0:
        raise UnreadablePointError("negative")
    return value


def read_gauge(point: NumberDataPoint, _: DecodeLimits) -> int:
    """A gauge is read for its attributes."""
    if point.WhichOneof("value") is None:
        raise UnreadablePointError("not_an_integer")
    return 1
