"""`otel-mlmon processor` as it is, which also notes in a shared file what it is doing, and kills itself in the stage
that chaos.py asks for.

The file holds one counter for each stage, of the threads that are in it; the kernel keeps it when the process dies.
Behind them stands where to die: the stage's number from one, and how long after it began, in tenths of a millisecond.
All is imported once; then each line on standard input, the arguments as JSON, starts a processor as a process of its
own, and its number and its exit status are written to standard output.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

from otel_mlmon import cli

STAGES = (
    "start",  # until it listens
    "recovery",  # of the checkpoint and the journal, within the start
    "receive",  # decoding a request
    "append",  # of requests to the journal
    "commit",  # of either transaction: SQLite syncs, and now and then moves its log into the file
    "fold",
    "checkpoint",  # dump of the state, and its transaction
    "evaluate",
    "expose",  # /metrics
    "export",  # sending the same by OTLP
    "forward",  # passing on what is none of ours
    "shutdown",
)


class Board:
    """The shared file, as who writes it sees it."""

    size = len(STAGES) + 2

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.size)
        self._lock = threading.Lock()

    def add(self, stage: str, by: int) -> None:
        with self._lock:
            self._map[STAGES.index(stage)] += by

    def _die(self) -> None:
        time.sleep(self._map[-1] * 1e-4)
        os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def during(self, stage: str):
        self.add(stage, 1)
        if self._map[-2] == STAGES.index(stage) + 1:
            if self._map[-1]:
                threading.Thread(target=self._die, daemon=True).start()
            else:
                self._die()
        try:
            yield
        finally:
            self.add(stage, -1)

    def watch(self, owner: object, name: str, stage: str) -> None:
        """Note when a method runs."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def watched(*args, **kwargs):
            with self.during(stage):
                return method(*args, **kwargs)

        setattr(owner, name, watched)


def instrument(board: Board) -> None:
    from otel_mlmon_processor import app, fold, forward, ingest, journal, receiver
    from otel_mlmon_processor.exporters import otlp

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters):
            with board.during("commit") if sql == "COMMIT" else contextlib.nullcontext():
                return super().execute(sql, *parameters)

    journal.sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)
    expose = app.expose
    app.expose = lambda families: (part for part in list(expose(families)))
    start = receiver.Receiver.start

    def listen(self) -> None:
        start(self)
        board.add("start", -1)

    receiver.Receiver.start = listen
    for owner, name, stage in (
        (ingest.Ingest, "_recover", "recovery"),
        (ingest.Ingest, "_read", "receive"),
        (journal.Journal, "append", "append"),
        (fold.Fold, "apply", "fold"),
        (ingest.Ingest, "_make", "checkpoint"),
        (app.Processor, "_evaluate", "evaluate"),
        (app, "expose", "expose"),
        (otlp.OtlpExporter, "_send", "export"),
        (forward.Forwarder, "_send", "forward"),
        (app.Processor, "stop", "shutdown"),
    ):
        board.watch(owner, name, stage)


def run(board: Path, arguments: list[str]) -> int:
    notes = Board(board)
    notes.add("start", 1)
    instrument(notes)
    return cli.main(arguments)


def main() -> None:
    board = Path(sys.argv[1])
    from otel_mlmon_processor import app  # noqa: F401 -- imported once

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os.close(0)
            os.dup2(2, 1)
            sys.exit(run(board, json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
