"""What decoding hands to the fold. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_mlmon_processor.blocks import Block
from otel_mlmon_processor.points import Point, Producer, ProfilePart
from otel_mlmon_processor.reasons import Reason


class Group(NamedTuple):
    """What one producer sent in a request: points, or a block that stands for some."""

    producer: Producer
    points: tuple[Point, ...]
    parts: tuple[ProfilePart, ...] = ()
    block: Block | None = None

    @property
    def items(self) -> int:
        """How many it stands for."""
        return len(self.points) + len(self.parts) + (len(self.block.form.points) if self.block is not None else 0)


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
    refused: Mapping[Reason, int] = field(default_factory=dict)
    ignored: Mapping[Reason, int] = field(default_factory=dict)
