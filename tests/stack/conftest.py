"""The real collector and the real Prometheus, built once, on free ports; logs are shown when a test fails."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from otel_mlmon import Monitor

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

        def collector(self, *files, folder=None, ports=None, **environment):
            """Files of collector-config as they are; addresses by their variables, AGENT_NAME or FILE_NAME."""
            text = (CONFIG / files[0]).read_text()
            prefix = "AGENT" if "env:AGENT_" in text else Path(files[0]).stem.upper()
            folder = folder or tmp_path / f"{Path(files[0]).stem}{len(servers)}"
            folder.mkdir(exist_ok=True)
            names = re.findall(rf"env:{prefix}_(\w+):-([\d.]+:)?\d+}}", text)
            ports = ports or {name: real.free_port() for name, _ in names}
            environment |= {f"{prefix}_{name}": f"{'127.0.0.1:' if host else ''}{ports[name]}" for name, host in names}
            command = [build.build_collector(), *(part for file in files for part in ("--config", CONFIG / file))]
            started = real.Server(command, ports["HEALTH"], "/", folder / "collector.log", **environment)
            started.ports, started.folder = ports, folder
            return self.add(started)

        def agent(self, endpoint: str, folder=None, ports=None, files=("agent.yaml",), variables=None):
            """agent.yaml, or other files beside a model."""
            folder = folder or tmp_path / f"agent{len(servers)}"
            variables = {"AGENT_QUEUE": str(folder / "queue"), "MLMON_ENDPOINT": endpoint, **(variables or {})}
            return self.collector(*files, folder=folder, ports=ports, **variables)

        def gateway(self, otlp: str, remote_write: str, **options):
            """gateway.yaml, sending to two addresses."""
            names = {
                "PROMETHEUS_OTLP": f"{otlp}/api/v1/otlp",
                "PROMETHEUS_REMOTE_WRITE": f"{remote_write}/api/v1/write",
            }
            return self.collector("gateway.yaml", **names, **options)

        def prometheus(
            self,
            *scraped,
            protocols=("PrometheusText0.0.4",),
            file="prometheus.yaml",
            folder=None,
            port=None,
            **job,
        ):
            """prometheus.yaml with other servers or addresses to scrape, every second, or none; a job for each format.
            Receives OTLP and remote write too.
            """
            folder = folder or tmp_path / f"prometheus{len(servers)}"
            folder.mkdir(exist_ok=True)
            targets = [getattr(one, "url", one).rpartition("/")[2] for one in scraped]
            settings = yaml.safe_load((CONFIG / "prometheus" / file).read_text())
            (given,) = (one for one in settings["scrape_configs"] if one["job_name"] == "otel-mlmon")
            given |= {"scrape_interval": "1s", "static_configs": [{"targets": targets}], **job}
            settings["scrape_configs"] = [
                {**given, "job_name": f"{given['job_name']} {protocol}", "scrape_protocols": [protocol]}
                for protocol in protocols
                if targets
            ]
            (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
            port = port or real.free_port()
            command = [build.build_prometheus(), "--config.file", folder / "prometheus.yaml"]
            command += ["--storage.tsdb.path", folder / "data", f"--web.listen-address=127.0.0.1:{port}"]
            command += ["--web.enable-otlp-receiver", "--web.enable-remote-write-receiver"]
            server = Prometheus(real.Server(command, port, "/-/ready", folder / "prometheus.log"))
            server.folder = folder
            return self.add(server)

        def victoriametrics(self):
            """VictoriaMetrics, with the names of Prometheus."""
            folder, port = tmp_path / f"victoriametrics{len(servers)}", real.free_port()
            folder.mkdir()
            command = [build.build_victoriametrics(), f"-storageDataPath={folder / 'data'}"]
            command += [
                f"-httpListenAddr=127.0.0.1:{port}",
                "-opentelemetry.usePrometheusNaming",
                "-search.latencyOffset=0s",
            ]
            return self.add(Prometheus(real.Server(command, port, "/health", folder / "victoriametrics.log")))

    yield Stack()
    failed = getattr(request.node, "failed", False)
    for server in reversed(servers):
        server.stop()
        if failed:
            print(f"---- {server.log}\n{server.log.read_text()[-5_000:]}")


class Prometheus:
    """A running Prometheus, or what answers like it, and its query interface."""

    def __init__(self, server) -> None:
        self.url, self.log, self.stop = server.url, server.log, server.stop
        self.port = int(self.url.rpartition(":")[2])

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        return [(row["metric"], float(row["value"][1])) for row in found["data"]["result"]]

    def by(self, label: str, text: str) -> dict[str, float]:
        """Values by one label."""
        return {labels[label]: value for labels, value in self.query(text)}


@pytest.fixture
def model(monkeypatch, profile):
    """A monitor that sends to an address; each is closed at the end."""
    monitors = []

    def make(endpoint: str, temporality: str = "cumulative") -> Monitor:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{endpoint}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
        monitors.append(Monitor(profile))
        return monitors[-1]

    yield make
    for monitor in monitors:
        monitor.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
