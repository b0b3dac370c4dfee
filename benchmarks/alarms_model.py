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


def scan(scanner: Scanner, model: Model, start: int, stop: int, *, only: int | None = None) -> list[Any]:
    """Events of the episodes from window `start` on; with `only` it ends when that feature is part of one.

    Many windows at a time while nothing is found, else one by one as the processor does: the bits are the same.
    """
    episodes, events = Episodes(), []
    scanner.held[:] = False
    for first in range(start, stop, CHUNK):
        part = slice(first, min(first + CHUNK, stop))
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


def call_psi(model: Model, limits: tuple[float, ...] = (0.1, 0.2)) -> dict[str, np.ndarray]:
    """Whether PSI over the 20 cells (shares of 0.0001 at least) exceeds its usual limits, by limit (features, windows).

    Against all rows of the reference; of the production.
    """
    q = model.counts[..., : model.cut].sum(axis=-1).astype(np.float64)
    q = np.maximum(q / q.sum(axis=0), 1e-4)[..., np.newaxis]
    found = []
    for start in range(model.cut, model.counts.shape[2], DAY):
        p = model.counts[..., start : start + DAY] / np.maximum(model.counts[..., start : start + DAY].sum(axis=0), 1)
        p = np.maximum(p, 1e-4)
        found.append(((p - q) * np.log(p / q)).sum(axis=0))
    psi = np.concatenate(found, axis=-1)
    return {f"PSI > {limit:g}": psi > limit for limit in limits}


def run_null(
    kind: str, rows: int, seed: list[int], budgets: list[float], *, simulate: Any = None, days: int = 30
) -> dict[str, Any]:
    """False alarms of a model-month by budget; with several budgets also how many windows PSI calls changed."""
    started = time.perf_counter()
    model = make_model(kind, rows, days, np.random.default_rng(seed), simulate)
    drawn = time.perf_counter()
    calibrations = calibrate(model)
    fitted = time.perf_counter()
    alarms: dict[str, Any] = {}
    for budget in budgets:
        _, scanner = make_scanner(calibrations, budget)
        events = scan(scanner, model, model.cut, model.counts.shape[2])
        raised = [e for e in events if e.kind == "raise"]
        ended = {e.episode.raised: e.window for e in events if e.kind == "clear"}
        alarms[f"{budget:g}"] = [
            {
                "minute": e.window - START - model.cut,
                "lasted": ended.get(e.window, START + model.counts.shape[2]) - e.window,
                "test": e.episode.suspects[0].hit.test,
                "scale": e.episode.suspects[0].hit.scale,
                "evidence": round(e.episode.evidence, 3),
                "feature": e.episode.suspects[0].variable,
            }
            for e in raised
        ]
    ended_at = time.perf_counter()
    looks = FEATURES * days * DAY * len(budgets)
    times = {"draw": drawn - started, "fit": fitted - drawn, "us": (ended_at - fitted) / looks * 1e6}
    found = {"days": days, "alarms": alarms, **{k: round(v, 2) for k, v in times.items()}}
    if len(budgets) > 1:
        found["psi"] = {name: int(called.any(axis=0).sum()) for name, called in call_psi(model).items()}
    return found


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
UNDISTURBED = 4  # days of production, after the first of which a change begins at a random minute


def change(model: Model, name: str, begin: int, rng: np.random.Generator) -> None:
    """Redraw the feature that changes from window `begin` on, in place."""
    f, _ = CHANGES[name]
    mean, log = model.paths[0][f, begin:].copy(), model.paths[1][f, begin:].copy()
    seen, shares, chance = model.seen[f, begin:], shares_of(f, CELLS), MISSING
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
    model.counts[:, f, begin:] = counts.T
    model.missing[0, f, begin:] = missing


def run_delays(kind: str, rows: int, seed: list[int], budgets: list[float]) -> dict[str, Any]:
    """Minutes from the beginning of a change until its feature is part of an alarm; None: not within the time.

    Each change begins at a random minute of the second to fourth day of production. What was raised before is counted
    as false and ended there, so that an alarm which happens to be on is no quick one.
    """
    rng = np.random.default_rng(seed)
    model = make_model(kind, rows, UNDISTURBED + max(days for _, days in CHANGES.values()), rng)
    calibrations = calibrate(model)
    delays: dict[str, dict[str, int | None]] = {}
    begins, before = {}, {"days": 0.0, "alarms": 0}
    for name, (f, days) in CHANGES.items():
        drawn = np.random.default_rng([*seed, len(delays)])
        begin = model.cut + int(drawn.integers(DAY, UNDISTURBED * DAY))
        begins[name], delays[name] = begin - model.cut, {}
        kept = model.counts[:, f].copy(), model.missing[:, f].copy()
        change(model, name, begin, drawn)
        many = name in ("mean + 0.25 sd", "mean + 0.5 sd")
        for budget in budgets if many else budgets[:1]:
            _, scanner = make_scanner(calibrations, budget)
            false = scan(scanner, model, model.cut, begin)
            if budget == budgets[0]:
                before["days"] += (begin - model.cut) / DAY
                before["alarms"] += sum(e.kind == "raise" for e in false)
            events = scan(scanner, model, begin, begin + days * DAY, only=f)
            first = [e.window for e in events if any(s.variable == f for s in e.episode.suspects)]
            delays[name][f"{budget:g}"] = first[0] - START - begin + 1 if first else None
        if many and len(budgets) > 1:
            for peer, called in call_psi(model).items():
                after = np.flatnonzero(called[f, begin - model.cut :][: days * DAY])
                delays[name][peer] = int(after[0]) + 1 if after.size else None
        model.counts[:, f], model.missing[:, f] = kept
    before["days"] = round(before["days"], 2)
    return {"delays": delays, "begins": begins, "before": before}
