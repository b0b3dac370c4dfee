"""The past: which rows belong to which window."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from otel_mlmon.encoding import epoch_seconds
from otel_mlmon.recorder import Window

_BILLION: Final = 1_000_000_000
_LAST: Final = 1 << 63  # ns since 1970; OTLP has no times before 1970, and numpy none after


def windows_of(time: Any, resolution: int) -> Iterator[tuple[Any, Window]]:
    """Rows (None for all) and the window (start, end] of the grid that their time lies in.

    Args:
        time: seconds since 1970, a datetime or datetime64 (UTC where it has no zone), or an array of one for each row.
        resolution: of the grid, ns.

    Raises:
        ValueError: a time is none, or outside of what OTLP can say; nothing has been given then.
    """
    if getattr(time, "ndim", None) == 0 or isinstance(time, (int, float, dt.date, np.datetime64)):
        value = time if isinstance(time, (int, float, dt.date, np.datetime64)) else time.item()
        yield None, _window(-(-round(epoch_seconds(value) * _BILLION) // resolution), resolution)
        return
    values = np.asarray(time.to_numpy() if hasattr(time, "to_numpy") else time)
    if values.dtype.kind == "M":
        ns = values.astype("datetime64[ns]").astype(np.int64)
    else:
        ns = np.array([round(epoch_seconds(value) * _BILLION) for value in values.tolist()], dtype=np.int64)
    cells = -(-ns // resolution)
    different = np.unique(cells).tolist()
    windows = [_window(cell, resolution) for cell in different]
    for cell, window in zip(different, windows, strict=True):
        yield np.flatnonzero(cells == cell), window


def _window(cell: int, resolution: int) -> Window:
    start, end = (cell - 1) * resolution, cell * resolution
    if not 0 <= start < end < _LAST:
        raise ValueError(f"a time is {end // _BILLION} s since 1970, which no point can have")
    return start, end


def select_rows(values: Any, rows: Any) -> Any:
    """These rows (None for all) of X or y."""
    if rows is None or values is None:
        return values
    if isinstance(values, Mapping):
        return {name: select_rows(column, rows) for name, column in values.items()}
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if hasattr(values, "take") and not isinstance(values, np.ndarray):  # arrow
        return values.take(rows)
    if isinstance(values, (list, tuple)):
        return [values[row] for row in rows.tolist()]
    return values[rows]
