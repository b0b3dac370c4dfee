"""What every framework needs: finding the monitor of a model, recording a call, wrapping methods and restoring them."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from otel_mlmon.config import Settings, read_settings
from otel_mlmon.guard import inside, is_outermost
from otel_mlmon.monitor import Monitor
from otel_mlmon.profile.attach import read_text
from otel_mlmon.profile.document import ATTRIBUTE, Profile

logger = logging.getLogger(__name__)

MAX_MODELS: Final = 100
_ABSENT: Final = object()
Call = Callable[..., Any]
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
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or read_settings()
        self._lock = threading.RLock()
        # By id, as models need not be hashable; with the attached text, as a profile can be attached after the first
        # prediction.
        self._by_model: dict[int, tuple[weakref.ref[Any], Any, Monitor | None]] = {}
        self._by_identity: dict[tuple[str, str, str], Monitor] = {}
        self._profiles: dict[str, Profile] = {}
        self._default: Profile | None = None
        self._default_read = self._closed = self._full = False

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
            logger.warning("%s is not monitored: %s", type(model).__name__, error)
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


class Wrapping:
    """Replaces attributes and remembers the originals, so that `restore` puts the very same objects back."""

    def __init__(self) -> None:
        self._replaced: dict[tuple[Any, str], tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace owner.__dict__[name] by make(original), or make(None) where there is none; once."""
        with self._lock:
            original = vars(owner).get(name, _ABSENT)
            key = (owner, name)
            if key in self._replaced and self._replaced[key][1] is original:
                return
            wrapper = make(None if original is _ABSENT else original)
            self._replaced[key] = original, wrapper
            setattr(owner, name, wrapper)

    def restore(self) -> None:
        """Put all originals back; what somebody else has replaced since is theirs."""
        with self._lock:
            replaced, self._replaced = self._replaced, {}
        for (owner, name), (original, wrapper) in replaced.items():
            if vars(owner).get(name) is not wrapper:
                continue
            if original is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


class Method:
    """Stands in for a method that is a descriptor of its own, such as sklearn's `available_if`."""

    def __init__(self, original: Any, around: Callable[[Call], Call]) -> None:
        functools.update_wrapper(self, original)  # type: ignore[arg-type]  # a descriptor is taken like a function
        self._original, self._around = original, around

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        found = self._original.__get__(instance, owner)  # raises AttributeError where the method is not available
        if instance is None:
            return self._around(found)
        function = getattr(found, "__func__", None)
        return found if function is None else self._around(function).__get__(instance, owner)


def is_method(original: Any) -> bool:
    """Whether an attribute of a class is a method that takes the model first."""
    return hasattr(original, "__get__") and not isinstance(original, (staticmethod, classmethod, property))


def wrap_method(original: Any, around: Callable[[Call], Call]) -> Any:
    """A method with `around` about it; name, documentation and signature stay."""
    return around(original) if hasattr(original, "__code__") else Method(original, around)


def suppress(function: Call) -> Call:
    """Around what trains or evaluates: nothing within is recorded as serving."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with inside():
            return function(*args, **kwargs)

    return wrapper


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
                rows = _try(monitor, self._read_rows, args[0] if args else _first(kwargs))
                with monitor.inference(rows, method, self._framework, self._version) as call:
                    result = function(model, *args, **kwargs)
                    outputs = _try(monitor, self._read_outputs, result, method, model, kwargs)
                    if outputs is not None:
                        call.record(
                            outputs, getattr(model, "classes_", None) if getattr(outputs, "ndim", 1) == 2 else None
                        )
                return result

            return wrapper

        return wrap

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


def each_subclass(roots: Iterable[type]) -> set[type]:
    """Classes and all their subclasses."""
    found: set[type] = set()
    waiting = list(roots)
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            waiting += kind.__subclasses__()
    return found
