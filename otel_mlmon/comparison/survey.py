"""What a pass over data tells beyond counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon.comparison.rows import Repeated, Repeats
from otel_mlmon.profile.physical import Physical, read_physical
from otel_mlmon.profile.roles import Block
from otel_mlmon.profile.sampling import SEED, Sample
from otel_mlmon.profile.sources import take_rows

SAMPLED: Final = 10_000  # rows, for names and codes that the cells do not show
DAY: Final = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Of one data set.

    Args:
        columns: names, in their order; of features only.
        sample: some values of each.
        repeats: rows that are there more than once.
        times: least and greatest, seconds since 1970; None without a time column or a time.
        days: that have a row, since 1970 (UTC).
    """

    columns: tuple[str, ...] = ()
    sample: Mapping[str, Physical] = field(default_factory=dict)
    repeats: Repeated = field(default_factory=Repeated)
    times: tuple[float, float] | None = None
    days: frozenset[int] = frozenset()


class Survey:
    """Facts so far; `expected` rows are to come, where that is known."""

    def __init__(self, expected: int | None = None) -> None:
        self._columns: dict[str, None] = {}
        self._sample = Sample(np.random.default_rng(SEED), SAMPLED, expected)
        self._repeats = Repeats(SAMPLED, expected)
        self._times = (np.inf, -np.inf)
        self._days: set[int] = set()

    def add(self, block: Block) -> None:
        """Take in a block."""
        self._columns.update(dict.fromkeys(block.features))
        chosen = self._sample.choose(block.rows)
        self._sample.add({name: read_physical(take_rows(c, chosen)) for name, c in block.features.items()})
        columns = {**block.features, **{f"-> {role}": column for role, column in block.outputs.items()}}
        if block.time is not None:
            columns["-> time"] = block.time
            self._add_times(block)
        self._repeats.add(columns, block.rows)

    def _add_times(self, block: Block) -> None:
        assert block.time is not None  # noqa: S101 -- for the type checker
        known = block.time[np.isfinite(block.time)]
        if known.size:
            self._times = min(self._times[0], float(known.min())), max(self._times[1], float(known.max()))
            self._days.update(np.unique(np.floor(known / DAY).astype(np.int64)).tolist())

    def finish(self) -> Facts:
        """What was found."""
        times = self._times if self._days else None
        return Facts(tuple(self._columns), self._sample.finish(), self._repeats.finish(), times, frozenset(self._days))
