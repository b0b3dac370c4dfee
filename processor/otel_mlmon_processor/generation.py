"""Counts of a model that were made with one profile: totals, windows, the sliding sum, and shares by replica."""

from __future__ import annotations

from typing import Any, NamedTuple

from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.layout import Layout, Tally
from otel_mlmon_processor.room import Room


class Share(NamedTuple):
    """Where an addition belongs: the replica, the window (-1: none, totals only) and the span of its interval."""

    instance: str
    window: int
    span: int


class Generation:
    """Counts under one profile hash, mutable.

    Windows hold a tally for each span, so that what covers a long time does not disturb short scales. `running` is the
    sum of the integers of the windows in the sliding window, which ends with window `last` (-1: not begun).

    Args:
        digest: the hash.
        born: order of first sight within the model.
        spare: room for what not all need: to tell replicas apart, and for more windows than are reserved.
    """

    __slots__ = ("_spare", "_tallies", "_told", "born", "halves", "hash", "hot", "last", "layout", "points", "received",
                 "running", "since", "spared", "total", "windows")  # fmt: skip

    def __init__(self, digest: str, born: int, spare: Room) -> None:
        self.hash = digest
        self.born = born
        self._spare = spare
        self.spared = 0  # bytes of it
        self._told = 0  # bytes of `halves`
        self._tallies = 0  # in `windows`
        self.received = 0
        self.since = 0  # begin of the first interval that was counted
        self.points = 0
        self.last = -1
        self.layout = Layout()
        self.total = Tally()
        self.running = Tally()
        self.windows: dict[int, dict[int, Tally]] = {}
        self.halves: dict[str, dict[int, Tally]] = {}  # by replica: sums over half a sliding window each
        self.hot: set[int] = set()  # windows that are not packed

    def add(self, share: Share, tally: Tally, settings: FoldSettings) -> bool:
        """Add counts of one replica in one window; False where there is no room for the window."""
        self.total.add(tally)
        window, span, last = share.window, share.span, self.last
        if window < 0 or not span or (last >= 0 and window <= last - settings.horizon):
            return True
        if span not in self.windows.get(window, {}):
            if self._tallies >= settings.reserved and not self._spare.fits(self.layout.nbytes):
                return False
            self.windows.setdefault(window, {})[span] = Tally()
            self._tallies += 1
        self.windows[window][span].add(tally)
        self.hot.add(window)
        if span <= settings.display_windows:
            if last - settings.display_windows < window <= last:
                self.running.accumulate(tally, 1)
            half = window // settings.half
            if last < 0 or half >= last // settings.half - 1:
                self._tell_apart(share.instance, half, tally)
        self._settle(settings)
        return True

    def _tell_apart(self, instance: str, half: int, tally: Tally) -> None:
        halves = self.halves.setdefault(instance, {})
        known = halves.setdefault(half, Tally())
        before = known.nbytes
        if self._spare.fits(tally.nbytes - before):
            known.add(tally)
            self._told += known.nbytes - before
        else:  # a part of its counts would say what is not true
            self._told -= sum(held.nbytes for held in self.halves.pop(instance).values())

    def _settle(self, settings: FoldSettings) -> None:
        """Take and give back what is spare."""
        spared = self._told + max(0, self._tallies - settings.reserved) * self.layout.nbytes
        self._spare.held += spared - self.spared
        self.spared = spared

    def advance(self, last: int, settings: FoldSettings) -> None:
        """Move the sliding window so that it ends with window `last`, and forget what is too old."""
        before, length = self.last, settings.display_windows
        if last <= before:
            return
        self.last = last
        for window, tallies in self.windows.items():
            was = before - length < window <= before
            now = last - length < window <= last
            if was != now:
                for span, tally in tallies.items():
                    if span <= length:
                        self.running.accumulate(tally, 1 if now else -1)
        for window in [window for window in self.windows if window <= last - settings.horizon]:
            self._tallies -= len(self.windows.pop(window))
        if before < 0 or last // settings.half != before // settings.half:
            self._drop_halves(last // settings.half - 1)
        self._settle(settings)

    def _drop_halves(self, oldest: int) -> None:
        for instance, halves in list(self.halves.items()):
            for half in [half for half in halves if half < oldest]:
                self._told -= halves.pop(half).nbytes
            if not halves:
                del self.halves[instance]

    def recut(self, last: int, settings: FoldSettings, *, windows: bool) -> None:
        """Take up other settings: what depends on the sliding window's length begins anew, or is summed again."""
        if not windows:
            self.windows = {}
            self.hot = set()
            self._tallies = 0
        self.halves = {}
        self._told = 0
        self.running = Tally()
        self.last = -1
        self.advance(last, settings)

    def pack(self, touched: set[int]) -> None:
        """Make the windows small that were not touched of late."""
        for window in self.hot - touched:
            for tally in self.windows.get(window, {}).values():
                tally.pack()
        self.hot &= touched

    def slide(self, settings: FoldSettings) -> Tally:
        """A copy of the sliding window's counts, with the sums added in the order of time."""
        tally = self.running.copy()
        tally.sums = Tally(0, self.layout.floats).sums
        for window in sorted(self.windows):
            if self.last - settings.display_windows < window <= self.last:
                for span, part in sorted(self.windows[window].items(), key=lambda item: item[0]):
                    if span <= settings.display_windows:
                        tally.sums[: part.sums.size] += part.sums
        return tally

    def recent(self, settings: FoldSettings) -> dict[str, list[Tally]]:
        """Copies of the counts that make up each replica's last half to whole sliding window."""
        newest = self.last // settings.half
        wanted = (newest - 1, newest)
        return {
            instance: [halves[half].copy() for half in wanted if half in halves]
            for instance, halves in self.halves.items()
        }

    def among(self, wanted: range) -> tuple[tuple[int, list[Tally]], ...]:
        """Copies of the windows that are wanted, up to the last, in order."""
        return tuple(
            (number, [tally.copy() for _, tally in sorted(self.windows[number].items(), key=lambda item: item[0])])
            for number in sorted(self.windows)
            if number in wanted and number <= self.last
        )

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint; they stay as they are."""
        return [
            [self.hash, self.born, self.received, self.since, self.points, self.last],
            self.layout.dump(),
            self.total.dump(),
            self.running.dump(),
            [[window, [[span, t.dump()] for span, t in tallies.items()]] for window, tallies in self.windows.items()],
            [[instance, [[half, t.dump()] for half, t in halves.items()]] for instance, halves in self.halves.items()],
            sorted(self.hot),
        ]

    @classmethod
    def load(cls, plain: list[Any], spare: Room, settings: FoldSettings) -> Generation:
        """What `dump` gave."""
        (digest, born, received, since, points, last), layout, total, running, windows, halves, hot = plain
        generation = cls(digest, born, spare)
        generation.received, generation.since, generation.points, generation.last = received, since, points, last
        generation.layout, generation.total, generation.running = (
            Layout.load(layout),
            Tally.load(total),
            Tally.load(running),
        )
        generation.windows = {window: {span: Tally.load(t) for span, t in held} for window, held in windows}
        generation.halves = {instance: {half: Tally.load(t) for half, t in held} for instance, held in halves}
        generation.hot = set(hot)
        generation._tallies = sum(map(len, generation.windows.values()))
        generation._told = sum(t.nbytes for held in generation.halves.values() for t in held.values())
        generation._settle(settings)
        return generation
