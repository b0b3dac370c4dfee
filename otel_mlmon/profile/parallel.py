"""Both cores: columns side by side, and reading ahead of counting."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")
Task = Callable[[], None]
Run = Callable[[Iterable[Task]], None]

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS: Final = min(8, CORES)
AHEAD: Final = 2  # chunks that are read before they are asked for
_END: Final = object()


@contextmanager
def side_by_side() -> Iterator[Run]:
    """A function that calls others, several at a time, and returns when all are done; give the longest first.

    numpy sorts and Arrow encodes without holding Python's lock. The first exception is raised.
    """
    with ThreadPoolExecutor(WORKERS) as pool:

        def run(tasks: Iterable[Task]) -> None:
            waiting = iter(list(tasks))  # whose next() is atomic

            def work(_: int) -> None:
                for task in waiting:
                    task()

            list(pool.map(work, range(WORKERS)))

        yield run


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, made by a thread of their own, a few ahead of whoever takes them."""
    waiting: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def offer(item: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not offer((item, None)):
                    return
            offer((_END, None))
        except BaseException as error:
            offer((_END, error))

    thread = threading.Thread(target=make, name="otel-mlmon-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
