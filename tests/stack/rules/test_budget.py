"""An alarm under the budget, from rows to the alert: hours are replayed in seconds, as windows are of a minute."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from otel_mlmon import Monitor, Profile

pytestmark = pytest.mark.timeout(240)

ROWS = 100  # a minute
ABOUT = {"ml_model_name": "m", "ml_model_version": "1"}


def draw(rng, first: int, minutes: int, mean: float = 0.0) -> pd.DataFrame:
    """Rows by minute since 1970, of which the mean of x may have moved."""
    moments = 60.0 * (first + np.repeat(np.arange(minutes), ROWS)) + 30.0
    return pd.DataFrame({"x": rng.normal(mean, 1, moments.size), "y": rng.normal(size=moments.size), "time": moments})


def test_drift_fires_and_a_stationary_feature_beside_it_does_not(start, watch, monkeypatch, wait):
    rng, minute = np.random.default_rng(73), int(time.time() // 60) - 200
    profile = Profile.build(draw(rng, minute - 1_000, 1_000), model="m", version="1", time_column="time")
    processor = start.processor(settings="window: {hold: 1s}\nevaluate: {interval: 100ms}\n")
    prometheus = watch.prometheus(processor, **{"for": "0s"})  # else after ten minutes
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{processor.otlp}")
    monitor = Monitor(profile)

    def replay(minutes: int, mean: float = 0.0) -> None:
        nonlocal minute
        rows = draw(rng, minute, minutes, mean)
        monitor.observe(rows[["x", "y"]], time=rows["time"])
        assert monitor.flush()
        minute += minutes

    def on() -> dict[str, float]:
        return {labels["ml_feature_name"]: value for labels, value in prometheus.query("ml_drift_alarm")}

    replay(120)
    wait(lambda: on() == {"x": 0, "y": 0}, "the verdict on two quiet hours")
    assert prometheus.query("ml_alarm_budget")[0][1] == 1
    assert prometheus.query("ml_alarm_learning")[0][1] == 0
    assert [alert for alert in prometheus.alerts() if alert["labels"]["alertname"] == "MlDrift"] == []
    replay(60, mean=0.8)
    wait(lambda: on() == {"x": 1, "y": 0}, on)
    assert prometheus.query("ml_alarm_raised")[0][1] == 1

    def firing() -> list[dict]:
        found = [alert for alert in prometheus.alerts() if alert["labels"]["alertname"] == "MlDrift"]
        return [alert for alert in found if alert["state"] == "firing"]

    (alert,) = wait(firing, prometheus.alerts)
    assert alert["labels"].items() >= {**ABOUT, "ml_feature_name": "x", "severity": "ticket"}.items()
    assert "m 1: x has changed, effect" in alert["annotations"]["summary"]
    ((told, _),) = prometheus.query("ml_alarm_start_seconds")
    assert f"The alarm says: {told['ml_alarm_text']}, since 20" in alert["annotations"]["description"]
    monitor.close()
