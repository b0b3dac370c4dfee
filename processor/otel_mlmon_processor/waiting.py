"""Requests that wait for the writer: how many may, and whose turn it is."""

from __future__ import annotations

import threading
from collections import deque

from otel_mlmon_processor.batch import Batch
from otel_mlmon_processor.intake import Outcome, RefusedError


class Request:
    """A request on its way through the writer's thread; a lock is by far the cheapest thing to wait on.

    `batch` is what was read, `waits` whether it is to be passed on, `answer` what became of it.
    """

    __slots__ = ("_answered", "answer", "batch", "body", "client", "signal", "waits")

    def __init__(self, signal: str, body: bytes, client: str) -> None:
        self.signal, self.body, self.client = signal, body, client
        self.batch = Batch((), 0)
        self.waits = False
        self.answer: Outcome | RefusedError = Outcome(0)
        self._answered = threading.Lock()
        self._answered.acquire()

    def wait(self) -> Outcome:
        """The answer, as soon as it is there."""
        self._answered.acquire()
        answer, self.answer = self.answer, Outcome(0)
        if isinstance(answer, Outcome):
            return answer
        try:
            raise answer
        finally:
            del answer  # its traceback holds this frame, which would hold it, and with both the request

    def wake(self) -> None:
        """The answer is there."""
        self._answered.release()


class Queue:
    """Those of each client apart; not thread-safe. A request counts from `admit` until `leave`.

    Args:
        most, most_bytes: that may be in it.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._waiting: dict[str, deque[Request]] = {}  # by client
        self._shares: dict[str, tuple[int, int]] = {}  # requests and bytes of each client
        self.requests = 0
        self._bytes = 0

    @property
    def waits(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    def admit(self, request: Request) -> bool:
        """Let it wait, if there is room."""
        size = len(request.body)
        if not self._has_room(request.client, size):
            return False
        requests, held = self._shares.get(request.client, (0, 0))
        self._shares[request.client] = requests + 1, held + size
        self.requests += 1
        self._bytes += size
        self._waiting.setdefault(request.client, deque()).append(request)
        return True

    def take(self, enough: int, enough_bytes: int) -> list[Request]:
        """Some that wait, one of each client in turn: who sends little waits for little, also of others."""
        taken: list[Request] = []
        held = 0
        while self._waiting and len(taken) < enough and held < enough_bytes:
            client = next(iter(self._waiting))
            queue = self._waiting.pop(client)
            taken.append(queue.popleft())
            held += len(taken[-1].body)
            if queue:
                self._waiting[client] = queue  # behind the others
        return taken

    def leave(self, request: Request) -> None:
        """It has its answer."""
        size = len(request.body)
        self.requests -= 1
        self._bytes -= size
        requests, held = self._shares.pop(request.client)
        if requests > 1:
            self._shares[request.client] = requests - 1, held - size

    def _has_room(self, client: str, size: int) -> bool:
        """Whether a request may wait. A client may take an equal share, where one more client counts as present, and a
        quarter of all is for those of which none waits: so there is room for who comes new, however many requests
        others send.
        """
        most, most_bytes = self._most, self._most_bytes
        requests, held = self._shares.get(client, (0, 0))
        if requests:
            clients = len(self._shares) + 1
            if requests >= most // clients or held + size > most_bytes // clients:
                return False
            most, most_bytes = most - most // 4, most_bytes - most_bytes // 4
        room = self.requests < most and self._bytes + size <= most_bytes
        return room or not self.requests  # a large one alone, or it could never be
