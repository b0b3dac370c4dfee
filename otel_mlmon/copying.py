"""Copies of columns that the caller cannot change any more."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def copy_column(column: Any) -> Any:
    """The values of a column, in memory that nobody else has; their order may change, as only counts are taken.

    Arrow and polars are immutable themselves, but their columns may be views of an array that is not.
    """
    if isinstance(column, np.ndarray):
        return column.copy()
    if isinstance(column, list):
        return list(column)
    if isinstance(column, (tuple, str, bytes)):
        return column
    module = type(column).__module__.partition(".")[0]
    if module == "pyarrow":
        return _copy_arrow(column)
    if module == "polars":
        return _copy_polars(column)
    if module == "pandas":
        return column.copy()
    if hasattr(column, "__array__"):
        return np.array(column)
    return list(column)


def _copy_polars(column: Any) -> Any:
    if not (column.dtype.is_numeric() or column.dtype.is_temporal()):
        return column  # texts and the like are never views
    return column.reverse() if len(column) > 1 else type(column)(column.to_list(), dtype=column.dtype)


def _copy_arrow(column: Any) -> Any:
    arrow = sys.modules["pyarrow"]
    if not len(column) or not arrow.types.is_primitive(column.type):
        return column
    chunks = getattr(column, "chunks", [column])
    return arrow.concat_arrays([*chunks, chunks[0][:0]])  # of one array alone it would be a view
