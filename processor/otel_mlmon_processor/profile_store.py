"""Profiles that came as log events: parts are put together, checked, and the newest of each model is kept."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_mlmon.profile.document import Profile, ProfileError
from otel_mlmon_processor.fold_settings import Caps
from otel_mlmon_processor.points import ProfilePart
from otel_mlmon_processor.reasons import Reason, Unusable
from otel_mlmon_processor.windows import ModelKey

Parse = Callable[[bytes], Profile]

_GZIP: Final = 16 + zlib.MAX_WBITS


class _BrokenError(Exception):
    """A profile cannot be used; the argument is the reason."""

    def __init__(self, reason: Unusable) -> None:
        super().__init__(reason)
        self.reason = reason


class _Held(NamedTuple):
    profile: Profile
    document: bytes
    digest: str


@dataclass(slots=True)
class _Assembly:
    parts: int
    bodies: dict[int, bytes] = field(default_factory=dict)


class ProfileStore:
    """Profiles by model and hash.

    Args:
        caps: how many profiles of a model, the oldest of which a newer one replaces; how large a document, and all of
            them; how many of which parts are missing, and their bytes: beyond, the oldest of these is given up.
        parse: reads a document.
    """

    def __init__(self, caps: Caps, parse: Parse = Profile.from_bytes) -> None:
        self._caps = caps
        self._parse = parse
        self._documents: dict[ModelKey, dict[str, _Held]] = {}
        self._assemblies: dict[tuple[int, ModelKey, str], _Assembly] = {}
        self.conflicts = 0

    def add(self, producer: int, key: ModelKey, part: ProfilePart, refused: Counter[Reason]) -> None:
        """Take in a part; what cannot be used is counted in `refused`."""
        if part.hash in self._documents.get(key, {}):
            return  # it is sent again every hour
        place = (producer, key, part.hash)
        assembly = self._assemblies.get(place)
        if assembly is None or assembly.parts != part.parts:
            assembly = self._assemblies[place] = _Assembly(part.parts)
        assembly.bodies[part.part] = part.body
        if len(assembly.bodies) < assembly.parts:
            while len(self._assemblies) > self._caps.assemblies or self._waiting_bytes() > self._caps.assembly_bytes:
                del self._assemblies[next(iter(self._assemblies))]
                refused["profile_incomplete"] += 1
            return
        del self._assemblies[place]
        try:
            self._keep(key, *self._read(key, part, assembly))
        except _BrokenError as error:
            refused[error.reason] += 1

    def newest(self) -> Mapping[ModelKey, Profile]:
        """The profile of each model that was created last."""
        return {key: profiles[0] for key, profiles in self.every().items()}

    def every(self) -> Mapping[ModelKey, tuple[Profile, ...]]:
        """All profiles of each model, the one created last first."""
        return {
            key: tuple(sorted((one.profile for one in held.values()), key=_age, reverse=True))
            for key, held in self._documents.items()
        }

    def forget(self, key: ModelKey) -> None:
        """A model is retired."""
        self._documents.pop(key, None)

    def dump(self) -> list[Any]:
        """As plain values, for the checkpoint; what is in `documents` by its digest."""
        documents = [[list(key), one.digest] for key, held in self._documents.items() for one in held.values()]
        assemblies = [
            [producer, list(key), digest, assembly.parts, [[part, body] for part, body in assembly.bodies.items()]]
            for (producer, key, digest), assembly in self._assemblies.items()
        ]
        return [documents, assemblies, self.conflicts]

    def documents(self) -> Mapping[str, bytes]:
        """Of all profiles, by digest."""
        return {one.digest: one.document for held in self._documents.values() for one in held.values()}

    def load(self, plain: list[Any], documents: Mapping[str, bytes]) -> None:
        """Take up what `dump` and `documents` gave.

        Raises:
            KeyError: the document of a digest is missing.
        """
        digests, assemblies, self.conflicts = plain
        for key, digest in digests:
            profile = self._parse(documents[digest])
            self._documents.setdefault(ModelKey(*key), {})[profile.hash] = _Held(profile, documents[digest], digest)
        for producer, key, digest, parts, bodies in assemblies:
            held = dict(bodies)
            self._assemblies[producer, ModelKey(*key), digest] = _Assembly(parts, held)

    def _measure(self, key: ModelKey) -> int:
        return sum(len(one.document) for one in self._documents[key].values())

    def _waiting_bytes(self) -> int:
        return sum(len(body) for assembly in self._assemblies.values() for body in assembly.bodies.values())

    def _read(self, key: ModelKey, part: ProfilePart, assembly: _Assembly) -> tuple[Profile, bytes]:
        packed = b"".join(assembly.bodies[number] for number in range(1, assembly.parts + 1))
        unpacker = zlib.decompressobj(_GZIP)
        try:
            document = unpacker.decompress(packed, self._caps.profile_bytes)
        except zlib.error:
            raise _BrokenError("profile_not_gzip") from None
        if not unpacker.eof:
            raise _BrokenError("profile_too_large" if unpacker.unconsumed_tail else "profile_not_gzip")
        try:
            profile = self._parse(document)
        except ProfileError:
            raise _BrokenError("profile_invalid") from None
        if profile.hash != part.hash or (profile.model, profile.version) != (key.model, key.version):
            raise _BrokenError("profile_mismatch")
        return profile, document

    def _keep(self, key: ModelKey, profile: Profile, document: bytes) -> None:
        if len(document) + sum(map(self._measure, self._documents)) > self._caps.document_bytes:
            raise _BrokenError("too_many_profiles")
        held = self._documents.setdefault(key, {})
        self.conflicts += bool(held)
        held[profile.hash] = _Held(profile, document, name_document(document))
        if len(held) > self._caps.profiles:
            oldest = min((one.profile for one in held.values()), key=_age)
            del held[oldest.hash]


def name_document(document: bytes) -> str:
    """Its digest: of the bytes, as a profile's hash is the same however it is written."""
    return hashlib.sha256(document).hexdigest()


def _age(profile: Profile) -> tuple[str, str]:
    """Orders by creation, and by hash where that is equal, so that every order of arrival ends alike."""
    return profile.created, profile.hash
