"""Prometheus with the rules, Alertmanager, and real flights through a real model."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from opentelemetry.sdk.resources import Resource
from threadpoolctl import threadpool_limits

from otel_mlmon import Monitor, Profile

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "collector-config"
# Small windows, so that a test sees in seconds what takes hours.
SETTINGS = "window: {size: 1s, display: 60s, idle: 5s}\nevaluate: {interval: 200ms}\n"


class Api:
    """What a server answers in JSON."""

    def __init__(self, server) -> None:
        self.url, self.log, self.stop = server.url, server.log, server.stop

    def get(self, path: str, body=None, **parameters: str):
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")


class Prometheus(Api):
    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        found = self.get("/api/v1/query", query=text)["data"]["result"]
        return [(row["metric"], float(row["value"][1])) for row in found]

    def alerts(self) -> list[dict]:
        """Pending and firing."""
        return self.get("/api/v1/alerts")["data"]["alerts"]


class Watch:
    """Starts what watches: Prometheus with rules.yaml, Alertmanager, collectors."""

    def __init__(self, start, real, build) -> None:
        self._start, self._real, self._build = start, real, build
        self._folder = start.folder

    def _folder_of(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def processor(self):
        return self._start.processor(settings=SETTINGS)

    def agent(self, endpoint: str, queue_size: int | None = None):
        """agent.yaml, or a copy with a small queue."""
        if queue_size is None:
            return self._start.agent(endpoint)
        folder = self._folder_of("agent")
        text, count = re.subn(r"queue_size: \d+", f"queue_size: {queue_size}", (CONFIG / "agent.yaml").read_text())
        assert count == 1
        (folder / "agent.yaml").write_text(text)
        ports = {name: self._real.free_port() for name in ("GRPC", "HTTP", "HEALTH", "METRICS")}
        environment = {f"AGENT_{name}": f"127.0.0.1:{port}" for name, port in ports.items()}
        environment |= {"AGENT_METRICS": str(ports["METRICS"]), "AGENT_QUEUE": str(folder / "queue")}
        command = [self._build.build_collector(), "--config", folder / "agent.yaml"]
        log = folder / "agent.log"
        agent = self._real.Server(command, ports["HEALTH"], "/", log, MLMON_ENDPOINT=endpoint, **environment)
        agent.ports = ports
        return self._start.add(agent)

    def prometheus(self, processor=None, agent=None, alertmanager=None, **changes) -> Prometheus:
        """prometheus.yaml and rules.yaml every second, with these addresses; `changes` of every alert."""
        folder = self._folder_of("prometheus")
        rules = yaml.safe_load((CONFIG / "prometheus" / "rules.yaml").read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
            rule |= changes
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        settings = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yaml").read_text())
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        addresses = {
            "otel-mlmon": processor and processor.url.removeprefix("http://"),
            "otel-collector": agent and f"127.0.0.1:{agent.ports['METRICS']}",
        }
        for job in settings["scrape_configs"]:
            address = addresses[job["job_name"]]
            job["static_configs"] = [{"targets": [address]}] if address else []
        targets = [alertmanager.url.removeprefix("http://")] if alertmanager else []
        settings["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": targets}]}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        port = self._real.free_port()
        command = [self._build.build_prometheus(), "--config.file", folder / "prometheus.yaml"]
        command += ["--storage.tsdb.path", folder / "data", f"--web.listen-address=127.0.0.1:{port}"]
        server = self._real.Server(command, port, "/-/ready", folder / "prometheus.log")
        return self._start.add(Prometheus(server))

    def alertmanager(self, webhook: str) -> Api:
        """alertmanager.yaml, which tells the webhook; it waits seconds where the file says more."""
        folder = self._folder / "alertmanager"
        shutil.copytree(CONFIG / "alertmanager", folder)
        text = (folder / "alertmanager.yaml").read_text().replace("http://127.0.0.1:9095", webhook)
        text = text.replace("group_wait: 5m", "group_wait: 5s").replace("group_wait: 30s", "group_wait: 1s")
        text = re.sub(r"(_interval): \d+[mhd]", r"\1: 1s", text)
        (folder / "alertmanager.yaml").write_text(text)
        port = self._real.free_port()
        command = [self._build.build_alertmanager(), "--config.file", folder / "alertmanager.yaml"]
        command += ["--storage.path", folder / "data", f"--web.listen-address=127.0.0.1:{port}"]
        command += ["--cluster.listen-address="]
        return self._start.add(Api(self._real.Server(command, port, "/-/ready", folder / "alertmanager.log")))


@pytest.fixture
def watch(start, real, build):
    return Watch(start, real, build)


class Flights:
    """Real flights, a model of late arrivals and its profile, and replicas of it that are called now."""

    def __init__(self) -> None:
        data = runpy.run_path(str(ROOT / "examples" / "flights" / "data.py"))
        self.features = data["FEATURES"]
        train, held_out = data["split_training"](data["load_flights"](), "2013-05-01", 0)
        self.rows = held_out[self.features]  # of the training months and not trained on, in random order
        self.model = data["make_model"]().fit(train[self.features][:6_000], train["late"][:6_000])
        said = self.predict(train[self.features])
        self.profile = Profile.build(train[self.features], model="flights", version="2013-04", predictions=said)
        self.monitors: list[Monitor] = []

    def predict(self, X) -> dict[str, np.ndarray]:
        """Scores of being late, and whether it is called late."""
        scores = self.model.predict_proba(X)[:, 1]
        return {"score": scores, "class": np.where(scores > 0.5, "late", "in time")}

    def named(self, model: str, **changes) -> Profile:
        """The profile of a model of another name."""
        return dataclasses.replace(self.profile, model=model, **changes)

    def replica(self, endpoint: str, profile, instance: str = "a", **options) -> Monitor:
        """The monitor of a replica of service `air`, which sends to the endpoint; closed at the end."""
        self.environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{endpoint}")
        resource = Resource({"service.name": "air", "service.instance.id": instance})
        monitor = Monitor(profile, resource=resource, **options)
        self.monitors.append(monitor)
        return monitor

    def take(self, number: int, count: int = 1_000):
        """The next so many rows."""
        return self.rows.iloc[np.arange(number * count, (number + 1) * count) % len(self.rows)].copy()

    def call(self, monitor: Monitor, X, calls: int = 20, rows: int = 10) -> None:
        """Some small calls with the first rows, which no busy machine makes slow; the rest at once."""
        first = calls * rows
        for since in range(0, first, rows):
            some = X.iloc[since : since + rows]
            with monitor.inference(some, operation="predict_proba", framework="sklearn") as call:
                call.record(self.predict(some))
        monitor.observe(X.iloc[first:], self.predict(X.iloc[first:]))


@pytest.fixture(scope="session")
def flights_model():
    made = Flights()
    with threadpool_limits(
        1
    ):  # on a busy machine, threads that compete for its cores take seconds: an alert of its own
        yield made


@pytest.fixture
def flights(flights_model, monkeypatch):
    flights_model.environment = monkeypatch
    yield flights_model
    while flights_model.monitors:
        flights_model.monitors.pop().close()
