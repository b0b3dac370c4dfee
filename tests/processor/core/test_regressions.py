"""What others are known to get wrong, through the fold: other cases are in test_scanner.py and test_evaluate.py."""

import sys
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from otel_mlmon_processor.alarms import AlarmSettings, ModelAlarms
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.pack import pack
from otel_mlmon_processor.views import build

from otel_mlmon import Profile, semconv

LATE = 4  # minutes; a producer that is silent for longer than 5 is not waited for
NONE = MappingProxyType({})


@pytest.fixture(scope="module")
def profile(otlp):
    """Of two days at 100 rows a minute, with times."""
    rng, minutes = np.random.default_rng(80), np.repeat(np.arange(-2_880, 0), 100)
    rows = {name: rng.normal(size=minutes.size) for name in "xyz"}
    return Profile.build(pd.DataFrame({**rows, "at": (otlp.EPOCH + minutes) * 60.0 + 30}), model="m", time_column="at")


def make_request(otlp, profile, instance, minute, rows) -> bytes:
    """What a replica sends of the rows of a minute."""
    names = {
        semconv.ML_MODEL_NAME: "m",
        semconv.ML_MODEL_VERSION: "1",
        semconv.ML_REFERENCE_HASH: profile.hash,
    }
    sender, metrics = otlp.Sender(instance, instance, model=names), []
    for reference in profile.references:
        name, edges = reference.variable.name, reference.variable.axis.edges
        held = rows[name][np.isfinite(rows[name])]
        counts = np.bincount(np.searchsorted(edges, held, side="left"), minlength=edges.size + 1).tolist()
        label = {semconv.ML_FEATURE_NAME: name}
        metrics.append(sender.histogram(counts, minute, minute + 1, edges=edges, total=float(held.sum()), labels=label))
        metrics.append(sender.count(rows[name].size, minute, minute + 1, labels=label))
        if nan := rows[name].size - held.size:
            invalid = semconv.METRIC_ML_FEATURE_INVALID.name
            label = {**label, semconv.ML_FEATURE_INVALID_REASON: semconv.FeatureInvalidReason.NAN}
            metrics.append(sender.count(nan, minute, minute + 1, name=invalid, labels=label))
    return sender.request(*metrics)


class Run:
    """A fold, and the alarms that look at what it holds."""

    def __init__(self, profile):
        self.fold, self.alarms, self.events = Fold(), ModelAlarms(profile, AlarmSettings()), []
        self._hash = profile.hash

    def receive(self, otlp, minute, bodies):
        for body in bodies:
            assert not self.fold.apply(otlp.at(minute), decode_metrics(body))

    def look(self):
        for key in self.fold.models():
            view = build(self.fold.capture(key, {self._hash: range(self.alarms.next, sys.maxsize)}))
            self.events += self.alarms.advance(view.windows)

    @property
    def verdict(self):
        """All that was said, and the state from which it goes on, to the bit."""
        return self.events, pack(self.alarms.dump())


@pytest.fixture(scope="module")
def recording(otlp, profile):
    """(minute, instance, request) of three replicas; from minute 40 on y has moved, and z is NaN in part."""
    rng, sent = np.random.default_rng(81), []
    for minute in range(80):
        for instance in "abc":
            rows = {name: rng.normal(0.5 * (name == "y" and minute >= 40), 1, 60) for name in "xyz"}
            if 40 <= minute < 60:
                rows["z"][:20] = np.nan
            sent.append((minute, instance, make_request(otlp, profile, instance, minute, rows)))
    return sent


@pytest.fixture(scope="module")
def in_order(otlp, profile, recording):
    run = Run(profile)
    for minute in range(80):
        run.receive(otlp, minute + 1, [body for at, _, body in recording if at == minute])
        run.look()
    return run.verdict


def test_nan_is_no_value_and_one_that_moved_is_named_beside_it(in_order):
    events, _ = in_order
    said = {str(suspect) for event in events for suspect in event.alarm.suspects}
    assert {text.split(":")[0] for text in said} == {"y", "z"}
    assert all(text.startswith("z: NaN") for text in said if text.startswith("z"))  # its values have not moved
    assert all(text.startswith("y: mean up") for text in said if text.startswith("y"))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_arrival_within_the_lateness_gives_the_same_verdict_to_the_bit(
    otlp, profile, recording, in_order, seed
):
    """Each replica's exports come in their order, up to four minutes late, some twice; looked at now and then.

    Not before all three have been heard of: nobody can wait for who has not come yet.
    """
    rng, run = np.random.default_rng([82, seed]), Run(profile)
    held = {instance: [r for r in recording if r[1] == instance] for instance in "abc"}
    due = {instance: np.maximum.accumulate(np.arange(80) + 1 + rng.uniform(0, LATE, 80)) for instance in "abc"}
    arrivals = [(at, r) for instance in "abc" for at, r in zip(due[instance], held[instance], strict=True)]
    heard = set()
    for at, (_, instance, body) in sorted(arrivals, key=lambda arrival: arrival[0]):
        run.receive(otlp, at, [body] * int(rng.integers(1, 3)))
        heard.add(instance)
        if len(heard) == len(held) and rng.random() < 0.3:
            run.look()
    run.look()
    assert run.verdict == in_order


def test_an_hour_of_all_replicas_that_arrives_at_once_gives_the_same_verdict_to_the_bit(
    otlp, profile, recording, in_order
):
    """The network was away from minute 10 to 70: what was kept is sent again, in any order."""
    run = Run(profile)
    order = np.random.default_rng(83).permutation([k for k, r in enumerate(recording) if 10 <= r[0] < 70])
    run.receive(otlp, 10, [body for minute, _, body in recording if minute < 10])
    run.look()
    run.receive(otlp, 70, [recording[k][2] for k in order])
    run.look()
    run.receive(otlp, 80, [body for minute, _, body in recording if minute >= 70])
    run.look()
    assert run.verdict == in_order


def test_an_hour_of_one_replica_that_arrives_at_once_is_no_drift_and_is_counted(otlp, profile):
    """Its windows have been looked at without it, as with a replica less; its rows are counted as late."""
    rng, run, kept = np.random.default_rng(84), Run(profile), []
    for minute in range(150):
        for instance in "ab":
            rows = {name: rng.normal(size=100) for name in "xyz"}
            body = make_request(otlp, profile, instance, minute, rows)
            if instance == "b" and 40 <= minute < 100:
                kept.append(body)
            else:
                run.receive(otlp, minute + 1, [*kept, body] if instance == "b" else [body])
                kept = kept if instance == "a" else []
        run.look()
    assert run.events == []
    assert run.fold.counters().late > 0
    (view,) = run.fold.views()
    assert {counts.seen for counts in view.totals.values()} == {150 * 200}


@pytest.mark.parametrize("windows", [0, 1, 2])
def test_of_hardly_any_windows_nothing_is_said(otlp, profile, windows):
    run = Run(profile)
    for minute in range(windows):
        rows = {name: np.random.default_rng(85).normal(size=100) for name in "xyz"}
        run.receive(otlp, minute + 1, [make_request(otlp, profile, "a", minute, rows)])
        run.look()
    run.look()
    assert run.events == []
    assert run.alarms.state().alarm is None
