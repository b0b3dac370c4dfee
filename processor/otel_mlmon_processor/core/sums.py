"""Sums of windows at all scales, with bounded state: a scale of L windows is kept as five pieces of L / 5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from otel_mlmon.numerics.binning import Counts, Floats
from otel_mlmon.numerics.scales import HOUR, SCALES, WEEK, Scale


class Look(NamedTuple):
    """Sums at one scale: the place of the scale, the scale, last window of each look (looks,), sums (..., looks)."""

    place: int
    scale: Scale
    ends: Counts
    sums: Counts


class Sums:
    """Mutable; not thread-safe. Sums are of integers, so they are the same one window at a time or many.

    Args:
        shape: of what is counted in a window.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.next: int | None = None  # number of the window that comes next
        self._rings: list[Counts] = [np.zeros((*shape, s.pieces - 1), dtype=np.int64) for s in SCALES]
        self._parts: list[Counts] = [np.zeros(shape, dtype=np.int64) for _ in SCALES]

    def advance(self, start: int, windows: Counts) -> Iterator[Look]:
        """Looks that end in these consecutive windows. Windows that were skipped held nothing.

        Args:
            start: number of the first one.
            windows: counts, shape (*shape, windows).

        Raises:
            ValueError: a window is not newer than those before.
        """
        if self.next is not None and start < self.next:
            raise ValueError(f"windows must come in order: {start} after {self.next - 1}")
        if self.next is not None and start > self.next:
            gap = min(start - self.next, 2 * SCALES[-1].length)  # after that, all sums are 0
            windows = np.concatenate([np.zeros((*self.shape, gap), dtype=np.int64), windows], axis=-1)
            start -= gap
        numbers = np.arange(start, start + windows.shape[-1])
        self.next = start + numbers.size
        for k in range(len(SCALES)):
            look = self._add(k, numbers, windows)
            if look.ends.size:
                yield look

    def _add(self, k: int, numbers: Counts, windows: Counts) -> Look:
        scale = SCALES[k]
        at = np.flatnonzero((numbers + 1) % scale.hop == 0)
        if scale.hop == 1:
            pieces = windows
        else:
            total = np.cumsum(windows, axis=-1)
            reached = total[..., at]
            pieces = np.diff(reached, axis=-1, prepend=0)
            if at.size:
                pieces[..., 0] += self._parts[k]
                self._parts[k] = total[..., -1] - reached[..., -1]
            else:
                self._parts[k] = self._parts[k] + total[..., -1]
        if scale.pieces == 1:
            return Look(k, scale, numbers[at], pieces)
        pieces = np.concatenate([self._rings[k], pieces], axis=-1)
        if at.size:
            self._rings[k] = pieces[..., pieces.shape[-1] - scale.pieces + 1 :].copy()
        sums = pieces[..., : at.size].copy()
        for i in range(1, scale.pieces):
            sums += pieces[..., i : i + at.size]
        return Look(k, scale, numbers[at], sums)

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [self.next, list(self._rings), list(self._parts)]

    def load(self, plain: list[Any]) -> None:
        """What `dump` gave."""
        self.next, self._rings, self._parts = plain[0], list(plain[1]), list(plain[2])


class Weeks:
    """Sums of the hours of this week and of the last, mutable; not thread-safe.

    Args:
        shape: of what is counted in an hour.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._starts = [-1, -1]  # first window of the last week and of this one; -1: none yet
        self._sums: list[Floats] = [np.zeros(shape) for _ in range(2)]

    def add(self, end: int, hour: Floats) -> tuple[int, Floats]:
        """Add the hour that ends with window `end`; over how many windows the sums are now, and the sums."""
        (_, this), first = self._starts, end + 1 - HOUR
        week = first // WEEK
        if this < 0 or week > this // WEEK:
            follows = this >= 0 and week == this // WEEK + 1
            self._starts = [this if follows else -1, first]
            self._sums = [self._sums[1] if follows else np.zeros_like(hour), np.zeros_like(hour)]
        self._sums[1] = self._sums[1] + hour
        since = self._starts[0] if self._starts[0] >= 0 else self._starts[1]
        return end + 1 - since, self._sums[0] + self._sums[1]

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [self._starts, *self._sums]

    def load(self, plain: list[Any]) -> None:
        """What `dump` gave."""
        self._starts, self._sums = list(plain[0]), [np.array(sums) for sums in plain[1:]]
