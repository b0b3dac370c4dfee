"""Alarms look at a window once, and whole: however exports are cut, and whenever one looks between their parts."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.hold import MINUTE, Hold
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.pack import pack
from otel_mlmon_processor.watch import Watch

from otel_mlmon import Profile, semconv

HOLD = 10.0
MINUTES = 18
NAMES = "xyz"


@pytest.fixture(scope="module")
def profile(otlp):
    """Of a day at 60 rows a minute, with times."""
    rng, minutes = np.random.default_rng(90), np.repeat(np.arange(-1_440, 0), 60)
    rows = {name: rng.normal(size=minutes.size) for name in NAMES}
    return Profile.build(pd.DataFrame({**rows, "at": (otlp.EPOCH + minutes) * 60.0 + 30}), model="m", time_column="at")


@pytest.fixture(scope="module")
def exports(otlp, profile):
    """(minute of its end, metrics of it) of a replica that sends every ten seconds; from minute 10 on x has moved."""
    rng, sent = np.random.default_rng(91), []
    names = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: "", semconv.ML_REFERENCE_HASH: profile.hash}
    sender = otlp.Sender(model=names)
    for number in range(6 * MINUTES):
        start, end, metrics = number / 6, (number + 1) / 6, []
        for reference in profile.references:
            name, edges = reference.variable.name, reference.variable.axis.edges
            values = rng.normal(name == "x" and start >= 10, 1, 10)
            counts = np.bincount(np.searchsorted(edges, values), minlength=edges.size + 1).tolist()
            label = {semconv.ML_FEATURE_NAME: name}
            metrics.append(sender.histogram(counts, start, end, edges=edges, total=float(values.sum()), labels=label))
            metrics.append(sender.count(values.size, start, end, labels=label))
        sent.append((end, metrics))
    return sender, sent


class Run:
    """An ingest, and a watch that looks at what it holds, on a clock that is moved by hand."""

    def __init__(self, folder, otlp, profile, hold=HOLD):
        self.now, self.events = 0.0, []
        self._folder, self._otlp, self._profile, self._hold = folder, otlp, profile, hold
        self.start()

    def start(self):
        self._ingest = Ingest(self._folder, clock=lambda: self._otlp.at(self.now / 60))
        self.watch = Watch(
            self._folder, lambda _: AlarmSettings(), hold=self._hold, memory=None, clock=lambda: self.now
        )

    def receive(self, body):
        self._ingest.submit("metrics", body)

    def look(self):
        for view in self._ingest.views(self.watch.wanted()):
            self.events += self.watch.look(view, self._profile).events

    def stop(self):
        self.look()
        self.watch.save()
        self._ingest.close()

    def finish(self):
        """Nothing comes any more; all that was said, and the state from which it goes on, to the bit."""
        for _ in range(2):
            self.look()
            self.now += MINUTE + HOLD
        self.look()
        self._ingest.close()
        (alarms,) = self.watch._models.values()
        return self.events, pack(alarms.dump())


@pytest.fixture(scope="module")
def whole(otlp, profile, exports, tmp_path_factory):
    """What is said where all is there before it is looked at."""
    sender, sent = exports
    run = Run(tmp_path_factory.mktemp("whole"), otlp, profile)
    for end, metrics in sent:
        run.now = 60 * end
        run.receive(sender.request(*metrics))
    events, state = run.finish()
    assert [str(suspect.variable.name) for suspect in events[0].alarm.suspects] == ["x"]
    return events, state


@pytest.fixture
def send_cut(exports):
    """Every export in two requests, the second two seconds later; looked at between them and after."""
    sender, sent = exports

    def send(run, *, stop_at=()):
        for number, (end, metrics) in enumerate(sent):
            run.now = 60 * end
            for half in (metrics[:3], metrics[3:]):
                run.receive(sender.request(*half))
                if number in stop_at:
                    run.stop()
                    run.start()
                run.look()
                run.now += 2

    return send


def test_cut_exports_of_seconds_say_what_whole_ones_do_to_the_bit(otlp, profile, send_cut, whole, tmp_path):
    run = Run(tmp_path, otlp, profile)
    send_cut(run)
    assert run.finish() == whole


def test_without_the_hold_they_do_not(otlp, profile, send_cut, whole, tmp_path):
    run = Run(tmp_path, otlp, profile, hold=None)
    send_cut(run)
    assert run.finish() != whole


def test_windows_that_are_held_are_looked_at_after_a_restart(otlp, profile, send_cut, whole, tmp_path):
    """Stopped between the halves of an export: at the end of a minute, in the middle of one, and twice soon."""
    run = Run(tmp_path, otlp, profile)
    send_cut(run, stop_at={6 * 4 - 1, 6 * 8 + 3, 6 * 14, 6 * 14 + 1})
    assert run.finish() == whole


def test_with_a_minute_between_exports_a_window_is_looked_at_seconds_after_the_next(otlp, profile, tmp_path):
    names = {semconv.ML_MODEL_NAME: "m", semconv.ML_MODEL_VERSION: "", semconv.ML_REFERENCE_HASH: profile.hash}
    run, sender = Run(tmp_path, otlp, profile), otlp.Sender(model=names)
    found = []
    for second in range(30, 330, 5):
        run.now = float(second)
        if second % 60 == 30 and second < 240:  # four exports
            run.receive(sender.request(sender.count(10, second / 60 - 1, second / 60)))
        for by_hash in run.watch.wanted().values():
            (windows,) = by_hash.values()
            found.append((second, windows[-1] - otlp.EPOCH))
        run.look()
    run.finish()
    first = {window: second for second, window in reversed(found)}
    # After the next export by the hold; nothing comes after the last, so a minute later too.
    assert first == {-1: 40, 0: 100, 1: 160, 2: 220, 3: 280}


def test_a_window_that_ends_with_the_watermark_waits_for_the_hold_alone():
    hold = Hold(HOLD)
    hold.see(10 * MINUTE - 0.1, 0.0)
    assert (hold.last(HOLD - 0.1), hold.last(HOLD)) == (-1, 8)
    hold.see(10 * MINUTE, 20.0)
    assert (hold.last(20 + HOLD - 0.1), hold.last(20 + HOLD)) == (8, 9)
    assert hold.last(20 + HOLD + MINUTE) == 10


def test_a_day_that_comes_at_once_is_held_as_one():
    hold, now = Hold(HOLD), 0.0
    for minute in range(1_440):
        now = minute / 100
        hold.see(minute * MINUTE + 30, now)
        assert hold.last(now) == max(-1, minute - 1_001)
    assert len(hold._entered) <= 100 * HOLD + 1
    assert hold.last(now + HOLD) == 1_438
    assert hold.last(sys.maxsize) == 1_439
