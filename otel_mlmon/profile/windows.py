"""Counts of a part of the reference by minute, as a value and in the document; of the whole the calibration is kept."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts
from otel_mlmon.numerics.window_counts import RATES
from otel_mlmon.profile.document import ProfileError, Variable
from otel_mlmon.profile.fields import Fields

MAX_BYTES: Final = 1 << 30  # unpacked
MAX_PACKED: Final = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Counts by minute.

    Args:
        numbers: minutes since 1970 that have rows, ascending, shape (windows,).
        counts: for each variable over the decision's cells and, after these, of RATES: (windows, cells + rates), int32.
    """

    numbers: Counts
    counts: tuple[NDArray[np.int32], ...]

    def merge(self, other: Windows) -> Windows:
        """Counts of both."""
        numbers = np.union1d(self.numbers, other.numbers)
        return Windows(numbers, tuple(
            spread_windows(a, self.numbers, numbers) + spread_windows(b, other.numbers, numbers)
            for a, b in zip(self.counts, other.counts, strict=True)
        ))  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Windows):
            return NotImplemented
        return np.array_equal(self.numbers, other.numbers) and all(map(np.array_equal, self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment]


def spread_windows(counts: NDArray[np.int32], numbers: Counts, every: Counts) -> NDArray[np.int32]:
    """Counts of some minutes among all of `every`, with 0 for the others."""
    spread = np.zeros((every.size, counts.shape[1]), dtype=np.int32)
    spread[np.searchsorted(every, numbers)] = counts
    return spread


def dump_windows(windows: Windows) -> dict[str, Any]:
    """Integers of 4 bytes, little-endian, compressed by zlib: most of them are small."""
    table = np.concatenate([windows.numbers[:, np.newaxis], *windows.counts], axis=1)
    packed = zlib.compress(table.astype("<i4").tobytes())
    return {"rows": windows.numbers.size, "packed": base64.b64encode(packed).decode()}


def read_windows(fields: Fields, variables: Sequence[Variable]) -> Windows:
    """What `dump_windows` gave.

    Raises:
        ProfileError: it is broken; names the field.
    """
    widths = [len(variable.decision) + len(RATES) for variable in variables]
    width, rows = 1 + sum(widths), fields.count("rows")
    packed = fields.text("packed", most=MAX_PACKED)
    fields.close()
    size = 4 * width * rows
    if size > MAX_BYTES:
        raise ProfileError(f"{fields.at('rows')}: at most {MAX_BYTES} bytes are read, got {rows} rows of {4 * width}")
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ProfileError(f"{fields.at('packed')}: {error}") from None
    if len(data) != size:
        raise ProfileError(f"{fields.at('packed')}: must hold {rows} rows of {width} integers")
    table = np.frombuffer(data, dtype="<i4").reshape(rows, width).astype(np.int32)
    if (table[:, 1:] < 0).any() or (np.diff(table[:, 0]) <= 0).any():
        raise ProfileError(f"{fields.at('packed')}: must hold counts, by ascending minutes")
    columns = np.split(table[:, 1:], np.cumsum(widths)[:-1], axis=1)
    return Windows(table[:, 0].astype(np.int64), tuple(columns))
