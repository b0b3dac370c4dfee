"""An episode in plain words: which variables, which way, how sure. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import OTHER, Floats, NumericAxis
from otel_mlmon.numerics.drift import Shift
from otel_mlmon.numerics.windows import RATES as RATE_NAMES
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.shape import cell_means
from otel_mlmon.wording import say_share, say_shift
from otel_mlmon_processor.core.budget import RATES
from otel_mlmon_processor.core.episodes import Episode
from otel_mlmon_processor.core.scanner import Hit
from otel_mlmon_processor.core.verdict import label_of

ALONE: Final = 0.95  # of a cell; then it is called by this one of its categories
_SHOWN: Final = 3
_RATES: Final = {
    "missing": "missing",
    "nan": "NaN",
    "inf": "infinite",
    "type": "of another type",
    "unseen": "never seen before",
    "below": "below the reference's range",
    "above": "above the reference's range",
}


@dataclass(frozen=True, slots=True, eq=False)
class Naming:
    """How a variable is called.

    Args:
        label: the variable itself.
        positions: of a number, mean of the values of each decision cell in standard deviations of the reference
            (cells,); None for categories.
        cells: of a category, name of each decision cell; empty for numbers.
        rates: shares of RATES in the reference.
    """

    label: str
    positions: Floats | None = None
    cells: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()


def say_hit(hit: Hit, naming: Naming) -> str:
    """Which way a variable has moved: "mean up 0.31 sd", "missing 0.2 % -> 4.1 %", "'EV' 14 % -> 3 %"."""
    if hit.test == RATES:
        before = naming.rates[hit.part] if naming.rates else hit.expected[0] / max(hit.expected[1], 1.0)
        after = hit.counts[0] / max(hit.counts[1], 1.0)
        return f"{_RATES[RATE_NAMES[hit.part]]} {say_share(before)} -> {say_share(after)}"
    p, q = (np.array(side) / max(sum(side), 1.0) for side in (hit.counts, hit.expected))
    if naming.positions is None:
        at = int(np.abs(p - q).argmax())
        return say_shift(Shift(category=naming.cells[at], before=float(q[at]), after=float(p[at])))
    mean, deviation = _moments(p, naming.positions)
    before, usual = _moments(q, naming.positions)
    distance = float((np.abs(np.cumsum(p - q))[:-1] * np.diff(naming.positions)).sum())
    return say_shift(Shift(mean - before, distance, deviation / usual if usual else None))


def _moments(shares: Floats, positions: Floats) -> tuple[float, float]:
    mean = float(shares @ positions)
    return mean, float(shares @ (positions - mean) ** 2) ** 0.5


def say_episode(episode: Episode, namings: list[Naming]) -> str:
    """The variables that moved most, each with its direction and its part of the whole."""
    parts = []
    for suspect, share in list(zip(episode.suspects, episode.shares, strict=True))[:_SHOWN]:
        naming = namings[suspect.variable]
        part = f"{naming.label}: {say_hit(suspect.hit, naming)}"
        parts.append(part if len(episode.suspects) == 1 else f"{part} ({share:.0%} of the change)")
    more = len(episode.suspects) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def name_cells(reference: Reference) -> Naming:
    """How a variable and its coarse cells are called, or where they lie."""
    variable, held = reference.variable, reference.histogram
    starts: NDArray[np.intp] = np.array(variable.decision)
    label = label_of(variable.role, variable.name)
    if isinstance(variable.axis, NumericAxis):
        return Naming(label, cell_means(reference, starts) / (reference.std or 1.0))
    names = []
    for start, end in pairwise([*variable.decision, variable.axis.cells]):
        counts = held.counts[start:end]
        most = int(counts.argmax())
        names.append(variable.axis.labels[start + most] if counts[most] >= ALONE * counts.sum() else OTHER)
    return Naming(label, cells=tuple(names))
