"""Differences that are none of distribution: columns, types, units, codes for missing values, names of categories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from otel_mlmon.comparison.finding import Finding
from otel_mlmon.comparison.units import LEVELS, recognise_conversion
from otel_mlmon.numerics.binning import CategoryAxis, Floats, NumericAxis
from otel_mlmon.numerics.rates import make_rate
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.physical import Physical
from otel_mlmon.profile.planning import name_of
from otel_mlmon.profile.shape import format_number, quantiles
from otel_mlmon.wording import printable, say_share

GONE: Final = "the column is gone"
NAMED: Final = 3  # names in a sentence
LEAST_CODE: Final = 0.002  # share of the values from which a code is one
MULTIPLIED: Final = 4  # times more rows than before have a value that is new
LEAST_VALUES: Final = 30  # of a column that is called constant
_NINES: Final = [float("9" * digits) for digits in range(1, 10)]
CODES: Final = frozenset({*_NINES, *(-number for number in _NINES), -1.0, -2.0, -32768.0, 2147483647.0, -2147483648.0})
TEXT_CODES: Final = frozenset({"", "-", "?", "na", "n/a", "#n/a", "nan", "nil", "none", "null", "missing", "unknown"})
TESTS: Final = 4  # of a variable: fewer missing, a new code for them, constant, renamed
_NUMBERS: Final = ("boolean", "integer", "float")


def compare_columns(reference: Sequence[str], current: Sequence[str], *, known: bool) -> list[Finding]:
    """Columns that are gone or new; `known` says whether the reference's columns are all that it had."""
    before, after = set(reference), set(current)
    gone = [Finding("fault", "gone", "feature", name, GONE, 1e6) for name in reference if name not in after]
    level = "fault" if known else "note"
    new = [Finding(level, "new", "feature", name, "a new column", 0.0) for name in current if name not in before]
    return gone + new


def compare_types(reference: Reference, current: str, sample: Physical | None) -> Iterator[Finding]:
    """The type of the values.

    Args:
        reference: of the column.
        current: kind of the values, as the profile names types.
        sample: of the current values.
    """
    before = reference.variable.dtype
    before = "string" if before == "text" else before
    if current in (before, "empty") or before == "empty":
        return
    said = f"type {before} -> {current}"
    if before in _NUMBERS and current in _NUMBERS:
        yield _finding(reference, "note", "type", said, 0.0)
        return
    example = (
        f", such as {printable(repr(sample.present[0]))[:40]}" if sample is not None and sample.present.size else ""
    )
    yield _finding(reference, "fault", "type", said + (example if current == "string" else ""), 1e5)


def compare_units(
    reference: Reference, current: Reference, sample: Physical | None, before: Physical | None
) -> Iterator[Finding]:
    """A constant factor or offset between the two; samples of the current values and of those before say it best."""
    if not isinstance(reference.variable.axis, NumericAxis) or not reference.std:
        return
    values = _numbers(sample)
    if values.size:
        now: Floats = np.quantile(values, LEVELS, method="median_unbiased")
    elif isinstance(current.variable.axis, NumericAxis) and current.histogram.valid:
        now = quantiles(current, LEVELS)
    else:
        return
    old = _numbers(before)
    was = (
        np.quantile(old, LEVELS, method="median_unbiased") if old.size and values.size else quantiles(reference, LEVELS)
    )
    found = recognise_conversion(was, now, reference.std)
    if found is not None:
        yield _finding(reference, "fault" if found.name else "drift", "unit", str(found), 1e3)


def find_codes(
    reference: Reference, current: Reference, sample: Physical | None, old: Physical | None, *, confidence: float
) -> Iterator[Finding]:
    """Values that stand for missing ones and did not before; from samples of the current values and of the old ones.

    `confidence` is that of the fall of the missing ones and, for all values together, of the rise of each.
    """
    before, after = reference.histogram.missing, current.histogram.missing
    fallen = before - after if after < before / 2 and _has_fallen(reference, current, confidence) else 0.0
    if isinstance(reference.variable.axis, CategoryAxis):
        new = _new_text_codes(reference, sample, old, confidence)
    else:
        new = {
            format_number(value): share
            for value, share in _new_numbers(reference, sample, old, confidence).items()
            if _is_code(reference, value, share, fallen, _numbers(old))
        }
    was = f" where {say_share(before)} were missing" if fallen else ""
    for name, share in sorted(new.items(), key=lambda item: -item[1])[:NAMED]:
        said = f"{printable(name)} in {say_share(share)} of the values{was}, as a code for missing ones"
        yield _finding(reference, "fault", "missing_code", said, 10.0 + share)


def _has_fallen(reference: Reference, current: Reference, confidence: float) -> bool:
    """Whether surely fewer values are missing."""
    was, now = reference.histogram, current.histogram
    before, after = (side.invalid.missing + side.invalid.nan for side in (was, now))
    return was.missing > LEAST_CODE and _is_more(before, was.seen, (after, now.seen), confidence)


def _is_more(count: int, seen: int, before: tuple[int, int], confidence: float) -> bool:
    """Whether count of seen is surely a greater share than before."""
    return make_rate(count, seen, before, confidence=confidence).effect > 0


def _new_text_codes(
    reference: Reference, sample: Physical | None, old: Physical | None, confidence: float
) -> dict[str, float]:
    """Known codes that were surely rarer, with their shares."""
    axis = reference.variable.axis
    assert isinstance(axis, CategoryAxis)  # noqa: S101 -- asked of categories only
    if sample is None or not (axis.closed or old is not None):
        return {}
    every = 1 - (1 - confidence) / len(TEXT_CODES)
    if old is None or axis.closed:  # its names are all that there were
        usual, before = frozenset(axis.codes), reference.histogram.valid
    else:
        usual, before = frozenset({*axis.codes, *_category_shares(old)}), int(old.valid.sum())
    return {
        repr(name): share
        for name, share in _category_shares(sample).items()
        if name not in usual
        and _normal(name) in TEXT_CODES
        and _is_more(round(share * sample.present.size), sample.present.size, (0, before), every)
    }


def _new_numbers(
    reference: Reference, sample: Physical | None, old: Physical | None, confidence: float
) -> dict[float, float]:
    """Numbers that surely more rows have than before, with their shares; `confidence` is that of all together."""
    values, usual = _numbers(sample), _numbers(old)
    was, axis = reference.histogram, reference.variable.axis
    assert isinstance(axis, NumericAxis)  # noqa: S101 -- asked of numbers only
    distinct, counts = np.unique(values, return_counts=True)
    every = 1 - (1 - confidence) / max(distinct.size, 1)
    new = {}
    for at in np.flatnonzero(counts >= max(5.0, LEAST_CODE * values.size)):
        value, count = float(distinct[at]), int(counts[at])
        if not was.min <= value <= was.max:
            before = 0, was.valid
        elif usual.size:
            before = int(np.count_nonzero(usual == value)), usual.size
        else:
            before = int(was.counts[axis.locate(value)]), was.valid
        if _is_more(count, values.size, before, every):
            new[value] = count / values.size
    return new


def _is_code(reference: Reference, value: float, share: float, fallen: float, old: Floats) -> bool:
    """Whether a value that surely more rows have looks like a code or takes the place of missing ones.

    `old` are some of the reference's values; without them (a profile has none) a value in the range is taken for new
    where it alone has twice as many rows as its cell had.
    """
    was, axis = reference.histogram, reference.variable.axis
    assert isinstance(axis, NumericAxis)  # noqa: S101 -- asked of numbers only
    if not was.min <= value <= was.max:
        return value in CODES or 0.5 * fallen <= share <= 2 * fallen
    if old.size:
        usual = float(np.count_nonzero(old == value)) / old.size
        new = share >= MULTIPLIED * usual
    else:
        usual = 0.0
        new = share >= 2 * float(was.counts[axis.locate(value)]) / max(was.valid, 1)
    return new and fallen > 0 and 0.5 * fallen <= share - usual <= 2 * fallen


def find_constant(reference: Reference, current: Reference, *, confidence: float) -> Iterator[Finding]:
    """One value in all rows, where there were several; `confidence` is that chance would not do it."""
    was, now = reference.histogram, current.histogram
    if now.valid < LEAST_VALUES or np.count_nonzero(now.counts) != 1:
        return
    cell = int(now.counts.argmax())
    upper = make_rate(0, 1, (int(was.counts[cell]), was.valid), confidence=confidence).allowed
    if upper**now.valid > 1 - confidence:
        return
    if isinstance(reference.variable.axis, NumericAxis):
        if now.min == now.max and was.min < was.max:
            yield _finding(reference, "fault", "constant", f"the same in all rows, {format_number(now.min)}", 1e4)
    elif np.count_nonzero(was.counts) > 1:
        label = reference.variable.axis.labels[cell]
        if label not in reference.variable.axis.labels[-2:]:
            yield _finding(reference, "fault", "constant", f"the same in all rows, '{printable(label)}'", 1e4)


def compare_categories(
    reference: Reference, current: Reference, sample: Physical | None, *, confidence: float
) -> Iterator[Finding]:
    """Names that are new, gone, or written another way.

    Args:
        reference: counts.
        current: over the same cells.
        sample: of the current values, from which new names come.
        confidence: that a name which has not been seen is really gone.
    """
    axis = reference.variable.axis
    if not isinstance(axis, CategoryAxis) or reference.variable.transform != "identity" or not current.histogram.valid:
        return
    shares = _category_shares(sample)
    known = axis.codes
    new = {name: share for name, share in shares.items() if name not in known and _normal(name) not in TEXT_CODES}
    if not axis.closed:
        new = {}
    was, now = reference.histogram.counts / max(reference.histogram.valid, 1), current.histogram.counts
    gone = [
        name
        for i, name in enumerate(axis.names)
        if not now[i] and (1 - float(was[i])) ** current.histogram.valid < 1 - confidence
    ]
    renamed = _find_renamed(reference, current, sample, new, confidence)
    if renamed:
        said = _list([f"'{printable(a)}' is now '{printable(b)}'" for a, b in renamed.items()])
        yield _finding(reference, "fault", "renamed", said, 100.0)
    fresh = {name: share for name, share in new.items() if name not in renamed.values()}
    if fresh:
        ranked = sorted(fresh, key=lambda name: (-fresh[name], name))
        said = _list([f"'{printable(name)}' {say_share(fresh[name])}" for name in ranked])
        yield _finding(reference, "note", "unseen", f"new: {said}", 0.0)
    lost = {name: float(was[axis.names.index(name)]) for name in gone if name not in renamed}
    if lost:
        said = _list([f"'{printable(name)}' {say_share(share)}" for name, share in lost.items()])
        yield _finding(reference, "note", "category_gone", f"gone: {said}", sum(lost.values()))


def _find_renamed(
    reference: Reference, current: Reference, sample: Physical | None, new: Mapping[str, float], confidence: float
) -> dict[str, str]:
    """Known names that are written another way now: where one surely became rarer while its other spelling surely came
    up, the others are believed too.
    """
    axis, was, now = reference.variable.axis, reference.histogram, current.histogram
    assert isinstance(axis, CategoryAxis)  # noqa: S101 -- asked of categories only
    spelt = {_normal(name): name for name in (*axis.names, *axis.others)}
    found = {spelt[_normal(name)]: name for name in new if _normal(name) in spelt}
    every = 1 - (1 - confidence) / max(2 * len(new), 1)

    def is_sure(name: str, other: str) -> bool:
        if name not in axis.names or sample is None:
            return False
        at, size = axis.names.index(name), sample.present.size
        less = _is_more(int(was.counts[at]), was.valid, (int(now.counts[at]), now.valid), every)
        return less and _is_more(round(new[other] * size), size, (0, was.valid), every)

    return found if any(is_sure(*pair) for pair in found.items()) else {}


def _category_shares(sample: Physical | None) -> Mapping[str, float]:
    if sample is None or sample.kind in ("datetime", "other", "empty"):
        return {}
    sizes: Counter[str] = Counter()
    for value, size in Counter(sample.present.tolist()).items():
        name = name_of(sample.kind, value)
        if name is not None:
            sizes[name] += size
    return {name: size / sample.present.size for name, size in sizes.items()}


def _numbers(sample: Physical | None) -> Floats:
    if sample is None or sample.kind not in _NUMBERS:
        return np.zeros(0)
    finite: Floats = sample.present[np.isfinite(sample.present)]
    return finite


def _normal(name: str) -> str:
    """A name without what people write differently: case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _list(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _finding(reference: Reference, level: str, kind: str, text: str, size: float) -> Finding:
    variable = reference.variable
    return Finding(level, kind, variable.role, variable.name, text, size)
