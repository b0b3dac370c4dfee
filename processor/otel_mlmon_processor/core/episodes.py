"""Hits in, episodes out: an alarm begins, grows, and ends when nothing of it has been seen for a while. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_mlmon.numerics.scales import SCALES
from otel_mlmon_processor.core.budget import SLOW
from otel_mlmon_processor.core.scanner import Hit

QUIET: Final = 15
_LEAST: Final = 1e-9
_HOPS: Final = {scale.length: scale.hop for scale in SCALES}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A variable in an episode.

    Args:
        variable: its place.
        hit: the strongest one so far.
        since: first window that its first hit rests on.
        held: the last window of its newest hit.
        scale: windows of the longest hit that raises.
        quiet: windows with enough values since `held`.
    """

    variable: int
    hit: Hit
    since: int
    held: int
    scale: int
    quiet: int = 0

    @property
    def patience(self) -> int:
        """Windows without a hit after which it is over, at least."""
        return 2 * _HOPS[self.scale]


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm of a model.

    Args:
        raised: window in which it was raised.
        since: first of the windows it rests on.
        suspects: variables that are, or were, part of it; the largest effect first.
        cleared: window in which it ended; None while it lasts.
    """

    raised: int
    since: int
    suspects: tuple[Suspect, ...]
    cleared: int | None = None

    @property
    def evidence(self) -> float:
        """The strongest hit's statistic over its threshold."""
        return max(s.hit.evidence for s in self.suspects)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each suspect's part of the sum of the effects' lower bounds, of which one that only holds may be below 0."""
        lower = [max(s.hit.lower, _LEAST) for s in self.suspects]
        return tuple(size / sum(lower) for size in lower)


@dataclass(frozen=True, slots=True)
class Event:
    """An episode began (`kind` "raise"), got a further variable ("grow") or ended ("clear")."""

    kind: str
    window: int
    episode: Episode


class Episodes:
    """State of a model's alarm, mutable; not thread-safe.

    Args:
        muted: until which window a variable is not listened to, by its place.
        quiet: windows with enough values without a sign of a variable after which its alarm is over, at least.
    """

    def __init__(self, muted: Mapping[int, int] | None = None, *, quiet: int = QUIET) -> None:
        self.muted, self.quiet = dict(muted or {}), quiet
        self.current: Episode | None = None
        self._active: dict[int, Suspect] = {}
        self._past: dict[int, Suspect] = {}

    @property
    def held(self) -> frozenset[int]:
        """Variables whose alarm is on."""
        return frozenset(self._active)

    def advance(self, window: int, hits: Iterable[Hit], looked: Collection[int]) -> list[Event]:
        """One window, in order.

        Args:
            window: its number.
            hits: of the looks that end with it.
            looked: variables that had enough values in it; time passes for these alone, so that silence clears nothing.
        """
        found: dict[int, list[Hit]] = {}
        for hit in hits:
            if window >= self.muted.get(hit.variable, window):
                found.setdefault(hit.variable, []).append(hit)
        fresh = False
        for variable, its in found.items():
            before = self._active.get(variable)
            after = _follow(before, its, window)
            if after is not None:
                fresh |= before is None
                self._active[variable] = after
        for variable, suspect in list(self._active.items()):
            if suspect.held < window and variable in looked:
                suspect = replace(suspect, quiet=suspect.quiet + 1)  # noqa: PLW2901
                self._active[variable] = suspect
                if suspect.quiet >= max(self.quiet, suspect.patience):
                    self._past[variable] = self._active.pop(variable)
        return self._tell(window, fresh=fresh)

    def end(self) -> None:
        """Nothing is part of an alarm any more; the next window tells that it is over."""
        self._past.update(self._active)
        self._active = {}

    def _tell(self, window: int, *, fresh: bool) -> list[Event]:
        if not self._active:
            if self.current is None:
                return []
            over = replace(self.current, suspects=rank({**self._past}.values()), cleared=window)
            self.current, self._past = None, {}
            return [Event("clear", window, over)]
        suspects = rank({**self._past, **self._active}.values())
        if self.current is None:
            self.current = Episode(window, min(s.since for s in suspects), suspects)
            return [Event("raise", window, self.current)]
        self.current = replace(self.current, suspects=suspects)
        return [Event("grow", window, self.current)] if fresh else []

    def dump(self) -> dict[str, Any]:
        """As plain values, for the checkpoint."""
        current = None if self.current is None else [self.current.raised, self.current.since]
        return {
            "current": current,
            "active": [_plain(s) for s in self._active.values()],
            "past": [_plain(s) for s in self._past.values()],
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        """What `dump` gave."""
        self._active = {s.variable: s for s in map(_suspect, plain["active"])}
        self._past = {s.variable: s for s in map(_suspect, plain["past"])}
        self.current = None
        if plain["current"] is not None:
            raised, since = plain["current"]
            self.current = Episode(raised, since, rank({**self._past, **self._active}.values()))


def rank(suspects: Iterable[Suspect]) -> tuple[Suspect, ...]:
    """The largest effect first."""
    return tuple(sorted(suspects, key=lambda s: (-s.hit.lower, s.variable)))


def _follow(before: Suspect | None, hits: Sequence[Hit], window: int) -> Suspect | None:
    """A variable's state after these hits; None where they neither raise nor hold."""
    strong = [hit for hit in hits if hit.evidence >= 1]
    if before is None:
        if not strong:
            return None
        best = max(strong, key=lambda hit: hit.evidence)
        since = min(hit.window - hit.scale + 1 for hit in strong)
        return Suspect(best.variable, best, since, window, min(map(_scale, strong)))
    holding = [*strong, *(hit for hit in hits if _scale(hit) <= before.scale)]
    if not holding:
        return before
    best = max([before.hit, *holding], key=lambda hit: hit.evidence)
    scale = max([before.scale, *map(_scale, strong)])
    return replace(before, hit=best, held=window, scale=scale, quiet=0)


def _scale(hit: Hit) -> int:
    """Windows that a hit speaks of; slow drift is looked at once an hour and known from many."""
    return SCALES[-1].length if hit.test == SLOW else hit.scale


def _plain(suspect: Suspect) -> list[Any]:
    return [list(suspect.hit), suspect.since, suspect.held, suspect.scale, suspect.quiet]


def _suspect(plain: Sequence[Any]) -> Suspect:
    window, scale, variable, test, part, evidence, lower, counts, expected = plain[0]
    hit = Hit(window, scale, variable, test, part, evidence, lower, tuple(counts), tuple(expected))
    return Suspect(hit.variable, hit, *plain[1:])
