"""Feature values for the span of a call of one row, where OTEL_MLMON_CAPTURE_FEATURES asks for them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.columns import read_columns
from otel_mlmon.encoding import to_plain

MAX_FEATURES: Final = 128
MAX_LENGTH: Final = 256
_INTEGERS: Final = range(-(2**63), 2**63)  # those of OTLP


def feature_attributes(X: Any, names: Sequence[str]) -> dict[str, Any]:
    """Span attributes of the one row of X, of its first MAX_FEATURES columns; what is missing has none.

    Raises:
        UnreadableError: X has no columns that can be read.
    """
    attributes = {}
    for name, column in islice(read_columns(X, names).columns.items(), MAX_FEATURES):
        plain, _ = to_plain(column)
        for value in plain[:1]:
            if (told := _told(value.item() if isinstance(value, np.generic) else value)) is not None:
                attributes[f"{semconv.ML_FEATURE_VALUE}.{name}"] = told
    return attributes


def _told(value: Any) -> bool | int | float | str | None:
    if isinstance(value, (bool, float)) or (isinstance(value, int) and value in _INTEGERS):
        return value
    if isinstance(value, str):
        return value[:MAX_LENGTH]
    return value.isoformat() if isinstance(value, dt.date) else None
