"""Rows of any kind -> columns.

Data frames are recognised by what they offer; nothing but numpy is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_NUMERIC_KINDS: Final = "fiub"


class UnreadableError(TypeError):
    """Input whose columns cannot be read without consuming or guessing; it is left untouched."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns of one batch.

    Args:
        rows: how many.
        columns: by name, each 1-D of any kind; a name that is absent has no column.
        extra: columns that nobody asked for.
    """

    rows: int
    columns: Mapping[str, Any]
    extra: int = 0


def read_columns(X: Any, names: Sequence[str]) -> Columns:
    """Columns by name of a frame, mapping, array, list of mappings or list of rows; views where possible.

    What has no names is read by position, in the order of `names`. One mapping of scalars is one row.

    Raises:
        UnreadableError: a generator or iterator (it is not touched), or something that has no columns.
    """
    if isinstance(X, Mapping):
        return _of_mapping(X, names)
    if hasattr(X, "__next__"):
        raise UnreadableError(f"{type(X).__name__} can be read only once")
    if isinstance(X, np.ndarray):
        return _of_array(X, names)
    labels = column_names(X)
    if labels is not None:
        return _of_frame(X, labels, names)
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        return _of_sequence(X, names)
    if hasattr(X, "toarray") and hasattr(X, "tocsr"):  # scipy.sparse
        _check_width(X, names)  # before it takes memory
        return _of_array(X.toarray(), names)
    if hasattr(X, "__array__"):
        return _of_array(np.asarray(X), names)
    raise UnreadableError(f"no columns can be read from {type(X).__name__}")


def is_pandas(X: Any) -> bool:
    """Whether X is a pandas DataFrame; nothing is imported for it."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(X, pandas.DataFrame)


def read_few(X: Any, order: Sequence[int]) -> NDArray[Any] | list[list[Any]]:
    """All values of a DataFrame of a few rows at once, columns in this order: numbers as an array, else rows.

    A DataFrame costs ten times as much read column by column.
    """
    values = X.to_numpy()
    if values.dtype.kind == "f" and np.isnan(values).any():
        if not all(isinstance(dtype, np.dtype) for dtype in X.dtypes):  # NaN would hide what is missing
            values = X.to_numpy(dtype=object)
    elif values.dtype.kind not in _NUMERIC_KINDS + "O":
        values = X.to_numpy(dtype=object)
    if list(order) != list(range(values.shape[1])):
        values = values[:, order]
    return values.tolist() if values.dtype.kind == "O" else values  # type: ignore[no-any-return]


def as_array(column: Any) -> Any:
    """A pandas Series of a numpy type as its array; anything else as it is."""
    return (
        column.to_numpy()
        if isinstance(getattr(column, "dtype", None), np.dtype) and hasattr(column, "iloc")
        else column
    )


def column_names(X: Any) -> list[Any] | None:
    """Names of a frame's columns (pandas, polars, pyarrow); None where it is not a frame.

    None too where they are not all strings: such a frame is read by position, as scikit-learn does.
    """
    labels = getattr(X, "column_names", None)  # pyarrow, whose `columns` are the columns
    if labels is None:
        labels = getattr(X, "columns", None)
    if labels is None or not hasattr(X, "__getitem__"):
        return None
    names = list(labels)
    return names if all(isinstance(name, str) for name in names) else None


def names_of(X: Any) -> list[str]:
    """Names of the columns of rows of which nothing is known yet: their own, else x0, x1, ...

    Raises:
        UnreadableError: a generator or iterator (it is not touched), or something that has no columns.
    """
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)) and len(X) and isinstance(X[0], Mapping):
        X = X[0]
    if isinstance(X, Mapping):
        return [name for name in X if isinstance(name, str)]
    names = X.dtype.names if isinstance(X, np.ndarray) else column_names(X)
    if names is not None:
        return [name for name in names if isinstance(name, str)]
    shape = getattr(X, "shape", None)
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)) and len(X) and _is_row(X[0]):
        shape = (len(X), len(X[0]))
    if shape is None or len(shape) != 2:
        said = f" of shape {tuple(shape)}: rows have two dimensions, one row is X[:1]" if shape is not None else ""
        raise UnreadableError(f"no columns can be read from {type(X).__name__}{said}")
    return default_names(shape[1])


def default_names(count: int) -> list[str]:
    """Names of columns that have none: x0, x1, ..."""
    return [f"x{i}" for i in range(count)]


def _of_mapping(X: Mapping[Any, Any], names: Sequence[str]) -> Columns:
    found = {name: X[name] for name in names if name in X}
    sizes = {_size(column) for column in found.values()}
    if sizes <= {None}:
        return Columns(1, {name: [value] for name, value in found.items()}, len(X) - len(found))
    if len(sizes) != 1:
        raise UnreadableError(f"columns differ in length: {sorted(map(str, sizes))}")
    return Columns(sizes.pop() or 0, found, len(X) - len(found))


def _size(column: Any) -> int | None:
    """Length of a column; None for a scalar."""
    if type(column) is np.ndarray:  # the most frequent case first
        return column.shape[0] if column.ndim else None
    if isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__"):
        return None
    return len(column) if int(getattr(column, "ndim", 1)) > 0 else None


def _of_array(X: NDArray[Any], names: Sequence[str]) -> Columns:
    if (fields := X.dtype.names) is not None:
        X = X.reshape(-1)
        found = {name: X[name] for name in names if name in fields}
        return Columns(X.size, found, len(fields) - len(found))
    if X.ndim == 1 and len(names) == 1:
        X = X[:, None]
    _check_width(X, names)
    return Columns(X.shape[0], {name: X[:, i] for i, name in enumerate(names)})


def _check_width(X: Any, names: Sequence[str]) -> None:
    if len(X.shape) != 2 or X.shape[1] != len(names):
        raise UnreadableError(f"an array of shape {X.shape} has not the {len(names)} columns expected")


def _of_frame(X: Any, labels: list[Any], names: Sequence[str]) -> Columns:
    known = set(labels)
    found = {name: X[name] for name in names if name in known}
    return Columns(len(X), found, len(labels) - len(found))


def _of_sequence(X: Sequence[Any], names: Sequence[str]) -> Columns:
    if not X:
        return Columns(0, {name: [] for name in names})
    if all(isinstance(row, Mapping) for row in X):
        known = set().union(*X)
        found = {name: [row.get(name) for row in X] for name in names if name in known}
        return Columns(len(X), found, len(known) - len(found))
    if all(_is_row(row) and len(row) == len(names) for row in X):
        return Columns(len(X), dict(zip(names, map(list, zip(*X, strict=True)), strict=True)))
    raise UnreadableError(f"a list of {type(X[0]).__name__} has not the {len(names)} columns expected")


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, (Sequence, np.ndarray)) and not isinstance(row, (str, bytes)) and getattr(row, "ndim", 1) == 1
    )
