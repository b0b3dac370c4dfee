"""Trees of plain values, bytes and numpy arrays as bytes: JSON for the tree, the buffers behind it, lz4 over parts."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import lz4.block
import numpy as np

_MAGIC: Final = b"mlmonpk2"
_UNPACK: Final[dict[bytes, Callable[[bytes], bytes]]] = {_MAGIC: lz4.block.decompress, b"mlmonpk1": zlib.decompress}
_TYPES: Final = {"b": None, "q": np.dtype("<i8"), "d": np.dtype("<f8"), "i": np.dtype("<i4"), "I": np.dtype("<u4")}
_CODES: Final = {dtype: code for code, dtype in _TYPES.items() if dtype is not None}
_PART: Final = 16 << 20  # bytes of a part, or more, before it is made small
_MARK: Final = "\x00"  # key of the object that stands for a buffer; plain objects have text keys without it


_Item = TypeVar("_Item", bound=Hashable)


class Table(Generic[_Item]):
    """Items that are met often, each kept once: the place of each in `items`."""

    def __init__(self) -> None:
        self._places: dict[_Item, int] = {}

    @property
    def items(self) -> list[_Item]:
        """Each item once, by place."""
        return list(self._places)

    def place(self, item: _Item) -> int:
        """Where it is."""
        return self._places.setdefault(item, len(self._places))


class PackError(ValueError):
    """The bytes were not written by `pack`, or are damaged."""


class Piece(NamedTuple):
    """A tree as text, with the buffers that it refers to in their order."""

    text: str
    buffers: Sequence[bytes | memoryview]


def encode(tree: Any) -> Piece:
    """A tree of None, bool, int, float, str, bytes, one-dimensional arrays, lists, and dicts with text keys. It may
    change afterwards, but for its arrays, which are not copied.
    """
    buffers: list[bytes | memoryview] = []

    def replace(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            dtype = value.dtype.newbyteorder("<")
            buffers.append(np.ascontiguousarray(value, dtype).view(np.uint8).data)
            return {_MARK: _CODES[dtype] + str(len(buffers[-1]))}
        if isinstance(value, bytes):
            buffers.append(value)
            return {_MARK: f"b{len(value)}"}
        raise TypeError(f"cannot pack {type(value).__name__}")

    # JSON asks for what it does not know in the order of writing; reading goes by the same order.
    return Piece(json.dumps(tree, default=replace, separators=(",", ":")), buffers)


def join(pieces: Iterable[Piece]) -> Piece:
    """The list of these trees."""
    kept = list(pieces)
    return Piece(f"[{','.join([piece.text for piece in kept])}]", [each for piece in kept for each in piece.buffers])


def seal(piece: Piece) -> list[bytes]:
    """The parts that `unpack` reads: made small one by one, as all at once may be larger than the memory, and than what
    lz4 and SQLite take.
    """
    return [_shrink(part) for part in _cut(piece)]


def pack(tree: Any) -> bytes:
    """A tree that is not large, in one part."""
    return _shrink(b"".join(_cut(encode(tree))))


def _cut(piece: Piece) -> Iterator[bytes]:
    held: list[memoryview] = []
    size = 0
    text = piece.text.encode()
    for buffer in (struct.pack("<Q", len(text)), text, *piece.buffers):
        for first in range(0, len(buffer), _PART):
            held.append(memoryview(buffer)[first : first + _PART])
            size += len(held[-1])
            if size >= _PART:
                yield b"".join(held)
                held, size = [], 0
    if held:
        yield b"".join(held)


def _shrink(part: bytes) -> bytes:
    return _MAGIC + bytes(lz4.block.compress(part))


def unpack(*parts: bytes) -> Any:
    """The tree again; tuples have become lists.

    Raises:
        PackError: see there.
    """
    try:
        packed = _Reader(parts)
        (length,) = struct.unpack("<Q", packed.read(8))

        def restore(value: dict[str, Any]) -> Any:
            mark = value.get(_MARK)
            if mark is None:
                return value
            buffer, dtype = packed.read(int(mark[1:])), _TYPES[mark[0]]
            return buffer if dtype is None else np.frombuffer(buffer, dtype=dtype).copy()

        return json.loads(packed.read(length), object_hook=restore)
    except PackError:
        raise
    except (zlib.error, lz4.block.LZ4BlockError, struct.error, KeyError, ValueError) as error:
        raise PackError(f"the packed tree is damaged: {error}") from error


class _Reader:
    """What is in parts, from the first to the last; one of them is open at a time."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._held = memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if size < 0:
            raise ValueError("a size below zero")
        found: list[memoryview] = []
        while size > len(self._held):
            found.append(self._held)
            size -= len(self._held)
            self._held = self._open_next()
        found.append(self._held[:size])
        self._held = self._held[size:]
        return b"".join(found)

    def _open_next(self) -> memoryview:
        part = next(self._parts, None)
        if part is None:
            raise PackError("the packed tree is cut off")
        open_up = _UNPACK.get(part[: len(_MAGIC)])
        if open_up is None:
            raise PackError("not a packed tree of this version")
        return memoryview(open_up(part[len(_MAGIC) :]))


def flatten(tree: Any) -> Any:
    """A tree in which arrays of any shape are one-dimensional, with their shapes beside them."""
    if isinstance(tree, np.ndarray):
        return {"shape": list(tree.shape), "flat": tree.ravel()}
    if isinstance(tree, dict):
        return {key: flatten(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [flatten(value) for value in tree]
    return tree


def unflatten(tree: Any) -> Any:
    """What `flatten` was given; tuples have become lists."""
    if isinstance(tree, dict):
        if tree.keys() == {"shape", "flat"}:
            return tree["flat"].reshape(tree["shape"])
        return {key: unflatten(value) for key, value in tree.items()}
    return [unflatten(value) for value in tree] if isinstance(tree, list) else tree
