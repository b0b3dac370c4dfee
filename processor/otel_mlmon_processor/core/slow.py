"""Slow drift: an e-detector over hours.

Source: J. Shin, A. Ramdas, A. Rinaldo, E-detectors, 2024, doi:10.51387/23-NEJSDS51.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from scipy import special

from otel_mlmon.numerics.binning import Floats
from otel_mlmon.numerics.scan import DIAGONAL
from otel_mlmon.numerics.smooth import ORDERS
from otel_mlmon_processor.core.budget import PERIOD_DAYS, Budget
from otel_mlmon_processor.core.nulls import Nulls

LEAST_DAYS: Final = 5
FACTORS: Final = np.array([1.5, 3.0, 6.0, 12.0, 25.0])
_HOURLY, _LONG = 3, 4  # scales
_AFTER: Final = 0.75  # of the threshold is left of log M after an alarm: enough to hold it, not to raise it again
_CLIP: Final = 4.0  # standard deviations of an hour; a wilder one says no more


class SlowDetector:
    """For each basis function and sign a mixture over theta of

        M <- (M + 1) exp{[(theta - tau) S - n (theta^2 - tau^2) / 2] / kappa}

    Where the mean is within tau of the reference's, no M is expected to grow by more than 1 an hour, so that M >= A
    occurs once in A hours at most. kappa is the ratio of the variance of sums over hours and days to that of sampling.
    Of a variable whose days have heavy tails a day counts for half an alarm at most.
    """

    def __init__(self, nulls: Nulls, budget: Budget) -> None:
        size = nulls.rows.size
        days = np.maximum(nulls.days, 1)
        # The variance of the daily mean is known from few days: its upper bound, not its value.
        sure = (days - 1) / special.chdtri(np.maximum(days - 1, 1), 0.9)
        hourly, long = nulls.spread[_HOURLY, list(DIAGONAL)], nulls.spread[_LONG, list(DIAGONAL)]
        self.hourly = hourly / nulls.heavy  # without what the tails add: one wild day says no more than a lively one
        # Of an hour's rows, (4, F).
        self.spread = np.maximum(np.maximum(hourly, 4 * long), 24 * nulls.daily * sure * nulls.heavy)
        self.typical = nulls.typical[_HOURLY]
        total = np.maximum(nulls.rows, 1)
        kappa = 1 + self.typical * self.spread
        self.tau = np.maximum(0.02, 4 * np.sqrt(kappa / total))
        self.theta = FACTORS[:, np.newaxis, np.newaxis, np.newaxis] * self.tau
        self.level = np.full((FACTORS.size, 2, ORDERS, size), -np.inf)  # log M
        looks = PERIOD_DAYS * 24
        self.least = np.log(looks * 2 * ORDERS / budget.slow)
        self.most = np.where(nulls.heavy > 1, self.least / 2, np.inf)  # that log M grows in a day
        self.morning, self.hours = self.level, 0
        self.signs = np.array([1.0, -1.0])[:, np.newaxis, np.newaxis]
        self.usable = nulls.days >= LEAST_DAYS

    def advance(self, scores: list[Floats], rows: Floats) -> Iterator[tuple[int, int, float]]:
        """One hour.

        Args:
            scores: S_j of the hour, four arrays (F,).
            rows: (F,).

        Yields:
            Variable, order of the basis function and evidence of each that is beyond half its threshold.
        """
        s, n = np.stack(scores), np.maximum(rows, self.typical)
        reach = _CLIP * np.sqrt(np.maximum(rows, 1) * (1 + n * self.hourly))
        s = np.clip(s, -reach, reach)
        kappa = n / self.typical + n * self.spread  # more rows than the reference's are no surer, see `Nulls.doubt`
        step = (self.theta - self.tau) * self.signs * s - rows * (self.theta**2 - self.tau**2) / 2
        if self.hours % 24 == 0:
            self.morning = np.maximum(self.level, 0.0)
        self.hours += 1
        grown = np.minimum(np.logaddexp(self.level, 0.0) + step / kappa, self.morning + self.most)
        self.level = np.where(rows > 0, grown, self.level)
        mixed = np.log(np.maximum(np.exp(np.minimum(self.level, 500.0)).mean(axis=0), 1e-300))  # (2, 4, F)
        for f in np.flatnonzero((mixed.max(axis=(0, 1)) >= self.least / 2) & self.usable & (rows > 0)).tolist():
            order = int(mixed[..., f].max(axis=0).argmax())
            evidence = float(mixed[..., f].max() / self.least[f])
            yield f, order, evidence
            if evidence >= 1:
                self.level[..., f] = np.minimum(self.level[..., f], _AFTER * self.least[f])

    def dump(self) -> Any:
        """As plain values."""
        return [self.level, self.morning, self.hours]

    def load(self, plain: Any) -> None:
        """What `dump` gave."""
        self.level, self.morning, self.hours = np.array(plain[0]), np.array(plain[1]), plain[2]
