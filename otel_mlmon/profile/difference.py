"""What differs between two profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts, Floats, NumericAxis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen, decision_starts
from otel_mlmon.numerics.effect import effect, sufficient
from otel_mlmon.numerics.histogram import Histogram
from otel_mlmon.numerics.measures import cell_bounds, jensen_shannon, ks, psi, wasserstein
from otel_mlmon.profile.document import Profile, ProfileError, Reference
from otel_mlmon.profile.rebinning import Piece, count_into

TOLERANCE: Final = 0.005  # of the effect; below, a change is not worth hearing of


@dataclass(frozen=True, slots=True)
class Change:
    """One variable in two profiles; a is the reference.

    Args:
        role, name: of the variable.
        a, b: None where a profile has it not.
        psi, js, ks, wasserstein, effect, lower: drift measures, as the processor computes them; NaN where they cannot
            be had. Wasserstein is in standard deviations of a.
        enough: whether there are enough values to say.
    """

    role: str
    name: str
    a: Reference | None
    b: Reference | None
    psi: float = np.nan
    js: float = np.nan
    ks: float = np.nan
    wasserstein: float = np.nan
    effect: float = np.nan
    lower: float = np.nan
    enough: bool = False

    @property
    def moved(self) -> bool:
        """Whether the distribution has changed by more than the tolerance, surely."""
        return self.enough and self.lower > TOLERANCE


def compare_profiles(a: Profile, b: Profile) -> list[Change]:
    """Changes from a to b: those in both by falling effect, then those that only one has."""
    left = {(r.variable.role, r.variable.name): r for r in a.references}
    right = {(r.variable.role, r.variable.name): r for r in b.references}
    changes = [_compare(key, left.get(key), right.get(key)) for key in {**left, **right}]
    order = {change.name: i for i, change in enumerate(changes)}
    return sorted(changes, key=lambda change: (-np.nan_to_num(change.effect, nan=-1e300), order[change.name]))


def _compare(key: tuple[str, str], a: Reference | None, b: Reference | None) -> Change:
    role, name = key
    if a is None or b is None:
        return Change(role, name, a, b)
    try:
        current = counts_over(a.histogram.axis, b)
    except ProfileError:  # numbers in one, categories in the other
        return Change(role, name, a, b)
    reference = a.histogram.counts
    if not reference.sum() or not current.sum():
        return Change(role, name, a, b)
    axis = a.histogram.axis
    starts, decision = coarse_starts(reference, axis), decision_starts(reference, axis)
    p, q = coarsen(current, starts), coarsen(reference, starts)
    numeric = isinstance(axis, NumericAxis)
    size = effect(coarsen(current, decision), coarsen(reference, decision))
    return Change(
        role,
        name,
        a,
        b,
        psi=float(psi(p, q)),
        js=float(jensen_shannon(p, q)),
        ks=float(ks(current, reference)) if numeric else np.nan,
        wasserstein=_wasserstein(axis, a, b, current) if isinstance(axis, NumericAxis) else np.nan,
        effect=float(size.estimate),
        lower=float(size.lower),
        enough=bool(sufficient(min(current.sum(), reference.sum()), decision.size)),
    )


def _wasserstein(axis: NumericAxis, a: Reference, b: Reference, current: Counts) -> float:
    least, most = min(a.histogram.min, b.histogram.min), max(a.histogram.max, b.histogram.max)
    bounds: Floats = cell_bounds(axis.edges, least, most)
    distance = wasserstein(current, a.histogram.counts, bounds, mean_difference=b.mean - a.mean)
    return float(distance) / a.std if a.std else np.nan


def counts_over(axis: Axis, reference: Reference) -> Counts:
    """Counts of a reference over the cells of another: exact where the cells are the same, else pro rata.

    Raises:
        ProfileError: numbers against categories.
    """
    histogram = reference.histogram
    if histogram.axis == axis:
        return histogram.counts
    if isinstance(axis, NumericAxis):
        return count_into(axis, [Piece.of(reference, 0.0)])
    if not isinstance(histogram.axis, CategoryAxis):
        raise ProfileError(f"column {reference.variable.column!r}: numbers against categories")
    return _counts_of_categories(axis, histogram, histogram.axis)


def _counts_of_categories(axis: CategoryAxis, histogram: Histogram, own: CategoryAxis) -> Counts:
    counts = np.zeros(axis.cells, dtype=np.int64)
    codes = axis.codes
    *listed, other, unseen = histogram.counts.tolist()
    for name, count in zip(own.names, listed, strict=True):
        counts[codes.get(name, axis.default)] += count
    counts[-2] += other  # which of them is not known
    counts[axis.default] += unseen
    return counts
