"""scikit-learn: any estimator that predicts, of its own or derived, defined before or after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from otel_mlmon.instrumentors.base import CallRecorder, FrameworkInstrumentor, Monitors, is_distribution
from otel_mlmon.instrumentors.wrapping import Wrapping, each_subclass, is_method, suppress, wrap_method

logger = logging.getLogger(__name__)

PREDICTING: Final = ("predict", "predict_proba", "decision_function", "score_samples")
# Within these nothing is served. `score` evaluates.
TRAINING: Final = ("fit", "partial_fit", "fit_predict", "fit_transform", "score")
OTHERS: Final = ("builtins", "xgboost")  # the latter has an instrumentor of its own


class SklearnInstrumentor(FrameworkInstrumentor):
    """Records predictions of scikit-learn estimators; see docs/zero-code.md."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Oldest version."""
        return ("scikit-learn >= 1.3",)

    def _wrap(self, wrapping: Wrapping, monitors: Monitors) -> CallRecorder:
        import sklearn
        from sklearn.base import BaseEstimator, TransformerMixin
        from sklearn.metrics import _scorer
        from sklearn.utils import parallel

        recorder = make_recorder(monitors, sklearn.__version__)
        for kind in each_subclass([BaseEstimator]):
            wrap_estimator(kind, wrapping, recorder)
        # Classes that are defined later. Transformers have their turn when sklearn has put its own wrapper about their
        # `fit_transform`, so that ours is the outer one and can be taken off again.
        hook(BaseEstimator, lambda kind: not issubclass(kind, TransformerMixin), wrapping, recorder)
        hook(TransformerMixin, lambda kind: issubclass(kind, BaseEstimator), wrapping, recorder)
        # What sklearn itself runs in parallel (trees of a forest, folds) is part of one call or of training, and worker
        # threads and processes know nothing of the caller's context; scorers evaluate. There is no public place.
        for owner in (parallel._FuncWrapper, _scorer._BaseScorer, _scorer._MultimetricScorer):  # noqa: SLF001
            if "__call__" in vars(owner):
                wrapping.replace(owner, "__call__", suppress)
        return recorder


def wrap_estimator(estimator: type, wrapping: Wrapping, recorder: CallRecorder) -> None:
    """Wrap what a class and its bases define, those too that are no estimators themselves."""
    for kind in estimator.__mro__:
        if kind.__module__.partition(".")[0] in OTHERS:
            continue
        for name in (*PREDICTING, *TRAINING):
            if is_method(vars(kind).get(name)):
                around = recorder.around(name) if name in PREDICTING else suppress
                wrapping.replace(kind, name, partial(wrap_method, around=around))


def hook(base: Any, concerns: Callable[[type], bool], wrapping: Wrapping, recorder: CallRecorder) -> None:
    """Wrap subclasses of a class that are defined later."""

    def make(original: Any) -> Any:
        def init_subclass(cls: Any, /, **kwargs: Any) -> None:
            if original is None:
                super(base, cls).__init_subclass__(**kwargs)
            else:
                original.__func__(cls, **kwargs)
            try:
                if concerns(cls):
                    wrap_estimator(cls, wrapping, recorder)
            except Exception as error:
                logger.warning("%s is not instrumented: %s", cls.__name__, error)

        return classmethod(init_subclass)

    wrapping.replace(base, "__init_subclass__", make)


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
    if result.ndim not in (1, 2) or (result.ndim == 2 and method == "predict"):
        return None
    if method == "predict":
        return {"class": result} if _says_class(model) else {"value": result}
    if method == "predict_proba":
        if result.ndim == 1:
            return {"score": result}
        return result if is_distribution(result) and not _has_many_targets(model) else None
    if hasattr(model, "predict_proba"):  # margins and probabilities are different numbers: one of them is the score
        return None
    return {"score": result if result.ndim == 1 else result.max(axis=1)}


def _has_many_targets(model: Any) -> bool:
    return isinstance(getattr(model, "classes_", None), list) or getattr(model, "multilabel_", False)


def _says_class(model: Any) -> bool:
    from sklearn import base

    if base.is_classifier(model) or base.is_outlier_detector(model):
        return True
    if hasattr(base, "is_clusterer"):
        return bool(base.is_clusterer(model))
    return getattr(model, "_estimator_type", None) == "clusterer"
