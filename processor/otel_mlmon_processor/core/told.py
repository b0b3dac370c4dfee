"""What an alarm says: a hit in plain words. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import OTHER, Floats, NumericAxis
from otel_mlmon.numerics.drift import Shift
from otel_mlmon.numerics.windows import RATES as RATE_NAMES
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.shape import cell_means
from otel_mlmon.semconv import FeatureInvalidReason, QualityMeasure
from otel_mlmon.wording import say_rate, say_share, say_shift
from otel_mlmon_processor.core.budget import RATES
from otel_mlmon_processor.core.scanner import Hit

_REASONS: Final = {
    FeatureInvalidReason.MISSING: QualityMeasure.MISSING,
    FeatureInvalidReason.NAN: QualityMeasure.MISSING,
    "unseen": QualityMeasure.UNSEEN,
}
_ALONE: Final = 0.95  # a cell that holds so much of one category is called by it
_SIDES: Final = {"below": "below the reference's range", "above": "above the reference's range"}


def say_hit(hit: Hit, reference: Reference) -> str:
    """What has changed and by how much: "mean up 0.31 sd", "missing 0.2 % -> 4.1 %", "'EV' 14 % -> 3 %"."""
    if hit.test == RATES:
        was, now = (pair[0] / max(pair[1], 1.0) for pair in (hit.expected, hit.counts))
        name = RATE_NAMES[hit.part]
        if name in _SIDES:
            return f"{_SIDES[name]} {say_share(was)} -> {say_share(now)}"
        return say_rate(_REASONS.get(name, QualityMeasure.INVALID), was, now)
    after, before = _shares(hit.counts), _shares(hit.expected)
    variable = reference.variable
    if isinstance(variable.axis, NumericAxis):
        return say_shift(_shift(reference, before, after))
    at = int(np.abs(after - before).argmax())
    start, end = [*variable.decision, variable.axis.cells][at : at + 2]
    held = reference.histogram.counts[start:end]
    most = int(held.argmax())
    alone = held[most] >= _ALONE * held.sum()
    name = variable.axis.labels[start + most] if alone else OTHER
    return say_shift(Shift(category=name, before=float(before[at]), after=float(after[at])))


def _shares(counts: tuple[float, ...]) -> Floats:
    values = np.array(counts)
    return np.asarray(values / max(values.sum(), 1e-9))


def _shift(reference: Reference, before: Floats, after: Floats) -> Shift:
    """From the shares of the coarse cells, each at the mean of what the reference holds in it."""
    std = reference.std
    if not std:
        return Shift()
    starts: NDArray[np.intp] = np.array(reference.variable.decision)
    at = cell_means(reference, starts) / std
    mean = float((after - before) @ at)
    was, now = (float(shares @ (at - shares @ at) ** 2) for shares in (before, after))
    distance = float(np.abs(np.cumsum(after - before)[:-1] * np.diff(at)).sum())
    return Shift(mean, distance, (now / was) ** 0.5 if was > 0 else None)
