"""Counts of many windows, compressed: by variable, an hour at a time and then a day. Pure."""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts
from otel_mlmon.numerics.scales import HOUR

_LEVEL: Final = 6
_BLOB: Final = 40  # bytes that an object takes beside what it holds


class Archive:
    """Mutable.

    Args:
        parts: counts of a variable in a window.
        variables: how many.
    """

    def __init__(self, parts: int, variables: int) -> None:
        self._parts, self._variables = parts, variables
        self._pieces: list[tuple[list[int], list[bytes]]] = []  # hours; by variable, their counts
        self._loose = 0  # the last pieces, of an hour each
        self.size = 0  # bytes

    @property
    def hours(self) -> list[int]:
        """Those that are held, ascending: number n is the windows [60 n, 60 n + 60)."""
        return [hour for hours, _ in self._pieces for hour in hours]

    def add(self, hour: int, counts: NDArray[np.uint32]) -> None:
        """An hour later than all others; counts (parts, variables, 60)."""
        blobs = [_pack(counts[:, f, np.newaxis]) for f in range(self._variables)]
        self._append([hour], blobs)
        self._loose += 1

    def seal(self) -> None:
        """Put the hours since the last time into one piece, which is smaller."""
        if self._loose > 1:
            loose = self._pieces[-self._loose :]
            hours = [hour for held, _ in loose for hour in held]
            blobs = [_pack(self._join([held[f] for _, held in loose], len(hours))) for f in range(self._variables)]
            self._drop(slice(len(self._pieces) - self._loose, None))
            self._append(hours, blobs)
        self._loose = 0

    def forget(self, before: int) -> None:
        """Drop the pieces that end before an hour."""
        self._drop(slice(0, sum(hours[-1] < before for hours, _ in self._pieces)))

    def read(self, variable: int) -> Counts:
        """All counts of a variable, (parts, hours, 60)."""
        blobs = [held[variable] for _, held in self._pieces]
        return self._join(blobs, len(self.hours)).astype(np.int64)

    def _join(self, blobs: list[bytes], hours: int) -> NDArray[np.uint32]:
        found = [_unpack(blob, self._parts) for blob in blobs]
        empty = np.zeros((self._parts, 0, HOUR), dtype=np.uint32)
        return np.concatenate([empty, *found], axis=1) if hours else empty

    def _append(self, hours: list[int], blobs: list[bytes]) -> None:
        self._pieces.append((hours, blobs))
        self.size += sum(len(blob) + _BLOB for blob in blobs)

    def _drop(self, gone: slice) -> None:
        self.size -= sum(len(blob) + _BLOB for _, blobs in self._pieces[gone] for blob in blobs)
        del self._pieces[gone]

    def dump(self) -> list[Any]:
        """As plain values."""
        return [self._pieces, self._loose]

    def load(self, plain: list[Any]) -> None:
        """What `dump` gave."""
        self._pieces, self._loose, self.size = [], plain[1], 0
        for hours, blobs in plain[0]:
            self._append(list(hours), list(blobs))


def _pack(counts: Any) -> bytes:
    """Four planes of bytes, the upper ones mostly zeros."""
    return zlib.compress(np.ascontiguousarray(counts, dtype="<u4").view(np.uint8).reshape(-1, 4).T.tobytes(), _LEVEL)


def _unpack(data: bytes, parts: int) -> NDArray[np.uint32]:
    planes = np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view("<u4").reshape(parts, -1, HOUR)
