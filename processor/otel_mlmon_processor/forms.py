"""Messages that come again alike: what is the same in them is understood once.

A process sends the same series each time. Its message then has the same bytes, but for times, counts and sums, which
OTLP writes with 8 bytes each and which so stay in their places. A form is learnt from a message that was read in full:
where these numbers are, and what the rest means. From the next such message the numbers are taken all at once; the
points are those that reading in full gives, which is verified when a form is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_mlmon_processor.blocks import Block, Form, Known, Shape
from otel_mlmon_processor.points import GAUGE, Point
from otel_mlmon_processor.reading import Reading
from otel_mlmon_processor.reasons import Reason

_VARINT, _FIXED, _LENGTH = 0, 1, 2  # kinds of fields on the wire
_RESOURCE, _SCOPES, _SCOPE, _METRICS = 1, 2, 1, 2
_NAME, _DATA_POINTS = 1, 1
_GAUGE, _SUM, _HISTOGRAM = 5, 7, 9
_START, _END = 2, 3  # of points of all kinds
# Other fields of a point: whether they hold a number that changes. One that is absent here has no place in a form.
_NUMBER_FIELDS: Final = {_START: True, _END: True, 4: True, 6: True, 7: False}
_HISTOGRAM_FIELDS: Final = {_START: True, _END: True, 4: True, 5: True, 6: True, 7: False, 9: False, 11: True, 12: True}
_VALUE, _COUNT, _TOTAL, _CELLS = 6, 4, 5, 6
_FLOAT = 4  # a plain number that is not whole
_LARGEST: Final = 1 << 20  # bytes of a message that is worth a form
_MOST_BYTES: Final = 40 << 20  # of all forms; what the fold keeps of them is about half as much again
_MOST: Final = 4096  # forms
_MOST_SHAPES: Final = 8  # of messages of one length: each is tried
_MOST_MESSAGES: Final = 4096  # of a request that are read one by one
_LENGTHS: Final = 1024  # of messages that have been seen once
_REST: Final = 4  # times as many messages as there are forms pass before one that was not among them makes way


class _OtherFormError(Exception):
    """A message has something that need not stay in its place."""


class Forms:
    """Forms that have been learnt, bounded; not thread-safe."""

    def __init__(self) -> None:
        self._shapes: dict[int, list[Shape]] = {}  # by the length of the message
        self._forms: dict[int, list[Form]] = {}  # by a sum over what is the same
        self._lengths: dict[int, None] = {}
        self._unsound = b""  # the last message that had a known form, and a number that cannot be used
        self._clock = 0
        self._bytes = 0
        self._held = 0

    def read(self, message: bytes) -> tuple[Block, bytes, bytes] | None:
        """The numbers of a message, its resource and its scope; None where its form is not known or it is not sound.

        Args:
            message: bytes of a ResourceMetrics.
        """
        self._clock += 1
        for shape in self._shapes.get(len(message), ()):
            constants, cells, words = shape.cut(message)
            for form in self._forms.get(_key(constants), ()):
                if form.shape is shape and form.constants == constants:
                    form.used = self._clock
                    block = Block(form, cells, words)
                    if block.is_sound():
                        return block, message[slice(*shape.resource)], message[slice(*shape.scope)]
                    self._unsound = message
        return None

    def learn(self, message: bytes, points: Sequence[Point], items: int, ignored: Mapping[Reason, int]) -> None:
        """Learn the form of a message of which `points` were read in full, and nothing was refused, where another
        message of its length came before.
        """
        size = len(message)
        if not 8 <= size <= _LARGEST or not points or message is self._unsound:
            return
        if size not in self._lengths:
            if len(self._lengths) >= _LENGTHS:
                self._lengths.clear()
            self._lengths[size] = None
            return
        if not self._make_room(size):
            return
        try:
            form = _make(message, points, items, ignored)
        except _OtherFormError:
            del self._lengths[size]  # or it is tried again with each
            return
        form.used = self._clock
        self._keep(form)

    def _keep(self, form: Form) -> None:
        shapes = self._shapes.setdefault(len(form.constants), [])
        known = next((shape for shape in shapes if _same(shape, form.shape)), None)
        if known is not None:
            form.shape = known
        elif len(shapes) < _MOST_SHAPES:
            shapes.append(form.shape)
        else:
            return
        self._forms.setdefault(_key(form.constants), []).append(form)
        self._bytes += len(form.constants)
        self._held += 1

    def _make_room(self, size: int) -> bool:
        """Forms that are in use are not given up for one that is new: with too many of them all would be of no use."""
        if self._bytes + size > _MOST_BYTES or self._held >= _MOST:
            oldest = self._clock - _REST * self._held
            kept = [form for forms in self._forms.values() for form in forms if form.used > oldest]
            self._shapes, self._forms, self._bytes, self._held = {}, {}, 0, 0
            for form in kept:
                self._keep(form)
        return self._bytes + size <= _MOST_BYTES and self._held < _MOST


def _key(constants: bytes | bytearray) -> int:
    return int(np.frombuffer(constants, "<u8", len(constants) // 8).sum())


def _same(one: Shape, other: Shape) -> bool:
    return all(np.array_equal(np.asarray(mine), np.asarray(theirs)) for mine, theirs in zip(one, other, strict=True))


def _make(message: bytes, points: Sequence[Point], items: int, ignored: Mapping[Reason, int]) -> Form:
    """The form of a message.

    Raises:
        _OtherFormError: it has none.
    """
    resource, scope, found = _find(message)
    used = {point.metric for point in points}
    kept, others = [f for f in found if f.metric in used], [f for f in found if f.metric not in used]
    if len(kept) != len(points):
        raise _OtherFormError
    histograms = [(place, point) for place, point in zip(kept, points, strict=True) if _is_histogram(point)]
    numbers = [
        (place, point)
        for place, point in zip(kept, points, strict=True)
        if not _is_histogram(point) and point.temporality != GAUGE
    ]
    sizes = [(place.cells[1] - place.cells[0]) // 8 for place, _ in histograms]
    try:
        places = [place.words[_COUNT] for place, _ in histograms]
        places += [place.words[_VALUE] for place, _ in numbers]
        places += [place.words[_TOTAL] for place, _ in histograms]
        values = len(places)
        rank = {id(place): number for held in (histograms, numbers) for number, (place, _) in enumerate(held)}
        known = []
        for place, point in zip(kept, points, strict=True):
            gauge = point.temporality == GAUGE
            start = place.words.get(_START) if gauge else place.words[_START]
            times = len(places)
            places += [place.words[_END]] if start is None else [place.words[_END], start]
            known.append(
                Known(
                    point.metric,
                    point.attributes,
                    point.temporality,
                    point.value.bounds if _is_histogram(point) else None,  # type: ignore[union-attr]
                    rank.get(id(place), -1),
                    -1 if start is None else times + 1,
                    times,
                )
            )
    except KeyError as absent:  # what is zero is not written
        raise _OtherFormError from absent
    times, taken = len(places) - values, set(places)
    for place in found:
        places += [at for at in place.words.values() if at not in taken]
    shape = Shape(
        resource,
        scope,
        tuple(place.cells for place, _ in histograms),
        tuple(place.cells for place in others if place.cells[1]),
        np.array(places),
        np.cumsum([0, *sizes])[:-1],
        len(numbers),
        times,
    )
    constants, cells, words = shape.cut(message)
    form = Form(shape, bytes(constants), tuple(known), items, dict(ignored))
    if Block(form, cells, words).points() != tuple(points):
        raise _OtherFormError
    return form


def _is_histogram(point: Point) -> bool:
    if not isinstance(point.value, Reading):
        raise _OtherFormError
    if isinstance(point.value.counts, bytes) and not point.value.bounds:
        raise _OtherFormError  # of one cell: it could be taken for something else
    return isinstance(point.value.counts, bytes)


class _Found(NamedTuple):
    """Where a point's numbers are, by their fields; its cells from and to."""

    metric: str
    words: dict[int, int]
    cells: tuple[int, int]


def _find(message: bytes) -> tuple[tuple[int, int], tuple[int, int], list[_Found]]:
    """Where the resource and the one scope are, and all points."""
    spans: dict[int, tuple[int, int]] = {}
    for field, begin, end in _walk(message, 0, len(message)):
        if field in spans:
            raise _OtherFormError
        spans[field] = begin, end
    if not spans.keys() >= {_RESOURCE, _SCOPES}:
        raise _OtherFormError
    scope: tuple[int, int] | None = None
    found: list[_Found] = []
    for field, begin, end in _walk(message, *spans[_SCOPES]):
        if field == _SCOPE and scope is None:
            scope = begin, end
        elif field == _METRICS:
            found += _find_points(message, begin, end)
        elif field == _SCOPE:
            raise _OtherFormError
    if scope is None:
        raise _OtherFormError
    return spans[_RESOURCE], scope, found


def _find_points(message: bytes, begin: int, end: int) -> Iterator[_Found]:
    name = ""
    for field, first, last in _walk(message, begin, end):
        if field == _NAME:
            name = message[first:last].decode(errors="replace")
        elif field in (_GAUGE, _SUM, _HISTOGRAM):
            allowed = _HISTOGRAM_FIELDS if field == _HISTOGRAM else _NUMBER_FIELDS
            for inner, at, to in _walk(message, first, last):
                if inner == _DATA_POINTS:
                    yield _find_numbers(message, name, allowed, at, to)
        elif field > _GAUGE:  # data of another kind, or metadata
            raise _OtherFormError


def _find_numbers(message: bytes, name: str, allowed: dict[int, bool], begin: int, end: int) -> _Found:
    words: dict[int, int] = {}
    cells = (0, 0)
    for field, first, last in _walk(message, begin, end):
        changes = allowed.get(field)
        if changes is None or (changes and field in words):
            raise _OtherFormError
        if not changes:
            continue
        if field == _CELLS and allowed is _HISTOGRAM_FIELDS:
            if cells != (0, 0) or (last - first) % 8:
                raise _OtherFormError
            cells = first, last
        elif last - first != 8:
            raise _OtherFormError
        else:
            words[field] = first
    if allowed is _NUMBER_FIELDS and words.keys() >= {_VALUE, _FLOAT}:
        raise _OtherFormError
    return _Found(name, words, cells)


def _walk(message: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Fields of a protobuf message, each with where its value begins and ends."""
    while at < end:
        tag, at = _read_varint(message, at)
        begin, kind = at, tag & 7
        if kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind == _FIXED:
            at += 8
        elif kind == _LENGTH:
            size, begin = _read_varint(message, at)
            at = begin + size
        else:
            raise _OtherFormError
        if at > end:
            raise _OtherFormError
        yield tag >> 3, begin, at


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte: Any = message[at] if at < len(message) and shift < 64 else None
        if byte is None:
            raise _OtherFormError
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def split(body: bytes) -> list[tuple[int, int, int]] | None:
    """The messages of a request, each from its tag, and from and to; None where it has anything else, or so many that
    they are better read all at once.
    """
    found: list[tuple[int, int, int]] = []
    at = 0
    try:
        while at < len(body):
            if len(found) == _MOST_MESSAGES:
                return None
            tag, begin = _read_varint(body, at)
            size, begin = _read_varint(body, begin)
            if tag != (1 << 3 | _LENGTH) or begin + size > len(body):
                return None
            found.append((at, begin, begin + size))
            at = begin + size
    except _OtherFormError:
        return None
    return found
