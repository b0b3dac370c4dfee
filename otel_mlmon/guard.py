"""What keeps instrumentation out of the caller's way: nesting, suppression, errors that stay inside."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from otel_mlmon.columns import UnreadableError

logger = logging.getLogger(__name__)

LOGGED: Final = 8  # errors of a monitor that are logged

# > 0 inside a recorded call or where nothing is to be recorded; threads and tasks have their own.
_depth: Final[ContextVar[int]] = ContextVar("otel_mlmon_depth", default=0)


def is_outermost() -> bool:
    """Whether a call made now is not part of another recorded call, and recording is not suppressed."""
    return _depth.get() == 0


@contextmanager
def inside() -> Iterator[None]:
    """Calls made within belong to the one around them (pipeline -> step, server -> model), or to training: they are not
    recorded as serving.
    """
    token = _depth.set(_depth.get() + 1)
    try:
        yield
    finally:
        _depth.reset(token)


suppressed = inside


def enter() -> object:
    """The same as `inside` without a context manager, for the hot path; give the token to `leave`."""
    return _depth.set(_depth.get() + 1)


def leave(token: object) -> None:
    """Undo `enter`."""
    _depth.reset(token)  # type: ignore[arg-type]


class Errors:
    """Errors that stay inside, counted by type; the first of each type is logged, and of input that cannot be read each
    that says something else. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()

    def note(self, error: BaseException, what: str) -> None:
        """Count an error; `what` says what was being done."""
        name = type(error).__name__
        with self._lock:
            self._counts[name] += 1
            said = name, str(error) if isinstance(error, UnreadableError) else ""
            new = said not in self._known and len(self._known) < LOGGED
            if new:
                self._known.add(said)
        if new:
            logger.warning("%s failed, the model is not affected; further %s are only counted: %s", what, name, error)
            logger.debug("where it failed", exc_info=error)

    def collect(self) -> Counter[str]:
        """Errors since the last time, by type."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts
