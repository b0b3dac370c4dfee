"""What is normal from minute to minute, in the document: read and checked like the rest of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

import numpy as np

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.calibration import PEAKS, TESTS, Calibration
from otel_mlmon.numerics.scales import SCALES
from otel_mlmon.numerics.scan import TRIANGLE
from otel_mlmon.numerics.smooth import ORDERS
from otel_mlmon.numerics.windows import RATES
from otel_mlmon.profile.document import ProfileError, Variable
from otel_mlmon.profile.fields import Fields, check_number

SLOTS: Final = (1, 24, 168)
_SIGNED: Final = ("spread",)


def read_calibration(fields_: Fields, variable: Variable) -> Calibration:
    """Of one variable.

    Raises:
        ProfileError: names the field and what is allowed there.
    """
    slots = len(fields_.items("rows", SLOTS[-1]))
    if slots not in SLOTS:
        raise ProfileError(f"{fields_.at('rows')}: must be a list of 1, 24 or 168 numbers, got {slots}")
    cells, rates, scales = len(variable.decision), len(RATES), len(SCALES)
    shapes: dict[str, tuple[int, ...]] = {
        "shares": (slots, cells),
        "rows": (slots,),
        "spread": (scales, len(TRIANGLE)),
        "typical": (scales,),
        "freedom": (scales,),
        "jumps": (scales,),
        "cells": (scales, cells),
        "invalid": (rates,),
        "rates": (scales, rates),
        "peaks": (TESTS, scales, PEAKS),
        "daily": (ORDERS,),
    }
    plain: dict[str, Any] = {}
    for field in fields(Calibration):
        if field.name not in shapes:
            plain[field.name] = fields_.count(field.name)
            continue
        plain[field.name] = _read_array(fields_, field.name, shapes[field.name])
    fields_.close()
    return Calibration.from_plain(plain)


def _read_array(fields_: Fields, name: str, shape: tuple[int, ...]) -> Floats:
    path = fields_.at(name)
    numbers = [check_number(item, path, negative=name in _SIGNED) for item in _flatten(fields_.take(name), shape, path)]
    return np.array(numbers, dtype=np.float64).reshape(shape)


def _flatten(value: Any, shape: tuple[int, ...], path: str) -> Iterator[Any]:
    if not shape:
        yield value
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise ProfileError(f"{path}: must be lists of {' x '.join(map(str, shape))} numbers")
    for item in value:
        yield from _flatten(item, shape[1:], path)
