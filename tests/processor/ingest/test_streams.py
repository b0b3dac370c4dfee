"""Which intervals were seen, against sets; and where series belong."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otel_mlmon_processor import pack as packing
from otel_mlmon_processor.pack import PackError, pack, unpack
from otel_mlmon_processor.streams import DUPLICATE, NEW, TOO_OLD, Intervals, Spans

times = st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda t: (t[0], t[0] + t[1]))


@given(st.lists(times, max_size=20), times)
def test_spans_cover_what_one_of_their_joined_parts_covers(added, asked):
    spans, covered = Spans(100), set()
    for start, end in added:
        spans.add(start, end)
        covered |= set(range(start, end))
    assert spans.cover(*asked) == (set(range(*asked)) <= covered)
    assert all(end < start for end, start in zip(spans.ends, spans.starts[1:], strict=False))


@given(st.lists(times, max_size=40), st.integers(1, 4))
def test_bounded_spans_cover_at_least_as_much(added, limit):
    bounded, exact = Spans(limit), Spans(1000)
    for start, end in added:
        bounded.add(start, end)
        exact.add(start, end)
    assert len(bounded.starts) <= limit
    for start, end in added:
        assert bounded.cover(start, end)
        assert exact.cover(start, end)


@settings(max_examples=100)
@given(st.lists(st.tuples(times, st.integers(0, 3)), max_size=60), st.integers(1, 10))
def test_an_interval_of_a_stream_is_new_once_and_never_again(sent, limit):
    intervals, seen = Intervals(), set()
    for (start, end), stream in sent:
        verdict = intervals.take(start, end, stream)
        intervals.settle(limit)
        if (start, end, stream) in seen:
            assert verdict in (DUPLICATE, TOO_OLD)
        elif verdict == NEW:
            seen.add((start, end, stream))
        else:
            assert verdict == TOO_OLD  # only where memory is short
            assert len(intervals.settled.starts) > 0
        assert len(intervals.known) <= limit
        intervals = Intervals.load(intervals.dump())


def test_while_memory_lasts_all_that_differs_is_new():
    intervals = Intervals()
    # Overlapping, nested and backwards intervals are others' counts, not repetitions.
    for interval in ((0, 10), (5, 15), (2, 3), (10, 0), (0, 9)):
        assert intervals.take(*interval, 0) == NEW
        assert intervals.take(*interval, 0) == DUPLICATE
        assert intervals.take(*interval, 1) == NEW


def test_packed_trees_come_back_and_damage_is_told():
    tree = {"a": [1, -(2**70), 2.5, float("inf"), None, True, "\x00 text"], "b": {"bytes": b"\x00\xff", "none": b""}}
    tree["arrays"] = [np.arange(5), np.array([1.5, -0.0]), np.array([], dtype=np.int32)]
    back = unpack(pack(tree))
    assert back["a"] == tree["a"]
    assert back["b"] == tree["b"]
    for mine, theirs in zip(tree["arrays"], back["arrays"], strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.tolist() == theirs.tolist()
    for damaged in (b"", b"mlmonpk1", b"other" + pack(tree), pack(tree)[:-9]):
        with pytest.raises(PackError):
            unpack(damaged)


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(40, 4000))
def test_packed_trees_come_back_from_parts_of_any_size(sizes, part):
    tree = [[np.arange(size), bytes(size % 251), "text"] for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_PART", part)
        parts = packing.seal(packing.encode(tree))
    assert len(parts) > sum(sizes) * 8 // (2 * part)
    for mine, (array, data, text) in zip(tree, unpack(*parts), strict=True):
        assert (array.tolist(), data, text) == (mine[0].tolist(), *mine[1:])
    for kept in {0, len(parts) // 2, len(parts) - 1}:
        with pytest.raises(PackError):
            unpack(*parts[:kept])


def test_packing_takes_no_memory_for_what_is_packed():
    """All at once it took thrice what is held, for the time of a checkpoint."""
    size = 3 << 20
    tree = [np.arange(size) for _ in range(8)]
    tracemalloc.start()
    try:
        parts = packing.seal(packing.encode(tree))
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(parts) > 4
    assert now < 1.1 * sum(map(len, parts))
    assert peak - now < size * 8 * 4
