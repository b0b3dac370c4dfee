"""TLS, mTLS and bearer tokens between the real collector, the processor and the real Prometheus."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaml

from otel_mlmon import Monitor

COUNTS = "sum(ml_feature_count_total)"
REFUSED = "sum by (mlmon_reason) (mlmon_processor_refused_total)"
FAILED = "otelcol_exporter_send_failed_metric_points"


class Secured:
    """A processor that asks for certificate and token, an agent and a Prometheus that have both; files by name."""

    def __init__(self, start, real, folder) -> None:
        self._start, self._real, self.folder = start, real, folder
        self.authority, self.stranger = real.Authority(folder), real.Authority(folder, "stranger")
        self.tokens = folder / "tokens"
        self.tokens.write_text("# agents and Prometheus\nfirst-token\n")
        certificate, key = self.authority.issue()
        tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(self.authority.ca)}
        settings = {"evaluate": {"interval": "100ms"}, "tls": tls, "tokens": str(self.tokens)}
        context = ssl.create_default_context(cafile=self.authority.ca)  # /readyz is open to all
        self.processor = start.processor(settings=yaml.safe_dump(settings), context=context)

    def give(self, name: str, token: str = "first-token", authority=None, trust=None):
        """Files of a client: ca.pem, NAME.pem, NAME.key, token."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        certificate, key = (authority or self.authority).issue(name)
        shutil.copy(certificate, folder / f"{name}.pem")
        shutil.copy(key, folder / f"{name}.key")
        shutil.copy((trust or self.authority).ca, folder / "ca.pem")
        if token is not None:
            (folder / "token").write_text(token)
        return folder

    def agent(self, *more, ports=None, **given):
        folder = self.give("agent", **given)
        files = {"TOKEN": "token", "CA": "ca.pem", "CERTIFICATE": "agent.pem", "KEY": "agent.key"}
        variables = {f"MLMON_{name}": str(folder / file) for name, file in files.items()}
        endpoint = f"127.0.0.1:{self.processor.otlp}"
        return self._start.agent(
            endpoint, folder, ports, files=("agent.yaml", "agent-tls.yaml", *more), variables=variables
        )

    def prometheus(self, name: str = "prometheus", **given):
        """With files that it expects beside its configuration."""
        folder = self.give("prometheus", **given).rename(self.folder / name)
        return self._start.prometheus(self.processor, file="prometheus-tls.yaml", folder=folder)


@pytest.fixture
def secured(start, real, tmp_path):
    return Secured(start, real, tmp_path)


@pytest.fixture
def model(monkeypatch):
    """A monitor that sends deltas to an agent, in plain text on loopback."""
    monitors = []

    def make(agent) -> Monitor:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{agent.ports['GRPC']}")
        monitors.append(Monitor("m", version="1", temporality="delta"))
        return monitors[-1]

    yield make
    for monitor in monitors:
        monitor.close()


def observe(monitor: Monitor, rows: int) -> None:
    monitor.observe({"x": np.arange(rows)})
    assert monitor.flush()  # the agent has it


def telemetry(agent, name: str) -> float:
    """A metric of the collector itself."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{agent.ports['METRICS']}/metrics", timeout=10).read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def one(prometheus, query: str) -> float | None:
    found = prometheus.query(query)
    return found[0][1] if found else None


def targets(prometheus) -> str:
    """What Prometheus says is wrong with its targets."""
    answer = json.load(urllib.request.urlopen(f"{prometheus.url}/api/v1/targets", timeout=10))
    return "; ".join(target["lastError"] for target in answer["data"]["activeTargets"])


def test_with_certificate_and_token_counts_arrive_and_are_scraped(secured, model, wait):
    agent, prometheus = secured.agent(), secured.prometheus()
    monitor = model(agent)
    for rows in (100, 20, 3):
        observe(monitor, rows)
    wait(lambda: one(prometheus, COUNTS) == 123, "the agent")
    assert one(prometheus, "up") == 1
    assert prometheus.query(REFUSED) == []
    assert telemetry(agent, FAILED) == 0


def test_an_agent_with_a_wrong_token_is_refused_and_gives_up_what_it_had(secured, model, wait):
    """The collector does not try again what is UNAUTHENTICATED; the loss is counted on both sides."""
    agent, prometheus = secured.agent(token="wrong-token"), secured.prometheus()
    monitor = model(agent)
    observe(monitor, 100)
    wait(lambda: telemetry(agent, FAILED) > 0, "the agent")
    assert "Unauthenticated desc = wrong_token" in agent.log.read_text()
    wait(lambda: prometheus.by("mlmon_reason", REFUSED) == {"wrong_token": 1}, "the refusal in Prometheus")
    (secured.folder / "agent" / "token").write_text("first-token")  # taken up while it runs
    wait(lambda: "refresh token" in agent.log.read_text(), "the agent")
    observe(monitor, 20)
    wait(lambda: one(prometheus, COUNTS) == 20, "the agent")


def test_an_agent_without_a_token_is_refused(secured, model, wait):
    without = secured.folder / "without.yaml"
    without.write_text("exporters: {otlp_grpc/mlmon: {auth: null}}")
    agent, prometheus = secured.agent(without), secured.prometheus()
    observe(model(agent), 100)
    wait(lambda: prometheus.by("mlmon_reason", REFUSED) == {"no_token": 1}, "the agent")
    assert "Unauthenticated desc = no_token" in agent.log.read_text()
    assert one(prometheus, COUNTS) is None


def test_an_agent_waits_for_its_token(secured, wait):
    """Else it would lose what it has: see agent-tls.yaml."""
    folder = secured.give("agent")
    log, token = folder / "collector.log", folder / "token"
    token.unlink()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(secured.agent, token=None)
        wait(lambda: log.exists() and "retrying to read credentials file" in log.read_text(), "its log")
        assert not started.done()
        token.write_text("first-token")
        agent = started.result()
    assert "Everything is ready" in agent.log.read_text()


@pytest.mark.parametrize("wrong", ["certificate", "authority"])
def test_an_agent_with_a_wrong_certificate_keeps_what_it_has(secured, model, wait, wrong):
    """A failed handshake is UNAVAILABLE, which the collector tries again: nothing is lost once it is mended."""
    prometheus = secured.prometheus()
    agent = secured.agent(**{"authority" if wrong == "certificate" else "trust": secured.stranger})
    observe(model(agent), 100)
    said = {"certificate": "error reading server preface", "authority": "certificate signed by unknown authority"}
    wait(lambda: said[wrong] in agent.log.read_text(), "the reason in the agent's log")
    wait(lambda: "Will retry the request" in agent.log.read_text(), "the agent to try again")
    assert telemetry(agent, FAILED) == 0
    assert one(prometheus, COUNTS) is None
    if wrong == "authority":  # which takes a restart
        agent.stop()
        agent = secured.agent(ports=agent.ports)
    else:
        secured.give("agent")
    wait(lambda: one(prometheus, COUNTS) == 100, "the counts", 60)


def test_a_prometheus_without_token_or_certificate_is_told_why_and_counted(secured, wait):
    right, prometheus = secured.prometheus("right"), secured.prometheus(token="wrong-token")
    folder = prometheus.folder
    wait(lambda: "401 Unauthorized" in targets(prometheus), lambda: targets(prometheus))
    assert one(prometheus, "up") == 0
    wait(lambda: right.by("mlmon_reason", REFUSED).get("wrong_token"), "the refusal")
    certificate, key = secured.stranger.issue("prometheus")
    shutil.copy(certificate, folder / "prometheus.pem")
    shutil.copy(key, folder / "prometheus.key")
    wait(lambda: "EOF" in targets(prometheus), lambda: targets(prometheus))  # asyncio hangs up without a word
    wait(lambda: right.by("mlmon_reason", REFUSED).get("handshake"), "the handshake")
    shutil.copy(secured.stranger.ca, folder / "ca.pem")
    wait(lambda: "unknown authority" in targets(prometheus), lambda: targets(prometheus))
    for name in ("ca.pem", "prometheus.pem", "prometheus.key", "token"):
        shutil.copy(right.folder / name, folder / name)
    wait(lambda: one(prometheus, "up") == 1, lambda: targets(prometheus))


def test_tokens_and_certificates_are_replaced_while_it_runs_and_nothing_is_lost(secured, model, wait):
    agent, prometheus = secured.agent(), secured.prometheus()
    monitor = model(agent)
    observe(monitor, 100)
    wait(lambda: one(prometheus, COUNTS) == 100, "the first")
    secured.tokens.write_text("second-token\nfirst-token\n")  # the new one first, then its users, then the old one out
    for name in ("agent", "prometheus"):
        (secured.folder / name / "token").write_text("second-token")
    wait(lambda: "refresh token" in agent.log.read_text(), "the agent")
    observe(monitor, 20)
    wait(lambda: one(prometheus, COUNTS) == 120, "the second")
    secured.tokens.write_text("second-token\n")
    secured.authority.issue()  # a new certificate of the processor
    before = one(prometheus, "scrape_samples_scraped") and prometheus.query("timestamp(up)")[0][1]
    observe(monitor, 3)
    wait(lambda: one(prometheus, COUNTS) == 123, "the third")
    wait(lambda: prometheus.query("timestamp(up)")[0][1] > before + 1, "further scrapes")
    assert one(prometheus, "up") == 1
    agent.stop()
    secured.agent(ports=agent.ports, token="second-token")  # connects anew, to the new certificate
    observe(monitor, 1_000)
    wait(lambda: one(prometheus, COUNTS) == 1_123, "the agent")
    assert prometheus.query(REFUSED) == []
    assert secured.processor.log.read_text().count("read again") >= 3
