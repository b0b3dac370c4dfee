"""A bounded uniform sample of rows that come in chunks: the same rows however they are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.profile.physical import Physical, absent, join

SEED: Final = 20_131_101
ROWS: Final = 32_768  # the thinnest cell, a tail of 0.0005, has 16 of them
CELLS: Final = 20_000_000  # rows times columns; wide data gets fewer rows
LEAST: Final = 5_000


def expected_share(most: int, expected: int | None) -> float:
    """Share of the rows to choose, so that at least `most` of those that are expected are, as a rule; at most 1."""
    return 1.0 if not expected else min(1.0, (most + 4 * most**0.5) / expected)


class Sample:
    """Rows with the smallest of one random number each (bottom-k), in their order.

    Args:
        rng: numbers of the rows.
        most: rows that are kept; None: ROWS, fewer where there are many columns.
        expected: rows to come, where that is known: then about `most` rows are chosen, and fewer are looked at.
    """

    def __init__(self, rng: np.random.Generator, most: int | None = None, expected: int | None = None) -> None:
        self._rng = rng
        self.most = most
        self._parts: list[tuple[NDArray[np.float64], dict[str, Physical]]] = []
        self._held = 0
        self._limit = expected_share(most or ROWS, expected)
        self._chosen = np.zeros(0)

    def choose(self, rows: int) -> NDArray[np.intp]:
        """Which rows of the next chunk are wanted for now; give them to `add`."""
        numbers = self._rng.random(rows)
        chosen = np.flatnonzero(numbers < self._limit)
        self._chosen = numbers[chosen]
        return chosen

    def add(self, columns: Mapping[str, Physical]) -> None:
        """Keep the chosen rows."""
        if self.most is None:
            self.most = min(ROWS, max(LEAST, CELLS // max(1, len(columns))))
        self._parts.append((self._chosen, dict(columns)))
        self._held += self._chosen.size
        if self._held > 2 * self.most:
            self._shrink()

    def _shrink(self) -> None:
        """Drop what has larger numbers than the `most` smallest."""
        if self.most is None or self._held <= self.most:
            return
        every = np.concatenate([numbers for numbers, _ in self._parts])
        self._limit = float(np.partition(every, self.most)[self.most])
        parts = []
        for numbers, columns in self._parts:
            kept = numbers < self._limit
            parts.append((numbers[kept], {name: column.select(kept) for name, column in columns.items()}))
        self._parts = parts
        self._held = sum(numbers.size for numbers, _ in parts)

    def finish(self) -> dict[str, Physical]:
        """The sampled rows of every column that any chunk had."""
        self._shrink()
        names = dict.fromkeys(name for _, columns in self._parts for name in columns)
        return {
            name: join([columns.get(name) or absent(numbers.size) for numbers, columns in self._parts])
            for name in names
        }
