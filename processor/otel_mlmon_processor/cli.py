"""The commands `otel-mlmon processor` and `otel-mlmon status`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from otel_mlmon.cli import Command, CommandError
from otel_mlmon.wording import printable
from otel_mlmon_processor.config import ConfigError, read_config

_YOUNG: Final = 1_000  # garbage collections of what is young between two of everything
_ARENA_MAX: Final = -8  # of malloc.h
_MMAP_THRESHOLD: Final = -3  # too
_TURN: Final = 5e-4  # s, that a thread may go on while another waits to


class _OneLine(logging.Formatter):
    """A line for each event, whatever names are in it; only the traceback of an error of ours has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the base class's name
        return printable(super().formatMessage(record))


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `processor`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (YAML); flags go before it")
    parser.add_argument("--listen", metavar="HOST:PORT", help="OTLP over gRPC (127.0.0.1:4317; port 0: a free one)")
    parser.add_argument("--listen-http", metavar="HOST:PORT", help="OTLP over HTTP (127.0.0.1:4318), or off")
    parser.add_argument("--http", metavar="HOST:PORT", help="/metrics, /healthz, /readyz (127.0.0.1:9464)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="what must not be lost (mlmon-data)")
    parser.add_argument("--profiles", type=Path, metavar="DIR", help="profiles that go before those that models send")
    parser.add_argument("--check", action="store_true", help="check the settings and end")


def run(args: argparse.Namespace) -> int:
    """Run the processor until SIGTERM or SIGINT."""
    try:
        flags = ("listen", "listen_http", "http", "data", "profiles")
        config = read_config(args.config, **{name: getattr(args, name) for name in flags})
    except ConfigError as error:
        raise CommandError(str(error)) from None
    if args.check:
        print("the settings are right")
        return 0
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is imported: it writes to stderr in a form of its own
    from otel_mlmon_processor.app import Processor
    from otel_mlmon_processor.journal import JournalError

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # A signal may come to any thread, and as this one begins to wait for a lock: of a byte it hears in each case.
    asked, asking = socket.socketpair()
    asking.setblocking(False)
    signal.set_wakeup_fd(asking.fileno())

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # who asks a second time does not want to wait; nothing is lost by it

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    # A whole collection goes through all that is held, and requests wait for it: 0.4 s with 175,000 streams, every few
    # seconds. What is held has no cycles.
    gc.set_threshold(*gc.get_threshold()[:2], _YOUNG)
    # A request takes several turns, which a long evaluation would otherwise put off by 5 ms each.
    sys.setswitchinterval(_TURN)
    _give_memory_back()
    try:
        processor = Processor(config)
        processor.start()
    except JournalError as error:
        raise CommandError(str(error)) from None
    asked.recv(1)
    processor.stop()
    return 0


def _give_memory_back() -> None:
    """Have glibc give back what is free; other C libraries have no arenas, or no mallopt.

    All threads take memory from two arenas. It makes eight a core: after a flood each kept what its threads had held at
    most, a quarter of a gigabyte in all. And large pieces, of a checkpoint or an evaluation, go back to the system when
    they are free; it would keep them from the first time on, and small ones that last between them.
    """
    with contextlib.suppress(OSError, AttributeError):
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_ARENA_MAX, 2)
        malloc.mallopt(_MMAP_THRESHOLD, 1 << 20)


COMMAND = Command("receive OTLP, compare models with their profiles, expose the verdict to Prometheus", configure, run)
