"""What is said to people: changes in plain words, names that are safe to print. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import OTHER, UNSEEN
from otel_mlmon.numerics.drift import Shift
from otel_mlmon.semconv import QualityMeasure

SMALL: Final = 0.05  # standard deviations; a mean that moved by less has stayed
SPREAD: Final = 1.1  # a spread is named where it has changed by more than this factor
_SAID: Final = {
    QualityMeasure.MISSING: "missing",
    QualityMeasure.INVALID: "invalid",
    QualityMeasure.UNSEEN: "never seen before",
    QualityMeasure.OUT_OF_RANGE: "out of the reference's range",
}
_UNUSABLE: Final[dict[type[OSError], str]] = {
    FileNotFoundError: "no such file or folder; is the path right?",
    IsADirectoryError: "a folder, where a file is expected; name the file",
    NotADirectoryError: "a part of the path is a file, not a folder; is the path right?",
    PermissionError: "not permitted to this user; change the rights of the file or its folder",
}
_CELLS: Final = {OTHER: "all other categories", UNSEEN: "categories never seen before"}


def printable(text: str) -> str:
    """The same in one line without control characters: names come from others and go to logs and terminals."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say_time(seconds: float) -> str:
    """Seconds since 1970 as 2025-01-01 09:30, UTC."""
    return str(np.datetime64(int(seconds // 60), "m")).replace("T", " ")


def say_unusable(error: OSError) -> str:
    """Which file it is about, what is wrong with it and what to do; where no file is named, what it says itself."""
    if error.filename is None:
        return str(error)
    kinds = (kind for kind in _UNUSABLE if isinstance(error, kind))
    return f"{error.filename}: {_UNUSABLE.get(next(kinds, OSError), error.strerror)}"


def say_rate(measure: str, before: float, after: float) -> str:
    """Missing 0.2 % -> 4.1 %, in words."""
    return f"{_SAID[measure]} {say_share(before)} -> {say_share(after)}"


def say_shift(shift: Shift) -> str:
    """The direction of a change, in words."""
    if shift.category is not None:
        name = _CELLS.get(shift.category, f"'{shift.category}'")
        return f"{name} {say_share(shift.before)} -> {say_share(shift.after)}"
    if shift.mean is None:
        return "distribution changed"
    mean = "mean about the same" if abs(shift.mean) < SMALL else _say_mean(shift.mean)
    wider = shift.spread is not None and not 1 / SPREAD <= shift.spread <= SPREAD
    if wider and shift.spread:
        return f"{mean}, spread x {shift.spread:.2g}"
    if abs(shift.mean) < SMALL or (shift.distance or 0.0) > 3 * abs(shift.mean):
        return f"shape changed, {mean}"
    return mean


def _say_mean(shift: float) -> str:
    return f"mean {'up' if shift > 0 else 'down'} {abs(shift):.2g} sd"


def say_share(share: float) -> str:
    """A share as a percentage of two significant digits or so."""
    percent = 100 * share
    return (
        f"{percent:.0f} %"
        if percent >= 10 or percent == 0
        else f"{percent:.1f} %"
        if percent >= 0.1
        else f"{percent:.2g} %"
    )
