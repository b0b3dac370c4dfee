"""Messages whose form is known: what is the same in all of them, and the numbers of one. Values only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon_processor.points import GAUGE, LARGEST_COUNT, LATEST_TIME, Attributes, Point
from otel_mlmon_processor.reading import Reading
from otel_mlmon_processor.reasons import Reason

Words = NDArray[np.uint64]
Counts = NDArray[np.int64]


class Shape(NamedTuple):
    """Where the numbers are in a message.

    Args:
        resource, scope: from and to.
        cells, unused: of each histogram, from and to; and of those that are not used.
        places: of other numbers, (words,): the H counts of the histograms, N plain numbers, the H sums, T times, and
            then what is not used.
        firsts: the first of each histogram's cells among those of all, (H,).
        numbers: N.
        times: T.
    """

    resource: tuple[int, int]
    scope: tuple[int, int]
    cells: tuple[tuple[int, int], ...]
    unused: tuple[tuple[int, int], ...]
    places: NDArray[np.int64]
    firsts: NDArray[np.int64]
    numbers: int
    times: int

    def cut(self, message: bytes) -> tuple[bytearray, Counts, Words]:
        """What is the same each time, with zeros for the rest; the cells of all histograms, and the other numbers."""
        blank = bytearray(message)
        cells = np.frombuffer(b"".join([message[begin:end] for begin, end in self.cells]), "<i8")
        anywhere = np.ndarray((len(blank) - 7,), "<u8", blank, 0, (1,))
        words: Words = anywhere[self.places]
        anywhere[self.places] = 0
        for begin, end in (self.resource, self.scope, *self.cells, *self.unused):
            blank[begin:end] = bytes(end - begin)
        return blank, cells, words


class Known(NamedTuple):
    """A point of a form. `number` is its place among the histograms or the plain numbers, `start` and `end` are those
    of its times in the words; a gauge's number is not used, and its start is -1 where it has none.
    """

    metric: str
    attributes: Attributes
    temporality: int
    bounds: bytes | None  # None: of a plain number
    number: int
    start: int
    end: int


class Form:
    """What is the same in messages, and what it means.

    Args:
        shape: where the numbers are.
        constants: the bytes, with zeros for what changes.
        points: what is used of it, in their order.
        items, ignored: see Batch.
    """

    __slots__ = ("constants", "ends", "ignored", "items", "points", "shape", "used")

    def __init__(
        self, shape: Shape, constants: bytes, points: tuple[Known, ...], items: int, ignored: dict[Reason, int]
    ) -> None:
        self.shape, self.constants, self.points = shape, constants, points
        self.items, self.ignored = items, ignored
        self.ends = np.array([point.end for point in points])
        self.used = 0  # when it was used last


class Block:
    """A message of a known form: its numbers.

    Args:
        form: of the message.
        cells: counts of all histograms, one after the other.
        words: the other numbers.
    """

    __slots__ = ("cells", "form", "numbers", "sums", "words")

    def __init__(self, form: Form, cells: Counts, words: Words) -> None:
        self.form, self.cells, self.words = form, cells, words
        histograms, numbers = form.shape.firsts.size, form.shape.numbers
        self.numbers: Counts = words[histograms : histograms + numbers].view("<i8")
        self.sums: NDArray[np.float64] = words[histograms + numbers : 2 * histograms + numbers].view("<f8")

    def is_sound(self) -> bool:
        """Whether each number can be used; if not, reading in full tells which cannot, and why."""
        shape, words = self.form.shape, self.words
        histograms = shape.firsts.size
        counts, values = words[:histograms], 2 * histograms + shape.numbers
        if words[self.form.ends].min() == 0 or words[values : values + shape.times].max() > LATEST_TIME:
            return False
        if words[: histograms + shape.numbers].max(initial=0) > LARGEST_COUNT:  # also what is negative
            return False
        if not histograms:
            return True
        cells = self.cells.view("<u8")
        return bool(
            cells.max() <= LARGEST_COUNT  # or they could add up again beyond 64 bits
            and (np.add.reduceat(cells, shape.firsts) == counts).all()
            and np.isfinite(self.sums.sum())
        )

    def point(self, place: int) -> Point:
        """One of its points."""
        metric, attributes, temporality, bounds, number, start, end = self.form.points[place]
        if temporality == GAUGE:
            value = Reading(1)
        elif bounds is None:
            value = Reading(int(self.numbers[number]))
        else:
            first = int(self.form.shape.firsts[number])
            cells = self.cells[first : first + len(bounds) // 8 + 1]
            value = Reading(cells.tobytes(), bounds, float(self.sums[number]))
        began = int(self.words[start]) if start >= 0 else 0
        return Point(metric, attributes, temporality, began, int(self.words[end]), value)

    def points(self) -> tuple[Point, ...]:
        """All of them."""
        return tuple(self.point(place) for place in range(len(self.form.points)))
