"""Alarms of a model, from rows in minutes to what is said: profile with and without times."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from otel_mlmon_processor.alarms import AlarmSettings, ModelAlarms
from otel_mlmon_processor.learner import RESERVED
from otel_mlmon_processor.pack import pack, unpack
from otel_mlmon_processor.windows import VariableCounts, VariableKey, Window

from otel_mlmon import Profile
from otel_mlmon.numerics.scales import DAY
from otel_mlmon.profile.counting import Tally

START = 20_000 * DAY  # windows
ROWS = 200


def draw(rng, windows: int, rows: int = ROWS, **change) -> list[dict[str, np.ndarray]]:
    """Rows by minute."""
    found = []
    for _ in range(windows):
        km = rng.normal(100, 30, rows) + change.get("km", 0.0)
        wind = np.where(rng.random(rows) < change.get("missing", 0.01), np.nan, rng.gamma(2, size=rows))
        fuel = rng.choice(["gas", "oil", "EV"], rows, p=change.get("fuel", [0.5, 0.36, 0.14]))
        found.append({"km": km, "wind": wind, "fuel": fuel})
    return found


def train(windows: list[dict[str, np.ndarray]], times: bool = True) -> Profile:
    rows = pd.DataFrame({name: np.concatenate([w[name] for w in windows]) for name in windows[0]})
    if not times:
        return Profile.build(rows, model="m")
    rows["time"] = np.repeat((START - len(windows) + np.arange(len(windows))) * 60.0 + 30, ROWS)
    return Profile.build(rows, model="m", time_column="time")


def count(profile: Profile, windows, start: int = START) -> list[Window]:
    """As the fold would."""
    counted = []
    for i, rows in enumerate(windows):
        variables = {}
        for reference in profile.references:
            variable, tally = reference.variable, Tally(reference.variable)
            tally.add(rows[variable.column], rows[variable.column].size, None)
            held = tally.finish(None).histogram
            invalid = {reason: getattr(held.invalid, reason) for reason in ("missing", "nan", "inf", "type")}
            if hasattr(variable.axis, "edges"):
                counts = VariableCounts(held.seen, invalid, variable.axis.edges, held.counts, held.sum)
            else:
                labels = dict(zip(variable.axis.labels, held.counts.tolist(), strict=True))
                counts = VariableCounts(held.seen, invalid, categories=labels)
            variables[VariableKey("feature", variable.name)] = counts
        counted.append(Window(start + i, variables))
    return counted


@pytest.fixture(scope="module")
def profile():
    return train(draw(np.random.default_rng(60), 6 * DAY // 4))


def test_nothing_is_said_while_nothing_changes(profile):
    alarms = ModelAlarms(profile, AlarmSettings())
    assert alarms.advance(count(profile, draw(np.random.default_rng(61), 300))) == []
    state = alarms.state()
    assert (state.phase, state.alarm, state.raised, state.budget) == ("calibrated", None, 0, 1.0)
    assert state.variables == {VariableKey("feature", name) for name in ("km", "wind", "fuel")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"km": 15.0}, r"km: mean up 0\.[456]\d? sd"),
        ({"km": -15.0}, r"km: mean down 0\.[456]\d? sd"),
        ({"missing": 0.1}, r"wind: NaN 1(\.\d)? % -> (9(\.\d)?|1\d) %"),
        ({"fuel": [0.54, 0.43, 0.03]}, r"fuel: 'EV' 14 % -> \d(\.\d)? %"),
    ],
)
def test_a_change_is_named_within_minutes_and_ends(profile, change, said):
    rng = np.random.default_rng(62)
    alarms = ModelAlarms(profile, AlarmSettings())
    assert alarms.advance(count(profile, draw(rng, 60))) == []
    (event, *more) = alarms.advance(count(profile, draw(rng, 30, **change), START + 60))
    assert event.kind == "raise"
    assert not [e for e in more if e.kind != "grow"]
    assert event.time <= (START + 60 + 5) * 60  # within five minutes
    assert event.alarm.evidence >= 1
    assert pytest.approx(1) == sum(suspect.share for suspect in event.alarm.suspects)
    state = alarms.state()
    (first, *others) = map(str, state.alarm.suspects)
    assert pd.Series([first]).str.fullmatch(said).all(), first
    assert not others
    assert {key.name for key in state.active} == {first.split(":")[0]}
    events = alarms.advance(count(profile, draw(rng, 300), START + 90))
    assert [e.kind for e in events] == ["clear"]
    assert alarms.state().alarm is None
    assert alarms.state().raised == 1


def test_windows_that_were_seen_are_not_counted_again(profile):
    rng = np.random.default_rng(63)
    windows = count(profile, draw(rng, 40) + draw(rng, 20, km=20.0))
    once, twice = (ModelAlarms(profile, AlarmSettings()) for _ in range(2))
    events = once.advance(windows)
    assert events
    assert twice.advance(windows[:50]) + twice.advance(windows[20:]) == events
    assert twice.next == windows[-1].number + 1


def test_the_state_survives_a_restart(profile):
    """In the middle of an alarm: what comes after is the same, to the bit."""
    rng = np.random.default_rng(64)
    windows = count(profile, draw(rng, 70) + draw(rng, 40, km=9.0) + draw(rng, 200))
    whole = ModelAlarms(profile, AlarmSettings())
    events = whole.advance(windows)
    assert [event.kind for event in events] == ["raise", "clear"]
    for cut in (50, 100, 180):
        first, second = (ModelAlarms(profile, AlarmSettings()) for _ in range(2))
        before = first.advance(windows[:cut])
        second.load(unpack(pack(first.dump())))
        assert before + second.advance(windows[cut:]) == events


def test_a_muted_feature_is_not_listened_to_until_its_time(profile):
    rng = np.random.default_rng(65)
    muted = AlarmSettings(muted={"km": (START + 30) * 60.0})
    alarms = ModelAlarms(profile, muted)
    windows = count(profile, draw(rng, 60, km=20.0))
    assert alarms.advance(windows[:30]) == []
    (event,) = alarms.advance(windows[30:])
    assert event.time <= (START + 40) * 60


def test_without_times_it_learns_and_alarms_on_what_nothing_could_explain_alone():
    rng = np.random.default_rng(66)
    profile = train(draw(rng, 100), times=False)
    alarms = ModelAlarms(profile, AlarmSettings())
    events = alarms.advance(count(profile, draw(rng, 120, km=10.0)))  # which a season might do
    assert (events, alarms.state().phase, alarms.state().days) == ([], "learning", 0)
    events = alarms.advance(count(profile, draw(rng, 100, missing=0.9), START + 120))  # of 1 % in the profile
    assert events == []
    events = alarms.advance(count(profile, draw(rng, 450, missing=0.9), START + 220))
    assert [event.kind for event in events] == ["raise"]
    assert pd.Series([str(events[0].alarm.suspects[0])]).str.fullmatch(r"wind: NaN \d(\.\d)? % -> [6-9]\d %").all()
    again = ModelAlarms(profile, AlarmSettings())
    again.load(unpack(pack(alarms.dump())))
    assert again.state() is not None
    assert again.state().alarm == alarms.state().alarm


def test_what_is_learnt_is_used():
    """A fortnight of few rows; the mean follows the hour."""
    rng = np.random.default_rng(67)
    profile = train(draw(rng, 100), times=False)

    def day(number: int, **change):
        rows = []
        for minute in range(0, DAY, 10):  # every tenth minute has rows
            (one,) = draw(rng, 1, 40, km=15 * np.sin(2 * np.pi * minute / DAY) + change.get("km", 0.0))
            rows += count(profile, [one], START + number * DAY + minute)
        return rows

    alarms = ModelAlarms(profile, AlarmSettings())
    phases = []
    for number in range(15):
        assert alarms.advance(day(number)) == []
        phases.append(alarms.state().phase)
    assert phases[:6] == ["learning"] * 6
    assert "provisional" in phases
    assert phases[-1] == "learnt"
    again = ModelAlarms(profile, AlarmSettings())
    again.load(unpack(pack(alarms.dump())))
    events = again.advance(day(15, km=30.0))
    assert events[0].kind == "raise"
    assert events[0].alarm.suspects[0].variable.name == "km"


def days(rng, profile, first: int, number: int, start: int = START, **change) -> list[Window]:
    """Whole days with rows in each twentieth minute; the mean follows the hour."""
    found = []
    for minute in range(first * DAY, (first + number) * DAY, 20):
        km = 15 * np.sin(2 * np.pi * minute / DAY) + change.get("km", 0.0)
        (rows,) = draw(rng, 1, 40, **{**change, "km": km})
        found += count(profile, [rows], start + minute)
    return found


@pytest.fixture(scope="module")
def plain():
    return train(draw(np.random.default_rng(68), 100), times=False)


def test_freezing_keeps_what_is_learnt_and_needs_seven_days(plain):
    rng = np.random.default_rng(69)
    alarms = ModelAlarms(plain, AlarmSettings())
    alarms.advance(days(rng, plain, 0, 3))
    with pytest.raises(ValueError, match="2 days are learnt by now, and 7 are needed"):
        alarms.freeze()
    alarms.advance(days(rng, plain, 3, 5))
    assert (alarms.state().phase, alarms.state().days) == ("provisional", 7)
    alarms.freeze()
    frozen = alarms.dump()["learner"]["calibrations"]
    assert alarms.state().phase == "learnt"
    assert alarms.granted == 0
    alarms.advance(days(rng, plain, 8, 3))
    assert alarms.dump()["learner"]["calibrations"] == frozen
    assert alarms.state().days == 7
    alarms.freeze()  # again makes no difference
    assert alarms.state().phase == "learnt"


def test_resetting_forgets_what_is_learnt_and_ends_the_alarm(plain):
    rng = np.random.default_rng(70)
    alarms = ModelAlarms(plain, AlarmSettings())
    alarms.advance(days(rng, plain, 0, 8))
    (raised, *_) = alarms.advance(days(rng, plain, 8, 1, km=25.0))
    assert raised.kind == "raise"
    alarms.reset()
    (cleared,) = alarms.advance(days(rng, plain, 9, 1, km=25.0))
    assert cleared.kind == "clear"
    assert (alarms.state().phase, alarms.state().days, alarms.state().alarm) == ("learning", 0, None)
    assert alarms.dump()["learner"]["calibrations"] == []
    alarms.advance(days(rng, plain, 10, 8, km=25.0))
    assert alarms.state().phase == "provisional"
    assert alarms.advance(days(rng, plain, 18, 1, km=25.0)) == []  # as it has been since


def test_rolling_follows_what_changes(plain):
    """A shift alarms, and is normal once the newest seven days are all of it."""
    rng = np.random.default_rng(71)
    alarms = ModelAlarms(plain, AlarmSettings())
    alarms.advance(days(rng, plain, 0, 8))
    alarms.learner.roll(7)
    (raised, *_) = alarms.advance(days(rng, plain, 8, 1, km=25.0))
    assert raised.kind == "raise"
    later = ModelAlarms(plain, AlarmSettings())
    later.load(unpack(pack(alarms.dump())))
    assert later.state().phase == "rolling"
    events = later.advance(days(rng, plain, 9, 9, km=25.0))
    assert later.state().alarm is None
    assert events[-1].kind == "clear"
    later.freeze()
    assert later.state().phase == "learnt"
    (raised, *_) = later.advance(days(rng, plain, 18, 1, km=-25.0))
    assert raised.kind == "raise"


def test_rolling_begins_anew_after_freezing_and_goes_by_what_was_frozen_meanwhile(plain):
    rng = np.random.default_rng(72)
    alarms = ModelAlarms(plain, AlarmSettings())
    alarms.advance(days(rng, plain, 0, 8))
    alarms.freeze()
    alarms.learner.roll(7)
    (raised, *_) = alarms.advance(days(rng, plain, 8, 1, km=25.0))
    assert raised.kind == "raise"
    assert alarms.state().phase == "rolling"


def test_a_profile_with_times_has_nothing_to_freeze(profile):
    alarms = ModelAlarms(profile, AlarmSettings())
    for verb in (alarms.freeze, alarms.reset, lambda: alarms.learner.roll(7)):
        with pytest.raises(ValueError, match="its profile says what is normal"):
            verb()


def test_learning_keeps_within_what_is_granted(plain):
    """Refused at first, granted later; and where it grows beyond that, it ends with what it has, or is refused."""
    rng = np.random.default_rng(73)
    asked, limit = [], [0]

    def grant(size: int) -> bool:
        asked.append(size)
        return size <= limit[0]

    alarms = ModelAlarms(plain, AlarmSettings(), grant=grant)
    assert alarms.state().phase == "refused"
    assert alarms.advance(days(rng, plain, 0, 1, missing=1.0)) == []
    limit[0] = max(asked)
    alarms.advance(days(rng, plain, 1, 1))
    assert (alarms.state().phase, alarms.granted) == ("learning", max(asked))
    assert alarms.granted == 14 * RESERVED * sum(len(r.variable.decision) for r in plain.references)
    alarms.learner.granted = limit[0] = 10_000  # as if it had grown beyond
    alarms.advance(days(rng, plain, 2, 1))
    assert alarms.state().phase == "refused"
    assert alarms.granted == 0


@pytest.mark.parametrize("cut", [350, 550])
def test_learning_goes_on_after_a_restart_as_if_there_had_been_none(plain, cut):
    """Cut in the middle of a day while it learns, while it is provisional; what follows is the same, to the bit."""
    rng = np.random.default_rng(74)
    windows = days(rng, plain, 0, 9) + days(rng, plain, 9, 1, km=25.0)
    whole, second = (ModelAlarms(plain, AlarmSettings()) for _ in range(2))
    events = whole.advance(windows)
    assert events
    first = ModelAlarms(plain, AlarmSettings())
    before = first.advance(windows[:cut])
    second.load(unpack(pack(first.dump())))
    assert before + second.advance(windows[cut:]) == events
    assert pack(second.dump()) == pack(whole.dump())
