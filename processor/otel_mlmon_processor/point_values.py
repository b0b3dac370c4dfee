"""Values of single OTLP points, read and checked. Pure.

Points are those of `wire`. What cannot be used raises UnreadablePointError with the reason.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_mlmon_processor.exponential import Exponential
from otel_mlmon_processor.points import LARGEST_COUNT, Attributes
from otel_mlmon_processor.reading import Reading
from otel_mlmon_processor.reasons import Refusal, Unusable

_COMMON_BYTES: Final = 2048  # bounds and attributes of which no more is kept are short, so that memory is bounded
_COMMON_ATTRIBUTES: Final = 16_384


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Sizes above which a point is refused, or a request of too many.

    Args:
        points: of a request, those of our metrics; they are read and folded one by one while all others wait.
        cells: of a histogram.
        attributes: of a point.
        text: characters of an attribute's name or value.
        profile_part: bytes of a part of a profile.
        profile_parts: parts of a profile.
    """

    points: int = 100_000
    cells: int = 4096
    attributes: int = 32
    text: int = 1024
    profile_part: int = 2 * 1024 * 1024
    profile_parts: int = 64


DEFAULT_LIMITS: Final = DecodeLimits()


class MalformedError(ValueError):
    """The bytes are not a request of their signal; `reason` says why to whoever counts."""

    reason: ClassVar[Refusal] = "malformed"


class TooManyPointsError(MalformedError):
    """A request has more points than it may have."""

    reason = "too_many_points"


class UnreadablePointError(Exception):
    """One point cannot be used; the argument is the reason."""

    def __init__(self, reason: Unusable) -> None:
        super().__init__(reason)
        self.reason = reason


class AttributeReader(dict[tuple[bytes, ...], Attributes]):
    """Attributes by their bytes, as `reader[bytes of each]`: a stream's come again with every point.

    What is short is kept, up to a number, and begun anew beyond it.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def __missing__(self, raw: tuple[bytes, ...]) -> Attributes:
        """Read them; see read_attributes."""
        if len(raw) > self._limits.attributes:
            raise UnreadablePointError("attributes")
        try:
            read = read_attributes([KeyValue.FromString(one) for one in raw], self._limits)
        except DecodeError as error:
            raise MalformedError(f"an attribute is damaged: {error}") from error
        if sum(map(len, raw)) <= _COMMON_BYTES:
            if len(self) >= _COMMON_ATTRIBUTES:
                self.clear()
            self[raw] = read
        return read


@functools.cache
def reader_of(limits: DecodeLimits) -> AttributeReader:
    """The reader that keeps what it read under these limits."""
    return AttributeReader(limits)


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


def read_explicit(point: Any, limits: DecodeLimits) -> Reading:
    """A histogram over explicit bounds; whether its counts add up is for `check_cells` to say."""
    cells: bytes = point.bucket_counts
    bounds: bytes = point.explicit_bounds
    size = len(cells)
    if size > 8 * limits.cells:
        raise UnreadablePointError("too_many_cells")
    if size != len(bounds) + 8 or size % 8:
        raise UnreadablePointError("cells")  # also histograms without cells: they have no distribution to count
    known = (_check_bounds if size <= _COMMON_BYTES else _check_bounds.__wrapped__)(bounds)
    if known is None:
        raise UnreadablePointError("bounds")
    if point.count > LARGEST_COUNT:
        raise UnreadablePointError("too_large")
    return Reading(cells, known, _read_sum(point))


@functools.lru_cache(maxsize=1024)  # a profile's bounds come again with every point
def _check_bounds(bounds: bytes) -> bytes | None:
    """The bounds, equal ones as one object; None where they are not finite and ascending."""
    values = np.frombuffer(bounds, dtype="<f8")
    if not np.isfinite(values).all() or (values[1:] <= values[:-1]).any():
        return None
    return bounds


def check_cells(readings: Sequence[Any], counts: Sequence[int]) -> list[bool]:
    """Of explicit histograms (at least one), whether their cells add up to their count; of all at once, for speed."""
    cells = [reading.counts for reading in readings]
    joined = np.frombuffer(b"".join(cells), dtype="<u8")
    starts = np.cumsum([0, *map(len, cells[:-1])]) // 8
    sound = np.add.reduceat(joined, starts) == np.array(counts, dtype=np.uint64)
    if joined.max() > LARGEST_COUNT:  # then they could add up again beyond 64 bits
        sound &= np.maximum.reduceat(joined, starts) <= LARGEST_COUNT
    found: list[bool] = sound.tolist()
    return found


def read_exponential(point: Any, limits: DecodeLimits) -> Exponential:
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
    if point.count > LARGEST_COUNT:
        raise UnreadablePointError("too_large")
    if sum([*positive.bucket_counts, *negative.bucket_counts, point.zero_count]) != point.count:
        raise UnreadablePointError("counts")  # they are unsigned on the wire, so none is larger than the count
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


def _read_sum(point: Any) -> float | None:
    total: float = point.sum
    if not total and not point.HasField("sum"):  # the slower question, last
        return None
    if not math.isfinite(total):
        raise UnreadablePointError("sum")
    return total


def read_level(point: Any, _: DecodeLimits) -> Reading:
    """A whole number; also one that was sent as a float."""
    return Reading(_read_integer(point))


def read_count(point: Any, _: DecodeLimits) -> Reading:
    """A whole number that is not negative."""
    value = _read_integer(point)
    if value < 0:
        raise UnreadablePointError("negative")
    return Reading(value)


def read_gauge(point: Any, _: DecodeLimits) -> Reading:
    """A gauge is read for its attributes."""
    if point.WhichOneof("value") is None:
        raise UnreadablePointError("not_an_integer")
    return Reading(1)


def _read_integer(point: Any) -> int:
    kind = point.WhichOneof("value")
    value: float = point.as_int if kind == "as_int" else point.as_double
    if kind is None or not math.isfinite(value) or value != int(value):
        raise UnreadablePointError("not_an_integer")
    if abs(value) > LARGEST_COUNT:
        raise UnreadablePointError("too_large")
    return int(value)
