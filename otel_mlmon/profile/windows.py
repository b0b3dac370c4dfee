"""Counts of a part of the reference by minute, as a value and in the document; of the whole the calibration is kept."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts
from otel_mlmon.numerics.calibration import KEPT_DAYS, Calibration, fit_calibration
from otel_mlmon.numerics.scales import DAY
from otel_mlmon.numerics.windows import RATES, REASONS
from otel_mlmon.profile.document import ProfileError, Reference, Variable
from otel_mlmon.profile.fields import Fields
from otel_mlmon.profile.parallel import side_by_side

MAX_BYTES: Final = 1 << 30  # unpacked
MAX_PACKED: Final = 64 << 20
MOST_DAYS: Final = KEPT_DAYS + 1  # as they need not begin at midnight
LEAST_DAYS: Final = 7
BYTES: Final = 400 << 20  # of all counts, where the days allow
LEAST_WINDOWS: Final = 60  # of a variable, else nothing can be said of what is normal


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


def kept_days(variables: Sequence[Variable]) -> int:
    """How many days are kept, so that memory is bounded."""
    width = sum(len(variable.decision) + len(RATES) for variable in variables)
    return min(MOST_DAYS, max(LEAST_DAYS, BYTES // (DAY * 4 * max(width, 1))))


def choose_days(windows: Windows, most: int) -> Windows:
    """The newest `most` days that have rows, without those far from most others, whose dates are wrong."""
    of_row = windows.numbers // DAY
    days = np.unique(of_row)[-most:]
    if not days.size:
        return windows
    days = days[np.abs(days - days[days.size // 2]) <= 2 * MOST_DAYS]
    kept = np.isin(of_row, days)
    return windows if kept.all() else Windows(windows.numbers[kept], tuple(counts[kept] for counts in windows.counts))


def calibrate(windows: Windows, references: Sequence[Reference]) -> list[Reference]:
    """The references with what their windows say is normal."""
    windows = choose_days(windows, kept_days([reference.variable for reference in references]))
    found = list(references)

    def learn(place: int) -> None:
        found[place] = replace(references[place], calibration=_fit(windows.numbers, windows.counts[place]))

    with side_by_side() as run:
        run([partial(learn, place) for place in range(len(references))])
    return found


def _fit(numbers: Counts, table: NDArray[np.int32]) -> Calibration | None:
    """Of one variable; None where it has too few windows."""
    counts, rates = np.split(table.astype(np.int64), [table.shape[1] - len(RATES)], axis=1)
    seen = counts.sum(axis=1) + rates[:, : len(REASONS)].sum(axis=1)
    held = seen > 0
    if held.sum() < LEAST_WINDOWS:
        return None
    return fit_calibration(numbers[held], counts[held], rates[held], seen[held])


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
