"""Data of any kind as chunks of columns, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.profile.parallel import read_ahead

ROWS: Final = 131_072  # of a chunk at most
CELLS: Final = 8_000_000  # rows times columns of a chunk

INPUTS: Final = (
    "a pandas or polars DataFrame, a pyarrow Table, RecordBatch, RecordBatchReader or Dataset, a numpy array, a dict "
    "of columns, parquet, csv or feather files, folders or globs of them, or an iterable of such chunks"
)


def chunk_rows(columns: int) -> int:
    """Rows of a chunk: the same for every container, so that sums do not depend on it."""
    return max(1_024, min(ROWS, CELLS // max(1, columns)))


class SourceError(ValueError):
    """The data cannot be read as columns, or not as often as needed."""


class Chunk(NamedTuple):
    """Some rows: one-dimensional columns of one length, of whatever container they come from."""

    rows: int
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Data that can be read in chunks.

    Args:
        open: starts reading; the chunks come in the order of the rows.
        rows: their number, where known beforehand.
        once: True where it can be opened only once.
    """

    open: Callable[[], Iterator[Chunk]]
    rows: int | None = None
    once: bool = False


def open_source(data: Any) -> Source:
    """Recognise the data.

    Raises:
        SourceError: it is nothing that can be read; names what can.
        FileNotFoundError: a path or glob names no file.
    """
    if isinstance(data, (str, Path)):
        return _open_paths([data])
    module = type(data).__module__.split(".")[0]
    if module == "pyarrow" and not hasattr(data, "column_names"):
        return _open_arrow(data)
    if isinstance(data, (list, tuple)) and data and all(isinstance(item, (str, Path)) for item in data):
        return _open_paths(data)
    columns = read_table(data)
    if columns is not None:
        return _open_columns(columns)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return _open_chunks(data)
    raise SourceError(f"cannot read columns from {type(data).__name__}; give {INPUTS}")


def read_table(data: Any) -> dict[str, Any] | None:
    """Columns by name of a table in memory, nothing copied; None where it is none."""
    module = type(data).__module__.split(".")[0]
    if isinstance(data, np.ndarray):
        return _read_array(data)
    if isinstance(data, Mapping):
        return _name_columns(list(data), list(data.values()))
    if module == "pandas" and hasattr(data, "columns"):
        names = list(data.columns)
        if not all(isinstance(name, str) for name in names):  # by position, as scikit-learn does
            names = [f"x{i}" for i in range(len(names))]
        return _name_columns(names, [_unwrap(data.iloc[:, i]) for i in range(len(names))])
    if module == "polars" and hasattr(data, "get_columns"):
        return {series.name: series for series in data.get_columns()}
    if module == "pyarrow" and hasattr(data, "column_names") and hasattr(data, "column"):
        return _name_columns(data.column_names, [data.column(i) for i in range(len(data.column_names))])
    if module == "polars" and hasattr(data, "collect"):
        raise SourceError("a polars LazyFrame is not data yet: collect() it, or give the files it scans")
    return None


def _unwrap(series: Any) -> Any:
    """The numpy or Arrow array inside a pandas Series, which is sliced and read several times faster."""
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    if getattr(series.dtype, "storage", None) != "pyarrow":
        return series
    import pyarrow as pa

    return pa.array(series)


def _name_columns(names: Sequence[Any], columns: Sequence[Any]) -> dict[str, Any]:
    for name in names:
        if not isinstance(name, str):
            raise SourceError(f"names of columns must be strings, got {name!r}")
        if names.count(name) > 1:
            raise SourceError(f"column {name!r} occurs twice")
    return dict(zip(names, columns, strict=True))


def _read_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.names is not None:
        if array.ndim != 1:
            raise SourceError(f"a structured array must have one dimension, got shape {array.shape}")
        return {name: array[name] for name in array.dtype.names}
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise SourceError(f"an array must have the shape (rows, columns), got {array.shape}")
    return {f"x{i}": array[:, i] for i in range(array.shape[1])}


def length_of(column: Any) -> int:
    """Rows of a column.

    Raises:
        SourceError: it is not a column.
    """
    if isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__"):
        raise SourceError(f"a column must be an array, a Series or a list, got {type(column).__name__}")
    if getattr(column, "ndim", 1) != 1:
        raise SourceError(f"a column must have one dimension, got shape {column.shape}")
    return len(column)


def slice_column(column: Any, start: int, stop: int) -> Any:
    """Rows start..stop-1 of a column, as a view where the container can."""
    module = type(column).__module__.split(".")[0]
    if module == "pandas" and hasattr(column, "iloc"):
        return column.iloc[start:stop]
    if module in ("polars", "pyarrow"):
        return column.slice(start, stop - start)
    return column[start:stop]


def take_rows(column: Any, rows: NDArray[np.intp]) -> Any:
    """Rows of a column, by their numbers."""
    module = type(column).__module__.split(".")[0]
    if module == "pandas":
        return column.iloc[rows]
    if module == "pyarrow":
        return column.take(rows)
    if module == "polars" or isinstance(column, np.ndarray):
        return column[rows]
    return [column[row] for row in rows.tolist()]


def _open_columns(columns: dict[str, Any]) -> Source:
    rows = check_lengths(columns)

    def chunks() -> Iterator[Chunk]:
        step = chunk_rows(len(columns))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            yield Chunk(stop - start, {name: slice_column(column, start, stop) for name, column in columns.items()})
        if not rows:
            yield Chunk(0, columns)

    return Source(chunks, rows)


def check_lengths(columns: Mapping[str, Any]) -> int:
    """The common number of rows.

    Raises:
        SourceError: two columns differ; both are named.
    """
    first, rows = "", 0
    for name, column in columns.items():
        size = length_of(column)
        if first and size != rows:
            raise SourceError(f"column {name!r} has {size} rows, {first!r} has {rows}")
        first, rows = first or name, size
    return rows


def _open_chunks(data: Iterable[Any]) -> Source:
    """An iterable of tables; an iterator among them can be read only once."""
    once = isinstance(data, Iterator)
    if isinstance(data, Sequence) and data and not isinstance(data[0], Mapping) and read_table(data[0]) is None:
        raise SourceError(f"cannot read columns from {type(data).__name__} of {type(data[0]).__name__}; give {INPUTS}")

    def chunks() -> Iterator[Chunk]:
        for part in data:
            columns = read_table(part)
            if columns is None:
                raise SourceError(
                    f"cannot read columns from {type(part).__name__} in {type(data).__name__}; give {INPUTS}"
                )
            yield from _open_columns(columns).open()

    return Source(chunks, once=once)


def _open_arrow(data: Any) -> Source:
    """A reader (once) or a dataset."""
    if hasattr(data, "to_batches"):
        return Source(
            lambda: rechunk(
                data.to_batches(batch_size=chunk_rows(len(data.schema)), batch_readahead=2, fragment_readahead=1)
            )
        )
    if hasattr(data, "read_next_batch"):
        return Source(lambda: rechunk(data), once=True)
    raise SourceError(f"cannot read columns from {type(data).__name__}; give {INPUTS}")


def rechunk(batches: Iterable[Any]) -> Iterator[Chunk]:
    """Arrow record batches of any size as chunks of equal size."""
    import pyarrow as pa

    waiting: list[Any] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.num_rows
        rows = chunk_rows(batch.num_columns)
        if held >= rows:
            table = pa.Table.from_batches(waiting)
            while table.num_rows >= rows:
                yield _chunk_of(table.slice(0, rows))
                table = table.slice(rows)
            waiting, held = table.to_batches(), table.num_rows
    if waiting:
        yield _chunk_of(pa.Table.from_batches(waiting))


def _chunk_of(table: Any) -> Chunk:
    return Chunk(table.num_rows, read_table(table) or {})


def _open_paths(paths: Sequence[str | Path]) -> Source:
    if "pyarrow" not in sys.modules:
        try:
            import pyarrow as pa  # noqa: F401 -- asks whether files can be read
        except ImportError:
            raise SourceError("reading files needs pyarrow: pip install 'otel-mlmon[profile]'") from None
    from otel_mlmon.profile.files import list_files

    files = list_files(paths)

    def chunks() -> Iterator[Chunk]:
        for file in files:
            yield from read_ahead(rechunk(file.read()))

    return Source(
        chunks, sum(file.rows or 0 for file in files) if all(file.rows is not None for file in files) else None
    )
