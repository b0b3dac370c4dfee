"""What the counts must be, whatever way they came: laws over arbitrary recordings, against sums made here."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import FoldSettings

DISPLAY = 5  # windows
CELLS = 4

cells = st.lists(st.integers(0, 50), min_size=CELLS, max_size=CELLS)
# A recording: for each replica, counts by minute.
recordings = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.dictionaries(st.integers(0, 20), cells, min_size=1, max_size=12), min_size=1
)


def new_fold() -> Fold:
    return Fold(FoldSettings(display=DISPLAY * 60.0))


def expect(recording, last=None):
    """Totals, and the sums of the sliding window that ends with minute `last`."""
    everything = [(minute, counts) for minutes in recording.values() for minute, counts in minutes.items()]
    recent = [counts for minute, counts in everything if last is None or last - DISPLAY < minute <= last]
    zero = np.zeros(CELLS, dtype=np.int64)
    return sum((np.array(c) for _, c in everything), zero), sum((np.array(c) for c in recent), zero)


def apply_all(fold, requests, otlp, received=21):
    for body in requests:
        fold.apply(otlp.at(received), decode_metrics(body))


def check(fold, recording, otlp):
    (view,) = fold.views()
    newest = [max(minutes) for minutes in recording.values()]
    last = round(view.end / 60) - otlp.EPOCH - 1
    # A replica that is heard of late cannot hold back what has passed; otherwise the slowest says how far time is.
    assert min(newest) <= last <= max(newest)
    totals, window = expect(recording, last)
    assert view.totals[otlp.X].cells.tolist() == totals.tolist()
    assert view.totals[otlp.X].seen == totals.sum()
    assert view.window[otlp.X].cells.tolist() == window.tolist()
    assert view.window[otlp.X].seen == window.sum()


def deltas(recording, otlp):
    """Two points for each replica and minute: (sender, minute, metric)."""
    points = []
    for replica, minutes in recording.items():
        sender = otlp.Sender(replica, f"inc-{replica}")
        for minute, counts in minutes.items():
            points.append((sender, sender.histogram(counts, minute, minute + 1, total=float(sum(counts)))))
            points.append((sender, sender.count(sum(counts), minute, minute + 1)))
    return points


@settings(max_examples=60, deadline=None)
@given(recordings, st.data())
def test_any_order_any_split_and_any_repetition_of_delta_points_count_once(otlp, recording, data):
    points = deltas(recording, otlp)
    order = data.draw(st.permutations(points))
    again = data.draw(st.lists(st.sampled_from(points), max_size=10))
    fold = new_fold()
    requests = []
    for sender in {sender.instance: sender for sender, _ in points}.values():
        mine = [metric for owner, metric in [*order, *again] if owner.instance == sender.instance]
        while mine:
            size = data.draw(st.integers(1, len(mine)))
            requests.append(sender.request(*mine[:size]))
            mine = mine[size:]
    apply_all(fold, data.draw(st.permutations(requests)), otlp)
    check(fold, recording, otlp)
    assert fold.counters().duplicates == len(again)
    assert fold.counters().points == len(points)
    assert not fold.counters().dropped


@settings(max_examples=40, deadline=None)
@given(recordings)
def test_replicas_together_are_one_that_saw_all_rows(otlp, recording):
    apart, together = new_fold(), new_fold()
    last = max(max(minutes) for minutes in recording.values())
    merged = {}
    for replica, minutes in recording.items():
        minutes.setdefault(last, [0] * CELLS)  # all are seen to have got as far
        for minute, counts in minutes.items():
            merged[minute] = np.add(merged.get(minute, [0] * CELLS), counts)
        apply_all(apart, [s.request(m) for s, m in deltas({replica: minutes}, otlp)], otlp)
    apply_all(
        together, [s.request(m) for s, m in deltas({"one": {k: v.tolist() for k, v in merged.items()}}, otlp)], otlp
    )
    (several,), (one,) = apart.views(), together.views()
    for counts in ("window", "totals"):
        many, single = getattr(several, counts)[otlp.X], getattr(one, counts)[otlp.X]
        assert many.cells.tolist() == single.cells.tolist()
        assert (many.seen, many.sum) == (single.seen, single.sum)


@settings(max_examples=60, deadline=None)
@given(recordings, st.booleans())
def test_cumulative_points_in_order_give_the_same_windows_as_deltas(otlp, recording, marked):
    fold = new_fold()
    for replica, minutes in recording.items():
        sender = otlp.Sender(replica, "inc" if marked else "")
        sofar = np.zeros(CELLS, dtype=np.int64)
        first = min(minutes)
        for minute in range(first, max(minutes) + 1):  # an SDK sends each minute, changed or not
            sofar = sofar + minutes.get(minute, np.zeros(CELLS, dtype=np.int64))
            options = {"temporality": otlp.CUMULATIVE}
            metrics = (
                sender.histogram(sofar.tolist(), first, minute + 1, total=float(sofar.sum()), **options),
                sender.count(int(sofar.sum()), first, minute + 1, **options),
            )
            apply_all(fold, [sender.request(*metrics)], otlp)
    check(fold, recording, otlp)


@settings(max_examples=60, deadline=None)
@given(recordings, st.data())
def test_cumulative_points_lost_repeated_or_out_of_order_give_the_right_totals(otlp, recording, data):
    fold = new_fold()
    for replica, minutes in recording.items():
        sender = otlp.Sender(replica, "inc")
        sofar, requests = np.zeros(CELLS, dtype=np.int64), []
        for minute in sorted(minutes):
            sofar = sofar + minutes[minute]
            metric = sender.histogram(sofar.tolist(), 0, minute + 1, temporality=otlp.CUMULATIVE)
            requests.append(sender.request(metric))
        sent = data.draw(st.lists(st.sampled_from(requests), max_size=15))
        apply_all(fold, [*sent, requests[-1], *data.draw(st.lists(st.sampled_from(requests), max_size=5))], otlp)
    (view,) = fold.views()
    assert view.totals[otlp.X].cells.tolist() == expect(recording)[0].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=4), st.booleans(), st.randoms())
def test_a_counter_that_begins_again_is_counted_whole(otlp, lives, renamed, random):
    """Each life counts from zero; it is seen by its start time, or by a cell that fell."""
    fold, sender = new_fold(), otlp.Sender()
    total, before, requests, minute = np.zeros(CELLS, dtype=np.int64), np.zeros(CELLS, dtype=np.int64), [], 0
    for number, life in enumerate(lives):
        sofar = np.zeros(CELLS, dtype=np.int64)
        for counts in life:
            increase = np.array(counts)
            if not renamed and not sofar.any() and number and (increase >= before).all():
                increase = np.zeros(CELLS, dtype=np.int64)  # a restart that cannot be seen otherwise
                if not before.any():
                    continue
            sofar = sofar + increase
            minute += 1
            start = number * 0.001 if renamed else 0
            requests.append(
                sender.request(sender.histogram(sofar.tolist(), start, minute, temporality=otlp.CUMULATIVE))
            )
            total, before = total + increase, sofar
    if renamed:  # then even the lives may come out of order, as long as each one's last point comes
        random.shuffle(requests)
    apply_all(fold, requests, otlp)
    if requests:
        assert fold.views()[0].totals[otlp.X].cells.tolist() == total.tolist()


@settings(max_examples=30, deadline=None)
@given(recordings, st.data())
def test_going_on_from_a_dump_is_going_on(otlp, recording, data):
    points = data.draw(st.permutations(deltas(recording, otlp)))
    stop = data.draw(st.integers(0, len(points)))
    requests = [sender.request(metric) for sender, metric in points]
    live, first = new_fold(), new_fold()
    for number, body in enumerate(requests):  # received a second apart
        live.apply(otlp.at(21 + number / 60), decode_metrics(body))
    for number, body in enumerate(requests[:stop]):
        first.apply(otlp.at(21 + number / 60), decode_metrics(body))
    second = Fold.load(first.dump(), first.settings)
    assert second.dump() == first.dump()
    for number, body in enumerate(requests[stop:], start=stop):
        second.apply(otlp.at(21 + number / 60), decode_metrics(body))
    assert second.dump() == live.dump()
    assert second.counters() == live.counters()
    check(second, recording, otlp)


@settings(max_examples=30, deadline=None)
@given(recordings, st.integers(1, 9))
def test_another_display_window_is_summed_from_the_windows_that_were_kept(otlp, recording, display):
    fold = new_fold()
    apply_all(fold, [sender.request(metric) for sender, metric in deltas(recording, otlp)], otlp)
    other = Fold.load(fold.dump(), FoldSettings(display=display * 60.0))
    last = round(fold.views()[0].end / 60) - otlp.EPOCH - 1
    expected = Counter()
    for minutes in recording.values():
        for minute, counts in minutes.items():
            if last - display < minute <= last:
                expected["seen"] += sum(counts)
    assert other.views()[0].window[otlp.X].seen == expected["seen"]
    coarser = Fold.load(fold.dump(), FoldSettings(window=300.0, display=300.0))
    assert coarser.views()[0].totals[otlp.X].cells.tolist() == expect(recording)[0].tolist()


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_point_behind_the_watermark_is_counted_in_its_window_and_counted_as_late(otlp, late):
    fold, sender = new_fold(), otlp.Sender()
    for minute in range(4):
        fold.apply(otlp.at(5), decode_metrics(sender.request(sender.histogram([1, 0, 0, 0], minute, minute + 1))))
    other = otlp.Sender("b", "j")
    fold.apply(otlp.at(5), decode_metrics(other.request(other.histogram([0, 7, 0, 0], 3 - late, 4 - late))))
    assert fold.views()[0].window[otlp.X].cells.tolist() == [4, 7, 0, 0]
    assert fold.counters().late == (late > 0)
