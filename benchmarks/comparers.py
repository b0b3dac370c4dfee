"""Other ways to compare two pandas frames, each at its defaults and as its documentation says.

Each function takes (reference, current) and returns what it calls changed: by variant of the tool a list of (column,
"method: value"). What one imports, only its own environment has: `PINS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Called = dict[str, list[tuple[str, str]]]
Detect = Callable[[pd.DataFrame, pd.DataFrame], Called]

PINS = {
    "evidently": ["evidently==0.7.23", "pandas==2.3.3", "pyarrow==26.0.1"],
    "nannyml": ["nannyml==0.13.1", "pandas==2.3.3", "statsmodels==0.14.5", "pyarrow==26.0.1"],
    "whylogs": ["whylogs[viz]==1.6.4", "numpy==1.26.4", "pandas==2.3.3", "scipy==1.15.3", "pyarrow==21.0.0"],
    "alibi-detect": ["alibi-detect==0.13.0", "pandas==2.3.3", "pyarrow==21.0.0"],
    "scipy": ["scipy==1.17.1", "pandas==2.3.3", "pyarrow==26.0.1"],
}


def is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def detect_scipy(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """Kolmogorov-Smirnov for numbers, chi-square for categories: p < 0.05 in each column, not corrected."""
    from scipy import stats

    called = []
    for name in reference:
        a, b = reference[name].dropna(), current[name].dropna()
        if is_numeric(a):
            p = stats.ks_2samp(a, b).pvalue
        else:
            table = pd.concat([a.value_counts(), b.value_counts()], axis=1).fillna(0).to_numpy()
            p = stats.chi2_contingency(table).pvalue
        if p < 0.05:
            called.append((name, f"p: {p:.2g}"))
    return {"p < 0.05": called}


def detect_evidently(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """DataDriftPreset."""
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    sides = [Dataset.from_pandas(side) for side in (current, reference)]
    metrics = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    called, whole, count = [], [], 0
    for metric in metrics:
        settings, value = metric["config"], metric["value"]
        if "column" not in settings:
            whole = [("", "dataset:")] if value["share"] >= settings["drift_share"] else []
            count = value["count"]
        elif (value < settings["threshold"]) == ("p_value" in settings["method"]):
            called.append((settings["column"], f"{settings['method']}: {value:.3g}"))
    assert len(called) == count  # what we take from the scores is what the report counts
    return {"any column": called, "dataset": whole}


def detect_nannyml(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """UnivariateDriftCalculator: ten chunks, any alert in one of them."""
    import nannyml

    calculator = nannyml.UnivariateDriftCalculator(column_names=list(reference))
    found = calculator.fit(reference).calculate(current).filter(period="analysis").to_df()
    alerts = [(name, f"{method}:") for name, method, what in found.columns if what == "alert"]
    return {"any alert": [(n, m) for n, m in alerts if found[(n, m[:-1], "alert")].any()]}


def detect_alibi(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """TabularDrift (0.05, Bonferroni). It takes numbers alone and none missing: those are filled in."""
    from alibi_detect.cd import TabularDrift

    rows, categories = len(reference), {}
    columns = np.empty((rows + len(current), reference.shape[1]))
    for i, name in enumerate(reference):
        both: Any = pd.concat([reference[name], current[name]])
        if is_numeric(both):
            columns[:, i] = both.fillna(reference[name].median())
        else:
            columns[:, i], categories[i] = pd.factorize(both, use_na_sentinel=False)[0], None
    drift = TabularDrift(columns[:rows], categories_per_feature=categories)
    data = drift.predict(columns[rows:])["data"]
    called = [(name, f"p: {p:.2g}") for name, p in zip(reference, data["p_val"], strict=True) if p < data["threshold"]]
    assert bool(called) == bool(data["is_drift"])
    return {"p < 0.05": called}


def detect_whylogs(reference: pd.DataFrame, current: pd.DataFrame) -> Called:
    """calculate_drift_scores: a column of category DRIFT."""
    import whylogs
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    views = [whylogs.log(side).view() for side in (current, reference)]
    scores = calculate_drift_scores(*views, with_thresholds=True)
    return {
        "DRIFT": [
            (name, f"{score['algorithm']}: {score['pvalue']:.2g}")
            for name, score in scores.items()
            if score and score["drift_category"] == "DRIFT"
        ]
    }


COMPARERS: dict[str, Detect] = {
    "scipy": detect_scipy,
    "evidently": detect_evidently,
    "nannyml": detect_nannyml,
    "alibi-detect": detect_alibi,
    "whylogs": detect_whylogs,
}
