"""From the model to PromQL through the real programs: exact counts at the far end."""

from __future__ import annotations

import subprocess
import urllib.request

import numpy as np
import pytest
from opentelemetry.sdk.resources import Resource

from otel_mlmon import Monitor, Profile

DAY = 1_735_689_600.0  # 1 January 2025, UTC
COUNTS = 'sum by (ml_feature_name) (ml_feature_count_total{{job=~"{job}"}})'
FORMATS = ("PrometheusText0.0.4", "PrometheusText1.0.0", "OpenMetricsText1.0.0")


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(0)
    return Profile.build(
        {"x": rng.normal(size=5_000), "city": rng.choice(["Rome", "Oslo"], 5_000)}, model="m", version="1"
    )


def observe(monitor: Monitor, rows: int, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    monitor.observe({"x": rng.normal(size=rows), "city": rng.choice(["Rome", "Oslo", "Bonn"], rows)})


def test_a_scrape_of_the_processor_in_every_format(start, model, wait, promtool):
    processor = start.processor()
    prometheus = start.prometheus(processor, protocols=FORMATS)
    monitor = model(f"127.0.0.1:{processor.otlp}")
    observe(monitor, 1_234)
    assert monitor.flush()
    for protocol in FORMATS:
        query = COUNTS.format(job=f"otel-mlmon {protocol}")
        wait(lambda query=query: prometheus.by("ml_feature_name", query) == {"x": 1_234, "city": 1_234}, protocol)
    assert prometheus.query("sum(up) == 3")
    assert prometheus.query('ml_feature_category_total{ml_feature_category="_UNSEEN_"} > 0')
    wait(lambda: prometheus.query('ml_feature_drift{ml_drift_measure="psi"}'), "an evaluation")
    text = urllib.request.urlopen(f"{processor.url}/metrics", timeout=10).read()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_through_an_agent(start, model, wait, temporality):
    processor = start.processor()
    prometheus = start.prometheus(processor)
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    monitor = model(f"127.0.0.1:{agent.ports['GRPC']}", temporality)
    for i in range(5):
        observe(monitor, 200 + i, i)
        assert monitor.flush()
    expected = sum(200 + i for i in range(5))
    query = COUNTS.format(job=".*")
    wait(lambda: prometheus.by("ml_feature_name", query) == {"x": expected, "city": expected}, "the counts")
    assert prometheus.query("ml_reference_rows == 5000")  # the profile came as a log event


# What depends on the moment and not on what was recorded.
MOMENTARY = {"ml_reference_age_seconds", "ml_model_age_seconds", "mlmon_processor_lag_seconds"}


@pytest.mark.parametrize("referenced", [True, False])
def test_delta_and_cumulative_give_the_same_series(start, monkeypatch, profile, wait, referenced):
    """Side by side through one agent, with a profile (explicit bounds) and without (exponential histograms)."""
    processor = start.processor()
    prometheus = start.prometheus(processor)
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{agent.ports['GRPC']}")
    names = ("delta", "cumulative")
    model = {"profile": profile} if referenced else {"profile": "m", "version": "1"}
    monitors = [Monitor(**model, resource=Resource({"service.name": name}), temporality=name) for name in names]
    rng, total = np.random.default_rng(1), 0
    for number in range(5):
        rows = 2_000 + number
        values = {"x": rng.normal(0.3, 1, rows), "city": rng.choice(["Rome", "Oslo", "Bonn"], rows)}
        values["x"][::50] = np.nan
        when = DAY + 120 * number + np.linspace(0, 90, rows)
        for monitor in monitors:
            monitor.observe(values, time=when)
            assert monitor.flush()
        total += rows
    for monitor in monitors:
        monitor.close()

    def series(name: str) -> dict:
        found = prometheus.query(f'{{service_name="{name}"}}')
        kept = [({k: v for k, v in labels.items() if k != "service_name"}, value) for labels, value in found]
        return {tuple(sorted(labels.items())): value for labels, value in kept if labels["__name__"] not in MOMENTARY}

    counts = 'sum by (service_name) (ml_feature_count_total{ml_feature_name="x"})'
    wait(lambda: prometheus.by("service_name", counts) == dict.fromkeys(names, total), "the counts")
    if referenced:
        alarms = "sum by (service_name) (ml_drift_alarm)"
        wait(lambda: prometheus.by("service_name", alarms) == dict.fromkeys(names, 2), "the verdicts")  # of x and city
    wait(lambda: series("delta") == pytest.approx(series("cumulative"), rel=1e-9), "the same series")
    assert len(series("delta")) > (60 if referenced else 10)
