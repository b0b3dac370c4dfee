"""Alarms under the budget, through a real processor: from rows to /metrics, over restarts; and what is kept on disk."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from otel_mlmon_processor.alarm_store import AlarmStore, Saved
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.watch import SAVED, Watch
from otel_mlmon_processor.windows import ModelKey, Window

from otel_mlmon import Monitor, Profile

DAY = 1_735_689_600.0  # 1 January 2025, UTC
ROWS = 100


def make_rows(rng, minutes: int, start: float, mean: float = 0.0) -> pd.DataFrame:
    time = start + 60 * np.repeat(np.arange(minutes), ROWS) + 30.0
    x, y = rng.normal(mean, 1, time.size), rng.normal(size=time.size)
    return pd.DataFrame({"x": x, "y": y, "time": time})


@pytest.fixture(scope="module")
def profile():
    rows = make_rows(np.random.default_rng(70), 1_000, DAY - 60_000)
    return Profile.build(rows, model="m", version="1", time_column="time")


@pytest.mark.server
def test_an_alarm_is_raised_shown_kept_over_a_restart_and_cleared(real, profile, wait, monkeypatch, tmp_path):
    rng = np.random.default_rng(71)
    settings = "window: {hold: 50ms}\nevaluate: {interval: 50ms}\nalarms: {budget: 2, models: {m: {tolerance: 0.01}}}\n"
    first = real.Processor(tmp_path, settings=settings)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{first.otlp}")
    monitor = Monitor(profile)

    def send(minutes: int, start: int, mean: float = 0.0) -> None:
        for minute in range(start, start + minutes):
            rows = make_rows(rng, 1, DAY + 60 * minute, mean)
            monitor.observe(rows[["x", "y"]], time=DAY + 60 * minute + 30)
        assert monitor.flush()

    def on(server) -> dict[str, float]:
        return {labels["ml_feature_name"]: value for labels, value in server.samples("ml_drift_alarm")}

    def of(server, name: str) -> float | None:
        return next((value for _, value in server.samples(name)), None)

    send(60, 0)
    wait(lambda: on(first) == {"x": 0, "y": 0}, "nothing")
    assert (of(first, "ml_alarm_budget"), of(first, "ml_alarm_raised"), of(first, "ml_alarm_learning")) == (2, 0, 0)
    send(10, 60, mean=0.8)
    wait(lambda: on(first) == {"x": 1, "y": 0}, "the alarm")
    assert of(first, "ml_drift_evidence") >= 1
    assert of(first, "ml_alarm_raised") == 1
    command = [real.BIN / "otel-mlmon", "status", "--url", first.url + "/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "250"})
    assert done.returncode == 1
    assert "budget: 1 of 2 spent in 30 days; calibrated" in done.stdout
    ((labels, start),) = first.samples("ml_alarm_start_seconds")
    assert labels["ml_feature_name"] == "x"
    assert labels["ml_alarm_text"].startswith("mean up 0.")
    assert DAY + 3_540 <= start <= DAY + 3_660  # the fault began at one
    assert f"ALARM since {pd.Timestamp(start, unit='s'):%Y-%m-%d %H:%M}: x: {labels['ml_alarm_text']}" in done.stdout
    first.stop()
    assert "m 1 of unknown_service" in first.log.read_text()
    said = f"alarm: x: {labels['ml_alarm_text']}; since {pd.Timestamp(start, unit='s'):%Y-%m-%d %H:%M} UTC; evidence "
    assert said in first.log.read_text()

    second = real.Processor(tmp_path, settings=settings, otlp=first.otlp)
    wait(lambda: on(second) == {"x": 1, "y": 0}, "the alarm after a restart")
    assert of(second, "ml_alarm_raised") == 1
    send(3, 70, mean=1.2)  # stronger evidence, and other words if it were told now
    wait(lambda: of(second, "ml_window_end_seconds") >= DAY + 60 * 73, "the new minutes")
    assert second.samples("ml_alarm_start_seconds") == [(labels, start)]
    send(60, 73)
    wait(lambda: on(second) == {"x": 0, "y": 0}, "the end of it")
    assert of(second, "ml_alarm_raised") == 1
    assert of(second, "ml_drift_evidence") is None
    assert second.samples("ml_alarm_start_seconds") == []
    monitor.close()
    second.stop()
    assert second.log.read_text().count(": alarm: ") == 1  # it was not raised again
    assert "the alarm is over: x: mean up 0." in second.log.read_text()


@pytest.fixture
def run_without_times(real, monkeypatch, tmp_path):
    """A processor that has been sent rows of a model whose profile has no times; both end with the test."""
    with contextlib.ExitStack() as ending:

        def run(seed, *, mean, rows, settings=""):
            rng = np.random.default_rng(seed)
            plain = Profile.build({"x": rng.normal(size=5_000)}, model="m")
            server = real.Processor(tmp_path, settings="evaluate: {interval: 100ms}\n" + settings)
            ending.callback(server.stop)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.otlp}")
            monitor = Monitor(plain)
            ending.callback(monitor.close)
            monitor.observe({"x": rng.normal(mean, 1, rows)}, time=DAY)
            assert monitor.flush()
            return server

        yield run


@pytest.mark.server
def test_a_profile_without_times_alarms_on_the_sliding_window(run_without_times, wait):
    server = run_without_times(72, mean=1.0, rows=1_000, settings="alarms: {learn: false}\n")
    wait(lambda: [v for _, v in server.samples("ml_drift_alarm")] == [1], "the verdict")
    assert server.samples("ml_alarm_budget") == []


@pytest.mark.server
def test_while_it_learns_log_status_and_its_exit_agree_that_there_is_no_alarm(run_without_times, real, wait):
    server = run_without_times(74, mean=0.3, rows=2_000)
    wait(lambda: "no alarm; differs from the profile: m: x: mean up 0." in server.log.read_text(), server.log.read_text)
    command = [real.BIN / "otel-mlmon", "status", "--url", server.url + "/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "250"})
    assert "budget: 0 of 1 spent in 30 days; learning, 0 of 7 days" in done.stdout
    assert "no alarm; differs from the profile: x: mean up 0." in done.stdout
    assert done.returncode == 0
    assert "WARNING" not in server.log.read_text()


def test_the_state_is_saved_after_an_event_and_from_time_to_time(tmp_path, profile, views):
    now = [0.0]
    watch = Watch(tmp_path, lambda model: AlarmSettings(), hold=None, memory=None, clock=lambda: now[0])
    view = views.view(profile, {"x": np.zeros(10), "y": np.zeros(10)})
    looked = watch.look(view, profile)
    assert (looked.alarms.phase, looked.events, looked.reference) == ("calibrated", [], None)
    watch.keep({view.key})
    assert AlarmStore(tmp_path).load().models == {}
    now[0] = SAVED
    watch.keep({view.key})
    (name,) = AlarmStore(tmp_path).load().models
    assert profile.hash in name
    assert watch.wanted() == {view.key: {profile.hash: range(-1, sys.maxsize)}}
    watch.keep({ModelKey("", "", "", "other", "")})
    assert watch.wanted() == {}


def test_what_no_endpoint_has_taken_is_saved_with_what_says_that_it_happened(tmp_path, profile, views):
    """And as soon as it is taken, that it need not be sent again; before the next saving is due."""
    unsent: list = []
    settings = {"hold": None, "memory": None, "clock": lambda: 0.0}
    watch = Watch(tmp_path, lambda model: AlarmSettings(), unsent=lambda: list(unsent), **settings)
    rows = make_rows(np.random.default_rng(76), 80, DAY, 1.0)
    windows = [
        Window(int(time // 60), views.variables(profile, {"x": held["x"], "y": held["y"]}))
        for time, held in rows.groupby("time")
    ]
    view = views.view(profile, {"x": np.zeros(10), "y": np.zeros(10)}, windows=tuple(windows))
    (event,) = watch.look(view, profile).events
    unsent.append(("http://h", [event.time]))
    watch.keep({view.key})
    models, saved = AlarmStore(tmp_path).load()
    assert [len(plain["alarms"]["raised"]) for plain in models.values()] == [1]
    assert saved == [["http://h", [event.time]]]
    assert Watch(tmp_path, lambda model: AlarmSettings(), **settings).unsent == saved
    unsent.clear()
    watch.keep({view.key})
    assert (len(AlarmStore(tmp_path).load().models), AlarmStore(tmp_path).load().unsent) == (1, [])


def test_a_broken_file_is_put_aside_and_said(tmp_path, caplog):
    store = AlarmStore(tmp_path)
    store.save(Saved({"m": {"next": 3}}, [("http://h", [(["s"], "raise")])]))
    assert store.load() == ({"m": {"next": 3}}, [["http://h", [[["s"], "raise"]]]])
    (tmp_path / "alarms.state").write_bytes(b"broken")
    with caplog.at_level(logging.ERROR):
        assert store.load() == ({}, [])
    assert "alarms begin anew" in caplog.text
    assert (tmp_path / "alarms.broken").read_bytes() == b"broken"


def test_a_disk_that_is_full_ends_nothing(tmp_path, profile, caplog):
    watch = Watch(tmp_path / "gone", lambda model: AlarmSettings(), hold=None, memory=None, clock=lambda: 0.0)
    with caplog.at_level(logging.ERROR):
        watch.save()
    assert "the alarms' state cannot be saved" in caplog.text
