"""XGBoost: the scikit-learn API and Booster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np

from otel_mlmon.instrumentors.base import CallRecorder, FrameworkInstrumentor, Monitors, is_distribution
from otel_mlmon.instrumentors.wrapping import Wrapping, each_subclass, suppress, wrap_method

PREDICTING: Final = ("predict", "predict_proba", "inplace_predict")
# Within these nothing is served: training, evaluation, and `apply`, which tells leaves.
SILENT: Final = ("fit", "score", "apply", "update", "boost", "eval", "eval_set")
# Booster.predict explains where one of these is asked for.
EXPLAINING: Final = ("pred_leaf", "pred_contribs", "approx_contribs", "pred_interactions")
OLDEST: Final = "2.0"
# The same library under its names.
DISTRIBUTIONS: Final = ("xgboost", "xgboost-cpu")


class XGBoostInstrumentor(FrameworkInstrumentor):
    """Records predictions of XGBoost models; see docs/zero-code.md."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Oldest version, under whichever name it is installed."""
        for name in DISTRIBUTIONS:
            try:
                version(name)
            except PackageNotFoundError:
                continue
            return (f"{name} >= {OLDEST}",)
        return (f"{DISTRIBUTIONS[0]} >= {OLDEST}",)

    def _wrap(self, wrapping: Wrapping, monitors: Monitors) -> CallRecorder:
        import xgboost

        recorder = make_recorder(monitors, xgboost.__version__)
        for kind in each_subclass([xgboost.XGBModel, xgboost.Booster]):
            if kind.__module__.partition(".")[0] != "xgboost":
                continue  # a class of the user's calls these
            for name in (*PREDICTING, *SILENT):
                if name in vars(kind):
                    around = recorder.around(name) if name in PREDICTING else suppress
                    wrapping.replace(kind, name, partial(wrap_method, around=around))
        for kind in (xgboost.XGBClassifier, xgboost.XGBRegressor):  # which have `score` from scikit-learn
            if "score" not in vars(kind):
                inherited = suppress(kind.score)
                wrapping.replace(kind, "score", partial(_always, inherited))
        for module in (xgboost, xgboost.training):
            for name in ("train", "cv"):
                wrapping.replace(module, name, suppress)
        return recorder


def _always(replacement: Any, _: Any) -> Any:
    return replacement


def make_recorder(monitors: Monitors | None, version: str = "") -> CallRecorder:
    """A recorder of XGBoost's calls; without monitors it records nothing."""
    return CallRecorder(
        monitors,
        "xgboost",
        version,
        read_rows=read_rows,
        read_outputs=read_outputs,
        find_here=find_recorder,
        is_prediction=lambda kwargs: not any(kwargs.get(name) for name in EXPLAINING),
    )


def find_recorder() -> CallRecorder:
    """The recorder of this process."""
    return XGBoostInstrumentor().recorder or make_recorder(None)


def read_rows(X: Any) -> Any:
    """Rows of an input; of a DMatrix a copy, with NaN where a value is missing."""
    if not hasattr(X, "num_row"):
        return X
    held = X.get_data()  # scipy.sparse; what is missing is not stored
    dense = np.full(held.shape, np.nan)
    rows = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    dense[rows, held.indices] = held.data
    return dict(zip(X.feature_names, dense.T, strict=True)) if X.feature_names else dense


def read_outputs(result: Any, method: str, model: Any, kwargs: Mapping[str, Any]) -> Any:
    """What a method's result is; margins and several targets at once are not counted."""
    if kwargs.get("output_margin") or kwargs.get("predict_type") == "margin":
        return None
    result = np.asarray(result)
    if result.ndim == 2 and result.shape[1] == 1:
        result = result[:, 0]
    if result.ndim == 2:
        return result if is_distribution(result) else None
    if result.ndim != 1:
        return None
    return {"class": result} if method == "predict" and hasattr(model, "classes_") else result
