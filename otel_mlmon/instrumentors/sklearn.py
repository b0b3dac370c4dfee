"""scikit-learn: any estimator that predicts, of its own or derived, defined before or after."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped

from otel_mlmon.instrumentors.base import CallRecorder, Monitors, Wrapping, each_subclass, suppress, wrap_method

PREDICTING: Final = ("predict", "predict_proba", "decision_function", "score_samples")
# Within these nothing is served. `score` evaluates.
TRAINING: Final = ("fit", "partial_fit", "fit_predict", "fit_transform", "score")
OWN_INSTRUMENTOR: Final = ("xgboost",)


class SklearnInstrumentor(BaseInstrumentor):
    """Records predictions of scikit-learn estimators; see docs/zero-code.md."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Oldest version."""
        return ("scikit-learn >= 1.3",)

    def _instrument(self, **kwargs: Any) -> None:
        import sklearn
        import sklearn.base
        from sklearn.utils import parallel

        self._monitors = kwargs.get("monitors") or Monitors()
        self._wrapping = Wrapping()
        self._recorder = CallRecorder(
            self._monitors, "sklearn", sklearn.__version__, read_rows=lambda X: X, read_outputs=read_outputs
        )
        base = sklearn.base.BaseEstimator
        mixins = [
            kind for name, kind in vars(sklearn.base).items() if name.endswith("Mixin") and isinstance(kind, type)
        ]
        for kind in each_subclass([base, *mixins]):
            self._wrap_class(kind)
        self._hook(base)
        # What sklearn itself runs in parallel (trees of a forest, folds) is part of one call or of training; worker
        # threads and processes know nothing of the caller's context.
        self._wrapping.replace(parallel._FuncWrapper, "__call__", suppress)  # noqa: SLF001 -- there is no public place

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 -- the base's signature
        if self._hooked is not None:
            del self._hooked.__init_subclass__
        self._wrapping.restore()
        self._monitors.close()

    def _wrap_class(self, kind: type) -> None:
        if kind.__module__.partition(".")[0] in OWN_INSTRUMENTOR:
            return
        for name in (*PREDICTING, *TRAINING):
            if name in vars(kind) and callable(getattr(kind, name, None)):
                around = self._recorder.around(name) if name in PREDICTING else suppress
                self._wrapping.replace(kind, name, partial(wrap_method, around=around))

    def _hook(self, base: Any) -> None:
        """Wrap classes that are defined later."""
        self._hooked = base if "__init_subclass__" not in vars(base) else None
        wrap = self._wrap_class

        def init_subclass(cls: Any, /, **kwargs: Any) -> None:
            super(base, cls).__init_subclass__(**kwargs)
            wrap(cls)

        if self._hooked is not None:
            base.__init_subclass__ = classmethod(init_subclass)


def read_outputs(result: Any, method: str, model: Any) -> Any:
    """What a method's result is: a class, a value or scores."""
    from sklearn.base import is_classifier

    if method == "predict":
        if getattr(result, "ndim", 1) != 1:
            return None  # several targets at once have no common distribution
        classes = is_classifier(model) or getattr(model, "_estimator_type", None) in ("outlier_detector", "clusterer")
        return {"class": result} if classes else result
    if isinstance(result, list):  # of several targets
        return None
    if method == "predict_proba":
        return _scores(result)
    # Margins and probabilities are different numbers: only one of them is the model's score.
    return None if hasattr(model, "predict_proba") else _scores(result)


def _scores(result: Any) -> Any:
    if getattr(result, "ndim", 1) == 1:
        return {"score": result}
    return {"score": result[:, 1] if result.shape[1] == 2 else result.max(axis=1)}
