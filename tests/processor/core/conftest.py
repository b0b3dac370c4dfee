"""Streams of counts by window, and models that were calibrated on them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import split_budget
from otel_mlmon_processor.core.nulls import prepare_nulls
from otel_mlmon_processor.core.scanner import Scanner
from otel_mlmon_processor.core.slow import SlowDetector
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from otel_mlmon.numerics.calibration import fit_calibration

DAY = 1440
START = 20_000 * DAY
CELLS = 10


@dataclass
class Stream:
    """Counts (cells, features, windows), rates (7, features, windows), values seen (features, windows)."""

    counts: np.ndarray
    rates: np.ndarray
    seen: np.ndarray

    def part(self, start, end):
        return Stream(self.counts[..., start:end], self.rates[..., start:end], self.seen[..., start:end])


def make_stream(seed, windows, rows, *, features=3, wander=0.04, season=0.0, session=1, mean=0.0, missing=0.0):
    """Normal values in equal cells, in sessions of alike rows; `rows`, `mean`, `missing`: numbers, or by window."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-1 / 60)
    edges = ndtri(np.arange(1, CELLS) / CELLS)
    counts = np.zeros((CELLS, features, windows), dtype=np.int64)
    rates = np.zeros((7, features, windows), dtype=np.int64)
    rows = np.broadcast_to(rows, windows)
    for f in range(features):
        noise = rng.normal(size=windows) * wander * np.sqrt(1 - keep**2)
        noise[0] /= np.sqrt(1 - keep**2)
        level = lfilter([1], [1, -keep], noise) + season * np.sin(2 * np.pi * np.arange(windows) / DAY) + mean
        chances = np.diff(ndtr(edges - level[:, None]), axis=1, prepend=0, append=1)
        total = rng.poisson(rows / session) * session
        rates[0, f] = rng.binomial(total // session, missing) * session
        counts[:, f] = rng.multinomial((total - rates[0, f]) // session, chances).T * session
    return Stream(counts, rates, counts.sum(axis=0) + rates[:4].sum(axis=0))


def fit(stream, start=START):
    numbers = start + np.arange(stream.seen.shape[1])
    found = []
    for f in range(stream.seen.shape[0]):
        held = stream.seen[f] > 0
        parts = numbers[held], stream.counts[:, f, held].T, stream.rates[:, f, held].T, stream.seen[f, held]
        found.append(fit_calibration(*parts))
    return found


def make_scanner(calibrations, budget=1.0, *, slow=True, **options):
    split = split_budget(budget, [None] * len(calibrations))
    nulls = prepare_nulls(calibrations, split)
    return Scanner(nulls, slow=SlowDetector(nulls, split) if slow else None, **options)


def scan(scanner, stream, start, step=240):
    hits = []
    for at in range(0, stream.seen.shape[1], step):
        part = stream.part(at, at + step)
        hits += scanner.advance(start + at, part.counts, part.rates, part.seen)
    return hits


@pytest.fixture(scope="session")
def streams():
    """The functions above, and a calibration of ten days at 200 rows a window."""
    reference = make_stream(1, 10 * DAY, 200, missing=0.01)
    return SimpleNamespace(
        make=make_stream,
        fit=fit,
        scanner=make_scanner,
        scan=scan,
        day=DAY,
        start=START,
        cells=CELLS,
        calibrations=fit(reference),
        next=START + 10 * DAY,
    )
