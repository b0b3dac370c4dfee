"""What a model said, split into the roles that are counted: value, class, score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from otel_mlmon.copying import copy_column

ROLES: Final = ("value", "class", "score")


def read_outputs(y: Any, roles: Collection[str], classes: Sequence[Any] | None = None) -> dict[str, Any]:
    """Columns of an output by role; arrays are copies, so the caller may reuse its buffer.

    Two dimensions are scores by class: the score is column 1 of two, the largest of more, and where classes are counted
    the class is the one with the largest. One dimension of floats is a value (a score or class where that is all the
    profile has), of anything else a class (or a value likewise). A mapping names the roles itself.

    Args:
        y: array, frame, list or scalar; or a mapping from role to one of these.
        roles: that the profile has; empty where there is none.
        classes: label of each column of scores; their numbers where absent.

    Raises:
        TypeError: y is a mapping with a key that is no role, or has more than two dimensions.
    """
    if type(y) is np.ndarray and y.ndim == 1:  # the most frequent case first
        return {_role_of(y, roles): y.copy()}
    if isinstance(y, Mapping):
        unknown = set(y) - set(ROLES)
        if unknown:
            raise TypeError(f"outputs are {', '.join(ROLES)}; got {sorted(map(str, unknown))}")
        return {role: _column(values) for role, values in y.items()}
    values = _column(y) if len(getattr(y, "shape", (1,))) < 2 else np.asarray(y)
    shape: tuple[int, ...] = getattr(values, "shape", (1,))
    if len(shape) == 2:
        if shape[1] > 1:
            return _scores(values, roles, classes)
        values = values[:, 0].copy()
    elif len(shape) != 1:
        raise TypeError(f"an output has one or two dimensions, got shape {shape}")
    return {_role_of(values, roles): values}


def _column(values: Any) -> Any:
    if type(values) is np.ndarray and values.ndim:
        return values.copy()
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes)):
        return [values]
    if getattr(values, "shape", None) == ():
        return [values.item()]
    if isinstance(values, (list, tuple)):
        array = np.array(values) if values and isinstance(values[0], (list, tuple, np.ndarray, float)) else None
        return array if array is not None and array.dtype.kind == "f" else list(values)
    return copy_column(values)


def _scores(values: Any, roles: Collection[str], classes: Sequence[Any] | None) -> dict[str, Any]:
    two = values.shape[1] == 2
    found: dict[str, Any] = {"score": values[:, 1].copy() if two else values.max(axis=1)}
    if "class" in roles:
        largest = values.argmax(axis=1)
        found["class"] = largest if classes is None else np.asarray(classes)[largest]
    return found


def _role_of(values: Any, roles: Collection[str]) -> str:
    order = ("value", "score", "class") if _is_float(values) else ("class", "value", "score")
    return next((role for role in order if role in roles), order[0])


def _is_float(values: Any) -> bool:
    if type(values) is np.ndarray and values.dtype.kind != "O":
        return bool(values.dtype.kind == "f")
    if type(values) is np.ndarray and values.dtype.kind != "O":
        return bool(values.dtype.kind == "f")
    dtype = getattr(values, "dtype", None) or getattr(values, "type", None)  # the latter is Arrow's
    kind = getattr(dtype, "kind", "O" if dtype is None else str(dtype).lower())
    if kind != "O":
        return bool(kind == "f") or kind.startswith(("float", "double", "halffloat"))
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, (float, np.floating)) for value in present)
