"""Which profile a model is compared with: from a folder, else from the models themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otel_mlmon.profile.document import Profile, ProfileError
from otel_mlmon_processor.windows import ModelKey

_LOG: Final = logging.getLogger(__name__)


class References:
    """Profiles of a folder, read again when a file changes.

    Args:
        folder: of `*.json`; None for none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[Path, tuple[tuple[int, int], Profile | None]] = {}
        self._passed_over: set[tuple[str, str, str]] = set()

    @property
    def conflicts(self) -> int:
        """Profiles, from folder or event, that another of the folder has gone before although it differs."""
        return len(self._passed_over)

    def refresh(self) -> None:
        """Read what is new or changed in the folder; what is broken is said once and left out."""
        if self._folder is None:
            return
        present = sorted(self._folder.glob("*.json"))
        for gone in set(self._files) - set(present):
            del self._files[gone]
        for path in present:
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if path in self._files and self._files[path][0] == stamp:
                    continue
                self._files[path] = (stamp, None)
                profile = Profile.load(path)
            except (OSError, ProfileError) as error:
                _LOG.warning("profile left out: %s", error)
                continue
            self._files[path] = (stamp, profile)
            _LOG.info("profile read: %s %s %s from %s", profile.model, profile.version, profile.hash, path)

    def choose(
        self, key: ModelKey, reference_hash: str, sent: Mapping[ModelKey, tuple[Profile, ...]]
    ) -> Profile | None:
        """The profile of a model: the one its points were counted with; where they name none, folder before event."""
        held = [
            p for _, p in self._files.values() if p is not None and (p.model, p.version) == (key.model, key.version)
        ]
        held.sort(key=lambda p: (p.created, p.hash), reverse=True)
        candidates = [*held, *sent.get(key, ())]
        if held:
            self._passed_over |= {(p.model, p.version, p.hash) for p in candidates if p.hash != held[0].hash}
        if reference_hash:
            return next((p for p in candidates if p.hash == reference_hash), None)
        return candidates[0] if candidates else None
