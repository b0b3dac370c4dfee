"""Parquet, csv and feather files as streams of Arrow record batches."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

from otel_mlmon.profile.arrow import is_text
from otel_mlmon.profile.sources import SourceError, chunk_rows

PARQUET: Final = (".parquet", ".pq", ".parq")
CSV: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".csv.bz2", ".tsv.bz2")
FEATHER: Final = (".feather", ".arrow", ".ipc")
KNOWN: Final = (*PARQUET, *CSV, *FEATHER)
INDEX: Final = "__index_level_"  # how pandas names a column that holds the rows' labels
CSV_BLOCK: Final = 4 << 20  # bytes; types are guessed from the first block


_PROMOTED: Final = {"null": pa.int64(), "int64": pa.float64()}  # what does not fit either is text


@dataclass(slots=True)
class DataFile:
    """One file. Types of a csv file are settled once, by reading it through.

    Args:
        path: the file.
        rows: their number, where the file says so.
        settled: types of a csv file's columns, once they are known.
    """

    path: Path
    rows: int | None = None
    settled: dict[str, Any] | None = None

    def read(self) -> Iterator[Any]:
        """Its record batches.

        Raises:
            SourceError: it is broken; the file is named.
        """
        name = self.path.name.lower()
        try:
            if name.endswith(PARQUET):
                yield from _read_parquet(self.path)
            elif name.endswith(FEATHER):
                yield from _read_feather(self.path)
            else:
                delimiter = "\t" if ".tsv" in name else ","
                if self.settled is None:
                    self.settled = _settle_types(self.path, delimiter)
                yield from _open_csv(self.path, delimiter, self.settled)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.path}: {error}") from error


def list_files(paths: Sequence[str | Path]) -> list[DataFile]:
    """Files of paths, folders (all files of known kinds below them) and globs, in the order given, sorted within each.

    Raises:
        FileNotFoundError: one of them names no file.
        SourceError: a file is of no known kind, or broken.
    """
    files: list[DataFile] = []
    for path in paths:
        found = list(_expand(Path(path)))
        if not found:
            if Path(path).is_dir():
                raise FileNotFoundError(f"no data file in the folder {path}; known kinds are {', '.join(KNOWN)}")
            raise FileNotFoundError(f"no such data file or folder: {path}; is the path right?")
        files += [_open(file) for file in found]
    return files


def _open(path: Path) -> DataFile:
    name = path.name.lower()
    if not name.endswith(KNOWN):
        raise SourceError(f"{path}: not a kind of file that can be read; known are {', '.join(KNOWN)}")
    with path.open("rb") as file:  # Arrow's own errors do not name it as others do
        empty = not file.read(1)
    if empty:
        raise SourceError(f"{path}: the file is empty; was it written to its end?")
    if not name.endswith(PARQUET):
        return DataFile(path)
    try:
        return DataFile(path, pyarrow.parquet.read_metadata(path).num_rows)
    except pa.ArrowException as error:
        raise SourceError(f"{path}: {error}") from error


def _expand(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and file.name.lower().endswith(KNOWN):
                yield file
    else:
        for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 -- the pattern may be absolute
            yield from _expand(Path(name))


def _read_parquet(path: Path) -> Iterator[Any]:
    schema = pyarrow.parquet.read_schema(path)
    texts = [field.name for field in schema if is_text(field.type)]  # kept as Parquet has them: each distinct one once
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16, read_dictionary=texts) as parquet:
        names = [name for name in schema.names if not name.startswith(INDEX)]
        yield _empty_batch(parquet.schema_arrow, names)  # columns of a file without rows
        yield from parquet.iter_batches(batch_size=chunk_rows(len(names)), columns=names)


def _empty_batch(schema: Any, names: Sequence[str]) -> Any:
    return pa.RecordBatch.from_arrays([pa.nulls(0, schema.field(name).type) for name in names], names=list(names))


def _read_feather(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as source:
        try:
            reader = pyarrow.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)
            return
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


# ---------------------------------------------------------------- csv


def _settle_types(path: Path, delimiter: str) -> dict[str, Any]:
    """Types that hold for the whole file: Arrow guesses them from the first block and fails on what comes later."""
    types: dict[str, Any] = {}
    while True:
        reader = _open_csv(path, delimiter, types)
        names, guessed = reader.schema.names, reader.schema.types
        try:
            for _ in reader:
                pass
        except pa.ArrowInvalid as error:
            found = re.search(r"In CSV column #(\d+): CSV conversion error to", str(error))
            if found is None or str(guessed[int(found[1])]) == "string":
                raise
            column = int(found[1])
            types[names[column]] = _PROMOTED.get(str(guessed[column]), pa.string())
            continue
        return dict(zip(names, guessed, strict=True))


def _open_csv(path: Path, delimiter: str, types: dict[str, Any]) -> Any:
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=CSV_BLOCK),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True),
    )
