"""Which columns of the input are features, what the model said, and when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.profile.physical import read_physical
from otel_mlmon.profile.planning import Output
from otel_mlmon.profile.sources import Chunk, Source, SourceError, length_of, read_table, slice_column

ROLES: Final[tuple[Output, ...]] = ("value", "class", "score")


class Block(NamedTuple):
    """Some rows, sorted by what they are for.

    Args:
        rows: their number.
        features: columns by name.
        outputs: columns of what the model said, by role; "prediction" where the role is still to be found.
        time: of the rows, in seconds since 1970; NaN where there is none; None without a time column.
    """

    rows: int
    features: Mapping[str, Any]
    outputs: Mapping[Output, Any]
    time: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to take of the input.

    Args:
        columns: names of the features in their order; None: all that are nothing else.
        exclude: columns that are nothing.
        time_column: column of the rows' times; it is no feature unless `columns` lists it.
        timezone: of naive times in it, an IANA name; "" means UTC.
        named: columns of predictions, by role.
        given: predictions beside the data, by role.
    """

    columns: tuple[str, ...] | None
    exclude: tuple[str, ...]
    time_column: str | None
    timezone: str
    named: Mapping[Output, str]
    given: Mapping[Output, Any]

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone or "UTC")
        except (KeyError, ValueError, OSError):
            raise SourceError(f"timezone: must be an IANA name such as Europe/Paris, got {self.timezone!r}") from None

    def read(self, source: Source) -> Iterator[Block]:
        """Blocks of the source.

        Raises:
            SourceError: a column that is asked for is nowhere, or predictions are more or fewer than rows.
        """
        asked = {*(self.columns or ()), *self.named.values(), *([self.time_column] if self.time_column else [])}
        missing, start = asked, 0
        for chunk in source.open():
            missing = missing - chunk.columns.keys()
            self._check_lengths(start + chunk.rows, np.inf)
            yield self._sort(chunk, start)
            start += chunk.rows
        if missing:
            raise SourceError(f"no column {', '.join(map(repr, sorted(missing)))} in the data")
        self._check_lengths(start, start)

    def _check_lengths(self, least: int, most: float) -> None:
        for role, column in self.given.items():
            if not least <= length_of(column) <= most:
                rows = f"{least}" if least == most else f"at least {least}"
                raise SourceError(f"predictions ({role}): {length_of(column)} for {rows} rows of data")

    def _sort(self, chunk: Chunk, start: int) -> Block:
        columns = chunk.columns
        taken = {*self.exclude, *self.named.values(), self.time_column}
        if self.columns is not None:
            features = {name: columns[name] for name in self.columns if name in columns}
        else:
            features = {name: column for name, column in columns.items() if name not in taken}
        outputs: dict[Output, Any] = {role: columns[name] for role, name in self.named.items() if name in columns}
        for role, column in self.given.items():
            outputs[role] = slice_column(column, start, start + chunk.rows)
        time = None
        if self.time_column is not None:
            column = columns.get(self.time_column)
            time = np.full(chunk.rows, np.nan) if column is None else read_time(column, self.timezone)
        return Block(chunk.rows, features, outputs, time)


def sort_predictions(
    predictions: Any, classes: Sequence[Any] | None = None
) -> tuple[dict[Output, str], dict[Output, Any]]:
    """Names of columns, and columns, by role.

    One array: floats that all lie in [0, 1] are a score, other floats a value, strings, integers and booleans a class.
    Two dimensions are class probabilities: a score (of column 1 where there are two, else the largest) and, as class,
    the column of the largest.

    Args:
        predictions: None, the name of a column, an array, or a dict of roles ("value", "class", "score") to these.
        classes: labels of the columns of class probabilities; else they are their numbers.

    Raises:
        SourceError: it is none of them.
    """
    if predictions is None:
        return {}, {}
    if isinstance(predictions, str):
        return {"prediction": predictions}, {}
    if isinstance(predictions, Mapping):
        named: dict[Output, str] = {}
        given: dict[Output, Any] = {}
        for role, value in predictions.items():
            if role not in ROLES:
                raise SourceError(f"predictions: the roles are {', '.join(ROLES)}, got {role!r}")
            if isinstance(value, str):
                named[role] = value
            else:
                given[role] = _flatten(value)
        return named, given
    table = None if isinstance(predictions, np.ndarray) else read_table(predictions)
    if table is not None:
        predictions = np.column_stack([np.asarray(column, dtype=np.float64) for column in table.values()])
    elif not hasattr(predictions, "ndim") and len(predictions) and isinstance(predictions[0], (Sequence, np.ndarray)):
        predictions = predictions if isinstance(predictions[0], str) else np.asarray(predictions)
    if getattr(predictions, "ndim", 1) == 2 and predictions.shape[1] > 1:
        scores = np.asarray(predictions, dtype=np.float64)
        score = scores[:, 1] if scores.shape[1] == 2 else scores.max(axis=1)
        return {}, {"score": score, "class": _label(scores.argmax(axis=1), scores.shape[1], classes)}
    return {}, {"prediction": _flatten(predictions)}


def _label(largest: NDArray[np.intp], columns: int, classes: Sequence[Any] | None) -> NDArray[Any]:
    if classes is None:
        return largest
    if len(classes) != columns:
        raise SourceError(f"classes: {len(classes)} labels for {columns} columns of predictions")
    labels: NDArray[Any] = np.asarray(classes)[largest]
    return labels


def _flatten(values: Any) -> Any:
    """One dimension; a matrix of one column is one column."""
    if getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        return np.asarray(values)[:, 0]
    length_of(values)
    return values


def read_time(column: Any, timezone: str) -> NDArray[np.float64]:
    """Seconds since 1970 of a column of times; numbers are taken for just that, strings for ISO 8601; NaN
    where there is none.

    Args:
        column: of datetimes, of seconds, or of strings.
        timezone: of naive datetimes.

    Raises:
        SourceError: it holds something else.
    """
    physical = read_physical(column)
    if physical.kind == "string":
        return _read_iso(physical.values.tolist(), timezone)
    if physical.kind not in ("datetime", "float", "integer", "empty"):
        raise SourceError(
            f"the time column must hold times or seconds since 1970, it holds values of kind {physical.kind}"
        )
    seconds = physical.values.astype(np.float64)
    if physical.kind == "datetime" and timezone and not _is_aware(column):
        return _from_local(seconds, ZoneInfo(timezone))
    return seconds


def _read_iso(texts: list[str | None], timezone: str) -> NDArray[np.float64]:
    """Seconds of times in ISO 8601, each distinct one read once."""
    zone = ZoneInfo(timezone or "UTC")
    known: dict[str | None, float] = {None: np.nan}
    for text in set(texts) - {None}:
        assert text is not None  # noqa: S101 -- for the type checker
        try:
            time = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        except ValueError:
            raise SourceError(f"the time column must hold times in ISO 8601, it holds {text[:40]!r}") from None
        known[text] = (time if time.tzinfo else time.replace(tzinfo=zone)).timestamp()
    return np.array([known[text] for text in texts], dtype=np.float64)


def _is_aware(column: Any) -> bool:
    dtype = getattr(column, "dtype", None) or getattr(column, "type", None)
    if dtype is not None and str(dtype) != "object":
        return bool(getattr(dtype, "tz", None) or getattr(dtype, "time_zone", None)) or "tz=" in str(dtype)
    return any(getattr(value, "tzinfo", None) is not None for value in column)


def _from_local(seconds: NDArray[np.float64], zone: ZoneInfo) -> NDArray[np.float64]:
    """UTC of local times that were read as if they were UTC; by quarter hours, as no zone changes in between."""
    quarters, inverse = np.unique(np.floor(seconds / 900), return_inverse=True)
    offsets = np.zeros(quarters.size)
    for i, quarter in enumerate(quarters.tolist()):
        if np.isfinite(quarter):
            local = dt.datetime.fromtimestamp(quarter * 900, dt.timezone.utc).replace(tzinfo=zone)
            offset = local.utcoffset()
            offsets[i] = offset.total_seconds() if offset is not None else 0.0
    return seconds - offsets[inverse]
