"""What every test relies on, and real processes for those that need them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from hypothesis import settings
from prometheus_client.parser import text_string_to_metric_families

# The same examples in every run, and no verdict about a busy machine's speed.
settings.register_profile("otel-mlmon", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("otel-mlmon")

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that is free, and not one of those that the system gives to the clients of other tests meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition, what: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value


class Server:
    """A process that answers HTTP, or HTTPS where there is a context; its log is shown when it does not."""

    def __init__(
        self, command, port: int, ready: str, log: Path, *, context: ssl.SSLContext | None = None, **environment: str
    ) -> None:
        self.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
        self.log, self.context = log, context
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        try:
            wait_for(lambda: self._answers(ready), f"{command[0]} to answer")
        except BaseException:
            self.stop()
            print(log.read_text()[-5000:])
            raise

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            with urllib.request.urlopen(self.url + path, timeout=5, context=self.context) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Processor(Server):
    """`otel-mlmon processor` over a folder; further ones over the same folder take up its data and add to its log.

    Without settings of a test's own it judges the sliding window: what production says takes a week to learn.
    """

    def __init__(
        self,
        folder: Path,
        *flags,
        settings: str = "evaluate: {interval: 100ms}\nalarms: {learn: false}\n",
        otlp: int | None = None,
        http: int | None = None,
        context: ssl.SSLContext | None = None,
        program: Sequence[object] = (),
    ) -> None:
        config = folder / "mlmon.yaml"
        config.write_text(settings)
        self.otlp, self.otlp_http, port = otlp or free_port(), free_port(), http or free_port()
        self.folder, self.port = folder, port
        command = [*(program or [BIN / "otel-mlmon", "processor"]), "--config", config, "--data", folder / "data"]
        command += ["--listen", f"127.0.0.1:{self.otlp}", "--listen-http", f"127.0.0.1:{self.otlp_http}"]
        command += ["--http", f"127.0.0.1:{port}", *flags]
        super().__init__(command, port, "/readyz", folder / "processor.log", context=context)

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        text = urllib.request.urlopen(self.url + "/metrics", timeout=10).read().decode()
        families = text_string_to_metric_families(text)
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]

    def feature_counts(self) -> dict[str, float]:
        return {labels["ml_feature_name"]: value for labels, value in self.samples("ml_feature_count_total")}


class Authority:
    """A certificate authority in a folder: `ca` is its certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name, self._authority = folder, name, trustme.CA()
        self.ca = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str = "processor") -> tuple[Path, Path]:
        """Certificate and key for this machine; those of this name are replaced."""
        certificate, key = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(certificate)
        return certificate, key


class Real:
    """What starts processes, for fixtures and tests that need more than one."""

    BIN, Server, Processor, Authority = BIN, Server, Processor, Authority
    free_port = staticmethod(free_port)


@pytest.fixture(scope="session")
def real() -> type[Real]:
    return Real


@pytest.fixture
def processor(tmp_path):
    server = Processor(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def wait():
    """Wait for a condition; what for may be a function that is called when it did not come true."""

    def until(condition, what, seconds: float = 30.0):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s for {what() if callable(what) else what}")
            time.sleep(0.05)
        return value

    return until
