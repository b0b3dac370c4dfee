"""Tallies: what is copied or dumped stays as it was, whatever becomes of the tally and of its copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.layout import Tally
from otel_mlmon_processor.pack import pack

STEPS = ("add", "accumulate", "take out", "pack", "unpack", "copy", "dump")


def make(seed):
    rng = np.random.default_rng(seed)
    tally = Tally(6, 2)
    tally.ints += rng.integers(0, 3, 6)
    tally.sums += rng.normal(size=2)
    tally.exponentials[0] = ExponentialSum(scale=2, positive={int(rng.integers(5)): 2})
    return tally


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=30))
def test_a_copy_and_a_dump_stay_as_they_were(steps):
    tallies, kept = [make(0)], []
    for seed, (step, which) in enumerate(steps, start=1):
        tally = tallies[which % len(tallies)]
        others = [(other, pack(other.copy().dump())) for other in tallies if other is not tally]
        if step == "add":
            tally.add(make(seed))
        elif step in ("accumulate", "take out"):
            tally.accumulate(make(seed), 1 if step == "accumulate" else -1)
        elif step == "copy":
            tallies.append(tally.copy())
            assert pack(tallies[-1].dump()) == pack(tally.dump())
        elif step == "dump":
            kept.append((tally.dump(), pack(tally.dump())))
        else:
            getattr(tally, step)()
        for other, before in others:
            assert pack(other.dump()) == before
        for plain, before in kept:
            assert pack(plain) == before


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_added_is_the_sum_whether_it_was_shared_or_not(shared):
    tally, other = make(1), make(2)
    expected = tally.ints + other.ints, tally.sums + other.sums, tally.exponentials[0].count + 2
    if shared:
        tally.copy()
    tally.add(other)
    assert np.array_equal(tally.ints, expected[0])
    assert np.array_equal(tally.sums, expected[1])
    assert tally.exponentials[0].count == expected[2]
