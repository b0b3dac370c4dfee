"""Rows that come in a burst: retries, a batch, an hour that comes at once. More rows, and hardly more to be learnt."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from otel_mlmon.numerics.binning import Counts, Floats

_PIECE: Final = 48  # windows
_PIECES: Final = 4  # of which the busiest says how many rows a window usually has
_MORE: Final = 0.5  # times as many rows more than usual are no burst
_SIGMAS: Final = 4.0  # nor are so many standard deviations of rows that come in the reference's sessions


class Bursts:
    """Mutable; not thread-safe.

    A client that tries again sends the same rows again. Counts do not tell these from rows of their own, but there are
    suddenly many more than in the hours before. Those of a window with k times what is usual count as if each came k
    times. Where the rows stay more than they were, that is usual after 72 minutes at most.

    Args:
        typical: rows of a window of the reference, (F,); usual until production has shown what is.
        clump: rows of a session, (F,).
    """

    def __init__(self, typical: Floats, clump: Floats) -> None:
        self._typical, self._clump = np.maximum(typical, 1.0), clump
        self._medians = np.zeros((_PIECES, typical.size))  # rows of a window with rows, of the last pieces with any
        self._piece, self._rows = -1, np.zeros((_PIECE, typical.size), dtype=np.int64)  # of the piece that is on

    def advance(self, start: int, seen: Counts) -> Counts:
        """Rows of each window times how often each counts as having come, both (F, windows); `start` as in `Sums`."""
        windows = seen.shape[-1]
        weighted = np.empty(seen.shape)
        for piece in range(start // _PIECE, (start + windows - 1) // _PIECE + 1):
            if piece != self._piece:
                self._turn(piece)
            first, end = max(piece * _PIECE, start), min((piece + 1) * _PIECE, start + windows)
            rows, usual = seen[:, first - start : end - start], self._medians.max(axis=0)
            usual = np.where(usual > 0, usual, self._typical)
            most = usual + np.maximum(_MORE * usual, _SIGMAS * np.sqrt(usual * self._clump))
            often = np.where(rows > most[:, np.newaxis], rows / usual[:, np.newaxis], 1.0)
            weighted[:, first - start : end - start] = rows * often
            self._rows[first % _PIECE : first % _PIECE + end - first] = rows.T
        return weighted.astype(np.int64)

    def _turn(self, piece: int) -> None:
        held = (self._rows > 0).sum(axis=0)
        middle = _PIECE - 1 - held // 2  # of those with rows, as the others are first
        median = np.take_along_axis(np.sort(self._rows, axis=0), middle[np.newaxis], axis=0).astype(np.float64)
        self._medians = np.where(held > 0, np.concatenate([self._medians[1:], median]), self._medians)
        self._piece, self._rows = piece, np.zeros_like(self._rows)

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint."""
        return [self._piece, self._rows.copy(), self._medians]

    def load(self, plain: list[Any]) -> None:
        """What `dump` gave."""
        self._piece, self._rows, self._medians = plain[0], np.array(plain[1]), np.array(plain[2])
