"""The alarms' state on disk: one file, written whole or not at all, from time to time and after each event.

It may be older than the counts: the windows since then are still held by the fold and are looked at again. Events of
alarms that an endpoint has not taken are in it too: what says that they were told is not on the disk without them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_mlmon_processor.database import open_private
from otel_mlmon_processor.pack import PackError, pack, unpack

_LOG = logging.getLogger(__name__)
FILE: Final = "alarms.state"
VERSION: Final = 5


class Saved(NamedTuple):
    """What is in the file: models by name, and endpoints, each with the events that it has not taken."""

    models: dict[str, Any]
    unsent: list[tuple[str, Sequence[Any]]]


class AlarmStore:
    """The file in a data directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def load(self) -> Saved:
        """What was saved; nothing where there is no file. A file that cannot be read is put aside."""
        try:
            return self.read()
        except FileNotFoundError:
            return Saved({}, [])
        except ValueError as error:
            aside = self._path.with_suffix(".broken")
            self._path.replace(aside)
            _LOG.error("the alarms' state cannot be read (%s); it is now %s, and alarms begin anew", error, aside)
        return Saved({}, [])

    def read(self) -> Saved:
        """What was saved.

        Raises:
            OSError: there is no file, or it cannot be read.
            ValueError: it is damaged, or of another version.
        """
        try:
            found = unpack(self._path.read_bytes())
            if found["version"] == VERSION:
                return Saved(dict(found["models"]), list(found["unsent"]))
        except (KeyError, TypeError) as error:
            raise PackError(str(error)) from error
        raise ValueError(f"version {found['version']}, and {VERSION} is known")

    def save(self, saved: Saved) -> None:
        """Write it, synced."""
        part = self._path.with_suffix(".part")
        with open(part, "wb", opener=open_private) as file:
            file.write(pack({"version": VERSION, "models": saved.models, "unsent": saved.unsent}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
