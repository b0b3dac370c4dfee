"""Values of a column -> numbers and cell numbers. The profile counts with these too, so both sides agree."""

from __future__ import annotations

import datetime as dt
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.ma import MaskedArray  # `np.ma` would import on first use, which a fork must not interrupt
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import CategoryAxis, Floats
from otel_mlmon.numerics.histogram import Invalid

if TYPE_CHECKING:
    from otel_mlmon.profile.document import Variable

_NUMBERS: Final = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_})
_NUMERIC_KINDS: Final = "fiub"
_STRINGS: Final = ("str", "string")  # pandas' types of strings
TABLE_SIZE: Final = 256  # categories that are whole numbers are looked up in a table of at most so many
_NO_NUMBERS: Final = (str, bytes, np.datetime64, np.timedelta64, np.complexfloating)  # though they have __float__


def is_missing(value: Any) -> bool:
    """None, pandas.NA, NaT of any kind; not NaN, which is a float."""
    if value is None:
        return True
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return True
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))


def category_name(value: Any) -> str | None:
    """The name under which a value is counted as a category; None where its type is not one of a category.

    >>> [category_name(v) for v in ("UA", True, 3, 3.0, 2.5, [1])]
    ['UA', 'true', '3', '3', '2.5', None]
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, np.timedelta64):  # which numpy takes for an integer
        return None
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A column ready to be counted.

    Args:
        values: numbers or cell numbers, float64, shape (n,); NaN and infinities of numbers are still among them.
        missing: values that were absent.
        wrong_type: values of a wrong type.
        inf: infinite values of a category.
    """

    values: Floats
    missing: int = 0
    wrong_type: int = 0
    inf: int = 0


Encoder = Callable[[Any, float], Encoded]


def make_encoder(variable: Variable) -> Encoder:
    """The function (column, now) -> Encoded of a variable; `now` is in seconds since 1970."""
    axis = variable.axis
    if variable.transform == "age":
        return lambda column, now: _subtract(now, to_seconds(column))
    if variable.transform == "length":
        return lambda column, _: _lengths(column)
    if not isinstance(axis, CategoryAxis):
        return lambda column, _: to_numbers(column)
    codes, default = axis.codes, axis.default
    if variable.dtype == "boolean":  # which is 0 or 1 where it comes in a matrix of numbers
        codes = {**codes, "0": codes.get("false", default), "1": codes.get("true", default)}
    find = codes.get
    if variable.transform == "hour":
        table = np.array([find(str(hour), default) for hour in range(24)], dtype=np.float64)
        return lambda column, _: _hours(to_seconds(column), table)
    return lambda column, _: _codes(column, find, default)


def encode(variable: Variable, column: Any, now: float) -> tuple[Floats, Invalid]:
    """Valid numbers or cell numbers of a column, and what was not valid.

    Args:
        variable: what is counted of the column.
        column: 1-D of any kind: numpy, pandas, polars, arrow, list.
        now: time of the call, seconds since 1970; for ages.
    """
    encoded = make_encoder(variable)(column, now)
    values = encoded.values
    finite = np.isfinite(values)
    if finite.all():
        return values, Invalid(encoded.missing, 0, encoded.inf, encoded.wrong_type)
    nan = int(np.isnan(values).sum())
    inf = values.size - int(finite.sum()) - nan
    return values[finite], Invalid(encoded.missing, nan, encoded.inf + inf, encoded.wrong_type)


def to_numbers(column: Any) -> Encoded:
    """Numbers of a column; text is of a wrong type even where it reads like a number."""
    column, missing = to_plain(column)
    if isinstance(column, np.ndarray):
        if column.dtype.kind in _NUMERIC_KINDS:
            return Encoded(column.astype(np.float64, copy=False), missing)
        column = column.tolist() if column.dtype.kind == "O" else list(column)
    if set(map(type, column)) <= _NUMBERS:
        try:
            return Encoded(np.array(column, dtype=np.float64), missing)
        except OverflowError:  # an integer beyond float64
            pass
    values, wrong = [], 0
    for value in column:
        if is_missing(value):
            missing += 1
        elif isinstance(value, _NO_NUMBERS) or not hasattr(value, "__float__") or getattr(value, "ndim", False):
            wrong += 1
        else:
            try:
                values.append(float(value))
            except OverflowError:  # an integer beyond float64
                values.append(math.inf if value > 0 else -math.inf)
            except Exception:  # it has __float__, which says it is none
                wrong += 1
    return Encoded(np.array(values, dtype=np.float64), missing, wrong)


def to_plain(column: Any) -> tuple[Any, int]:
    """A column as a numpy array or list, and how many missing values were taken out of it."""
    if isinstance(column, MaskedArray):
        present = column.compressed()
        return present, column.size - present.size
    if isinstance(column, np.ndarray):
        return (column if column.ndim == 1 else list(column)), 0  # rows of a matrix are of a wrong type for everybody
    if isinstance(column, (list, tuple)):
        return column, 0
    module = type(column).__module__.partition(".")[0]
    if module == "pandas":
        return _plain_pandas(column)
    if module in ("polars", "pyarrow"):
        present = column.drop_nulls() if module == "polars" else column.drop_null()
        missing = len(column) - len(present)
        kind = str(present.dtype if module == "polars" else present.type).lower()
        if kind.startswith(("float", "double", "halffloat", "int", "uint")):
            return present.to_numpy(), missing
        return (present.to_list() if module == "polars" else present.to_pylist()), missing
    if hasattr(column, "__array__"):
        return np.asarray(column), 0
    if isinstance(column, Iterable):
        return list(column), 0
    return [column], 0


def _plain_pandas(series: Any) -> tuple[Any, int]:
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy(), 0
    present = series.dropna()
    missing = len(series) - len(present)
    kind = getattr(present.dtype, "kind", "O")
    if kind in _NUMERIC_KINDS and not hasattr(present.dtype, "categories"):
        return present.to_numpy(dtype=np.float64 if kind == "f" else None), missing
    if kind == "M":
        if getattr(present.dtype, "tz", None) is not None:
            present = present.dt.tz_convert("UTC").dt.tz_localize(None)
        return present.to_numpy(dtype="datetime64[ns]"), missing
    return present.to_numpy(dtype=object), missing


def to_seconds(column: Any) -> Encoded:
    """Times as seconds since 1970; times without a zone are taken as UTC."""
    column, missing = to_plain(column)
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        present = column[~np.isnat(column)]
        whole = present.astype("datetime64[s]")
        rest = (present - whole) / np.timedelta64(1, "s")
        return Encoded(whole.astype(np.int64) + rest, missing + column.size - present.size)
    values, wrong = [], 0
    for value in column:
        if is_missing(value) or (isinstance(value, (float, np.floating)) and math.isnan(value)):
            missing += 1
        elif isinstance(value, (dt.date, np.datetime64)):
            values.append(epoch_seconds(value))
        else:
            wrong += 1
    return Encoded(np.array(values, dtype=np.float64), missing, wrong)


def epoch_seconds(value: dt.date | np.datetime64 | float) -> float:
    """A point in time as seconds since 1970; without a zone it is UTC."""
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)).timestamp()
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc).timestamp()
    return float(value)


def _subtract(now: float, seconds: Encoded) -> Encoded:
    return Encoded(now - seconds.values, seconds.missing, seconds.wrong_type)


def _hours(seconds: Encoded, table: Floats) -> Encoded:
    hours = (seconds.values // 3600 % 24).astype(np.intp)
    return Encoded(table[hours], seconds.missing, seconds.wrong_type)


def _lengths(column: Any) -> Encoded:
    column, missing = to_plain(column)
    lengths, wrong = [], 0
    for value in column:
        if isinstance(value, str):
            lengths.append(len(value))
        elif is_missing(value) or (isinstance(value, float) and math.isnan(value)):
            missing += 1
        else:
            wrong += 1
    return Encoded(np.array(lengths, dtype=np.float64), missing, wrong)


def _codes(column: Any, find: Callable[[str, int], int], default: int) -> Encoded:
    if _is_labelled(column):
        return _codes_of_labelled(column, find, default)
    column, missing = to_plain(column)
    if isinstance(column, np.ndarray):
        if column.dtype.kind in _NUMERIC_KINDS:
            return _codes_of_numbers(column, find, default, missing)
        column = column.tolist() if column.dtype.kind in "OU" else list(column)
    if set(map(type, column)) == {str}:
        return Encoded(np.array([find(name, default) for name in column], dtype=np.float64), missing)
    codes, wrong, inf = [], 0, 0
    for value in column:
        if is_missing(value):
            missing += 1
        elif isinstance(value, (float, np.floating)) and not math.isfinite(value):
            missing, inf = missing + math.isnan(value), inf + math.isinf(value)
        elif (name := category_name(value)) is None:
            wrong += 1
        else:
            codes.append(find(name, default))
    return Encoded(np.array(codes, dtype=np.float64), missing, wrong, inf)


def _is_labelled(column: Any) -> bool:
    """Whether a column is a pandas Series of strings or categories, whose labels are known without looking at each."""
    dtype = getattr(column, "dtype", None)
    return hasattr(column, "factorize") and (hasattr(dtype, "categories") or getattr(dtype, "name", "") in _STRINGS)


def _codes_of_labelled(series: Any, find: Callable[[str, int], int], default: int) -> Encoded:
    at, labels = series.factorize()
    names = [category_name(label) for label in labels]
    table = np.array([np.nan if name is None else find(name, default) for name in [*names, None]])
    codes: Floats = table[at]  # -1, the last, is missing
    missing = int((at < 0).sum())
    valid = codes[~np.isnan(codes)]
    return Encoded(valid, missing, at.size - missing - valid.size)


def _codes_of_numbers(column: NDArray[Any], find: Callable[[str, int], int], default: int, missing: int) -> Encoded:
    if column.dtype.kind == "b":
        table = np.array([find("false", default), find("true", default)], dtype=np.float64)
        return Encoded(table[column.view(np.uint8)], missing)
    finite = np.isfinite(column)
    nan = inf = 0
    if not finite.all():
        nan = int(np.isnan(column).sum())
        inf = column.size - int(finite.sum()) - nan
        column = column[finite]
    return Encoded(_look_up(column, find, default), missing + nan, 0, inf)


def _look_up(numbers: NDArray[Any], find: Callable[[str, int], int], default: int) -> Floats:
    """Codes of finite numbers; whole ones that lie close together, as they mostly do, are not sorted."""
    if not numbers.size:
        return np.empty(0)
    low, high = numbers.min().item(), numbers.max().item()
    if high - low < TABLE_SIZE and low == int(low):
        wide = numbers.astype(np.int16) if numbers.dtype == np.int8 else numbers  # whose differences may be beyond it
        at = (wide - wide.dtype.type(low)).astype(np.intp)
        if numbers.dtype.kind != "f" or (at + low == numbers).all():
            table: Floats = np.array([find(str(name), default) for name in range(int(low), int(high) + 1)], np.float64)
            codes: Floats = table[at]
            return codes
    values, inverse = np.unique(numbers, return_inverse=True)
    return np.array([find(category_name(value) or "", default) for value in values], np.float64)[inverse]
