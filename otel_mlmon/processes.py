"""What must be done with every monitor when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

EXIT_SECONDS: Final = 5.0
FORK_SECONDS: Final = 1.0
GRPC_SECONDS: Final = 0.25
_LAST: Final = -100  # priority among multiprocessing's finalizers: after its queues, which are at -5
_TASKS: Final = Path("/proc/self/task")
_GRPC_THREADS: Final = ("grpc", "event_engine", "lifeguard", "default-exec", "resolver-exec", "timer_")


class Lasting(Protocol):
    """What a monitor offers; see there."""

    def prepare_fork(self, timeout: float) -> bool: ...  # noqa: D102
    def resume(self) -> None: ...  # noqa: D102
    def restart(self) -> None: ...  # noqa: D102
    def ask_to_close(self) -> None: ...  # noqa: D102
    def close(self, timeout: float) -> None: ...  # noqa: D102
    def note(self, error: BaseException) -> None: ...  # noqa: D102


open_monitors: Final[set[Lasting]] = set()  # those that are made and not closed
# Held by who imports on a thread of ours, and over a fork: in a child that is forked meanwhile the module would be
# locked for ever.
importing: Final = threading.RLock()


def _each(act: Callable[[Lasting, float], None], seconds: float = 0.0) -> None:
    """Do something with every open monitor, which have so many seconds for it all together."""
    deadline = time.monotonic() + seconds
    for monitor in tuple(open_monitors):
        try:
            act(monitor, max(deadline - time.monotonic(), 0.0))
        except Exception as error:
            monitor.note(error)


def _before_fork() -> None:
    importing.acquire()
    closed: list[bool] = []
    _each(lambda monitor, timeout: closed.append(monitor.prepare_fork(timeout)), FORK_SECONDS)
    if any(closed) and "grpc" in sys.modules:
        _await_grpc(time.monotonic() + GRPC_SECONDS)


def _await_grpc(deadline: float) -> None:
    """Wait for gRPC's threads, which go on for some milliseconds after the last channel was closed: a child that is
    forked meanwhile would wait for them for ever. Where the application has channels of its own they do not end.
    """
    if not _TASKS.is_dir():
        time.sleep(GRPC_SECONDS / 10)
        return
    while time.monotonic() < deadline and any(map(_is_of_grpc, _TASKS.iterdir())):
        time.sleep(0.001)


def _is_of_grpc(task: Path) -> bool:
    try:
        return (task / "comm").read_text().startswith(_GRPC_THREADS)
    except OSError:  # it has just ended
        return False


def _after_in_parent() -> None:
    _each(lambda monitor, _: monitor.resume())
    importing.release()


def _after_in_child() -> None:
    children.forget()
    _each(lambda monitor, _: monitor.restart())
    importing.release()


def _at_exit() -> None:
    _each(lambda monitor, _: monitor.ask_to_close())  # so that all send at the same time
    _each(lambda monitor, timeout: monitor.close(timeout), EXIT_SECONDS)


class _Children:
    """Children of multiprocessing end by `os._exit`, without atexit, and run their finalizers before it."""

    def __init__(self) -> None:
        self._registered = False
        self._finalizer: Any = None

    def watch(self) -> None:
        """Close monitors at the end, where this process is such a child or becomes one, as those of `spawn` do late."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        if not self._registered:
            util.register_after_fork(self, _Children.watch)
            self._registered = True
        if sys.modules["multiprocessing.process"].parent_process() is None:
            return
        if self._finalizer is None or not self._finalizer.still_active():  # a child forgets those of before it was one
            self._finalizer = util.Finalize(None, _after_threads, exitpriority=_LAST)

    def forget(self) -> None:
        """In the child of a fork, where the parent's does nothing."""
        self._finalizer = None


def _after_threads() -> None:
    """Close monitors when the application's threads have ended: for those a child waits after its finalizers."""
    others = [t for t in threading.enumerate() if not t.daemon and t is not threading.current_thread()]

    def close() -> None:
        for thread in others:
            thread.join()
        _at_exit()

    threading.Thread(target=close, name="otel-mlmon-exit").start()


children: Final = _Children()
os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
atexit.register(_at_exit)
