"""Which windows of a model are over, so that alarms look at them once, and whole."""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE: Final = 60.0  # seconds; the length of the windows that alarms look at


class Hold:
    """Mutable; times are of a clock that only goes forward.

    A window is over when the watermark has left it, as all live replicas have then sent something newer; where nothing
    newer comes, when the watermark has been in it for a minute. And `seconds` later, as collectors and gRPC's limits
    cut an export into requests that come one by one, some of them after another attempt.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entered: deque[tuple[int, float]] = deque()  # windows that the watermark was seen in, and since when

    def see(self, watermark: float, now: float) -> None:
        """The watermark, in seconds of event time, as it is at `now`."""
        window = int(watermark // MINUTE)  # at its end a window is left: nothing newer is in it
        entered = self._entered
        if entered and window <= entered[-1][0]:
            return
        entered.append((window, now))
        while len(entered) > 1 and now - entered[1][1] >= self._seconds:
            entered.popleft()

    def last(self, now: float) -> int:
        """The newest window that is over at `now`; all before it are, too."""
        found = -1
        for window, since in self._entered:
            waited = now - since - self._seconds
            if waited < 0:
                break
            found = window if waited >= MINUTE else window - 1
        return found
