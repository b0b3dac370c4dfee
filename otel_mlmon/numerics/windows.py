"""Counts of a variable by window: what calibration is learnt from. Frozen values that merge exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.numerics.binning import Axis, CategoryAxis, Counts
from otel_mlmon.numerics.coarse import coarsen
from otel_mlmon.semconv import FeatureInvalidReason

REASONS: Final = (
    FeatureInvalidReason.MISSING,
    FeatureInvalidReason.NAN,
    FeatureInvalidReason.INF,
    FeatureInvalidReason.TYPE,
)
UNSEEN, BELOW, ABOVE = "unseen", "below", "above"
RATES: Final = (*REASONS, UNSEEN, BELOW, ABOVE)  # of the values seen; each has a test of its own


@dataclass(frozen=True, slots=True, eq=False)
class WindowCounts:
    """Counts of a variable by window, only where there are any. Memory: 16 bytes for each count that is not 0.

    Args:
        width: cells of the axis, behind which the reasons for invalid values follow.
        numbers: window of each entry, minutes since 1970, ascending, shape (entries,).
        cells: its cell; width + i for REASONS[i], ascending within a window, (entries,).
        counts: values, > 0, (entries,).
    """

    width: int
    numbers: NDArray[np.int32]
    cells: NDArray[np.int32]
    counts: Counts

    @classmethod
    def of(cls, width: int, numbers: Any, cells: Any) -> WindowCounts:
        """From single values: the window and the cell (or reason) of each, shape (values,) both."""
        return cls._from_keys(width, np.asarray(numbers, dtype=np.int64), np.asarray(cells), None)

    @classmethod
    def _from_keys(cls, width: int, numbers: Counts, cells: Any, counts: Counts | None) -> WindowCounts:
        size = width + len(REASONS)
        keys, at = np.unique(numbers * size + cells, return_inverse=True)
        total = np.zeros(keys.size, dtype=np.int64)
        np.add.at(total, at, 1 if counts is None else counts)
        return cls(width, (keys // size).astype(np.int32), (keys % size).astype(np.int32), total)

    def merge(self, other: WindowCounts) -> WindowCounts:
        """Counts of both; associative and commutative, `of` no values is the identity.

        Raises:
            ValueError: they are over different cells.
        """
        if self.width != other.width:
            raise ValueError(f"cannot merge windows over {self.width} and {other.width} cells")
        numbers, cells, counts = (
            np.concatenate([a, b]).astype(np.int64)
            for a, b in ((self.numbers, other.numbers), (self.cells, other.cells), (self.counts, other.counts))
        )
        return self._from_keys(self.width, numbers, cells, counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WindowCounts):
            return NotImplemented
        return (
            self.width == other.width
            and np.array_equal(self.numbers, other.numbers)
            and np.array_equal(self.cells, other.cells)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    def dense(self, axis: Axis, starts: NDArray[np.intp]) -> tuple[Counts, Counts, Counts, Counts]:
        """What `fit_calibration` takes: numbers, counts over the coarse cells, rates, values seen."""
        numbers, at = np.unique(self.numbers, return_inverse=True)
        whole = np.zeros((numbers.size, self.width + len(REASONS)), dtype=np.int64)
        whole[at, self.cells] = self.counts
        return (numbers.astype(np.int64), *condense(whole[:, : self.width], whole[:, self.width :], axis, starts))

    def to_plain(self) -> dict[str, Any]:
        """As plain values."""
        return {"width": self.width, **{k: getattr(self, k).tolist() for k in ("numbers", "cells", "counts")}}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> WindowCounts:
        """What `to_plain` gave."""
        numbers, cells = (np.array(plain[k], dtype=np.int32) for k in ("numbers", "cells"))
        return cls(int(plain["width"]), numbers, cells, np.array(plain["counts"], dtype=np.int64))


def condense(cells: Counts, invalid: Counts, axis: Axis, starts: NDArray[np.intp]) -> tuple[Counts, Counts, Counts]:
    """From counts over an axis to what the tests look at.

    Args:
        cells: (..., axis.cells).
        invalid: by REASONS, (..., 4).
        axis: the cells.
        starts: the decision's, see `decision_starts`.

    Returns:
        Counts over the coarse cells (..., starts.size); counts by RATES (..., 7); values seen (...).
    """
    rates = np.zeros((*cells.shape[:-1], len(RATES)), dtype=np.int64)
    rates[..., : len(REASONS)] = invalid
    if isinstance(axis, CategoryAxis):
        rates[..., RATES.index(UNSEEN)] = cells[..., -1]
    else:
        rates[..., RATES.index(BELOW)] = cells[..., : axis.low + 1].sum(axis=-1)
        rates[..., RATES.index(ABOVE)] = cells[..., axis.high + 1 :].sum(axis=-1)
    seen = np.asarray(cells.sum(axis=-1) + invalid.sum(axis=-1))
    return coarsen(cells, starts), rates, seen
