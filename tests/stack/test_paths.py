"""From the model to PromQL through the real programs: exact counts at the far end."""

from __future__ import annotations

import subprocess
import urllib.request

import numpy as np
import pytest

from otel_mlmon import Monitor, Profile

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
    prometheus = start.prometheus(processor, FORMATS)
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


def test_what_the_processor_missed_is_in_the_agents_queue(start, model, wait):
    """The processor is away, the agent is restarted meanwhile; nothing is lost and nothing counted twice."""
    folder = start.folder / "kept"
    first = start.processor(folder)
    agent = start.agent(f"127.0.0.1:{first.otlp}")
    monitor = model(f"127.0.0.1:{agent.ports['GRPC']}", "delta")
    observe(monitor, 100)
    assert monitor.flush()
    wait(lambda: first.feature_counts() == {"x": 100, "city": 100}, "the first counts")
    first.stop()
    for i in range(3):
        observe(monitor, 10, i)
        assert monitor.flush()  # the agent has it
    agent.stop()
    again = start.agent(f"127.0.0.1:{first.otlp}", agent.folder, agent.ports)
    observe(monitor, 7)
    wait(monitor.flush, "the agent")
    second = start.processor(folder, otlp=first.otlp)
    wait(lambda: second.feature_counts() == {"x": 137, "city": 137}, "what was in the queue", seconds=60)
    assert again.process.poll() is None
