"""XGBoost: the scikit-learn API and Booster."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped

from otel_mlmon.instrumentors.base import CallRecorder, Monitors, Wrapping, each_subclass, suppress, wrap_method

PREDICTING: Final = ("predict", "predict_proba", "inplace_predict")
TRAINING: Final = ("fit", "score", "update", "boost", "eval", "eval_set")
OLDEST: Final = "2.0"
# The same library under its names.
DISTRIBUTIONS: Final = ("xgboost", "xgboost-cpu")


class XGBoostInstrumentor(BaseInstrumentor):
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

    def _instrument(self, **kwargs: Any) -> None:
        import xgboost

        self._monitors = kwargs.get("monitors") or Monitors()
        self._wrapping = Wrapping()
        recorder = CallRecorder(
            self._monitors, "xgboost", xgboost.__version__, read_rows=read_rows, read_outputs=read_outputs
        )
        for kind in each_subclass([xgboost.XGBModel, xgboost.Booster]):
            if kind.__module__.partition(".")[0] != "xgboost":
                continue  # a class of the user's calls these
            for name in (*PREDICTING, *TRAINING):
                if name in vars(kind):
                    around = recorder.around(name) if name in PREDICTING else suppress
                    self._wrapping.replace(kind, name, partial(wrap_method, around=around))
        for module in (xgboost, xgboost.training):
            for name in ("train", "cv"):
                self._wrapping.replace(module, name, suppress)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 -- the base's signature
        self._wrapping.restore()
        self._monitors.close()


def read_rows(X: Any) -> Any:
    """Rows of an input; of a DMatrix a copy, with NaN where a value is missing."""
    if not hasattr(X, "num_row"):
        return X
    held = X.get_data()  # scipy.sparse; what is missing is not stored
    dense = np.full(held.shape, np.nan)
    rows = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    dense[rows, held.indices] = held.data
    return dict(zip(X.feature_names, dense.T, strict=True)) if X.feature_names else dense


def read_outputs(result: Any, method: str, model: Any) -> Any:
    """What a method's result is; margins, leaves and contributions are not the model's output."""
    if getattr(result, "ndim", 0) == 2:
        scores = method == "predict_proba" or hasattr(model, "get_score")
        return {"score": result[:, 1] if result.shape[1] == 2 else result.max(axis=1)} if scores else None
    if getattr(result, "ndim", 0) != 1:
        return None
    return {"class": result} if method == "predict" and hasattr(model, "classes_") else result
