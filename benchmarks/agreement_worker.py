"""Drift measures of one tool on pairs of columns, in the tool's own environment: agreement_worker.py TOOL FILE.

FILE is a parquet file with columns `NAME reference` and `NAME current`; prints JSON: {NAME: {measure: value}}.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

os.environ.update(NML_DISABLE_USAGE_LOGGING="1", DO_NOT_TRACK="1")  # no tool may call home

import pandas as pd

Pair = tuple[pd.DataFrame, pd.DataFrame]


def measure_evidently(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Any]:
    """Its own functions of these names, each as a ValueDrift metric of the column."""
    from evidently import Dataset, Report
    from evidently.metrics import ValueDrift

    numeric = pd.api.types.is_numeric_dtype(reference["x"])
    names = {"psi": "psi", "js": "jensenshannon"} | ({"w1": "wasserstein"} if numeric else {})
    sides = [Dataset.from_pandas(side) for side in (current, reference)]
    found = Report([ValueDrift(column="x", method=method) for method in names.values()]).run(*sides).dict()["metrics"]
    return {name: one["value"] for name, one in zip(names, found, strict=True)}


def measure_nannyml(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Any]:
    """UnivariateDriftCalculator with all current rows in one chunk."""
    import nannyml

    numeric = pd.api.types.is_numeric_dtype(reference["x"])
    names = {"js": "jensen_shannon"} | ({"ks": "kolmogorov_smirnov", "w1": "wasserstein"} if numeric else {})
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=["x"],
        continuous_methods=list(names.values()) if numeric else None,
        categorical_methods=None if numeric else list(names.values()),
        chunk_number=1,
    )
    found = calculator.fit(reference).calculate(current).filter(period="analysis").to_df()
    return {name: found["x"][method]["value"].iloc[0] for name, method in names.items()}


def measure_frouros(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Any]:
    """PSI and JS with as many bins as its documentation shows."""
    from frouros.detectors.data_drift import JS, PSI

    if not pd.api.types.is_numeric_dtype(reference["x"]):
        return {}
    found = {}
    for name, kind in (("psi", PSI), ("js", JS)):
        detector = kind(num_bins=20)
        detector.fit(X=reference["x"].dropna().to_numpy())
        found[name] = detector.compare(X=current["x"].dropna().to_numpy())[0].distance
    return found


TOOLS = {"evidently": measure_evidently, "nannyml": measure_nannyml, "frouros": measure_frouros}


def main() -> int:
    warnings.simplefilter("ignore")
    out, sys.stdout = sys.stdout, sys.stderr  # some tools print
    data = pd.read_parquet(sys.argv[2])
    found = {}
    for name in dict.fromkeys(column.rpartition(" ")[0] for column in data):
        sides = [pd.DataFrame({"x": data[f"{name} {side}"]}) for side in ("reference", "current")]
        found[name] = {measure: float(v) for measure, v in TOOLS[sys.argv[1]](*(s.dropna() for s in sides)).items()}
    print(json.dumps(found), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
