"""The shape of a distribution that is known by its cells, and figures as text."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.profile.document import Reference
from otel_mlmon.profile.rebinning import Piece

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
SPARK: Final = 24  # columns of a small histogram


def shares_below(reference: Reference, points: Floats) -> Floats:
    """Share of the values that are at most each point; values are spread evenly over their cells."""
    piece = Piece.of(reference, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.clip((points[:, np.newaxis] - piece.lower) / (piece.upper - piece.lower), 0.0, 1.0)
    inside = np.where(piece.upper > piece.lower, inside, points[:, np.newaxis] >= piece.lower)
    shares: Floats = inside @ piece.counts / max(1, piece.count)
    return shares


def quantiles(reference: Reference, levels: Floats) -> Floats:
    """Quantiles of a numeric reference with values, as exact as its cells."""
    piece = Piece.of(reference, 0.0)
    ends = np.cumsum(piece.counts) / piece.count
    starts = ends - piece.counts / piece.count
    at = np.minimum(np.searchsorted(ends, levels, side="left"), ends.size - 1)
    within = np.clip((levels - starts[at]) / (ends[at] - starts[at]), 0.0, 1.0)
    values: Floats = piece.lower[at] + (piece.upper[at] - piece.lower[at]) * within
    return values


def spark(reference: Reference) -> str:
    """Small histogram between the 0.5 % and the 99.5 % quantile, in cells of equal width."""
    low, high = quantiles(reference, np.array([0.005, 0.995])).tolist()
    if low >= high:
        low, high = reference.histogram.min, reference.histogram.max
    if low >= high:
        return BLOCKS[-1]
    return draw_blocks(np.diff(shares_below(reference, np.linspace(low, high, SPARK + 1))))


def draw_blocks(heights: Floats) -> str:
    """A character for each height, the greatest full."""
    top = float(heights.max()) or 1.0
    return "".join(BLOCKS[int(np.ceil(height / top * 8 - 1e-9))] for height in heights.tolist())


def shorten(name: str) -> str:
    """A name that fits into a line of a table, without what would break the line."""
    plain = name if name.isprintable() else repr(name)[1:-1]
    return plain if len(plain) <= 16 else plain[:15] + "…"


def format_number(number: float) -> str:
    """Five significant digits."""
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.5g}"


def format_share(share: float) -> str:
    """Percent; 0 only where there is nothing."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return "0" if share == 0 else f"{share:.1%}"


def cell_means(reference: Reference, starts: NDArray[np.intp]) -> Floats:
    """Mean of the reference's values in each coarse cell, shape (starts.size,), as exact as its cells.

    A cell that the reference left empty is at its edge.

    Args:
        reference: of a number.
        starts: first cell of each coarse cell.
    """
    axis, counts = reference.variable.axis, reference.histogram.counts.astype(np.float64)
    edges = axis.edges  # type: ignore[union-attr]  # of a number
    lower = np.maximum(np.append(-np.inf, edges), reference.histogram.min)
    upper = np.minimum(np.append(edges, np.inf), reference.histogram.max)
    filled = counts > 0
    middle = np.where(filled, lower / 2 + upper / 2, np.append(edges, edges[-1]))
    weights = np.where(filled, counts, 1e-9)
    means: Floats = np.add.reduceat(middle * weights, starts) / np.add.reduceat(weights, starts)
    return means
