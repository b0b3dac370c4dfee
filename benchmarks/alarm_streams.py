"""Streams of window counts on which nothing changes, and what may be changed in them.

A feature is a latent normal value with a mean and a log standard deviation that wander, cut into cells of given shares;
the cells' counts are multinomial. Two of three features have `cells` equal cells (numbers), every third is a category
with eight names of Zipf's shares.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.special import ndtr, ndtri

DAY: Final = 1440
MISSING: Final = 0.01
KINDS: Final = (
    "independent",
    "bursts",
    "autoregressive",
    "season",
    "season + autoregressive",
    "season + autoregressive + bursts",
    "weekly season",
    "heavy-tailed days",
    "correlated",
    "one day",
)
NAMES: Final = 8
WANDER: Final = 0.04  # standard deviation of the wander of the mean and of the log standard deviation
HOURS: Final = 1.0  # its correlation time
SEASON: Final = 0.3  # amplitude of the mean over the day
BURSTS: Final = 0.02  # share of windows
BURST: Final = 0.5  # standard deviations of a burst's mean
WEEKEND: Final = 0.1
HEAVY: Final = 0.03  # times Student's t with 3 degrees of freedom
FACTORS: Final = 3


def wander(windows: int, rng: np.random.Generator, hours: float = HOURS, paths: int = 1) -> np.ndarray:
    """Stationary autoregressive paths of variance 1, (paths, windows)."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / (60 * hours))
    noise = rng.normal(size=(paths, windows)) * np.sqrt(1 - keep**2)
    noise[:, 0] = rng.normal(size=paths)
    return lfilter([1.0], [1.0, -keep], noise, axis=1)


def shares_of(feature: int, cells: int) -> np.ndarray:
    """Shares of a feature's cells, (cells,)."""
    if feature % 3 != 2:
        return np.full(cells, 1 / cells)
    shares = np.zeros(cells)
    shares[:NAMES] = 1 / np.arange(1, NAMES + 1)
    return shares / shares.sum()


def draw_paths(kind: str, windows: int, features: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation of each feature, (features, windows) each; window 0 is midnight of a Monday."""
    mean, log = np.zeros((features, windows)), np.zeros((features, windows))
    minutes = np.arange(windows)
    if "season" in kind or kind == "one day":
        phase = rng.uniform(0, 2 * np.pi, size=(features, 1))
        mean += SEASON * rng.uniform(0.3, 1, size=(features, 1)) * np.sin(2 * np.pi * minutes / DAY + phase)
    if "autoregressive" in kind or kind == "one day":
        mean += WANDER * wander(windows, rng, paths=features)
        log += WANDER * wander(windows, rng, paths=features)
    if "bursts" in kind:
        hit = rng.random((features, windows)) < BURSTS
        mean += np.where(hit, rng.choice([-BURST, BURST], size=(features, windows)), 0)
    if kind == "weekly season":
        mean += WEEKEND * (minutes // DAY % 7 >= 5) * rng.choice([-1, 1], size=(features, 1))
    if kind == "heavy-tailed days":
        mean += HEAVY * rng.standard_t(3, size=(features, windows // DAY + 1))[:, minutes // DAY]
    if kind == "correlated":
        loads = rng.normal(size=(2, features, FACTORS))
        loads /= np.linalg.norm(loads, axis=2, keepdims=True)
        mean += WANDER * loads[0] @ wander(windows, rng, paths=FACTORS)
        log += WANDER * loads[1] @ wander(windows, rng, paths=FACTORS)
    return mean, log


def draw_counts(mean: np.ndarray, log: np.ndarray, rows: np.ndarray, shares: np.ndarray, rng: Any) -> np.ndarray:
    """Counts (windows, cells) of a feature whose latent value has this path."""
    edges = ndtri(np.clip(np.cumsum(shares)[:-1], 0, 1))
    flat = not (np.ptp(mean) or np.ptp(log))
    if flat:
        mean, log = mean[:1], log[:1]
    below = ndtr((edges - mean[:, None]) * np.exp(-log)[:, None])
    chances = np.diff(below, axis=1, prepend=0, append=1)
    return rng.multinomial(rows, chances)


def simulate(kind: str, rows: int, windows: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Counts (windows, cells) of one numeric feature."""
    mean, log = draw_paths(kind, windows, 1, rng)
    return draw_counts(mean[0], log[0], rng.poisson(rows, windows), np.full(cells, 1 / cells), rng)
