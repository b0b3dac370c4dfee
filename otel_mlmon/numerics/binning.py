"""Cells of a variable: where a value is counted.

A numeric axis follows OTLP: with edges e0 < e1 < ... the cells are (-inf, e0], (e0, e1], ..., (e_last, inf). The
profile makes the edges once; the model process and the processor only use them, so that counts of all replicas add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

OTHER: Final = "_OTHER_"
UNSEEN: Final = "_UNSEEN_"

QUANTILE_CELLS: Final = 32
_TAIL: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
_LEVELS: Final = np.array(
    sorted([*_TAIL, *(1 - p for p in _TAIL), *(i / QUANTILE_CELLS for i in range(1, QUANTILE_CELLS))])
)
ATOM_SHARE: Final = 1 / (2 * QUANTILE_CELLS)
MAX_ATOMS: Final = 32
# Edges beyond the range, in units of its width: seven cells with an end, and the open one.
BEYOND: Final = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0])


@dataclass(frozen=True, slots=True, eq=False)
class NumericAxis:
    """Cells of a number.

    Args:
        edges: strictly increasing finite bounds, shape (k,), k >= 1; the axis has k + 1 cells.
        low: index of the edge at the lower end of the reference's range: cells 0..low lie below it.
        high: index of the edge at its upper end: cells high+1..k lie above it.

    Raises:
        ValueError: edges are not finite and strictly increasing, or low and high do not name a range in them.
    """

    edges: Floats
    low: int
    high: int

    def __post_init__(self) -> None:
        edges = np.array(self.edges, dtype=np.float64)
        if edges.ndim != 1 or not edges.size or not np.isfinite(edges).all() or (edges[1:] <= edges[:-1]).any():
            raise ValueError(f"edges must be finite and strictly increasing, got {edges!r}")
        if not 0 <= self.low <= self.high < edges.size:
            raise ValueError(f"need 0 <= low <= high < {edges.size}, got low={self.low}, high={self.high}")
        edges.setflags(write=False)
        object.__setattr__(self, "edges", edges)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NumericAxis):
            return NotImplemented
        return (self.low, self.high) == (other.low, other.high) and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash((self.low, self.high, self.edges.tobytes()))

    @property
    def cells(self) -> int:
        """How many there are."""
        return self.edges.size + 1

    def locate(self, values: ArrayLike) -> NDArray[np.intp]:
        """Cell of each value, same shape; NaN is located in the last cell, so take it out first."""
        return np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="left")

    def count(self, values: ArrayLike) -> Counts:
        """Values in each cell, shape (cells,). Infinite values and NaN must have been taken out.

        Values and edges are rounded to float32 first, which sorts twice as fast and keeps the order: v <= e where
        float32(v) < float32(e), v > e where it is greater. Only where some value and some edge become equal are the
        values sorted as they are; the edges of `fit_axis` lie where that is rare.
        """
        values = np.asarray(values, dtype=np.float64)
        with np.errstate(over="ignore", under="ignore"):
            ordered, edges = values.astype(np.float32).ravel(), self.edges.astype(np.float32)
        ordered.sort()
        reached = ordered.searchsorted(edges, "right")
        if (reached == ordered.searchsorted(edges, "left")).all():
            return differences(reached, ordered.size)
        return self.count_sorted(np.sort(values, axis=None))

    def count_sorted(self, ordered: Floats) -> Counts:
        """The same for ascending values: edges are searched in the values, k log n instead of n log k."""
        return differences(ordered.searchsorted(self.edges, "right"), ordered.size)


@dataclass(frozen=True, slots=True)
class CategoryAxis:
    """Cells of a category: one for each name, then OTHER, then UNSEEN.

    Args:
        names: listed categories, most frequent first.
        others: further categories the reference is known to hold; they are counted as OTHER.
        closed: True where `names` and `others` are all that the reference held, so that anything else is UNSEEN;
            False where there were too many to keep: then anything else is OTHER.

    Raises:
        ValueError: a name occurs twice or is one of the two reserved ones.
    """

    names: tuple[str, ...]
    others: tuple[str, ...] = ()
    closed: bool = True

    def __post_init__(self) -> None:
        every = (*self.names, *self.others)
        if len(set(every)) != len(every) or OTHER in every or UNSEEN in every:
            raise ValueError(f"categories must be distinct and not {OTHER} or {UNSEEN}, got {every[:20]!r}")

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.names) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each cell, shape (cells,)."""
        return (*self.names, OTHER, UNSEEN)

    @property
    def codes(self) -> dict[str, int]:
        """Cell of each known category; what is not in it belongs to `default`."""
        table = dict.fromkeys(self.others, len(self.names))
        table.update((name, code) for code, name in enumerate(self.names))
        return table

    @property
    def default(self) -> int:
        """Cell of a category that is in neither list."""
        return len(self.names) + (1 if self.closed else 0)

    def count(self, codes: ArrayLike) -> Counts:
        """Values in each cell from their cell numbers, shape (cells,)."""
        return np.bincount(np.asarray(codes).astype(np.intp), minlength=self.cells).astype(np.int64, copy=False)


Axis = NumericAxis | CategoryAxis


def differences(reached: NDArray[np.integer[Any]], total: int) -> Counts:
    """Counts of cells from how many values each edge has reached, shape (k,) to (k + 1,)."""
    counts = np.empty(reached.size + 1, dtype=np.int64)
    counts[:-1] = reached
    counts[-1] = total
    counts[1:] -= reached
    return counts


def fit_axis(ordered: Floats, *, minimum: float | None = None, maximum: float | None = None) -> NumericAxis:
    """Cells for a number, from a sample of it. A deterministic function of its arguments.

    - Every atom, a value that at least ATOM_SHARE of the sample (and more than one value) has, gets an own cell that
      reaches one float32 step to either side, since servers feed float32; the MAX_ATOMS heaviest are kept.
    - The rest is cut at 31 quantiles (32 cells) and at 12 tail quantiles (0.0005 to 0.02 and 0.98 to 0.9995). An edge
      lies half-way between the two neighbouring values of the sample, so that rounding moves no tie over it.
    - The range is one float32 step wider than [minimum, maximum]; on either side follow eight cells whose ends lie
      BEYOND times its width outside (times the value itself, where there is but one).

    Args:
        ordered: ascending finite values, shape (n,), n >= 1.
        minimum: of all values, where `ordered` is a sample of more.
        maximum: likewise.

    Raises:
        ValueError: the sample is empty, not finite or not ascending.
    """
    ordered = np.asarray(ordered, dtype=np.float64)
    if ordered.ndim != 1 or not ordered.size or not np.isfinite(ordered[[0, -1]]).all():
        raise ValueError(f"need ascending finite values, got an array of shape {ordered.shape}")
    steps = ordered[1:] > ordered[:-1]
    if not (steps | (ordered[1:] == ordered[:-1])).all():
        raise ValueError("need ascending finite values, they are out of order or hold NaN")
    least = float(ordered[0]) if minimum is None else min(minimum, float(ordered[0]))
    greatest = float(ordered[-1]) if maximum is None else max(maximum, float(ordered[-1]))
    starts = np.concatenate([[0], np.flatnonzero(steps) + 1])
    values, counts = ordered[starts], np.diff(starts, append=ordered.size)
    atoms = _find_atoms(values, counts)
    own = _atom_edges(values[atoms])
    cuts = _quantile_edges(values, counts, atoms)
    cuts = cuts[np.searchsorted(own, cuts, side="left") % 2 == 0]  # none inside an atom's cell
    low, high = _step(np.array([least]), -np.inf)[0], _step(np.array([greatest]), np.inf)[0]
    inner = np.unique(np.concatenate([[low, high], np.clip(np.concatenate([own, cuts]), low, high)]))
    width = high / 2 - low / 2 if least < greatest else (abs(least) or 1.0) / 2
    with np.errstate(over="ignore"):
        below, above = low - BEYOND[::-1] * width * 2, high + BEYOND * width * 2
    every = np.concatenate([below[below < low], inner, above[above > high]])
    every = np.unique(every[np.isfinite(every)])
    first, last = np.searchsorted(every, [low, high])
    return NumericAxis(every, int(first), int(last))


def _find_atoms(values: Floats, counts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of the distinct values are atoms, shape of `values`."""
    heavy = np.flatnonzero(counts >= max(2.0, ATOM_SHARE * counts.sum()))
    heaviest = heavy[np.argsort(-counts[heavy], kind="stable")[:MAX_ATOMS]]
    atoms = np.zeros(values.size, dtype=np.bool_)
    atoms[heaviest] = True
    return atoms


def _atom_edges(atoms: Floats) -> Floats:
    """Lower and upper edge of each atom's cell, ascending; cells that overlap, as float32 mixes them, become one."""
    lower, upper = _step(atoms, -np.inf), _step(atoms, np.inf)
    apart = upper[:-1] <= lower[1:]
    return np.sort(np.concatenate([lower[:1], lower[1:][apart], upper[:-1][apart], upper[-1:]]))


def _quantile_edges(values: Floats, counts: NDArray[np.intp], atoms: NDArray[np.bool_]) -> Floats:
    """Edges at the quantiles of what is not an atom, each between that value and the next."""
    rest = np.flatnonzero(~atoms)
    if not rest.size:
        return values[:0]
    ranks = np.cumsum(counts[rest])
    at = np.unique(rest[np.searchsorted(ranks, np.ceil(_LEVELS * ranks[-1]), side="left")])
    at = at[at + 1 < values.size]
    at = at[~atoms[at + 1]]  # the atom's own edge separates the two
    middle: Floats = np.maximum(values[at], values[at] / 2 + values[at + 1] / 2)
    return middle


def _step(values: Floats, toward: float) -> Floats:
    """One float32 step from the float32 nearest to each value, beyond both; float64 where float32 ends."""
    with np.errstate(over="ignore"):
        near = np.nextafter(values.astype(np.float32), np.float32(toward)).astype(np.float64)
        far = values + np.sign(toward) * np.abs(values) * 2.0**-23
    limit = float(np.finfo(np.float64).max)
    return np.clip(np.where(np.abs(values) < float(np.finfo(np.float32).max) / 2, near, far), -limit, limit)


class ColumnCounts(NamedTuple):
    """What a column of a block held.

    counts has shape (axis.cells,); sum, min and max are of the finite values, 0, inf and -inf where there are none and
    for categories; nan and inf say how many values were NaN or infinite.
    """

    counts: Counts
    sum: float
    min: float
    max: float
    nan: int
    inf: int


def count_columns(block: Floats, axes: Sequence[Axis]) -> list[ColumnCounts]:
    """Count a block of rows.

    The columns of numbers are copied and sorted together, and the edges are searched in each, which costs less than
    searching the values in the edges. Sums are taken over sorted values, so they do not depend on the order of rows.

    Args:
        block: shape (rows, len(axes)); in columns of categories their cell numbers; NaN and infinities are set apart.
        axes: one for each column.
    """
    if block.ndim != 2 or block.shape[1] != len(axes):
        raise ValueError(f"need {len(axes)} columns, got a block of shape {block.shape}")
    numeric = [i for i, axis in enumerate(axes) if isinstance(axis, NumericAxis)]
    columns = block.T if len(numeric) == len(axes) else block.T[numeric]
    ordered = np.array(columns, dtype=np.float64, order="C")
    ordered.sort(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite where beyond the floats; where not finite, not used
        sums = ordered.sum(axis=1).tolist()
    rows = iter(zip(ordered, sums, strict=True))
    return [
        _count_codes(block[:, i], axis) if isinstance(axis, CategoryAxis) else _count_ordered(*next(rows), axis)
        for i, axis in enumerate(axes)
    ]


def count_column(column: Floats, axis: Axis) -> ColumnCounts:
    """Count one column, shape (rows,); see `count_columns`."""
    return count_columns(column[:, None], [axis])[0]


def _count_ordered(ordered: Floats, total: float, axis: NumericAxis) -> ColumnCounts:
    """Count ascending values, NaN at the end; `total` is their sum."""
    nan = inf = 0
    if ordered.size and not (ordered[0] > -np.inf and ordered[-1] < np.inf):
        first, end = ordered.searchsorted([-np.inf, np.inf], "right").tolist()
        last = int(ordered.searchsorted(np.inf, "left"))
        nan, inf = ordered.size - end, first + end - last
        ordered = ordered[first:last]
        with np.errstate(over="ignore"):
            total = float(ordered.sum())
    if not ordered.size:
        return ColumnCounts(np.zeros(axis.cells, dtype=np.int64), 0.0, np.inf, -np.inf, nan, inf)
    return ColumnCounts(axis.count_sorted(ordered), total, float(ordered[0]), float(ordered[-1]), nan, inf)


def _count_codes(codes: Floats, axis: CategoryAxis) -> ColumnCounts:
    nan = inf = 0
    finite = np.isfinite(codes)
    if not finite.all():
        nan = int(np.isnan(codes).sum())
        inf = int(codes.size - finite.sum()) - nan
        codes = codes[finite]
    return ColumnCounts(axis.count(codes), 0.0, np.inf, -np.inf, nan, inf)
