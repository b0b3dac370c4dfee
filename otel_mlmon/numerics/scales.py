"""Windows of one minute, and the five scales at which they are looked at together."""

from __future__ import annotations

from typing import Final, NamedTuple


class Scale(NamedTuple):
    """`length` windows are summed, as `pieces` pieces of `hop` windows each; a look is taken after every piece."""

    length: int
    hop: int

    @property
    def pieces(self) -> int:
        """Pieces of which a look consists."""
        return self.length // self.hop

    def looks(self, windows: float) -> float:
        """Looks in so many windows."""
        return windows / self.hop


SCALES: Final = (Scale(1, 1), Scale(5, 1), Scale(15, 3), Scale(60, 12), Scale(240, 48))
DAY: Final = 1_440  # windows
HOUR: Final = 60
WEEK: Final = 7 * DAY
LEAST_DAYS, MOST_DAYS = 7, 14  # of production, from which what is normal is known, and with which it is
