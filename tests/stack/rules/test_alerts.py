"""The rules in the real Prometheus over real flights: none fires on a quiet stream, each on its fault."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(240)

REPLICAS = 3
OLD = "2020-01-01T00:00:00Z"


def seen(prometheus) -> set[tuple[str, str]]:
    """Alerts that have been pending or firing at any time: the name, and what about."""
    held = prometheus.query("last_over_time(ALERTS[1h])")
    about = ("ml_model_name", "mlmon_reason", "instance")
    return {(ls["alertname"], next((ls[name] for name in about if name in ls), "")) for ls, _ in held}


def evaluated(prometheus, times: int) -> bool:
    """Whether the rules have seen traffic so many times, and the processor has decided on every variable."""
    counted = prometheus.query('count_over_time(ml_model:traffic:rate5m{ml_model_name="flights"}[1h])')
    decided = prometheus.query('count(ml_drift_alarm{ml_model_name="flights"})')
    return bool(counted) and counted[0][1] >= times and decided[0][1] == 16


def test_a_quiet_stream_and_its_faults(watch, flights, wait):
    processor = watch.processor()
    agent = watch.agent(f"127.0.0.1:{processor.otlp}")
    prometheus = watch.prometheus(processor, agent)
    endpoint = f"127.0.0.1:{agent.ports['GRPC']}"
    replicas = [flights.replica(endpoint, flights.profile, f"air-{i}") for i in range(REPLICAS)]
    rounds = iter(range(10_000))

    def quietly() -> int:
        number = next(rounds)
        for i, replica in enumerate(replicas):
            flights.call(replica, flights.take(REPLICAS * number + i))
            assert replica.flush()
        return number

    wait(lambda: quietly() and evaluated(prometheus, 10), "ten evaluations", seconds=90)
    assert prometheus.query('sum(ml_drift_alarm{ml_model_name="flights"} == bool 1)') == [({}, 0.0)]
    assert prometheus.query("sum(up) == 2")
    assert prometheus.alerts() == []
    assert seen(prometheus) == set()

    faults = Faults(flights, endpoint, processor)
    expected = faults.expected

    def broken() -> bool:
        quietly()
        faults.happen()
        return expected <= seen(prometheus)

    try:
        wait(broken, lambda: f"{expected - seen(prometheus)}", seconds=90)
    finally:
        faults.end()
    for alert in prometheus.alerts():
        assert "<error" not in " ".join(alert["annotations"].values()), alert  # of a template
    asked = {alert["annotations"]["query"] for alert in prometheus.alerts()}
    assert [query for query in asked if not prometheus.query(query.replace("[5m]", "[1h]"))] == []
    processor.stop()
    down = ("MlProcessorDown", processor.url.removeprefix("http://"))
    wait(lambda: down in seen(prometheus), "the scrape to fail")
    assert seen(prometheus) == expected | {down}


class Faults:
    """Models beside the quiet one, of which each has a fault."""

    expected = frozenset(
        {
            ("MlInferenceErrors", "failing"),
            ("MlInferenceSlow", "slow"),
            ("MlInferenceStalled", "stalled"),
            ("MlVersionsMixed", "mixed"),
            ("MlFeatureMissing", "missing"),
            ("MlFeatureUnseen", "unseen"),
            ("MlDrift", "unseen"),
            ("MlFeatureOutOfRange", "fahrenheit"),
            ("MlDrift", "fahrenheit"),
            ("MlDrift", "kilometres"),
            ("MlReferenceAbsent", "bare"),
            ("MlReferenceAbsent", "failing"),
            ("MlReferenceAbsent", "slow"),
            ("MlReferenceOld", "old"),
            ("MlModelOld", "old"),
            ("MlProcessorBehind", "behind"),
            ("MlRecorderDrops", "unreadable"),
            ("MlRecorderErrors", "unreadable"),
            ("MlProcessorDrops", "ahead"),
            ("MlProcessorRefuses", "malformed"),
        }
    )

    def __init__(self, flights, endpoint: str, processor) -> None:
        self.flights, self.url, self.rounds = flights, f"http://127.0.0.1:{processor.otlp_http}/v1/metrics", 0
        bare = ("failing", "slow", "stalled", "bare")
        profiled = ("missing", "unseen", "fahrenheit", "kilometres", "behind", "ahead", "unreadable")
        self.models = {name: flights.replica(endpoint, name, version="1") for name in bare}
        self.models |= {name: flights.replica(endpoint, flights.named(name)) for name in profiled}
        self.models["old"] = flights.replica(endpoint, flights.named("old", created=OLD, trained=OLD))
        self.versions = [flights.replica(endpoint, flights.named("mixed", version=v), v) for v in "12"]
        self.ended, self.entered = threading.Event(), threading.Event()
        self.hanging = threading.Thread(target=self._hang)
        self.hanging.start()
        assert self.entered.wait(10)

    def end(self) -> None:
        self.ended.set()
        self.hanging.join()

    def _hang(self) -> None:
        with self.models["stalled"].inference():
            self.entered.set()
            self.ended.wait()

    def happen(self) -> None:
        """Once more, with rows that are new."""
        X = self.flights.take(self.rounds, 3_000)
        self.rounds += 1
        models = self.models
        for number in range(3):
            with pytest.raises(ZeroDivisionError) if number == 0 else models["failing"].inference():
                if number == 0:
                    self._fail()
        with models["slow"].inference():
            time.sleep(0.6)  # that is the fault
        lost = X.copy()
        lost.loc[np.random.default_rng(self.rounds).random(len(X)) < 0.3, "wind_speed"] = np.nan
        models["missing"].observe(lost)
        models["unseen"].observe(X.assign(carrier=X["carrier"].str.lower()))
        models["fahrenheit"].observe(X.assign(temp=X["temp"] * 1.8 + 132))
        models["kilometres"].observe(X.assign(distance=X["distance"] * 1.609344))
        models["bare"].observe(X)
        models["old"].observe(X)
        models["behind"].observe(X, time=time.time() - 7_200)
        models["ahead"].observe(X, time=time.time() + 7_200)
        models["unreadable"].observe(object())
        for version in self.versions:
            version.observe(X)
        for monitor in (*models.values(), *self.versions):
            assert monitor.flush()
        request = urllib.request.Request(self.url, b"no OTLP", {"Content-Type": "application/x-protobuf"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request, timeout=10)

    def _fail(self) -> None:
        with self.models["failing"].inference():
            raise ZeroDivisionError


def test_a_collector_that_cannot_send(watch, flights, wait, real, tmp_path):
    """The processor is away and the queue is small: it fills, then what comes is lost."""
    endpoint = f"127.0.0.1:{real.free_port()}"
    agent = watch.agent(endpoint, queue_size=1_000)
    prometheus = watch.prometheus(agent=agent)
    monitor = flights.replica(f"127.0.0.1:{agent.ports['GRPC']}", flights.profile)

    def send() -> set[tuple[str, str]]:
        flights.call(monitor, flights.take(0))
        monitor.flush()  # says no once the queue is full
        return seen(prometheus)

    about = f"127.0.0.1:{agent.ports['METRICS']}"
    expected = {("MlQueueFilling", about), ("MlQueueLoses", about)}
    wait(lambda: send() == expected, lambda: f"{expected}, not {seen(prometheus)}", seconds=60)
    agent.stop()
    wait(lambda: seen(prometheus) == expected | {("MlCollectorDown", about)}, lambda: f"{seen(prometheus)}")
