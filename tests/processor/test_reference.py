"""Learning from production and `otel-mlmon reference`, through a real processor: days of rows over gRPC, restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.alarm_store import AlarmStore
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.learner import RESERVED
from otel_mlmon_processor.orders import FOLDER, Order, Orders
from otel_mlmon_processor.watch import GONE, Memory, Watch
from otel_mlmon_processor.windows import ModelKey, VariableCounts, VariableKey, Window

from otel_mlmon import Monitor, Profile

pytestmark = pytest.mark.endurance
DAY = 86_400
START = 1_735_689_600  # 1 January 2025, UTC
SETTINGS = "window: {hold: 1ms}\nevaluate: {interval: 20ms}\n"
ROWS = (7 * 24 - 1) * 600
KEY = ModelKey("shop", "svc", "prod", "m", "1")


class Replay:
    """A model process that lives through days in seconds: 600 rows in a minute of each hour."""

    def __init__(self, monitor, server, wait, seed: int, *, missing: float = 0.0) -> None:
        self.monitor, self.server, self.wait, self.rng, self.missing = (
            monitor,
            server,
            wait,
            np.random.default_rng(seed),
            missing,
        )
        self.time = float(START)

    def send(self, days: float, mean: float = 0.0) -> None:
        end = self.time + days * DAY
        while self.time < end:
            for _ in range(3):
                n = 600
                x = np.where(self.rng.random(n) < self.missing, np.nan, self.rng.normal(100 + 30 * mean, 30, n))
                c = self.rng.choice(["gas", "oil", "EV"], n, p=[0.5, 0.36, 0.14])
                self.monitor.observe({"x": x, "c": c}, time=self.time + 60)  # nothing later is in its window
                assert self.monitor.flush()
                self.time += 3_600
            last = self.time - 3_600
            self.wait(lambda last=last: self.value("ml_window_end_seconds") >= last, "the evaluation")
            now = time.time()  # and the next one looks at the windows
            self.wait(
                lambda now=now: self.value("mlmon_processor_evaluation_end_seconds") >= now, "the next evaluation"
            )

    def value(self, name: str) -> float:
        return next((value for _, value in self.server.samples(name)), -1.0)


@pytest.fixture
def command(real, tmp_path):
    def run(*arguments):
        line = [real.BIN / "otel-mlmon", *arguments]
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
        return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)

    return run


@pytest.mark.server
@pytest.mark.timeout(240)  # days of rows
def test_what_is_normal_is_learnt_frozen_rolled_and_reset_over_restarts(real, wait, command, monkeypatch, tmp_path):
    rng = np.random.default_rng(80)
    profile = Profile.build(
        {"x": rng.normal(100, 30, 5_000), "c": rng.choice(["gas", "oil", "EV"], 5_000, p=[0.5, 0.36, 0.14])},
        model="m",
        version="1",
    )
    data = tmp_path / "data"
    first = real.Processor(tmp_path, settings=SETTINGS)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{first.otlp}")
    monitor = Monitor(profile, resource=Resource({"service.name": "svc"}))
    replay = Replay(monitor, first, wait, 81)
    replay.send(2.25)
    assert (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (1, 2)
    assert {value for _, value in first.samples("ml_drift_alarm")} == {0}
    done = command("status", "--url", first.url + "/metrics")
    assert "learning, 2 of 7 days" in done.stdout
    done = command("reference", "freeze", data, "m")
    assert (done.returncode, done.stdout) == (2, "")
    assert "freeze of m 1 of svc: 2 days are learnt by now, and 7 are needed" in done.stderr
    first.stop()
    done = command("reference", "roll", data, "m", "--days", "21", "--wait", "0")  # it waits for the next processor
    assert (done.returncode, len(list((data / FOLDER).iterdir()))) == (0, 1)
    assert "roll of m 1 of svc is left for the processor, which has not taken it up yet" in done.stdout

    second = real.Processor(tmp_path, settings=SETTINGS, otlp=first.otlp)  # in the middle of learning
    replay.server = second
    assert list((data / FOLDER).iterdir()) == []
    assert [plain["alarms"]["shown"]["rolling"] for plain in AlarmStore(data).read().models.values()] == [21]
    assert "7 days are needed; then the newest 21 days" in command("reference", "show", data).stdout
    replay.send(4.9)
    assert (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (0, 7)
    done = command("reference", "freeze", data, "m", "--version", "1", "--service", "svc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "freeze of m 1 of svc: done\n", "")
    os.kill(second.process.pid, 9)  # what was answered with "done" is on disk
    second.process.wait()

    third = real.Processor(tmp_path, settings=SETTINGS, otlp=first.otlp)
    replay.server = third
    assert (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (0, 7)
    (row,) = [line for line in command("reference", "show", data).stdout.splitlines() if "│ m " in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][:6] == ["m", "1", "svc", "null", "fixed", "7"]
    replay.send(0.125, mean=2.0)
    wait(
        lambda: [labels["ml_feature_name"] for labels, value in third.samples("ml_drift_alarm") if value] == ["x"], "x"
    )
    assert command("reference", "roll", data, "m", "--days", "7").stdout == "roll of m 1 of svc: done\n"
    assert "fixed until 7 days are learnt; then the newest 7 days" in command("reference", "show", data, "m").stdout
    assert command("reference", "reset", data, "m").stdout == "reset of m 1 of svc: done\n"
    wait(lambda: (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (1, 0), "the new beginning")
    monitor.close()
    third.stop()
    assert list((data / FOLDER).iterdir()) == []


@pytest.mark.server
@pytest.mark.timeout(240)
def test_a_model_without_a_profile_gets_its_reference_from_production(real, wait, command, monkeypatch, tmp_path):
    data = tmp_path / "data"
    first = real.Processor(tmp_path, settings=SETTINGS)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{first.otlp}")
    monitor = Monitor("m", version="1", resource=Resource({"service.name": "svc"}))
    replay = Replay(monitor, first, wait, 82, missing=0.01)
    replay.send(0.5)
    assert (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (1, 0)
    assert "first day: choosing cells" in command("reference", "show", data).stdout
    assert "its first day is not over" in command("reference", "freeze", data, "m").stderr
    first.stop()
    second = real.Processor(tmp_path, settings=SETTINGS, otlp=first.otlp)
    replay.server = second
    replay.send(7.0)
    assert (replay.value("ml_alarm_learning"), replay.value("ml_alarm_learnt")) == (1, 6)
    assert second.samples("ml_feature_drift") == []
    replay.send(0.625)
    assert replay.value("ml_alarm_learnt") == 7
    assert replay.value("ml_reference_rows") == ROWS  # of the days after the first
    drift = {
        (labels["ml_feature_name"], labels["ml_drift_measure"]): value
        for labels, value in second.samples("ml_feature_drift")
    }
    assert {name for name, _ in drift} == {"x", "c"}
    assert abs(drift["x", "effect"]) < 0.1
    assert abs(drift["x", "mean_shift"]) < 0.15
    assert {value for _, value in second.samples("ml_drift_alarm")} == {0}
    replay.send(0.125, mean=1.0)
    wait(
        lambda: [labels["ml_feature_name"] for labels, value in second.samples("ml_drift_alarm") if value] == ["x"], "x"
    )
    drift = {
        (labels["ml_feature_name"], labels["ml_drift_measure"]): value
        for labels, value in second.samples("ml_feature_drift")
    }
    assert drift["x", "mean_shift"] == pytest.approx(1.0, abs=0.2)
    assert "│ reference, null" in command("reference", "show", data).stdout
    second.stop()
    assert "alarm: x: mean up" in second.log.read_text()
    third = real.Processor(tmp_path, settings=SETTINGS, otlp=first.otlp)
    replay.server = third
    assert replay.value("ml_reference_rows") == ROWS
    assert command("reference", "reset", data, "m").stdout == "reset of m 1 of svc: done\n"
    wait(lambda: replay.value("ml_reference_rows") == -1, "no reference any more")
    assert "first day: choosing cells" in command("reference", "show", data).stdout
    monitor.close()
    third.stop()


def test_commands_that_cannot_be_followed_say_why(command, tmp_path):
    for arguments, said in (
        (("show", tmp_path / "none"), "is no directory"),
        (("freeze", tmp_path, "m"), "no such model 'm' (with this version and service) is known; known are: none"),
        (("roll", tmp_path, "m"), "--days"),
    ):
        done = command("reference", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert command("reference", "show", tmp_path).stdout.startswith("nothing is known yet")
    (tmp_path / "alarms.state").write_bytes(b"broken")
    done = command("reference", "show", tmp_path)
    assert done.returncode == 2
    assert "alarms.state: not a packed tree of this version" in done.stderr


def make_watch(folder, memory: int, now=lambda: 0.0) -> Watch:
    return Watch(folder, lambda model: AlarmSettings(), hold=None, memory=memory, clock=now)


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(83)
    return Profile.build({"x": rng.normal(size=5_000)}, model="m", version="1")


def test_who_comes_later_is_refused_and_nobody_loses_what_he_has(views, profile, tmp_path, caplog):
    need = 14 * RESERVED * len(profile.references[0].variable.decision)
    watch = make_watch(tmp_path, need + need // 2)
    one, two = KEY, KEY._replace(service="other")
    rows = {"x": np.zeros(10)}
    phases = [watch.look(views.view(profile, rows, key=key), profile).alarms.phase for key in (one, two, one)]
    assert phases == ["learning", "refused", "learning"]
    assert "other: what is normal is not learnt, for want of memory; see alarms.memory" in caplog.text
    watch.save()
    again = make_watch(tmp_path, need + need // 2)  # the other one is seen first
    phases = [again.look(views.view(profile, rows, key=key), profile).alarms.phase for key in (two, one)]
    assert phases == ["refused", "learning"]


def test_the_first_day_of_models_without_a_profile_has_its_share_of_the_memory(views, tmp_path):
    """Names without end: what does not fit is let go of, and nobody is robbed."""
    watch = make_watch(tmp_path, 20_000)
    keys = [KEY._replace(model=f"m{i}") for i in range(50)]
    phases = []
    for key in keys:
        counts = VariableCounts(300, {}, categories={f"{key.model}-{i}": 1 for i in range(100)})
        window = Window(29_000_000, {VariableKey("feature", "c"): counts})
        view = views.view(None, {"c": counts}, key=key, windows=(window,))
        phases.append(watch.look(view, None).alarms.phase)
    assert phases == ["learning"] + ["refused"] * 49
    assert sum(survey.size for survey in watch._surveys.values()) < 20_000


def test_memory_counts_what_is_held():
    memory = Memory(100)
    assert memory.ask("a", 60)
    assert not memory.ask("b", 41)
    assert memory.ask("b", 40)
    assert not memory.ask("a", 61)
    assert memory.ask("a", 0)
    assert memory.ask("b", 100)


def test_what_was_learnt_of_a_silent_model_is_kept_for_sixty_days(views, profile, tmp_path):
    watch = make_watch(tmp_path, 10**9)
    view = views.view(profile, {"x": np.zeros(10)})
    watch.look(view, profile)
    watch._models[view.key, profile.hash].next = 5  # as if it had been silent since
    watch.keep(set())
    assert watch.wanted() == {}
    (name,) = AlarmStore(tmp_path).load().models
    assert json.loads(name)[3] == "m"
    watch.look(view, profile)
    assert watch.wanted() == {view.key: {profile.hash: range(5, sys.maxsize)}}
    watch.keep(set())
    other = view.key._replace(service="other")
    watch.look(views.view(profile, {"x": np.zeros(10)}, key=other), profile)
    watch._models[other, profile.hash].next = 6 + GONE
    watch.save()
    assert [json.loads(name)[1] for name in AlarmStore(tmp_path).load().models] == ["other"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no order"),
        ('{"verb": "delete", "model": ["", "", "", "m", ""], "days": 0}', "'delete' is none of freeze, reset, roll"),
        ('{"verb": "roll", "model": ["", "", "", "m", ""], "days": 5}', "days must be 7 to 56, got 5"),
        ('{"verb": "freeze", "model": ["m"], "days": 0}', "it is no order"),
        ('["freeze"]', "it is no order"),
        (" " * 70_000, "larger than 65536 bytes"),
        ('{"verb": "freeze", "model": ["", "", "", "m", ""], "days": 0}', "no such model sends at present"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_does_no_harm(tmp_path, text, said):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "1.json").write_text(text)
    make_watch(tmp_path, 10**9).obey()
    (left,) = (tmp_path / FOLDER).iterdir()
    assert left.name == "1.refused"
    assert said in left.read_text()
    assert said in Orders(tmp_path).answer("1")
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_an_order_is_not_done_before_it_is_on_disk(views, profile, tmp_path, monkeypatch):
    watch = make_watch(tmp_path, 10**9)
    view = views.view(profile, {"x": np.zeros(10)})
    watch.look(view, profile)
    name = Orders(tmp_path).give(Order("reset", view.key))

    def fail(models):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watch._store, "save", fail)
    watch.obey()
    assert Orders(tmp_path).answer(name) is None
    monkeypatch.undo()
    watch.obey()
    assert Orders(tmp_path).answer(name) == ""
