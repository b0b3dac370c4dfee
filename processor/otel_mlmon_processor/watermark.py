"""How far event time has got for a model: the minimum over the producers that are alive."""

from __future__ import annotations

import heapq
from typing import Any


class Watermark:
    """The time up to which all live producers have sent, nanoseconds; 0 before the first point. It never falls."""

    __slots__ = ("fastest", "heap", "newest", "value")

    def __init__(self) -> None:
        self.value = 0
        self.fastest = 0  # newest time of any producer
        self.newest: dict[int, tuple[int, int]] = {}  # of each producer: its newest time, when that came
        self.heap: list[tuple[int, int]] = []  # (newest time, producer); entries that are no longer true are skipped

    def note(self, producer: int, end: int, received: int) -> None:
        """A producer sent a point of time `end`."""
        known = self.newest.get(producer, (0, 0))[0]
        newest = max(end, known)
        self.newest[producer] = (newest, received)
        self.fastest = max(self.fastest, newest)
        # A producer that had been idle is no longer in the heap, so it is entered whenever something comes.
        heapq.heappush(self.heap, (newest, producer))
        if len(self.heap) > 4 * len(self.newest) + 64:
            self._rebuild()

    def forget(self, producer: int) -> None:
        """A producer has gone for good."""
        self.newest.pop(producer, None)

    def advance(self, now: int, idle: int, spread: int) -> int:
        """The watermark at `now`: without producers idle for longer than `idle`, at most `spread` behind the newest.

        Where all are idle, it is at the newest that came, but never nearer to `now` than they have been silent, as a
        clock may be ahead.
        """
        while self.heap:
            end, producer = self.heap[0]
            newest, received = self.newest.get(producer, (-1, 0))
            if newest == end and now - received <= idle:
                self.value = max(self.value, end)
                break
            heapq.heappop(self.heap)
        if not self.heap:
            self.value = max(self.value, min(self.fastest, now - idle))
        self.value = max(self.value, self.fastest - spread)
        return self.value

    def _rebuild(self) -> None:
        self.heap = [(end, producer) for producer, (end, _) in self.newest.items()]
        heapq.heapify(self.heap)

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [self.value, self.fastest, [[producer, *times] for producer, times in self.newest.items()]]

    @classmethod
    def load(cls, plain: list[Any]) -> Watermark:
        """What `dump` gave."""
        watermark = cls()
        watermark.value, watermark.fastest, newest = plain
        watermark.newest = {producer: (end, received) for producer, end, received in newest}
        watermark._rebuild()
        return watermark
