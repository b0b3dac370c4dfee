"""scikit-learn: any estimator that predicts, of its own or derived, defined before or after."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped

from otel_mlmon.instrumentors.base import (
    CallRecorder,
    Monitors,
    Wrapping,
    each_subclass,
    is_method,
    suppress,
    wrap_method,
)

logger = logging.getLogger(__name__)

PREDICTING: Final = ("predict", "predict_proba", "decision_function", "score_samples")
# Within these nothing is served. `score` evaluates.
TRAINING: Final = ("fit", "partial_fit", "fit_predict", "score")
OTHERS: Final = ("builtins", "xgboost")  # the latter has an instrumentor of its own


class SklearnInstrumentor(BaseInstrumentor):
    """Records predictions of scikit-learn estimators; see docs/zero-code.md."""

    recorder: CallRecorder | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Oldest version."""
        return ("scikit-learn >= 1.3",)

    def _instrument(self, **kwargs: Any) -> None:
        import sklearn
        import sklearn.base
        from sklearn.metrics import _scorer
        from sklearn.utils import parallel

        self._monitors: Monitors = kwargs.get("monitors") or Monitors()
        self._wrapping = Wrapping()
        self.recorder = make_recorder(self._monitors, sklearn.__version__)
        for kind in each_subclass([sklearn.base.BaseEstimator]):
            self._wrap_estimator(kind)
        # sklearn has already put its own wrapper about this one, in classes defined later it is still to come.
        self._wrapping.replace(sklearn.base.TransformerMixin, "fit_transform", suppress)
        self._hook(sklearn.base.BaseEstimator)
        # What sklearn itself runs in parallel (trees of a forest, folds) is part of one call or of training, and worker
        # threads and processes know nothing of the caller's context; scorers evaluate. There is no public place.
        for owner in (parallel._FuncWrapper, _scorer._BaseScorer, _scorer._MultimetricScorer):  # noqa: SLF001
            if "__call__" in vars(owner):
                self._wrapping.replace(owner, "__call__", suppress)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 -- the base's signature
        self._wrapping.restore()
        self._monitors.close()
        self.recorder = None

    def _wrap_estimator(self, estimator: type) -> None:
        """Wrap what a class and its bases define, those too that are no estimators themselves."""
        recorder = self.recorder
        if recorder is None:
            return
        for kind in estimator.__mro__:
            if kind.__module__.partition(".")[0] in OTHERS:
                continue
            for name in (*PREDICTING, *TRAINING):
                if is_method(vars(kind).get(name)):
                    around = recorder.around(name) if name in PREDICTING else suppress
                    self._wrapping.replace(kind, name, partial(wrap_method, around=around))

    def _hook(self, base: Any) -> None:
        """Wrap classes that are defined later."""
        wrap = self._wrap_estimator

        def make(original: Any) -> Any:
            def init_subclass(cls: Any, /, **kwargs: Any) -> None:
                if original is None:
                    super(base, cls).__init_subclass__(**kwargs)
                else:
                    original.__func__(cls, **kwargs)
                try:
                    wrap(cls)
                except Exception as error:
                    logger.warning("%s is not instrumented: %s", cls.__name__, error)

            return classmethod(init_subclass)

        self._wrapping.replace(base, "__init_subclass__", make)


def make_recorder(monitors: Monitors | None, version: str = "") -> CallRecorder:
    """A recorder of sklearn's calls; without monitors it records nothing."""
    return CallRecorder(
        monitors, "sklearn", version, read_rows=lambda X: X, read_outputs=read_outputs, find_here=find_recorder
    )


def find_recorder() -> CallRecorder:
    """The recorder of this process."""
    return SklearnInstrumentor().recorder or make_recorder(None)


def read_outputs(result: Any, method: str, model: Any, kwargs: Mapping[str, Any]) -> Any:  # noqa: ARG001 -- one shape
    """What a method's result is: a class, a value or scores; None for several targets at once."""
    if isinstance(result, tuple):  # with return_std or return_cov
        result = result[0]
    if isinstance(result, list) and method != "predict":  # one array for each of several targets
        return None
    result = np.asarray(result)
    if result.ndim == 2 and result.shape[1] == 1 and method != "predict_proba":
        result = result[:, 0]
    if method == "predict":
        if result.ndim != 1:
            return None
        return {"class": result} if _says_class(model) else {"value": result}
    if method == "predict_proba":
        return result if result.ndim == 2 else {"score": result}
    if hasattr(model, "predict_proba"):  # margins and probabilities are different numbers: one of them is the score
        return None
    return {"score": result if result.ndim == 1 else result.max(axis=1)}


def _says_class(model: Any) -> bool:
    from sklearn import base

    if base.is_classifier(model) or base.is_outlier_detector(model):
        return True
    if hasattr(base, "is_clusterer"):
        return bool(base.is_clusterer(model))
    return getattr(model, "_estimator_type", None) == "clusterer"
