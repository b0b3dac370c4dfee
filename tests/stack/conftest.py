"""The real collector and the real Prometheus, built once, on free ports; logs are shown when a test fails."""

from __future__ import annotations

import importlib.util
import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "collector-config"


def load_build():
    specification = importlib.util.spec_from_file_location("stack_build", CONFIG / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build():
    """collector-config/build.py."""
    return load_build()


@pytest.fixture(scope="session")
def promtool(build):
    return build.build_promtool()


@pytest.fixture
def start(real, build, tmp_path, request):
    """Starts real programs, ends them in the reverse order, and shows their logs where the test failed."""
    servers = []

    class Stack:
        folder = tmp_path

        def add(self, server):
            servers.append(server)
            return server

        def processor(self, folder=None, **options):
            folder = folder or tmp_path / f"processor{len(servers)}"
            folder.mkdir(exist_ok=True)
            return self.add(real.Processor(folder, **options))

        def agent(self, endpoint: str, folder=None, ports=None):
            """agent.yaml as it is; addresses by its variables."""
            folder = folder or tmp_path / f"agent{len(servers)}"
            folder.mkdir(exist_ok=True)
            ports = ports or {name: real.free_port() for name in ("GRPC", "HTTP", "HEALTH", "METRICS")}
            environment = {f"AGENT_{name}": f"127.0.0.1:{port}" for name, port in ports.items()}
            environment |= {"AGENT_METRICS": str(ports["METRICS"]), "AGENT_QUEUE": str(folder / "queue")}
            command = [build.build_collector(), "--config", CONFIG / "agent.yaml"]
            agent = real.Server(
                command, ports["HEALTH"], "/", folder / "agent.log", MLMON_ENDPOINT=endpoint, **environment
            )
            agent.ports, agent.folder = ports, folder
            return self.add(agent)

        def prometheus(self, processor, protocols=("PrometheusText0.0.4",)):
            """prometheus.yaml with the processor's address, every second; a job for each format."""
            folder = tmp_path / f"prometheus{len(servers)}"
            folder.mkdir()
            settings = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yaml").read_text())
            (job,) = settings["scrape_configs"]
            job |= {"scrape_interval": "1s", "static_configs": [{"targets": [processor.url.removeprefix("http://")]}]}
            settings["scrape_configs"] = [
                {**job, "job_name": f"otel-mlmon {protocol}", "scrape_protocols": [protocol]} for protocol in protocols
            ]
            (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
            port = real.free_port()
            command = [build.build_prometheus(), "--config.file", folder / "prometheus.yaml"]
            command += ["--storage.tsdb.path", folder / "data", f"--web.listen-address=127.0.0.1:{port}"]
            return self.add(Prometheus(real.Server(command, port, "/-/ready", folder / "prometheus.log")))

    yield Stack()
    failed = getattr(request.node, "failed", False)
    for server in reversed(servers):
        server.stop()
        if failed:
            print(f"---- {server.log}\n{server.log.read_text()[-5_000:]}")


class Prometheus:
    """A running Prometheus and its query interface."""

    def __init__(self, server) -> None:
        self.url, self.log, self.stop = server.url, server.log, server.stop

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        return [(row["metric"], float(row["value"][1])) for row in found["data"]["result"]]

    def by(self, label: str, text: str) -> dict[str, float]:
        """Values by one label."""
        return {labels[label]: value for labels, value in self.query(text)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
