"""The programs that ingest.py sends to, as processes of their own, and what they use of the machine."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ingest_bodies import Load
from ingest_client import Phase, Sent, join, serve, sink
from otel_mlmon_processor.exporters.prometheus import prometheus_name
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from otel_mlmon import semconv

ROOT = Path(__file__).resolve().parent.parent
SPAWN = multiprocessing.get_context("spawn")
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
OWN = prometheus_name(semconv.METRIC_MLMON_PROCESSOR_RECEIVED).removesuffix("received")
SETTINGS = """
evaluate: {{interval: {evaluate}s}}
window: {{display: {display}s}}
checkpoint: {{age: {age}s, size: {size}}}
limits: {{memory: {memory}}}
"""
# As the project's own example of a durable queue has it, with the batch processor before it.
BATCH = """
extensions:
  health_check: {endpoint: "${env:AGENT_HEALTH}"}
  file_storage: {directory: "${env:AGENT_QUEUE}", create_directory: true}
receivers:
  otlp: {protocols: {grpc: {endpoint: "${env:AGENT_GRPC}"}}}
processors:
  batch: {}
exporters:
  otlp_grpc:
    endpoint: "${env:MLMON_ENDPOINT}"
    compression: none
    tls: {insecure: true}
    sending_queue: {storage: file_storage}
service:
  extensions: [health_check, file_storage]
  telemetry: {metrics: {level: none}}
  pipelines:
    metrics: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}
"""


@dataclass(frozen=True)
class Usage:
    """Of a process, since it began.

    Args:
        cpu: s of processor time, user and system.
        written: bytes to the disk.
        rss: bytes of memory, now.
    """

    cpu: float
    written: int
    rss: int


def read_usage(pid: int) -> Usage:
    """From /proc."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    written = next(line for line in Path(f"/proc/{pid}/io").read_text().splitlines() if line.startswith("write_bytes"))
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return Usage((int(stat[11]) + int(stat[12])) / TICK, int(written.split()[1]), int(pages) * PAGE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that is ready when its page answers."""

    def __init__(self, command: Sequence[object], ready: str, log: Path, **environment: str) -> None:
        self.log = log
        began = time.monotonic()
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        while not self._answers(ready):
            if self.process.poll() is not None or time.monotonic() > began + 600:
                self.kill()
                raise AssertionError(f"{command[0]} does not answer:\n{log.read_text()[-5000:]}")
            time.sleep(0.05)  # each answer takes a millisecond or two from what is being measured
        self.startup = time.monotonic() - began

    def _answers(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def usage(self) -> Usage:
        return read_usage(self.process.pid)

    def peak(self) -> int:
        """Bytes of memory, at most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As a user stops it; raises where it does not end well."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if status:
            raise AssertionError(f"ended with {status}:\n{self.log.read_text()[-5000:]}")


class Processor(Server):
    """`otel-mlmon processor` over a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        evaluate: float = 10.0,
        display: float = 3600.0,
        age: float = 60.0,
        size: int = 64 << 20,
        memory: int = 4 << 30,
    ) -> None:
        config = folder / "mlmon.yaml"
        config.write_text(SETTINGS.format(evaluate=evaluate, display=display, age=age, size=size, memory=memory))
        self.data, self.target, http = folder / "data", *(f"127.0.0.1:{free_port()}" for _ in range(2))
        self._metrics = f"http://{http}/metrics"
        command = [Path(sys.executable).with_name("otel-mlmon"), "processor", "--config", config, "--data", self.data]
        command += ["--listen", self.target, "--listen-http", f"127.0.0.1:{free_port()}", "--http", http]
        super().__init__(command, f"http://{http}/readyz", folder / "processor.log")

    def samples(self) -> list[Sample]:
        """Of the processor's own health; the models' are passed over."""
        text = urllib.request.urlopen(self._metrics, timeout=600).read().decode()
        own = "\n".join(line for line in text.splitlines() if line.startswith((OWN, f"# TYPE {OWN}")))
        return [sample for family in text_string_to_metric_families(own) for sample in family.samples]

    def await_evaluation(self) -> None:
        """Until one that began after now has ended."""
        for _ in range(2):
            before = self._evaluated()
            while self._evaluated() == before:
                time.sleep(0.1)

    def _evaluated(self) -> float:
        name = prometheus_name(semconv.METRIC_MLMON_PROCESSOR_EVALUATION_END)
        return next(sample.value for sample in self.samples() if sample.name == name)


class Sink:
    """What the collector sends to: gRPC for Python, which answers at once."""

    def __init__(self) -> None:
        self._pipe, other = SPAWN.Pipe()
        self.process = SPAWN.Process(target=sink, args=(other,), daemon=True)
        self.process.start()
        self.target = f"127.0.0.1:{self._pipe.recv()}"

    def usage(self) -> Usage:
        return read_usage(self.process.pid)

    def points(self) -> int:
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self.process.join()


class Collector(Server):
    """The real collector over a folder, with a configuration."""

    def __init__(self, folder: Path, config: Path, **addresses: str) -> None:
        grpc, http, health, metrics = (free_port() for _ in range(4))
        self.target = f"127.0.0.1:{grpc}"
        environment = {
            "AGENT_GRPC": self.target,
            "AGENT_HTTP": f"127.0.0.1:{http}",
            "AGENT_HEALTH": f"127.0.0.1:{health}",
            "AGENT_METRICS": str(metrics),
            "AGENT_QUEUE": str(folder / "queue"),
            **addresses,
        }
        log = folder / "collector.log"
        super().__init__([find_collector(), "--config", config], f"http://127.0.0.1:{health}/", log, **environment)


def find_collector() -> Path:
    """The program, built where it is not yet."""
    specification = importlib.util.spec_from_file_location("stack_build", ROOT / "collector-config" / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.build_collector()


class Clients:
    """Processes that send, all at once."""

    def __init__(self, target: str, loads: Sequence[Load]) -> None:
        self._pipes, self._processes = [], []
        self.by_feature: np.ndarray = np.zeros(1, np.int64)  # points that were acknowledged
        for load in loads:
            pipe, other = SPAWN.Pipe()
            process = SPAWN.Process(target=serve, args=(other, target, load), daemon=True)
            process.start()
            other.close()  # so that the pipe ends with the process
            self._pipes.append(pipe)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def __len__(self) -> int:
        return len(self._pipes)

    def run(self, *phases: Phase) -> list[Sent]:
        """A phase for each client, or one for all; what each sent."""
        for pipe, phase in zip(self._pipes, phases * (len(self._pipes) // len(phases)), strict=True):
            pipe.send(phase)
        sent = [pipe.recv() for pipe in self._pipes]
        self.by_feature = self.by_feature + join(sent).points
        return sent

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join()
