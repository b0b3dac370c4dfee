"""Counting many values over the cells of one axis without sorting them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis

BUCKETS: Final = 8_192  # 64 KiB of counts, which stay in the cache
LEAST: Final = 4_096  # values from which on it pays


class Buckets:
    """Exact counts over an axis by way of equal buckets.

    A bucket is floor((v - start) * scale), which rounding leaves monotone: a value in a later bucket than an edge is
    above it, one in an earlier bucket below it. So only values that share a bucket with an edge are compared with the
    edges. Buckets reach over the edges of the range but its two ends; what lies outside shares the first or the last.
    Where most values share a bucket with an edge, as the few values of a discrete variable do, all are sorted instead.
    """

    def __init__(self, axis: NumericAxis) -> None:
        self._axis = axis
        self._pays: bool | None = None  # not known yet

    def count(self, values: Floats) -> Counts:
        """Values in each cell, shape (axis.cells,). Infinite values and NaN must have been taken out."""
        if self._pays is None and values.size >= LEAST:
            self._prepare()
        if not self._pays or values.size < LEAST:
            return self._axis.count(values)
        at = self._locate(values)
        sizes = np.bincount(at, minlength=BUCKETS)
        sizes[self._shared] = 0
        near = values[self._shared[at]]
        self._pays = 2 * near.size < values.size
        counts: Counts = np.add.reduceat(sizes, self._starts).astype(np.int64, copy=False)
        counts[self._empty] = 0  # whose sums reduceat takes from the next cell
        return counts + self._axis.count(near)

    def _prepare(self) -> None:
        """Lay the buckets, where numbers allow."""
        edges = self._axis.edges
        inner = edges[self._axis.low : self._axis.high + 1]
        inner = inner[1:-1] if inner.size > 3 else inner
        with np.errstate(over="ignore", divide="ignore"):
            self._start, self._scale = inner[0], (BUCKETS - 2) / (inner[-1] - inner[0])
        self._pays = bool(np.isfinite(self._scale) and self._scale > 0)
        if not self._pays:
            return
        at = self._locate(edges)
        self._shared: NDArray[np.bool_] = np.zeros(BUCKETS, dtype=np.bool_)
        self._shared[at] = True
        self._starts = np.append(0, at)  # a cell's buckets begin with that of its lower edge, which counts as empty
        self._empty = np.append(np.diff(self._starts) == 0, False)

    def _locate(self, values: Floats) -> NDArray[np.int64]:
        """Bucket of each value."""
        with np.errstate(over="ignore"):
            at = values - self._start
            at *= self._scale
        np.maximum(at, -1, out=at)
        np.minimum(at, BUCKETS - 2, out=at)
        at += 1
        buckets: NDArray[np.int64] = at.view(np.int64)  # in place, as fresh memory costs more than what is done with it
        np.copyto(buckets, at, casting="unsafe")
        return buckets
