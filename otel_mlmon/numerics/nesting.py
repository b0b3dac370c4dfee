"""Counts over one set of edges told over another, only where that is exact: where no filled cell is cut."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis, differences
from otel_mlmon.numerics.coarse import decision_starts

MOST_EDGES: Final = 1_000


def reach(counts: Counts, edges: Floats, wanted: Floats) -> tuple[Counts, NDArray[np.bool_]]:
    """Values up to each wanted edge, and whether that is exact, each of shape (wanted.size,).

    Args:
        counts: over the cells of `edges`, (edges.size + 1,).
        edges: ascending.
        wanted: ascending.
    """
    at = np.searchsorted(edges, wanted, side="left")  # the cell that reaches up to the wanted edge, or over it
    closed = np.append(edges, np.inf)[at] == wanted
    return np.cumsum(counts)[at] - np.where(closed, 0, counts[at]), closed | (counts[at] == 0)


def merge_cells(a: tuple[Floats, Counts], b: tuple[Floats, Counts]) -> tuple[Floats, Counts]:
    """The sum of two histograms over the finest edges at which it is exact, MOST_EDGES at most.

    Buckets of exponential histograms nest, so of these the coarser ones remain where both have values.

    Args:
        a: edges (k,) and counts (k + 1,).
        b: likewise.
    """
    edges = np.union1d(a[0], b[0])
    (below, sure), (more, certain) = reach(a[1], a[0], edges), reach(b[1], b[0], edges)
    kept = np.flatnonzero(sure & certain)
    if kept.size > MOST_EDGES:
        kept = kept[np.unique(np.linspace(0, kept.size - 1, MOST_EDGES).astype(np.intp))]
    return edges[kept], differences((below + more)[kept], int(a[1].sum() + b[1].sum()))


def cut_axis(edges: Floats, counts: Counts) -> NumericAxis | None:
    """An axis of about 20 cells cut at some of the edges, see `decision_starts`; its range is that of the filled cells.

    It has no cell beyond its range but the open ones. None where there is no edge, or nothing was counted.

    Args:
        edges: ascending, (k,).
        counts: (k + 1,).
    """
    filled = np.flatnonzero(counts)
    if not edges.size or not filled.size:
        return None
    first, last = max(int(filled[0]) - 1, 0), min(int(filled[-1]), edges.size - 1)
    inner = edges[first : last + 1]
    fine = NumericAxis(inner, 0, inner.size - 1)
    starts = decision_starts(count_over(fine.edges, edges, counts), fine)
    cuts = np.unique(np.concatenate([inner[[0, -1]], inner[starts[1:] - 1]]))
    return NumericAxis(cuts, 0, cuts.size - 1)


def count_over(wanted: Floats, edges: Floats, counts: Counts) -> Counts:
    """Counts over the cells of the wanted edges, (wanted.size + 1,).

    Raises:
        ValueError: an edge cuts a filled cell.
    """
    below, exact = reach(counts, edges, wanted)
    if not exact.all():
        raise ValueError(f"edges {wanted[~exact]!r} cut cells that hold values")
    return differences(below, int(counts.sum()))
