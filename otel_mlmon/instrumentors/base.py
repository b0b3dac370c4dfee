"""What every framework needs: finding the monitor of a model, recording a call, instrumenting all or nothing."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from opentelemetry.instrumentation.dependencies import DependencyConflictError, get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped

from otel_mlmon.columns import UnreadableError
from otel_mlmon.config import Settings, read_settings
from otel_mlmon.guard import Errors, is_outermost
from otel_mlmon.instrumentors.wrapping import Call, Wrapping
from otel_mlmon.monitor import Monitor
from otel_mlmon.profile.attach import read_text
from otel_mlmon.profile.document import ATTRIBUTE, Profile
from otel_mlmon.recorder import MAX_LEARNT

logger = logging.getLogger(__name__)

MAX_MODELS: Final = 100
TOLERANCE: Final = 1e-3
# Turns an input into rows; the other turns output, method, model and keyword arguments of the call into what
# `Monitor.observe` takes. Either may give None where there is nothing to count.
ReadRows = Callable[[Any], Any]
ReadOutputs = Callable[[Any, str, Any, Mapping[str, Any]], Any]


class Monitors:
    """The monitor of each model, made at its first prediction.

    Name and version come from the attached profile, else from the profile or the names in the environment, else from
    the class of the model.

    Args:
        settings: of the environment.

    Attributes:
        counting: whether rows and outputs go anywhere; spans do not depend on it.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or read_settings()
        self.counting = bool(self._settings.exporters)
        self._lock, self._errors = threading.RLock(), Errors()
        # By id, as models need not be hashable; with the attached text, as a profile can be attached after the first
        # prediction.
        self._by_model: dict[int, tuple[weakref.ref[Any], Any, Monitor | None]] = {}
        self._by_identity: dict[tuple[str, str, str], Monitor] = {}
        self._profiles: dict[str, Profile] = {}
        self._default: Profile | None = None
        self._default_read = self._full = False
        self._closed = self._settings.disabled

    def find(self, model: Any) -> Monitor | None:
        """The monitor of a model; None where it cannot be monitored, which is logged."""
        text = getattr(model, "__dict__", {}).get(ATTRIBUTE)
        known = self._by_model.get(id(model))
        if known is not None and known[0]() is model and known[1] is text:
            return known[2]
        if self._closed:
            return None
        try:
            with self._lock:
                monitor = self._make(model)
                forget = functools.partial(_forget, self._by_model, id(model))
                self._by_model[id(model)] = weakref.ref(model, forget), text, monitor
        except Exception as error:
            self._errors.note(error, f"monitoring a {type(model).__name__}")
            return None
        return monitor

    def close(self) -> None:
        """Send what is left; nothing is recorded from now on."""
        with self._lock:
            self._closed = True
            monitors, self._by_identity = list(self._by_identity.values()), {}
            self._by_model.clear()
        for monitor in monitors:
            monitor.close()

    def _make(self, model: Any) -> Monitor | None:
        profile = self._find_profile(model)
        name = profile.model if profile else self._settings.model_name or type(model).__name__
        version = profile.version if profile else self._settings.model_version
        identity = (name, version, profile.hash if profile else "")
        if identity not in self._by_identity:
            if len(self._by_identity) >= MAX_MODELS:
                if not self._full:
                    logger.warning("%s %s and later ones are not monitored: more than %d", name, version, MAX_MODELS)
                self._full = True
                return None
            self._by_identity[identity] = Monitor(profile or name, version, settings=self._settings)
        return self._by_identity[identity]

    def _find_profile(self, model: Any) -> Profile | None:
        try:
            text = read_text(model)
            if text is None:
                return self._read_default()
            if text not in self._profiles and len(self._profiles) < MAX_MODELS:
                self._profiles[text] = Profile.from_bytes(text.encode())
            return self._profiles.get(text)
        except Exception as error:
            logger.warning("the profile of a %s cannot be used: %s", type(model).__name__, error)
            return None

    def _read_default(self) -> Profile | None:
        if not self._default_read:
            self._default_read = True
            if self._settings.profile:
                self._default = Profile.load(self._settings.profile)
        return self._default


def _forget(by_model: dict[int, Any], key: int, _: Any) -> None:
    by_model.pop(key, None)


class CallRecorder:
    """Records calls of models.

    Args:
        monitors: of the models.
        framework: its name.
        version: its version.
        read_rows: see ReadRows.
        read_outputs: see ReadOutputs.
        is_prediction: whether a call with these keyword arguments predicts; others are left alone.
        find_here: a function that gives the recorder of whatever process it runs in; classes that are pickled by value
            (those of a script or a notebook, on their way to a worker process) carry it instead of the recorder.
    """

    def __init__(
        self,
        monitors: Monitors | None,
        framework: str,
        version: str,
        *,
        read_rows: ReadRows,
        read_outputs: ReadOutputs,
        find_here: Callable[[], CallRecorder],
        is_prediction: Callable[[Mapping[str, Any]], bool] = lambda kwargs: True,  # noqa: ARG005 -- all are
    ) -> None:
        self._monitors, self._framework, self._version = monitors, framework, version
        self._read_rows, self._read_outputs = read_rows, read_outputs
        self._find_here, self._is_prediction = find_here, is_prediction

    def __reduce__(self) -> tuple[Callable[[], CallRecorder], tuple[()]]:
        return self._find_here, ()

    def around(self, method: str) -> Callable[[Call], Call]:
        """What to put around a method that predicts."""

        def wrap(function: Call) -> Call:
            @functools.wraps(function)
            def wrapper(model: Any, /, *args: Any, **kwargs: Any) -> Any:
                monitor = self._find(model, kwargs) if is_outermost() else None
                if monitor is None:
                    return function(model, *args, **kwargs)
                counting = self._monitors is not None and self._monitors.counting
                rows = _try(monitor, self._read, args[0] if args else _first(kwargs), monitor) if counting else None
                with monitor.inference(rows, method, self._framework, self._version) as call:
                    result = function(model, *args, **kwargs)
                    outputs = _try(monitor, self._read_outputs, result, method, model, kwargs) if counting else None
                    if outputs is not None:
                        scores = getattr(outputs, "ndim", 0) == 2
                        call.record(outputs, _try(monitor, getattr, model, "classes_", None) if scores else None)
                return result

            return wrapper

        return wrap

    def _read(self, X: Any, monitor: Monitor) -> Any:
        shape: tuple[int, ...] = getattr(X, "shape", ())
        columns = X.num_col() if hasattr(X, "num_col") else shape[1] if len(shape) == 2 else 0
        if monitor.profile is None and columns > MAX_LEARNT:  # hashed text has a million, which must not become dense
            raise UnreadableError(f"{columns} columns and no profile: features are not counted beyond {MAX_LEARNT}")
        return self._read_rows(X)

    def _find(self, model: Any, kwargs: Mapping[str, Any]) -> Monitor | None:
        return self._monitors.find(model) if self._monitors is not None and self._is_prediction(kwargs) else None


def _try(monitor: Monitor, read: Callable[..., Any], *args: Any) -> Any:
    try:
        return read(*args)
    except Exception as error:
        monitor.note(error)
        return None


def _first(kwargs: Mapping[str, Any]) -> Any:
    """The rows, where they are given by name."""
    return next((kwargs[name] for name in ("X", "data") if name in kwargs), None)


def is_distribution(scores: Any) -> bool:
    """Whether the rows of two-dimensional scores are probabilities of one target; those of several do not sum to 1."""
    return not (np.abs(scores.sum(axis=1) - 1) > TOLERANCE).any()


class FrameworkInstrumentor(BaseInstrumentor):
    """Wraps all that a framework needs, or nothing."""

    recorder: CallRecorder | None = None

    @abstractmethod
    def _wrap(self, wrapping: Wrapping, monitors: Monitors) -> CallRecorder: ...

    def _instrument(self, **kwargs: Any) -> None:
        # `opentelemetry-instrument` checks the extra `instruments` of a distribution instead, which one missing
        # framework would fail for all of them; and of what it then meets it skips only this and ImportError.
        conflict = get_dependency_conflicts(self.instrumentation_dependencies())
        if conflict:
            raise DependencyConflictError(conflict)
        self._monitors: Monitors = kwargs.get("monitors") or Monitors()
        self._wrapping = Wrapping()
        try:
            self.recorder = self._wrap(self._wrapping, self._monitors)
        except Exception as error:  # a version that is not like those we know
            self._uninstrument()
            raise ImportError(f"{type(self).__name__}: {error}") from error

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 -- the base's signature
        self._wrapping.restore()
        self._monitors.close()
        self.recorder = None
