"""A dump of the state as it is at one moment, made bit by bit while the state goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from otel_mlmon_processor.model import Model
from otel_mlmon_processor.pack import Piece, Table, encode, join
from otel_mlmon_processor.producers import Meaning, ProducerState

_Part = Model | ProducerState


class Dumping:
    """What the state was when this was made. Who changes a part must `keep` it first.

    Args:
        header: plain values of what is no part; they are written at once.
        models, producers: the parts; of producers by identity.
    """

    def __init__(
        self, header: list[Any], models: list[Model], producers: Mapping[tuple[str, ...], ProducerState]
    ) -> None:
        self._header = [encode(value) for value in header]
        self._identities = {producer: identity for identity, producer in producers.items()}
        self._models = models
        self._trees: dict[Model, list[Any]] = {}
        self._pieces: dict[ProducerState, Piece] = {}
        self._left: dict[_Part, None] = dict.fromkeys([*models, *self._identities])
        self._meanings: Table[Meaning] = Table()
        self._bounds: Table[bytes] = Table()

    def keep(self, part: _Part) -> None:
        """Write a part, which is about to change, unless that has been done or it is newer than this."""
        if part in self._left:
            del self._left[part]
            self._write(part)

    def go_on(self, seconds: float | None = None) -> bool:
        """Write for about so long, or all that is left; whether all is written."""
        until = None if seconds is None else time.perf_counter() + seconds
        while self._left and (until is None or time.perf_counter() < until):
            self._write(self._left.popitem()[0])
        return not self._left

    def _write(self, part: _Part) -> None:
        if isinstance(part, Model):
            self._trees[part] = part.dump()  # which does not change: what is long can be done later
        else:
            self._pieces[part] = encode([self._identities[part], part.dump(self._meanings, self._bounds)])

    def put_together(self) -> Piece:
        """All of it, once it is written, as `State.load` takes it."""
        meanings = [[meaning.metric, meaning.attributes] for meaning in self._meanings.items]
        return join(
            [
                *self._header,
                join(encode(self._trees[model]) for model in self._models),
                encode(meanings),
                encode(self._bounds.items),
                join(self._pieces[producer] for producer in self._identities),
            ]
        )
