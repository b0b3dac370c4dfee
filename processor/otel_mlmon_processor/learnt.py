"""Reference that production has shown: what was learnt over the cells of a survey, as the profile would hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Counts, Floats, NumericAxis
from otel_mlmon.numerics.calibration import Calibration
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.numerics.windows import ABOVE, BELOW, RATES, REASONS, UNSEEN
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon_processor.core.learning import Learnt

NOTE: Final = "learnt from production"


def make_profile(
    before: Profile, learnt: Sequence[Learnt], calibrations: Sequence[Calibration | None], time: float
) -> Profile:
    """The profile of what was learnt; variables of which nothing was are left out.

    Args:
        before: of the survey, or what was learnt until now.
        learnt: by reference.
        calibrations: likewise.
        time: seconds since 1970.
    """
    both = zip(before.references, learnt, calibrations, strict=True)
    found = tuple(learn_reference(reference, each, calibration) for reference, each, calibration in both)
    rows = max((each.seen for each in learnt), default=0)
    return replace(before, references=found, rows=rows, created=say_time(time))


def say_time(seconds: float) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def learn_reference(before: Reference, learnt: Learnt, calibration: Calibration | None) -> Reference:
    """A reference over the same cells. Its spread is that of the survey, which saw finer cells."""
    cells, rates = np.split(learnt.counts, [learnt.counts.size - len(RATES)])
    counts = spread(before, cells, rates)
    invalid = Invalid(**dict(zip(REASONS, rates[: len(REASONS)].tolist(), strict=True)))
    held = Histogram(before.variable.axis, counts, invalid, learnt.sum, before.histogram.min, before.histogram.max)
    m2 = before.std**2 * max(held.valid - 1, 0)
    return replace(before, histogram=held, m2=m2, calibration=calibration)


def spread(before: Reference, coarse: Counts, rates: Counts) -> Counts:
    """Counts over the axis from those of the decision's cells; those it joins in the survey's proportion.

    Args:
        before: the survey's.
        coarse: (B,) or more.
        rates: (R,); what is unseen, below and above the range is a cell of its own and known exactly.
    """
    axis = before.variable.axis
    cells, known = np.zeros(axis.cells, dtype=np.int64), before.histogram.counts.copy()
    ends = {0: BELOW, axis.cells - 1: ABOVE} if isinstance(axis, NumericAxis) else {axis.cells - 1: UNSEEN}
    for cell, name in ends.items():
        cells[cell], known[cell] = rates[RATES.index(name)], 0
    for (start, end), total in zip(pairwise([*before.variable.decision, axis.cells]), coarse.tolist(), strict=False):
        rest, inner = total - int(cells[start:end].sum()), [i for i in range(start, end) if i not in ends]
        if inner and rest > 0:
            weights = known[inner] if known[inner].any() else np.ones(len(inner))
            cells[inner] += np.diff(np.rint(np.cumsum(weights) / weights.sum() * rest), prepend=0).astype(np.int64)
    return cells


def middles(edges: Floats) -> Floats:
    """Middle of each cell, (edges.size + 1,); of an open one its edge."""
    return np.concatenate([edges[:1], edges[:-1] / 2 + edges[1:] / 2, edges[-1:]])
