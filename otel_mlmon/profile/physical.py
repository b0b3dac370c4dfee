"""One column of any container as plain numpy, for the planner. Counting goes through `otel_mlmon.encoding.encode`."""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["boolean", "integer", "float", "string", "datetime", "other", "empty"]

_BY_NUMPY: Final[dict[str, Kind]] = {
    "b": "boolean",
    "i": "integer",
    "u": "integer",
    "f": "float",
    "U": "string",
    "M": "datetime",
}
_NUMBERS: Final = ("boolean", "integer", "float")


@dataclass(frozen=True, slots=True, eq=False)
class Physical:
    """Values of a column and which of them are there.

    Args:
        kind: of the values; "other" is what cannot be counted, "empty" no value at all.
        values: shape (n,): float64 for boolean, integer, float and datetime (seconds since 1970), objects for the rest.
            Where there is no value: NaN, or None.
        valid: shape (n,), false where there is no value. A float NaN is not valid here; an infinite value is.
    """

    kind: Kind
    values: NDArray[Any]
    valid: NDArray[np.bool_]

    def select(self, rows: NDArray[Any]) -> Physical:
        """The rows of a mask or of indices."""
        return Physical(self.kind, self.values[rows], self.valid[rows])

    @property
    def present(self) -> NDArray[Any]:
        """The values that are there."""
        return self.values[self.valid]


def absent(rows: int) -> Physical:
    """A column that is not there."""
    return Physical("empty", np.full(rows, np.nan), np.zeros(rows, dtype=bool))


def join(parts: list[Physical]) -> Physical:
    """One column of its pieces; where their kinds differ, the widest number or else what most values are."""
    if len(parts) == 1:
        return parts[0]
    sizes: Counter[Kind] = Counter()
    for part in parts:
        sizes[part.kind] += int(part.valid.sum()) if part.kind != "empty" else 0
    kinds = [kind for kind, size in sizes.most_common() if size]
    kind: Kind = kinds[0] if kinds else "empty"
    if kinds and all(other in _NUMBERS for other in kinds):
        kind = max(kinds, key=_NUMBERS.index)
    fitting = [part if _fits(part.kind, kind) else absent(part.valid.size) for part in parts]
    numeric = kind in (*_NUMBERS, "datetime", "empty")
    values = [part.values if numeric else part.values.astype(object) for part in fitting]
    return Physical(kind, np.concatenate(values), np.concatenate([part.valid for part in fitting]))


def _fits(part: Kind, kind: Kind) -> bool:
    return part == kind or (part in _NUMBERS and kind in _NUMBERS)


def read_physical(column: Any) -> Physical:
    """Read a numpy array, pandas or polars Series, arrow array or list."""
    module = type(column).__module__.split(".")[0]
    if module == "pandas":
        return _read_pandas(column)
    if module == "polars":
        return _read_polars(column)
    if module == "pyarrow":
        return _read_arrow(column)
    if isinstance(column, np.ndarray):
        return _read_numpy(column)
    return _read_objects(list(column))


def _read_numpy(array: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Physical:
    if isinstance(array, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(array)
        array = np.asarray(array.data)
    kind = _BY_NUMPY.get(array.dtype.kind)
    if kind is None or array.ndim != 1:
        return _read_objects(
            array.tolist()
            if valid is None
            else [item if good else None for item, good in zip(array.tolist(), valid, strict=True)]
        )
    there = np.ones(array.size, dtype=bool) if valid is None else valid
    if kind == "string":
        return _settle("string", array.astype(object), there)
    if kind == "datetime":
        return _settle("datetime", seconds_of(array), there & ~np.isnat(array))
    values = array.astype(np.float64)
    return _settle(kind, values, there & ~np.isnan(values))


def _settle(kind: Kind, values: NDArray[Any], valid: NDArray[np.bool_]) -> Physical:
    """A column without one value has no kind."""
    return Physical(kind, values, valid) if valid.any() else absent(valid.size)


def seconds_of(array: NDArray[Any]) -> NDArray[np.float64]:
    """Seconds since 1970 of datetime64 values; NaN for NaT."""
    whole = array.astype("datetime64[s]")
    rest = (array - whole) / np.timedelta64(1, "s")
    seconds: NDArray[np.float64] = np.where(np.isnat(array), np.nan, whole.astype(np.int64) + rest)
    return seconds


def _read_pandas(series: Any) -> Physical:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _read_numpy(series.to_numpy())
    valid = series.notna().to_numpy()
    kind = getattr(dtype, "kind", "O")
    if hasattr(dtype, "categories"):  # Categorical: read the few categories, then look them up
        codes = series.cat.codes.to_numpy()
        inner = read_physical(series.cat.categories.to_series())
        empty = Physical(inner.kind, np.append(inner.values, np.nan), np.append(inner.valid, False))
        return _settle(inner.kind, empty.values[codes], empty.valid[codes])
    if kind in "biuf":
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return _settle(_BY_NUMPY[kind], values, valid & ~np.isnan(values))
    if kind == "M":
        if getattr(dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return _read_numpy(series.to_numpy(dtype="datetime64[ns]"), valid)
    return _read_objects(series.to_numpy(dtype=object, na_value=None).tolist())


def _read_polars(series: Any) -> Physical:
    return _read_arrow(series.to_arrow())


def _read_arrow(column: Any) -> Physical:
    import pyarrow as pa

    from otel_mlmon.profile.arrow import flatten, is_text, objects_of, times_of

    array = flatten(column)
    kind = array.type
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        name: Kind = "boolean" if pa.types.is_boolean(kind) else "integer" if pa.types.is_integer(kind) else "float"
        return _settle(name, values, valid & ~np.isnan(values))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _read_numpy(times_of(array), valid)
    if is_text(kind):
        return _settle("string", objects_of(array), valid)
    return _read_objects(array.to_pylist())


def _read_objects(values: list[Any]) -> Physical:
    """Python values: the kind is what most of them are; the others are left out."""
    if set(map(type, values)) <= {str, type(None)}:  # by far the most frequent case
        strings = np.array(values, dtype=object)
        return _settle("string", strings, np.array([value is not None for value in values], dtype=bool))
    kinds = [_kind_of(value) for value in values]
    sizes = Counter(kind for kind in kinds if kind != "empty")
    if not sizes:
        return absent(len(values))
    kind = sizes.most_common(1)[0][0]
    if all(other in _NUMBERS for other in sizes):
        kind = max(sizes, key=_NUMBERS.index)
    valid = np.array([other == kind or (other in _NUMBERS and kind in _NUMBERS) for other in kinds], dtype=bool)
    if kind in _NUMBERS:
        floats = [_number(value) if good else np.nan for value, good in zip(values, valid, strict=True)]
        return Physical(kind, np.array(floats, dtype=np.float64), valid)
    if kind == "datetime":
        seconds = [_seconds(value) if good else np.nan for value, good in zip(values, valid, strict=True)]
        return Physical(kind, np.array(seconds, dtype=np.float64), valid)
    objects = np.empty(len(values), dtype=object)
    objects[:] = [value if good else None for value, good in zip(values, valid, strict=True)]
    return Physical(kind, objects, valid)


def _kind_of(value: Any) -> Kind:
    if value is None or value is getattr(sys.modules.get("pandas"), "NA", None):
        return "empty"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (bool, np.bool_)):
        return "boolean"
    if isinstance(value, np.timedelta64):  # which numpy takes for an integer
        return "other"
    if isinstance(value, (int, np.integer)):
        return "integer"
    if isinstance(value, (float, np.floating, Decimal)):
        return "empty" if value != value else "float"  # noqa: PLR0124 -- NaN of any of them
    if isinstance(value, (dt.date, np.datetime64)):
        return "empty" if value != value else "datetime"  # noqa: PLR0124 -- NaT
    return "other"


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return np.inf if value > 0 else -np.inf


def _seconds(value: Any) -> float:
    if isinstance(value, np.datetime64):
        return float(seconds_of(np.array([value]))[0])
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)  # a date is midnight UTC
    return float((value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)).timestamp())
