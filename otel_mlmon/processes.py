"""What must be done with every monitor when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

EXIT_SECONDS: Final = 5.0
FORK_SECONDS: Final = 1.0


class Lasting(Protocol):
    """What a monitor offers; see there."""

    def prepare_fork(self, timeout: float) -> None: ...  # noqa: D102
    def resume(self) -> None: ...  # noqa: D102
    def restart(self) -> None: ...  # noqa: D102
    def ask_to_close(self) -> None: ...  # noqa: D102
    def close(self, timeout: float) -> None: ...  # noqa: D102
    def note(self, error: BaseException) -> None: ...  # noqa: D102


open_monitors: Final[set[Lasting]] = set()  # those that are made and not closed


def _each(act: Callable[[Lasting, float], None], seconds: float = 0.0) -> None:
    """Do something with every open monitor, which have so many seconds for it all together."""
    deadline = time.monotonic() + seconds
    for monitor in tuple(open_monitors):
        try:
            act(monitor, max(deadline - time.monotonic(), 0.0))
        except Exception as error:
            monitor.note(error)


def _before_fork() -> None:
    _each(lambda monitor, timeout: monitor.prepare_fork(timeout), FORK_SECONDS)


def _after_in_parent() -> None:
    _each(lambda monitor, _: monitor.resume())


def _after_in_child() -> None:
    _each(lambda monitor, _: monitor.restart())


def _at_exit() -> None:
    _each(lambda monitor, _: monitor.ask_to_close())  # so that all send at the same time
    _each(lambda monitor, timeout: monitor.close(timeout), EXIT_SECONDS)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
atexit.register(_at_exit)
