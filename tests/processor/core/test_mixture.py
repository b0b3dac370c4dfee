"""What no null could explain: what alarms while nothing is known of windows, and what does not."""

import numpy as np
import pytest
from otel_mlmon_processor.core.budget import CELLS, RATES
from otel_mlmon_processor.core.mixture import Mixture
from otel_mlmon_processor.pack import flatten, pack, unflatten, unpack

MISSING, UNSEEN, ABOVE = 0, 4, 6


def make(streams, rows, missing=0.01, *, features=2, budget=1.0, growing=False):
    """A reference of so many independent rows in equal cells."""
    counts = np.zeros((streams.cells + 7, features), dtype=np.int64)
    counts[: streams.cells] = round(rows * (1 - missing) / streams.cells)
    counts[streams.cells + MISSING] = round(rows * missing)
    totals = np.stack([counts[: streams.cells].sum(axis=0), counts.sum(axis=0)])
    return Mixture(np.full(features, streams.cells), counts, totals, budget, growing=growing)


def feed(mixture, stream, start):
    hits = []
    for w in range(stream.seen.shape[1]):
        hits += mixture.advance(start + w, stream.counts[..., w], stream.rates[..., w], stream.seen[:, w])
    return [hit for hit in hits if hit.evidence >= 1]


def fault(streams, minutes, kind, share=1.0):
    stream = streams.make(41, minutes, 200, features=2)
    rows = stream.counts[:, 0].sum(axis=0)
    if kind == CELLS:
        stream.counts[:, 0] = 0
        stream.counts[3, 0] = rows
    elif kind == MISSING:
        stream.counts[:, 0] = np.rint(stream.counts[:, 0] * (1 - share))
        stream.rates[kind, 0] = rows - stream.counts[:, 0].sum(axis=0)
    else:
        stream.rates[kind, 0] = np.rint(rows * share)
    stream.seen = stream.counts.sum(axis=0) + stream.rates[:4].sum(axis=0)
    return stream


@pytest.mark.parametrize(
    ("kind", "within"),
    [(UNSEEN, 20), (ABOVE, 20), (MISSING, 5 * 60), (CELLS, 70 * 60)],
)
def test_what_the_reference_hardly_held_alarms_the_sooner_the_rarer_it_was(streams, kind, within):
    """Of 100,000 rows: never a value unseen or beyond the range, 1 % missing, a tenth in each cell."""
    hits = feed(make(streams, 100_000), fault(streams, within, kind), streams.start)
    assert {hit.variable for hit in hits} == {0}
    assert {hit.test for hit in hits} == {CELLS if kind == CELLS else RATES}
    assert {hit.part for hit in hits} == {3 if kind == CELLS else kind}
    assert hits[0].lower > 0.1
    sooner = 2 * 7 * streams.day * {MISSING: 0.01, CELLS: 0.099}.get(kind, 0)
    assert hits[0].window >= streams.start + sooner  # else an hour of the week could have been like this


def test_small_references_say_less_but_what_they_never_held_still_alarms(streams):
    (first, *_) = feed(make(streams, 1_000, missing=0.0), fault(streams, 9 * 60, MISSING), streams.start)
    assert first.window < streams.start + 9 * 60


def test_a_season_of_the_reference_is_explained(streams):
    """A feature that is there by day alone: missing for eight hours of each day, a third of the reference."""
    minutes = 3 * streams.day
    stream = streams.make(42, minutes, 100, features=2)
    night = np.arange(minutes) % streams.day < 480
    stream.rates[MISSING, 0, night] = stream.counts[:, 0, night].sum(axis=0)
    stream.counts[:, 0, night] = 0
    assert feed(make(streams, 100_000, missing=1 / 3), stream, streams.start) == []


def test_a_rare_population_in_its_hour_of_the_week_is_explained(streams):
    """In one hour of 168 all values are unseen, as they were in the reference; nights have a tenth of the rows."""
    rows = np.where(np.arange(streams.day) % streams.day < 420, 20, 200)
    stream = streams.make(43, streams.day, rows, features=2)
    stream.rates[UNSEEN, 0, 600:660] = stream.counts[:, 0, 600:660].sum(axis=0)
    mixture = make(streams, 100_000)
    mixture.counts[streams.cells + UNSEEN] = 850
    mixture._bound()
    assert feed(mixture, stream, streams.start) == []


@pytest.mark.parametrize("rows", [50, 1_000])
@pytest.mark.parametrize("kind", ["independent", "sessions", "season", "wander"])
def test_nothing_that_a_null_can_do_alarms(streams, rows, kind):
    """A reference of a week, and then two days."""
    changes = {"sessions": {"session": 50}, "season": {"season": 1.5, "session": 5}, "wander": {"wander": 0.5}}
    whole = streams.make(44, 9 * streams.day, rows, features=2, missing=0.005, **changes.get(kind, {}))
    reference = whole.part(0, 7 * streams.day)
    counts = np.concatenate([reference.counts.sum(axis=-1), reference.rates.sum(axis=-1)])
    totals = np.stack([reference.counts.sum(axis=(0, 2)), reference.seen.sum(axis=-1)])
    mixture = Mixture(np.full(2, streams.cells), counts, totals, 1.0, growing=False)
    production = whole.part(7 * streams.day, 9 * streams.day)
    assert feed(mixture, production, streams.start + 7 * streams.day) == []


def test_gaps_are_nothing(streams):
    stream = streams.make(45, streams.day, np.where(np.arange(streams.day) % 10 == 0, 500, 0), features=2)
    assert feed(make(streams, 100_000), stream, streams.start) == []


def test_what_it_learns_from_hours_without_a_hit_is_explained_later(streams):
    """A reference that grows: a category that was new for a while, too little to alarm, is known then."""
    new = fault(streams, streams.day, UNSEEN, share=0.02)
    mixture = make(streams, 100_000, growing=True)
    held = mixture.totals.copy()
    feed(mixture, new, streams.start)
    hits = {h.variable for h in feed(mixture, new, streams.start + streams.day)}
    assert hits <= {0}
    assert (mixture.totals[:, 1] > held[:, 1]).all()
    flood = make(streams, 100_000, growing=True)
    feed(flood, fault(streams, streams.day, UNSEEN), streams.start)
    assert flood.counts[streams.cells + UNSEEN, 0] < 200 * 60  # hardly an hour of it was taken up
    fixed = make(streams, 100_000)
    before = fixed.counts.copy()
    feed(fixed, new, streams.start)
    assert (fixed.counts == before).all()


@pytest.mark.parametrize("cut", [100, 1_321])
def test_it_goes_on_from_a_dump(streams, cut):
    stream = fault(streams, 2_000, MISSING, share=0.6)
    one, other = (make(streams, 100_000, missing=0.0, growing=True) for _ in range(2))
    before = feed(one, stream.part(0, cut), streams.start)
    other.load(unflatten(unpack(pack(flatten(one.dump())))))
    after = [feed(m, stream.part(cut, 2_000), streams.start + cut) for m in (one, other)]
    assert after[0] == after[1]
    assert before + after[0]
    assert (one.counts == other.counts).all()
