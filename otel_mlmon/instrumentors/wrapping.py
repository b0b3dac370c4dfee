"""Replacing methods of classes, and putting the originals back."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from otel_mlmon.guard import inside

_ABSENT: Final = object()
Call = Callable[..., Any]


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
