"""Alarms on real flights, and on replicas of which one is broken: real Monitors, OTLP, ingest, windows, decision."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from otel_mlmon_processor.points import SERVICE_INSTANCE

from otel_mlmon import Profile, semconv

pytestmark = pytest.mark.endurance
EXAMPLE = Path(__file__).parents[2] / "examples" / "alarms"
TIMETABLE = ["dest", "distance", "minute"]
MAY = pd.Timestamp("2013-05-01").timestamp()
DAY = 86_400.0


@pytest.fixture(scope="module")
def example():
    """The modules of the example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        patch.syspath_prepend(EXAMPLE.parent / "compare")
        yield SimpleNamespace(replay=import_module("replay"), streams=import_module("streams"))
    for name in ("replay", "streams", "pages"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def flights(example):
    """January to May."""
    rows = example.streams.load_flights()
    return rows[rows["time"] < MAY + 31 * DAY]


def find_apart(families) -> str:
    """The replica that is farthest from the others."""
    (family,) = [family for family in families if family.metric is semconv.METRIC_ML_DRIFT_REPLICA]
    return max(family.samples, key=lambda sample: sample.value).attributes[SERVICE_INSTANCE]


def replay(example, reference, rows):
    profile = Profile.build(reference, model="flights", time_column="time")
    return example.replay.replay(profile, rows)


def test_shuffled_flights_raise_nothing(example, flights):
    """All 14 features: 30 days, and a day at its minutes."""
    rows = example.streams.shuffle(flights[(flights["time"] >= MAY - 31 * DAY) & (flights["time"] < MAY)])
    late = rows["time"] >= MAY - DAY
    assert late.sum() > 900
    assert list(replay(example, rows[~late], rows[late])) == []


def test_the_new_timetable_of_may_is_named_with_its_features(example, flights):
    """As it was, the flights of an hour at once, so that it takes seconds."""
    rows = flights[[*TIMETABLE, "time"]]
    later = rows[rows["time"] >= MAY]
    event = next(replay(example, rows[rows["time"] < MAY], later.assign(time=later["time"] // 3600 * 3600 + 1_830)))
    assert (event.kind, [suspect.variable.name for suspect in event.alarm.suspects]) == ("raise", ["minute"])
    assert event.time < MAY + 21 * DAY


def test_one_broken_replica_of_five_is_named_within_minutes(example):
    rng = np.random.default_rng(80)

    def draw(minute: int, rows: int = 40, factor: float = 1.0) -> dict[str, np.ndarray]:
        time = np.full(rows, MAY + 60 * minute + 30)
        return {"km": rng.gamma(4, 100, rows) * factor, "age": rng.normal(40, 9, rows), "time": time}

    train = pd.concat(pd.DataFrame(draw(minute, rows=200)) for minute in range(-1_440, 0))
    profile = Profile.build(train, model="m", time_column="time")
    with example.replay.Replay(profile, replicas=5) as running:
        for minute in range(60):
            assert running.send(*(draw(minute) for _ in range(5))) == []
        for minute in range(60, 75):
            events = running.send(*(draw(minute, factor=1.609344 if i == 2 else 1.0) for i in range(5)))
            if events:
                break
        exposed = running.expose()
    (event,) = events
    assert (event.kind, [s.variable.name for s in event.alarm.suspects]) == ("raise", ["km"])
    assert minute < 60 + 10
    assert find_apart(exposed) == "replica-3"
