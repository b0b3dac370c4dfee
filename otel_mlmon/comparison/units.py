"""A constant factor or offset between two samples of a number, recognised and named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Floats

LEVELS: Final = np.linspace(0.02, 0.98, 49)
NEAR: Final = 0.01  # relative; a factor this close to a known one is that
FIT: Final = 0.05  # standard deviations of the reference; how far quantiles may lie apart on average, once converted
GAIN: Final = 10.0  # and so many times closer than before
PLAIN_FACTOR: Final = 1.25  # without a name: at least this much, or its inverse
PLAIN_OFFSET: Final = 1.0  # standard deviations

_FACTORS: Final[tuple[tuple[float, str, str], ...]] = (
    (1.609344, "miles", "km"),
    (1.852, "nautical miles", "km"),
    (1.150779, "knots", "mph"),
    (1.943844, "m/s", "knots"),
    (3.6, "m/s", "km/h"),
    (2.236936, "m/s", "mph"),
    (0.3048, "feet", "metres"),
    (0.9144, "yards", "metres"),
    (2.54, "inches", "cm"),
    (25.4, "inches", "mm"),
    (0.45359237, "pounds", "kg"),
    (28.349523, "ounces", "g"),
    (3.785412, "gallons", "litres"),
    (4.184, "calories", "joules"),
    (6.894757, "psi", "kPa"),
    (33.863886, "inHg", "hPa"),
    (math.pi / 180, "degrees", "radians"),
    (10.0, "a unit", "tenths"),
    (12.0, "years", "months"),
    (24.0, "days", "hours"),
    (60.0, "minutes", "seconds"),
    (100.0, "a unit", "hundredths (percent, cents)"),
    (365.25, "years", "days"),
    (1_000.0, "a unit", "thousandths (milli-)"),
    (1_024.0, "KiB", "bytes"),
    (3_600.0, "hours", "seconds"),
    (86_400.0, "days", "seconds"),
    (1e6, "a unit", "millionths (micro-)"),
    (1e9, "seconds", "nanoseconds"),
)
_LINES: Final = (
    (1.8, 32.0, "degrees Celsius to Fahrenheit"),
    (1 / 1.8, -32 / 1.8, "degrees Fahrenheit to Celsius"),
    (1.0, 273.15, "degrees Celsius to kelvin"),
    (1.0, -273.15, "kelvin to degrees Celsius"),
    (-1.0, 0.0, "the sign turned round"),
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """current = factor * reference + offset; `name` says as what, "" where it is no known one."""

    factor: float
    offset: float
    name: str

    def __str__(self) -> str:
        parts = [f"x {self.factor:.4g}"] if self.factor != 1 else []
        if self.offset:
            parts.append(f"{'+' if self.offset > 0 else '-'} {abs(self.offset):.4g}")
        said = " ".join(parts)
        return f"unit changed: {said}, as {self.name}" if self.name else f"all values {said}, the shape is the same"


def recognise_conversion(reference: Floats, current: Floats, std: float) -> Conversion | None:
    """The conversion that takes the reference's quantiles to the current ones; None where there is none.

    A change of the mean alone looks like an offset, and one of a price level like a factor: without a known name only
    those are told that are larger than such changes are.

    Args:
        reference: quantiles at LEVELS, ascending.
        current: the same.
        std: standard deviation of the reference, > 0.
    """
    apart = _apart(reference, current, std)
    if not std > 0 or not np.isfinite(apart) or apart < FIT * GAIN / 2:
        return None
    candidates = [Conversion(a, b, name) for a, b, name in _LINES]
    ratio = float((reference @ current) / (reference @ reference))
    candidates += _named_factors(ratio)
    one_sided = reference[0] > 0 or reference[-1] < 0  # else it is the spread that has changed
    if one_sided and ratio > 0 and not 1 / PLAIN_FACTOR < ratio < PLAIN_FACTOR:
        candidates.append(Conversion(float(f"{ratio:.3g}"), 0.0, ""))
    offset = float(np.median(current - reference))
    if abs(offset) > PLAIN_OFFSET * std:
        candidates.append(Conversion(1.0, float(f"{offset:.4g}"), ""))
    fits = [(_apart(_convert(reference, each), current, std * abs(each.factor)), each) for each in candidates]
    good = [pair for pair in fits if pair[0] <= min(FIT, apart / GAIN)]
    named = [pair for pair in good if pair[1].name]
    return min(named or good, key=lambda pair: pair[0])[1] if good else None


def _named_factors(ratio: float) -> list[Conversion]:
    """The known factor that is nearest to the ratio, where one is near."""
    both = [
        Conversion(value, 0.0, f"{a} to {b}")
        for factor, small, large in _FACTORS
        for value, a, b in ((factor, small, large), (1 / factor, large, small))
    ]
    nearest = min(both, key=lambda each: abs(ratio / each.factor - 1))
    return [nearest] if abs(ratio / nearest.factor - 1) <= NEAR else []


def _convert(quantiles: Floats, to: Conversion) -> Floats:
    converted: Floats = quantiles * to.factor + to.offset
    return converted if to.factor > 0 else converted[::-1]


def _apart(a: Floats, b: Floats, std: float) -> float:
    """Mean distance of quantiles in standard deviations, nearly Wasserstein's."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.abs(a - b).mean() / std)
