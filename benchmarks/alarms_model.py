"""A model of 30 features on simulated windows: calibrate on the reference, scan the production, time both."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from alarm_streams import DAY, MISSING, draw_counts, draw_paths, shares_of
from otel_mlmon_processor.core.budget import split_budget
from otel_mlmon_processor.core.episodes import Episodes
from otel_mlmon_processor.core.nulls import Nulls, prepare_nulls
from otel_mlmon_processor.core.scanner import Scanner
from otel_mlmon_processor.core.slow import SlowDetector

from otel_mlmon.numerics.calibration import Calibration, fit_calibration

FEATURES = 30
CELLS = 20
START = 20_004 * DAY  # a Monday
CHUNK = 240


@dataclass
class Model:
    """Counts (cells, features, windows), missing (1, features, windows), values seen (features, windows)."""

    counts: np.ndarray
    missing: np.ndarray
    seen: np.ndarray
    paths: tuple[np.ndarray, np.ndarray]
    cut: int  # windows of the reference


def make_model(kind: str, rows: int, days: int, rng: np.random.Generator, simulate: Any = None) -> Model:
    """Reference of 14 days (or of one) and production of `days`; `simulate` replaces the streams for the numbers."""
    cut = DAY * (1 if kind == "one day" else 14)
    windows = cut + days * DAY
    mean, log = draw_paths(kind, windows, FEATURES, rng) if simulate is None else np.zeros((2, FEATURES, windows))
    counts = np.empty((CELLS, FEATURES, windows), dtype=np.int32)
    seen = np.tile(rng.poisson(rows, windows), (FEATURES, 1))
    missing = rng.binomial(seen, MISSING)
    for f in range(FEATURES):
        if simulate is None:
            counts[:, f] = draw_counts(mean[f], log[f], seen[f] - missing[f], shares_of(f, CELLS), rng).T
        else:
            counts[:, f] = np.asarray(simulate(kind, rows, windows, CELLS, rng)).T
    if simulate is not None:
        seen = counts.sum(axis=0) + missing
    return Model(counts, missing[np.newaxis], seen, (mean, log), cut)


def calibrate(model: Model) -> list[Calibration]:
    numbers = START + np.arange(model.cut)
    found = []
    for f in range(FEATURES):
        used = model.counts[:, f, : model.cut].any(axis=1)
        held = model.seen[f, : model.cut] > 0
        parts = model.counts[used][:, f, : model.cut], model.missing[:, f, : model.cut], model.seen[f, : model.cut]
        found.append(fit_calibration(numbers[held], *(part.T[held].astype(np.int64) for part in parts)))
    return found


def make_scanner(calibrations: list[Calibration], budget: float = 1.0) -> tuple[Nulls, Scanner]:
    split = split_budget(budget, [None] * len(calibrations))
    nulls = prepare_nulls(calibrations, split)
    return nulls, Scanner(nulls, slow=SlowDetector(nulls, split))


def scan(scanner: Scanner, model: Model, *, until: int | None = None, only: int | None = None) -> list[Any]:
    """Events of the episodes; with `only` it ends when that feature is part of one.

    Many windows at a time while nothing is found, else one by one as the processor does: the bits are the same.
    """
    episodes, events = Episodes(), []
    end = model.counts.shape[2] if until is None else model.cut + until
    for start in range(model.cut, end, CHUNK):
        part = slice(start, min(start + CHUNK, end))
        before = scanner.dump()
        if not scanner.held.any() and not _advance(scanner, model, part):
            continue
        scanner.load(before)
        for at in range(part.start, part.stop):
            hits = _advance(scanner, model, slice(at, at + 1))
            events += episodes.advance(START + at, hits, np.flatnonzero(model.seen[:, at]).tolist())
            scanner.held[:] = False
            scanner.held[list(episodes.held)] = True
            if only is not None and any(s.variable == only for e in events for s in e.episode.suspects):
                return events
    return events


def _advance(scanner: Scanner, model: Model, part: slice) -> list[Any]:
    values = model.counts[..., part].astype(np.int64), model.missing[..., part], model.seen[..., part]
    return scanner.advance(START + part.start, *values)


def run_null(
    kind: str, rows: int, seed: list[int], budgets: list[float], *, simulate: Any = None, days: int = 30
) -> Any:
    """False alarms of a model-month by budget."""
    started = time.perf_counter()
    model = make_model(kind, rows, days, np.random.default_rng(seed), simulate)
    drawn = time.perf_counter()
    calibrations = calibrate(model)
    fitted = time.perf_counter()
    alarms: dict[str, Any] = {}
    for budget in budgets:
        _, scanner = make_scanner(calibrations, budget)
        events = scan(scanner, model)
        raised = [e for e in events if e.kind == "raise"]
        ended = {e.episode.raised: e.window for e in events if e.kind == "clear"}
        alarms[f"{budget:g}"] = [
            {
                "minute": e.window - START - model.cut,
                "lasted": ended.get(e.window, START + model.counts.shape[2]) - e.window,
                "test": e.episode.suspects[0].hit.test,
                "scale": e.episode.suspects[0].hit.scale,
                "evidence": round(e.episode.evidence, 3),
                "features": len(e.episode.suspects),
            }
            for e in raised
        ]
    ended_at = time.perf_counter()
    looks = FEATURES * days * DAY * len(budgets)
    times = {"draw": drawn - started, "fit": fitted - drawn, "us": (ended_at - fitted) / looks * 1e6}
    return {"days": days, "alarms": alarms, **{k: round(v, 2) for k, v in times.items()}}


CHANGES = {
    "mean + 0.1 sd": (0, 1),
    "mean + 0.25 sd": (0, 1),
    "mean + 0.5 sd": (0, 1),
    "variance x 1.25": (0, 1),
    "variance x 1.5": (0, 1),
    "a category + 2 points": (2, 1),
    "a category + 5 points": (2, 1),
    "a category + 10 points": (2, 1),
    "missing 1 % -> 3 %": (0, 1),
    "ramp 0.02 sd a day": (0, 20),
}  # the feature that changes, and for how many days it is looked for
CATEGORY = 2  # of the feature; 0.12 of its values


def change(model: Model, name: str, rng: np.random.Generator) -> None:
    """Redraw the production of the feature that changes, in place."""
    f, _ = CHANGES[name]
    mean, log = model.paths[0][f, model.cut :].copy(), model.paths[1][f, model.cut :].copy()
    seen, shares, chance = model.seen[f, model.cut :], shares_of(f, CELLS), MISSING
    if name.startswith("mean"):
        mean += float(name.split()[2])
    elif name.startswith("variance"):
        log += np.log(float(name.split()[2])) / 2
    elif name.startswith("ramp"):
        mean += 0.02 * np.arange(mean.size) / DAY
    elif name.startswith("missing"):
        chance = 0.03
    missing = rng.binomial(seen, chance)
    counts = draw_counts(mean, log, seen - missing, shares, rng)
    if name.startswith("a category"):  # a share of all others' values becomes this category
        moved = float(name.split()[3]) / 100 / (1 - shares[CATEGORY])
        taken = rng.binomial(counts, moved)
        taken[:, CATEGORY] = 0
        counts -= taken
        counts[:, CATEGORY] += taken.sum(axis=1)
    model.counts[:, f, model.cut :] = counts.T
    model.missing[0, f, model.cut :] = missing


def run_delays(kind: str, rows: int, seed: list[int], budgets: list[float]) -> dict[str, Any]:
    """Minutes until the changed feature is part of an alarm, by change and budget; None: not within the time."""
    rng = np.random.default_rng(seed)
    model = make_model(kind, rows, max(days for _, days in CHANGES.values()), rng)
    calibrations = calibrate(model)
    kept = model.counts.copy(), model.missing.copy()
    delays: dict[str, dict[str, int | None]] = {}
    for name, (f, days) in CHANGES.items():
        change(model, name, np.random.default_rng([*seed, len(delays)]))
        for budget in budgets if name in ("mean + 0.25 sd", "mean + 0.5 sd") else budgets[:1]:
            _, scanner = make_scanner(calibrations, budget)
            events = scan(scanner, model, until=days * DAY, only=f)
            first = [e.window for e in events if any(s.variable == f for s in e.episode.suspects)]
            at = first[0] - START - model.cut + 1 if first else None
            delays.setdefault(name, {})[f"{budget:g}"] = at
        model.counts[:], model.missing[:] = kept
    return {"delays": delays}
