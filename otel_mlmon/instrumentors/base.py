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
from otel_mlmon.profile.document import ATTRIBUTE, Profile

logger = logging.getLogger(__name__)

MAX_MODELS: Final = 100
Call = Callable[..., Any]
# Turns an input into rows, and an output into what `record` takes; either may be None where there is nothing to count.
ReadRows = Callable[[Any], Any]
ReadOutputs = Callable[[Any, str, Any], Any]


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
        # With the text of the profile that the model had then: one can be attached after the first prediction.
        self._by_model: weakref.WeakKeyDictionary[Any, tuple[Monitor | None, Any]] = weakref.WeakKeyDictionary()
        self._by_identity: dict[tuple[str, str, str], Monitor] = {}
        self._default: Profile | None = None
        self._default_read = False

    def find(self, model: Any) -> Monitor | None:
        """The monitor of a model; None where it cannot be monitored, which is logged once."""
        text = getattr(model, "__dict__", {}).get(ATTRIBUTE)
        try:
            monitor, known = self._by_model[model]
            if known is text:
                return monitor
        except KeyError:
            pass
        except TypeError:  # no weak references or no hash
            return self._make(model)
        monitor = self._make(model)
        with self._lock:
            self._by_model[model] = monitor, text
        return monitor

    def close(self) -> None:
        """Send what is left."""
        with self._lock:
            monitors, self._by_identity = list(self._by_identity.values()), {}
            self._by_model.clear()
        for monitor in monitors:
            monitor.close()

    def _make(self, model: Any) -> Monitor | None:
        with self._lock:
            try:
                profile = Profile.attached(model) or self._read_default()
            except Exception as error:
                logger.warning("the profile of a %s cannot be used: %s", type(model).__name__, error)
                profile = None
            name = profile.model if profile else self._settings.model_name or type(model).__name__
            version = profile.version if profile else self._settings.model_version
            identity = (name, version, profile.hash if profile else "")
            if identity not in self._by_identity:
                if len(self._by_identity) >= MAX_MODELS:
                    logger.warning("%s %s is not monitored: there are %d models already", name, version, MAX_MODELS)
                    return None
                self._by_identity[identity] = Monitor(profile or name, version, settings=self._settings)
            return self._by_identity[identity]

    def _read_default(self) -> Profile | None:
        if not self._default_read:
            self._default_read = True
            if self._settings.profile:
                self._default = Profile.load(self._settings.profile)
        return self._default


class Wrapping:
    """Replaces methods and remembers the originals, so that `restore` puts the very same objects back."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []
        self._lock = threading.Lock()

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace owner.__dict__[name] by make(original), unless it has been replaced before."""
        original = vars(owner)[name]
        if getattr(original, "_otel_mlmon_wrapper", False):
            return
        wrapper = make(original)
        wrapper._otel_mlmon_wrapper = True  # noqa: SLF001 -- a mark of our own
        with self._lock:
            self._originals.append((owner, name, original))
        setattr(owner, name, wrapper)

    def restore(self) -> None:
        """Put all originals back."""
        with self._lock:
            originals, self._originals = self._originals[::-1], []
        for owner, name, original in originals:
            setattr(owner, name, original)


class Method:
    """Stands in for a method that is a descriptor of its own, such as sklearn's `available_if`."""

    def __init__(self, original: Any, around: Callable[[Call], Call]) -> None:
        functools.update_wrapper(self, original)  # type: ignore[arg-type]  # a descriptor is taken like a function
        self._original, self._around = original, around

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        bound = self._original.__get__(instance, owner)  # raises AttributeError where the method is not available
        around = self._around(bound.__func__ if instance is not None else bound)
        return around.__get__(instance, owner) if instance is not None else around


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
        read_outputs: see ReadOutputs; gets output, method and model.
    """

    def __init__(
        self, monitors: Monitors, framework: str, version: str, *, read_rows: ReadRows, read_outputs: ReadOutputs
    ) -> None:
        self._monitors, self._framework, self._version = monitors, framework, version
        self._read_rows, self._read_outputs = read_rows, read_outputs

    def around(self, method: str) -> Callable[[Call], Call]:
        """What to put around a method that predicts."""

        def wrap(function: Call) -> Call:
            @functools.wraps(function)
            def wrapper(model: Any, *args: Any, **kwargs: Any) -> Any:
                monitor = self._monitors.find(model) if is_outermost() else None
                if monitor is None:
                    return function(model, *args, **kwargs)
                rows = self._try(self._read_rows, args[0] if args else _first(kwargs))
                with monitor.inference(rows, method, self._framework, self._version) as call:
                    result = function(model, *args, **kwargs)
                    outputs = self._try(self._read_outputs, result, method, model)
                    if outputs is not None:
                        call.record(outputs)
                return result

            return wrapper

        return wrap

    def _try(self, read: Callable[..., Any], *args: Any) -> Any:
        try:
            return read(*args)
        except Exception as error:
            logger.debug("could not be read: %s", error)
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
