"""From the rule through Alertmanager to a webhook: who is told what, and what is held back."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.timeout(240)

CONFIG = Path(__file__).parents[3] / "collector-config"
GROUPS = yaml.safe_load((CONFIG / "prometheus" / "rules.yaml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


@pytest.fixture
def amtool(build):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = build.build_alertmanager().with_name("amtool")
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, cwd=CONFIG)

    return run


@pytest.fixture
def webhook():
    """Its address, and the messages that came: path and JSON."""
    messages = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append((self.path, json.loads(body)["attachments"][0]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")  # as Slack does; Alertmanager looks for it

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", messages
    server.shutdown()
    thread.join()
    server.server_close()


def test_amtool_has_nothing_to_say(amtool):
    done = amtool("check-config", "alertmanager/alertmanager.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_goes_to_its_team(amtool):
    for rule in ALERTS:
        labels = {"alertname": rule["alert"], **rule["labels"], "ml_model_name": "flights"}
        said = amtool("config", "routes", "test", "--config.file=alertmanager/alertmanager.yaml",
                      *(f"{name}={value}" for name, value in labels.items()))  # fmt: skip
        assert said.stdout.split() == [rule["labels"]["team"]], said


def states(alertmanager) -> dict[tuple[str, str], tuple[str, int]]:
    """By name and model of each alert: its state, and how many hold it back."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("ml_model_name", "")): (
            alert["status"]["state"],
            len(alert["status"]["inhibitedBy"]),
        )
        for alert in alertmanager.get("/api/v2/alerts")
    }


def test_a_rule_becomes_a_message(watch, flights, wait, webhook):
    """Drift and missing values of `flights` are told to those whom they concern; drift of `behind`, whose rows are two
    hours old, is held back while the processor says so."""
    url, messages = webhook
    processor = watch.processor()
    alertmanager = watch.alertmanager(url)
    prometheus = watch.prometheus(processor, alertmanager=alertmanager, **{"for": "0s"})
    endpoint = f"127.0.0.1:{processor.otlp}"
    current = flights.replica(endpoint, flights.profile)
    behind = flights.replica(endpoint, flights.named("behind"))
    rounds = iter(range(10_000))

    def told() -> bool:
        X = flights.take(next(rounds), 3_000)
        X = X.assign(distance=X["distance"] * 1.609344, wind_speed=X["wind_speed"].where(np.arange(len(X)) % 3 > 0))
        current.observe(X)
        behind.observe(X, time=time.time() - 7_200)
        assert current.flush()
        assert behind.flush()
        paths = [path for path, message in messages if "flights" in message["title"]]
        return {"/data", "/oncall"} <= set(paths) and ("MlProcessorBehind", "behind") in states(alertmanager)

    wait(told, lambda: f"{messages}, {states(alertmanager)}", seconds=90)
    by_path = {path: message for path, message in messages if "flights 2013-04 of air" in message["title"]}
    data, oncall = by_path["/data"], by_path["/oncall"]
    assert data["title"] == "flights 2013-04 of air: MlDrift (distance)"
    assert oncall["title"] == "flights 2013-04 of air: MlFeatureMissing (wind_speed)"
    assert "flights 2013-04: wind_speed is missing in 33." in oncall["text"]
    size = re.search(r"flights 2013-04: distance has changed, effect (\S+)\*", data["text"])
    drift = 'ml_feature_drift{ml_model_name="flights", ml_feature_name="distance", ml_drift_measure="%s"}'
    assert float(size[1]) == pytest.approx(prometheus.query(drift % "effect_lower")[0][1], rel=0.2)
    moved = re.search(r"Its mean has moved by ([+-]\S+) standard deviations of training", data["text"])
    assert float(moved[1]) == pytest.approx(prometheus.query(drift % "mean_shift")[0][1], rel=0.2)
    for message in (data, oncall):
        (query,) = re.findall(r"^Look: `(.+)`$", message["text"], re.MULTILINE)
        assert prometheus.query(query)
        assert re.search(r"^Do: docs/runbook.md#ml\w+$", message["text"], re.MULTILINE)

    wait(lambda: states(alertmanager).get(("MlDrift", "behind")) == ("suppressed", 1), "the inhibition")
    assert states(alertmanager)["MlDrift", "flights"] == ("active", 0)
    wait(lambda: any("behind" in m["title"] for path, m in messages if path == "/oncall"), "the processor's message")
    assert [m["title"] for path, m in messages if path == "/data" and "behind" in m["title"]] == []


def test_what_is_held_back(watch, wait, webhook):
    """By the rules of inhibition, of alerts as Prometheus would send them."""
    url, messages = webhook
    alertmanager = watch.alertmanager(url)
    teams = {rule["alert"]: rule["labels"]["team"] for rule in ALERTS}
    now = datetime.now(timezone.utc).isoformat()

    def alert(name: str, model: str, severity: str = "ticket", **labels: str):
        given = {"alertname": name, "ml_model_name": model, "team": teams[name], "severity": severity, **labels}
        notes = {"summary": f"{name} of {model}", "description": "", "query": "up", "runbook": ""}
        return {"labels": given, "annotations": notes, "startsAt": now}

    version = {"ml_model_version": "1"}
    alertmanager.get("/api/v2/alerts", [
        alert("MlModelSilent", "silent", "page", service_name="air"),
        alert("MlDrift", "silent", service_name="air", **version),
        alert("MlReferenceOld", "silent", service_name="air", **version),
        alert("MlDrift", "silent", service_name="sea", **version),  # the same name in another service
        alert("MlFeatureOutOfRange", "range", ml_feature_name="x", **version),
        alert("MlDrift", "range", ml_feature_name="x", **version),
        alert("MlInferenceErrors", "failing", "page", slo="errors", **version),
        alert("MlInferenceErrors", "failing", "ticket", slo="errors", **version),
        alert("MlDrift", "failing", ml_feature_name="x", **version),
    ])  # fmt: skip
    titles = lambda path: {message["title"] for where, message in messages if where == path}  # noqa: E731
    expected = {
        "/oncall": {"silent of air: MlModelSilent", "failing 1: MlInferenceErrors"},
        "/data": {"silent 1 of sea: MlDrift", "range 1: MlFeatureOutOfRange (x)", "failing 1: MlDrift (x)"},
    }
    wait(lambda: all(titles(path) >= wanted for path, wanted in expected.items()), lambda: messages)
    held = {(a["labels"]["alertname"], a["labels"]["ml_model_name"], a["labels"]["severity"])
            for a in alertmanager.get("/api/v2/alerts") if a["status"]["state"] == "suppressed"}  # fmt: skip
    assert held == {
        ("MlDrift", "silent", "ticket"), ("MlReferenceOld", "silent", "ticket"), ("MlDrift", "range", "ticket"),
        ("MlInferenceErrors", "failing", "ticket"),
    }  # fmt: skip
    assert {path: titles(path) for path in expected} == expected
    over = alert("MlDrift", "failing", ml_feature_name="x", **version) | {"endsAt": now}
    alertmanager.get("/api/v2/alerts", [over])
    wait(lambda: "Over: failing 1: MlDrift (x)" in titles("/data"), "the message that it is over")
