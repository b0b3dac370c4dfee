"""What happens by chance within the same few minutes, though the reference did not show it together.

A reference holds bursts of single minutes; of sums over five minutes with three of them it may hold none, and a month
of production holds some. How the tails of such sums go on is known from the minutes, were each drawn by itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.scales import HOUR, SCALES
from otel_mlmon.numerics.scan import DIAGONAL

LIGHT: Final = 1e4  # degrees of freedom that are as good as a normal's
_CHANCE: Final = 1e-9  # of one look at one order, where 30 variables have one false alarm a month
_NORMAL: Final = 6.1094  # two-sided quantile of a normal at that chance
_GRID: Final = 1_024
_FREEDOMS: Final = np.geomspace(4.5, LIGHT, 64)


def fit_jumps(minutes: Floats, spread: Floats, typical: Floats) -> Floats:
    """Degrees of freedom at each scale; a single minute is no sum, and those over four hours are as good as normal.

    Args:
        minutes: scores S / sqrt(n) of single minutes, (minutes, 4).
        spread: T, see Calibration, (5, 10).
        typical: nbar, (5,).
    """
    variance = 1 + spread[:, list(DIAGONAL)] * typical[:, np.newaxis]
    return np.array(
        [
            jump_freedom(minutes, scale.length, of) if 1 < scale.length <= HOUR else LIGHT
            for scale, of in zip(SCALES, variance, strict=True)
        ]
    )


def jump_freedom(minutes: Floats, length: int, variance: Floats) -> float:
    """Degrees of freedom nu of the Student's t that reaches as far as sums of minutes drawn by themselves.

    The shares of the minutes' scores on a grid, convolved `length` times with themselves, are the sums'; the t has the
    same two-sided quantile at 1e-9, the farthest of the four orders counts. Where minutes depend on each other, sums
    vary more than these, and the tails matter less. A t of q^2 is as far out as a normal of nu log(1 + q^2 / nu)
    ((8 nu + 1) / (8 nu + 3))^2, to 0.4 % from nu = 14 on.

    Source: D. L. Wallace, Bounds on normal approximations to Student's and the chi-square distributions, Annals of
    Mathematical Statistics 30, 1959, 1121-1130.

    Args:
        minutes: scores S / sqrt(n) of single minutes, (minutes, 4).
        length: minutes of a sum.
        variance: of the sums' S / sqrt(n) as the tests take it, (4,).

    Returns:
        Between 4.5 and 10,000.
    """
    if not len(minutes):
        return LIGHT
    far = max(_quantile(m, length) ** 2 / (length * v) for m, v in zip(minutes.T, variance, strict=True))
    normal = np.sqrt(_FREEDOMS * np.log1p(far / _FREEDOMS)) * (8 * _FREEDOMS + 1) / (8 * _FREEDOMS + 3)
    return float(np.exp(np.interp(_NORMAL, normal, np.log(_FREEDOMS))))


def _quantile(minutes: Floats, length: int) -> float:
    """How far from 0 sums of independent minutes are with a chance of 1e-9, of either side the farther."""
    low, high = float(minutes.min()), float(minutes.max())
    if high <= low:
        return 0.0
    step = (high - low) / (_GRID - 1)
    shares = np.bincount(np.round((minutes - low) / step).astype(np.intp), minlength=_GRID) / minutes.size
    size = length * (_GRID - 1) + 1
    padded = 1 << size.bit_length()
    sums = np.fft.irfft(np.fft.rfft(shares, padded) ** length, padded)[:size]
    below, above = np.cumsum(sums), np.cumsum(sums[::-1])
    half = _CHANCE / 2
    ends = length * low + step * np.searchsorted(below, half), length * high - step * np.searchsorted(above, half)
    return float(np.abs(ends).max())
