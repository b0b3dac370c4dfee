"""Sums that do not depend on the order of what is added."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final

LARGEST: Final = sys.float_info.max


def sum_of(parts: Sequence[float]) -> float:
    """Sum, correctly rounded and so the same in any order; what is too large for a float is the largest one."""
    scale = max(1.0, max(map(abs, parts), default=0.0) / 1e150)
    if scale == 1.0:
        return math.fsum(parts)
    return bounded(math.fsum(bounded(part) / scale for part in parts) * min(scale, LARGEST))


def bounded(number: float) -> float:
    """The nearest finite number; 0 for NaN."""
    return 0.0 if math.isnan(number) else min(max(number, -LARGEST), LARGEST)
