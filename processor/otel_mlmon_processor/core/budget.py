"""How many false alarms are allowed, divided among all that can raise one. Everything sums to the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.scales import DAY, SCALES

PERIOD_DAYS: Final = 30
ORDER, SMOOTH, CELLS, RATES, SLOW = "order", "smooth", "cells", "rates", "slow"
TESTS: Final = (ORDER, SMOOTH, CELLS, RATES)
# What no reference of some weeks can know (its own errors, the next unusual day) has a share too: thresholds are 5 %
# higher for it.
_RESERVE: Final = 0.6
_SHARES: Final = {ORDER: 0.12, SMOOTH: 0.08, CELLS: 0.08, RATES: 0.06, SLOW: 0.06}
_LEAST: Final = 0.5  # of a variable's equal share, however unimportant it is


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """Expected false alarms in 30 days.

    Args:
        total: of the model.
        tests: by test, scale and variable, (4, 5, variables).
        slow: of the detector of slow drift, by variable, (variables,).
    """

    total: float
    tests: Floats
    slow: Floats

    @property
    def per_look(self) -> Floats:
        """Of each test at each look, (4, 5, variables)."""
        looks = np.array([scale.looks(PERIOD_DAYS * DAY) for scale in SCALES])
        return np.asarray(self.tests / looks[:, np.newaxis])

    def table(self) -> list[tuple[str, str, float]]:
        """Test, scale, expected false alarms in 30 days of all variables; their sum is the budget.

        The last row is the reserve for what a reference of some weeks cannot know.
        """
        rows = [
            (name, f"{scale.length} min", float(self.tests[k, s].sum()))
            for k, name in enumerate(TESTS)
            for s, scale in enumerate(SCALES)
        ]
        return [*rows, (SLOW, "", float(self.slow.sum())), ("reserve", "", self.total * _RESERVE)]


def split_budget(total: float, importances: Sequence[float | None]) -> Budget:
    """Divide the budget: among the tests by fixed shares, over the scales equally, over the variables by importance.

    Half of it is divided equally, the other half in proportion to importance; a variable whose importance is not known
    counts as the mean of those known.

    Args:
        total: false alarms allowed in 30 days, > 0.
        importances: of each variable, >= 0.
    """
    if not total > 0:
        raise ValueError(f"budget must be positive, got {total}")
    known = [i for i in importances if i is not None]
    usual = sum(known) / len(known) if known else 1.0
    weights = np.array([usual if i is None else i for i in importances], dtype=np.float64)
    size = max(len(importances), 1)
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(size, 1 / size)
    weights = _LEAST / size + (1 - _LEAST) * weights
    shares = np.array([_SHARES[name] for name in TESTS]) / len(SCALES)
    tests = total * shares[:, np.newaxis, np.newaxis] * np.ones((1, len(SCALES), 1)) * weights
    return Budget(total, tests, total * _SHARES[SLOW] * weights)
