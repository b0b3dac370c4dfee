"""How the fold cuts time, and how much it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

SECOND: Final = 1_000_000_000  # ns

# Numbers of windows over which the decision layer combines.
SCALES: Final = (1, 5, 15, 60, 240)
PROFILE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Caps:
    """Most that is held; what is there stays, what comes on top is refused and counted.

    Args:
        models: merge keys.
        generations: profile hashes of a model at once.
        places: features, reasons, labels and bounds of a model and hash together.
        variables: features and outputs of a model and hash.
        categories: labels of a variable.
        bounds: different bounds of a variable.
        memory: bytes, as `room` reckons them, for series and the counts of all models over all windows.
        spare: bytes beside these to tell replicas apart, and for more windows than a model needs; without room for
            them replicas are counted and not told apart, and points count in totals only.
        operations: operational histograms of a model.
        producers: processes that send.
        streams: series of points of all producers.
        intervals: delta intervals kept exactly, over all producers; each has at least 256, and one for each series
            while interval_bits are enough for all.
        profiles: profiles of a model.
        profile_bytes: size of an unpacked profile,
        document_bytes: and of all.
        assemblies: profiles of which parts are missing,
        assembly_bytes: and size of these parts, packed.
        windows_ahead: windows that the fastest producer of a model may be ahead of the slowest.
    """

    models: int = 1_000
    generations: int = 8
    places: int = 50_000
    variables: int = 2_000
    categories: int = 2_000
    bounds: int = 4
    memory: int = 4 << 30
    spare: int = 1 << 30
    operations: int = 200
    producers: int = 10_000
    streams: int = 1_000_000
    intervals: int = 100_000
    interval_bits: int = 1 << 31
    profiles: int = 4
    profile_bytes: int = PROFILE_BYTES
    document_bytes: int = 256 * 1024 * 1024
    assemblies: int = 64
    assembly_bytes: int = 64 * 1024 * 1024
    windows_ahead: int = 20_000


@dataclass(frozen=True)
class FoldSettings:
    """Times in seconds.

    Args:
        window: length of a window of event time.
        display: length of the sliding window.
        idle_timeout: a producer from which nothing came for so long does not hold the watermark back.
        ahead: points from further beyond their time of receipt open no windows.
        retire: a model or producer silent for so long is forgotten.
        caps: how much is held.

    Raises:
        ValueError: a time is not positive, or the display is no whole number of windows.
    """

    window: float = 60.0
    display: float = 3600.0
    idle_timeout: float = 300.0
    ahead: float = 300.0
    retire: float = 86_400.0
    caps: Caps = field(default_factory=Caps)

    def __post_init__(self) -> None:
        for name in ("window", "display", "idle_timeout", "ahead", "retire"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.display_windows * self.window_ns != round(self.display * SECOND):
            raise ValueError(f"display must be a whole number of windows of {self.window} s, got {self.display} s")

    @cached_property
    def window_ns(self) -> int:
        """Length of a window."""
        return round(self.window * SECOND)

    @cached_property
    def idle_ns(self) -> int:
        """Idle timeout."""
        return round(self.idle_timeout * SECOND)

    @cached_property
    def retire_ns(self) -> int:
        """Silence after which a model or producer is forgotten."""
        return round(self.retire * SECOND)

    @cached_property
    def ahead_ns(self) -> int:
        """How far beyond its receipt a point may lie."""
        return round(self.ahead * SECOND)

    @cached_property
    def display_windows(self) -> int:
        """Windows in the sliding window."""
        return max(1, round(self.display * SECOND) // self.window_ns)

    @cached_property
    def horizon(self) -> int:
        """Windows that are kept."""
        return max(self.display_windows, SCALES[-1])

    @cached_property
    def reserved(self) -> int:
        """Windows for which there is room with each place: those that are kept, and those that may lie ahead."""
        return self.horizon + math.ceil(self.ahead_ns / self.window_ns) + 1

    @cached_property
    def half(self) -> int:
        """Windows in half the sliding window."""
        return max(1, self.display_windows // 2)

    @cached_property
    def spans(self) -> tuple[int, ...]:
        """Scales to which an interval can belong, in windows."""
        return tuple(sorted({*SCALES, self.display_windows}))

    def window_of(self, time: int) -> int:
        """Window k of a time, so that k * window < time <= (k + 1) * window."""
        return (time - 1) // self.window_ns

    def span_of(self, since: int, end: int) -> int:
        """Smallest scale at which (since, end] may count, in windows; 0 where there is none."""
        length = end - since
        if length <= 2 * self.window_ns:
            return 1
        for span in self.spans:
            if length <= span * self.window_ns:
                return span
        return 0
