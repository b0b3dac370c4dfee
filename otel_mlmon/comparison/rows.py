"""Rows of columns of any container: some of them, and one number that stands for each."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from otel_mlmon.profile.physical import Physical, read_physical
from otel_mlmon.profile.roles import Block
from otel_mlmon.profile.sampling import expected_share
from otel_mlmon.profile.sources import take_rows

Hashes = NDArray[np.uint64]

# Odd constants of splitmix64 (G. L. Steele, D. Lea, C. H. Flood, 2014, doi:10.1145/2660193.2660195).
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT: Final = np.uint64(29)


def take_block(block: Block, rows: NDArray[np.intp]) -> Block:
    """Rows of a block, by their numbers."""
    return Block(
        rows.size,
        {name: take_rows(column, rows) for name, column in block.features.items()},
        {role: take_rows(column, rows) for role, column in block.outputs.items()},
        None if block.time is None else block.time[rows],
    )


def hash_rows(columns: Sequence[Any], rows: int) -> Hashes:
    """A number for each row, equal for equal rows, shape (rows,); for others equal by chance only."""
    hashes = np.full(rows, _GOLDEN)
    for column in columns:
        hashes = (hashes ^ _hash_values(read_physical(column))) * _MIX
        hashes ^= hashes >> _SHIFT
    return hashes


def _hash_values(column: Physical) -> Hashes:
    """A number for each value; all missing ones have the same."""
    if column.values.dtype == np.float64:
        values = np.where(column.valid, column.values, np.nan) + 0.0  # -0.0 becomes 0.0
        hashes: Hashes = values.view(np.uint64) * _GOLDEN
        return hashes ^ (hashes >> _SHIFT)
    known: dict[Any, int] = {None: 0}
    for value in set(column.values.tolist()) - {None} if column.kind == "string" else ():
        known[value] = zlib.crc32(value.encode("utf-8", "surrogatepass")) * 0x100000001 + len(value)
    if column.kind == "string":
        codes = [known[value] for value in column.values.tolist()]
    else:
        codes = [zlib.crc32(repr(value).encode("utf-8", "surrogatepass")) for value in column.values.tolist()]
    return np.array(codes, dtype=np.uint64) * _GOLDEN


@dataclass(frozen=True, slots=True, eq=False)
class Repeated:
    """Distinct rows that were looked at.

    Args:
        counts: how often each is there, shape (distinct,).
        rows: of the whole data set.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: int = 0

    @property
    def share(self) -> float:
        """Of rows that repeat another one."""
        repeated, looked = self.among(self.rows)
        return repeated / max(looked, 1)

    def among(self, rows: int) -> tuple[int, int]:
        """How many rows repeat another one, and how many are looked at, on average over all choices of `rows` of them.

        A row that is there c times among N is not among the n chosen ones with probability C(N - c, n) / C(N, n).
        """
        looked = float(self.counts.sum())
        if rows >= self.rows:
            return int(looked) - self.counts.size, int(looked)
        left = self.rows - self.counts.astype(np.float64)
        absent = np.where(left < rows, 0.0, np.exp(_log_choices(left, rows) - _log_choices(float(self.rows), rows)))
        chosen = looked * rows / self.rows
        return round(chosen - float((1 - absent).sum())), round(chosen)


def _log_choices(of: Any, rows: int) -> Any:
    """Log of of! / (of - rows)!."""
    return gammaln(of + 1.0) - gammaln(np.maximum(of - rows, 0.0) + 1.0)


class Repeats:
    """How many rows repeat an earlier one, from a sample of distinct rows in bounded memory.

    Rows are chosen by a number made of their own values, so that equal rows are chosen together (P. B. Gibbons, 2001,
    Distinct sampling, VLDB). Where few rows are chosen, only those are looked at in full.

    Args:
        most: distinct rows that are kept.
        expected: rows to come, where that is known.
    """

    def __init__(self, most: int, expected: int | None = None) -> None:
        self._most = most
        self._limit = np.uint64(min(int(expected_share(most, expected) * 2**64), 2**64 - 1))
        self._keys: Hashes = np.zeros(0, np.uint64)
        self._rows: Hashes = np.zeros(0, np.uint64)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._choosing: list[str] | None = None
        self._seen = 0

    def add(self, columns: Mapping[str, Any], rows: int) -> None:
        """Take in a block of columns."""
        self._seen += rows
        if self._choosing is None:
            self._choosing = _choose_columns(columns, rows)
        keys = hash_rows([columns[name] for name in self._choosing if name in columns], rows)
        chosen = np.flatnonzero(keys <= self._limit)
        if not chosen.size:
            return
        full = hash_rows([take_rows(column, chosen) for column in columns.values()], chosen.size)
        every, first, inverse = np.unique(np.concatenate([self._rows, full]), return_index=True, return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([self._counts, np.ones(full.size, np.int64)]))
        self._rows, self._counts = every, counts.astype(np.int64)
        self._keys = np.concatenate([self._keys, keys[chosen]])[first]
        if every.size > 2 * self._most:
            self._shrink()

    def _shrink(self) -> None:
        self._limit = np.partition(self._keys, self._most)[self._most]
        kept = self._keys <= self._limit
        self._keys, self._rows, self._counts = self._keys[kept], self._rows[kept], self._counts[kept]

    def finish(self) -> Repeated:
        """What was found."""
        return Repeated(self._counts, self._seen)


def _choose_columns(columns: Mapping[str, Any], rows: int) -> list[str]:
    """The two columns with the most distinct values; all, where these are too few to choose rows by."""
    head = np.arange(min(rows, 2_000))
    distinct = {name: np.unique(hash_rows([take_rows(c, head)], head.size)).size for name, c in columns.items()}
    best = sorted(distinct, key=lambda name: -distinct[name])[:2]
    enough = max(distinct.values(), default=0) * 2 > head.size
    return best if enough else list(columns)
