"""Several profiles as one, the same in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.profile.document import Dtype, Profile, ProfileError, Reference, Variable
from otel_mlmon.profile.moments import bounded, sum_of
from otel_mlmon.profile.planning import choose_cells
from otel_mlmon.profile.rebinning import Piece, join_categories, join_numbers
from otel_mlmon.profile.windows import Windows, calibrate

Key = tuple[str, str]


def merge_profiles(parts: Iterable[Profile], *, part: bool = False) -> Profile:
    """See `Profile.merge`. Parts are put in the order of their hashes first, and floats are added correctly rounded."""
    profiles = sorted(parts, key=lambda profile: profile.hash)
    if not profiles:
        raise ProfileError("nothing to merge")
    for name in ("model", "version", "model_hash", "framework"):
        found = sorted({getattr(profile, name) for profile in profiles} - {""})
        if len(found) > 1:
            raise ProfileError(f"{name}: the parts are of different models: {', '.join(map(repr, found))}")
    notes = {note for profile in profiles for note in profile.notes}
    plans = {profile.plan for profile in profiles}
    windows = None
    if len(profiles) == 1:
        references, windows = list(profiles[0].references), profiles[0].windows
    elif len(plans) == 1:
        columns = zip(*(profile.references for profile in profiles), strict=True)
        references = [_merge_same(column, [profile.rows for profile in profiles]) for column in columns]
        windows = _merge_windows(profiles)
        if windows is not None:
            references = calibrate(windows, references)
    else:
        references, moved = _merge_different(profiles)
        notes.add(
            "merged from parts with different plans: "
            + (f"moved to common cells pro rata: {', '.join(moved)}" if moved else "every distribution is exact")
        )
    if any(r.calibration for profile in profiles for r in profile.references) and not any(
        reference.calibration for reference in references
    ):
        notes.add(
            "what is normal from minute to minute is not known: the parts have different plans"
            if len(plans) > 1
            else "what is normal from minute to minute is not known: not all parts were built with part=True"
        )
    first = profiles[0]
    return replace(
        first,
        references=tuple(references),
        windows=windows if part else None,
        rows=sum(profile.rows for profile in profiles),
        version=max(profile.version for profile in profiles),
        model_hash=max(profile.model_hash for profile in profiles),
        framework=max(profile.framework for profile in profiles),
        created=max(profile.created for profile in profiles),
        trained=max(profile.trained for profile in profiles),
        packages=_merge_packages(profiles),
        notes=tuple(sorted(_shorten(note) for note in notes)),
    )


def _merge_windows(profiles: Sequence[Profile]) -> Windows | None:
    """Counts by minute of all parts; None where one has none."""
    found = [profile.windows for profile in profiles if profile.windows is not None]
    return reduce(Windows.merge, found) if len(found) == len(profiles) else None


def _shorten(note: str) -> str:
    return note if len(note) <= 500 else note[:497] + "..."


def _merge_packages(profiles: Sequence[Profile]) -> dict[str, str]:
    names = {name for profile in profiles for name in profile.packages}
    versions = {name: {profile.packages.get(name, "") for profile in profiles} - {""} for name in sorted(names)}
    return {name: ", ".join(sorted(found)) for name, found in versions.items()}


# ---------------------------------------------------------------- one plan


def _merge_same(references: Sequence[Reference], rows: Sequence[int]) -> Reference:
    """Exactly: counts are added."""
    histogram = references[0].histogram
    for reference in references[1:]:
        histogram = histogram.merge(reference.histogram)
    total, m2 = merge_moments([(r.histogram.valid, r.histogram.sum, r.m2) for r in references])
    weight = _merge_importance(references, rows)
    return Reference(references[0].variable, replace(histogram, sum=total), m2, weight)


def merge_moments(parts: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """Sum and squared deviations from the mean, of (count, sum, squared deviations) of parts.

    m2 = sum m2_i + sum n_i (mean_i - mean)^2, each sum correctly rounded and so the same in any order.
    """
    filled = [(n, total, m2) for n, total, m2 in parts if n]
    count, total = sum(n for n, _, _ in filled), sum_of([total for _, total, _ in filled])
    if len(filled) == 1:
        return total, filled[0][2]
    mean = total / count if count else 0.0
    apart = [bounded(n * (part / n - mean) * (part / n - mean)) for n, part, _ in filled]
    return total, sum_of([*(m2 for _, _, m2 in filled), *apart])


def _merge_importance(references: Sequence[Reference], rows: Sequence[int]) -> float | None:
    """The common one, else the mean over rows."""
    known = [(r.importance, n) for r, n in zip(references, rows, strict=True) if r.importance is not None]
    if len({weight for weight, _ in known}) <= 1:
        return known[0][0] if known else None
    total = sum(n for _, n in known) or 1
    return sum_of([weight * (n / total) for weight, n in known])


# ---------------------------------------------------------------- different plans


def _merge_different(profiles: Sequence[Profile]) -> tuple[list[Reference], list[str]]:
    """References of all variables of any part, and the names of those that are not exact."""
    _check_transforms(profiles)
    tables = [{(r.variable.role, r.variable.name): r for r in profile.references} for profile in profiles]
    merged: list[Reference] = []
    moved: list[str] = []
    for key in dict.fromkeys(key for table in tables for key in table):
        present = [(table[key], profile.rows) for table, profile in zip(tables, profiles, strict=True) if key in table]
        references, rows = [reference for reference, _ in present], [size for _, size in present]
        absent = sum(profile.rows for table, profile in zip(tables, profiles, strict=True) if key not in table)
        if len({reference.variable for reference in references}) == 1:
            reference = _merge_same(references, rows)
        else:
            reference = _merge_moved(references, rows)
            if not _is_exact(references, reference):
                moved.append(key[1])
        histogram = replace(reference.histogram, invalid=reference.histogram.invalid + Invalid(missing=absent))
        merged.append(replace(reference, histogram=histogram))
    return merged, moved


def _is_exact(parts: Sequence[Reference], merged: Reference) -> bool:
    """Whether every count is still known: categories by name, or numbers that only one part has."""
    axis = merged.variable.axis
    if isinstance(axis, CategoryAxis):
        return not any(r.histogram.counts[-2:].any() for r in parts if r.variable.dtype != "empty")
    return all(r.histogram.axis == axis for r in parts if r.histogram.valid)


def _check_transforms(profiles: Sequence[Profile]) -> None:
    """Parts that count different things of a column cannot be merged."""
    found: dict[Key, set[tuple[str, ...]]] = {}
    for profile in profiles:
        transforms: dict[Key, list[str]] = {}
        for reference in profile.references:
            variable = reference.variable
            if variable.dtype != "empty":
                transforms.setdefault((variable.role, variable.column), []).append(variable.transform)
        for key, names in transforms.items():
            found.setdefault(key, set()).add(tuple(sorted(names)))
    for (_, column), kinds in found.items():
        if len(kinds) > 1:
            raise ProfileError(
                f"column {column!r}: the parts count different things of it; build them with one plan, or with types="
            )


def _merge_moved(references: Sequence[Reference], rows: Sequence[int]) -> Reference:
    """The variable's parts over common cells."""
    filled = [r for r in references if r.variable.dtype != "empty"] or list(references)
    nothing = [r.histogram for r in references if r not in filled]
    invalid = Invalid()
    for reference in filled:
        invalid += reference.histogram.invalid
    for histogram in nothing:
        invalid += histogram.invalid + Invalid(type=histogram.valid)
    origins = [r.variable.origin for r in filled if r.variable.origin is not None]
    origin = max(origins) if len(origins) == len(filled) else None
    if all(isinstance(r.variable.axis, CategoryAxis) for r in filled):
        axis, counts = join_categories([r.histogram for r in filled])
        histogram, m2 = Histogram(axis, counts, invalid), 0.0
    else:
        histogram, m2 = _merge_numbers(filled, origin, invalid)
    cells = choose_cells(histogram.axis, histogram.counts)
    dtype = _common_dtype(filled)
    variable = replace(filled[0].variable, dtype=dtype, axis=cells.axis, decision=cells.decision, origin=origin)
    return Reference(variable, histogram, m2, _merge_importance(references, rows))


def _common_dtype(references: Sequence[Reference]) -> Dtype:
    dtypes = {reference.variable.dtype for reference in references}
    wide: tuple[Dtype, ...] = ("string", "float", "integer", "boolean")
    return next((dtype for dtype in wide if dtype in dtypes), min(dtypes))


def _merge_numbers(references: Sequence[Reference], origin: float | None, invalid: Invalid) -> tuple[Histogram, float]:
    pieces = [Piece.of(reference, _shift(reference.variable, origin)) for reference in references]
    total, m2 = merge_moments([(piece.count, piece.sum, piece.m2) for piece in pieces])
    least, most = min(piece.min for piece in pieces), max(piece.max for piece in pieces)
    if not any(piece.count for piece in pieces):
        axis = next(r.variable.axis for r in references if isinstance(r.variable.axis, NumericAxis))
        return replace(Histogram.empty(axis), invalid=invalid), 0.0
    axes = {r.variable.axis for r, piece in zip(references, pieces, strict=True) if piece.count or len(pieces) == 1}
    if len(axes) == 1 and not any(_shift(r.variable, origin) for r in references):
        (only,) = axes
        if isinstance(only, NumericAxis):  # the others have no value
            counts = np.sum([r.histogram.counts for r in references if r.histogram.axis == only], axis=0)
            return Histogram(only, counts, invalid, total, least, most), m2
    axis, counts = join_numbers(pieces, least, most)
    return Histogram(axis, counts, invalid, total, least, most), m2


def _shift(variable: Variable, origin: float | None) -> float:
    """What to add to ages that are counted to an earlier moment."""
    return origin - variable.origin if origin is not None and variable.origin is not None else 0.0
