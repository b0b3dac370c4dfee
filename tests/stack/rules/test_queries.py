"""Every query of queries.md and runbook.md gives data in the real Prometheus, the right one where it is known."""

from __future__ import annotations

import math
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(240)

DOCS = Path(__file__).parents[3] / "docs"
HEADING = re.compile(r"^##+ ([^\n]+)$|^ *```promql\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
DAY = 86_400
# Alerts of the runbook about faults that this story has not.
ABSENT = {"MlFeatureUnseen", "MlReferenceAbsent", "MlProcessorDrops", "MlQueueLoses"}
ABSENT |= {"MlProcessorCannotSend", "MlProcessorSendLoses"}


def read_queries(page: str) -> list[tuple[str, str]]:
    """Each query with the heading above it."""
    heading, found = "", []
    for match in HEADING.finditer((DOCS / page).read_text()):
        heading = match[1] or heading
        if match[2]:
            found.append((heading, match[2]))
    return found


class Story:
    """Three replicas, one of which gets kilometres, all without wind, one call of ten failing; and another version."""

    def __init__(self, flights, endpoint: str, processor) -> None:
        self.flights, self.number, self.seen = flights, 0, 0
        self.refused = f"http://127.0.0.1:{processor.otlp_http}/v1/metrics"
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 10 * DAY))
        profile = flights.named("flights", trained=moment, created=moment)
        self.old = [flights.replica(endpoint, profile, f"air-{i}") for i in (1, 2, 3)]
        self.new = flights.replica(endpoint, flights.named("flights", version="2013-05", trained=moment), "air-4")

    def tell(self) -> None:
        """A round of it."""
        for i, monitor in enumerate(self.old):
            X = self.flights.take(3 * self.number + i).assign(wind_speed=np.nan)
            if i == 1:
                X["distance"] *= 1.609344
            self.flights.call(monitor, X, calls=18)
            for _ in range(2):
                with pytest.raises(ZeroDivisionError), monitor.inference():
                    raise ZeroDivisionError
            self.seen += len(X)
        self.flights.call(self.new, self.flights.take(self.number))
        self.old[0].observe(object())
        self.number += 1
        for monitor in (*self.old, self.new):
            assert monitor.flush()
        request = urllib.request.Request(self.refused, b"no OTLP", {"Content-Type": "application/x-protobuf"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request, timeout=10)


@pytest.fixture
def told(watch, flights, wait):
    """The story and Prometheus, once it has all of it."""
    processor = watch.processor()
    agent = watch.agent(f"127.0.0.1:{processor.otlp}")
    prometheus = watch.prometheus(processor, agent)
    story = Story(flights, f"127.0.0.1:{agent.ports['GRPC']}", processor)
    enough = 'count_over_time(ml_drift_replica{ml_feature_name="distance", service_instance_id="air-2"}[1d]) > 20'
    wait(lambda: story.tell() or prometheus.query(enough), "twenty scrapes of an alarm", seconds=90)
    total = 'ml_feature_count_total{ml_feature_name="distance", ml_model_version="2013-04"}'
    wait(lambda: [v for _, v in prometheus.query(total)] == [story.seen], "the last of it")
    return story, prometheus


def test_every_query_gives_data(told):
    story, prometheus = told
    queries = read_queries("queries.md")
    assert len(queries) >= 40
    answers = {}
    for heading, query in queries:
        answers.setdefault(heading, []).append(prometheus.query(query))
    poor = {heading: rows for heading, parts in answers.items() for rows in parts if not is_data(rows)}
    assert poor == {}
    check(answers, story)
    empty = {heading for heading, query in read_queries("runbook.md") if not prometheus.query(query)}
    assert empty <= ABSENT


def is_data(rows) -> bool:
    return bool(rows) and all(math.isfinite(value) for _, value in rows)


def check(answers, story) -> None:
    """What is known beforehand."""

    def only(heading: str, part: int = 0, **labels: str) -> float:
        (value,) = (v for ls, v in answers[heading][part] if labels.items() <= ls.items())
        return value

    old, new = {"ml_model_version": "2013-04"}, {"ml_model_version": "2013-05"}
    changed = {ls.get("ml_feature_name", "") for ls, _ in answers["What has changed?"][0]}
    assert {"distance", "wind_speed"} <= changed
    assert all(ls["ml_model_version"] == "2013-04" for ls, _ in answers["What has changed?"][0])
    for part in (0, 1):
        assert answers["What moved most, now and this week?"][part][0][0]["ml_feature_name"] == "distance"
    km = only("By how much, and in which direction?", **old)
    rows = story.flights.rows["distance"]
    assert km == pytest.approx(0.609344 * rows.mean() / 3 / rows.std(), rel=0.1)
    temp = story.flights.rows["temp"]
    low, high = temp.quantile([0.4, 0.6])
    assert low < only("How large is a usual value now?", **old) < high
    origins = {
        ls["ml_feature_category"]: v for ls, v in answers["Which categories does it see, and how many are new?"][0]
    }
    shares = story.flights.rows["origin"].value_counts(normalize=True)
    assert origins == pytest.approx(shares.to_dict(), abs=0.03)
    broken = answers["Is it broken, or is it different?"][0]
    assert {ls["ml_feature_name"] for ls, _ in broken} >= {"wind_speed"}
    assert answers["Which replica?"][0][0][0]["service_instance_id"] == "air-2"
    # Rates of two counters that did not begin with the same scrape are extrapolated apart.
    assert only("Since which version?", ml_feature_name="wind_speed", **old) == pytest.approx(1, abs=0.02)
    assert only("Since which version?", ml_feature_name="wind_speed", **new) == 0
    assert 0 < only("Since when?", **old) < 240
    assert only("On how many rows does that rest?", 1, **old) == story.flights.profile.rows
    assert only("How old is what it is compared with?", **old) == pytest.approx(10, abs=0.1)
    assert len(answers["Is its quality known?"][0]) == 2
    assert only("How many replicas are there?", **old) == 3
    assert only("How many replicas are there?", **new) == 1
    failing = only("What share of the calls fails, and with what?", error_type="ZeroDivisionError", **old)
    assert failing == pytest.approx(0.1, abs=0.01)
    left = only("How much of the error budget is left?", slo="errors", **old)
    assert left == pytest.approx(1 - 0.1 / 0.001, rel=0.1)
    assert only("How much of the error budget is left?", slo="errors", **new) == 1
    assert only("How busy is it?", 1) == pytest.approx(10, abs=0.5)
    assert only("What is missing?", ml_feature_name="wind_speed", **old) == 1
    assert only("How many predictions did it make?", 1, **old) == story.seen
    decided = {ls["ml_prediction_class"]: v for ls, v in answers["What does it decide?"][0]}
    assert decided.keys() == {"late", "in time"}
    assert sum(decided.values()) == pytest.approx(1)
    lost = only("How many rows were affected by what is missing?", ml_feature_name="wind_speed", **old)
    assert lost == story.seen
    affected = only("How many rows were predicted while something was wrong?", **old)
    assert 0 < affected <= 2 * story.seen
    assert only("How old is the model?", **old) == pytest.approx(10, abs=0.1)
    assert [only("How many of our models are watched, and compared with something?", part) for part in (0, 1)] == [2, 2]
