"""The alarms' state on disk: one file, written whole or not at all, from time to time and after each event.

It may be older than the counts: the windows since then are still held by the fold and are looked at again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from otel_mlmon_processor.database import open_private
from otel_mlmon_processor.pack import PackError, pack, unpack

_LOG = logging.getLogger(__name__)
FILE: Final = "alarms.state"
VERSION: Final = 4


class AlarmStore:
    """The file in a data directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def load(self) -> dict[str, Any]:
        """What was saved, by name; nothing where there is no file. A file that cannot be read is put aside."""
        try:
            return self.read()
        except FileNotFoundError:
            return {}
        except ValueError as error:
            aside = self._path.with_suffix(".broken")
            self._path.replace(aside)
            _LOG.error("the alarms' state cannot be read (%s); it is now %s, and alarms begin anew", error, aside)
        return {}

    def read(self) -> dict[str, Any]:
        """What was saved, by name.

        Raises:
            OSError: there is no file, or it cannot be read.
            ValueError: it is damaged, or of another version.
        """
        try:
            found = unpack(self._path.read_bytes())
            if found["version"] == VERSION:
                return dict(found["models"])
        except (KeyError, TypeError) as error:
            raise PackError(str(error)) from error
        raise ValueError(f"version {found['version']}, and {VERSION} is known")

    def save(self, models: Mapping[str, Any]) -> None:
        """Write it, synced."""
        part = self._path.with_suffix(".part")
        with open(part, "wb", opener=open_private) as file:
            file.write(pack({"version": VERSION, "models": dict(models)}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
