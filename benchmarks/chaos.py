"""A processor that is killed again and again while clients send: `make chaos`.

Real processes, real gRPC, a seeded schedule of kill -9: at random times of the start, of the running and of the
shutdown, and within a given stage, in which the processor kills itself (chaos_processor.py). After each kill a copy of
the data directory is checked by SQLite and opened: of each client it must hold every acknowledged request once, and of
the one that was not acknowledged all or nothing. Then the client sends that one again, or never. Two clients send
deltas, two cumulative totals; some requests are sent twice. One in four has a metric that is none of ours, which in
the end must have been passed on.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.util
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from chaos_page import make_page
from chaos_processor import STAGES, Board
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.ingest import Ingest

from otel_mlmon import Profile, semconv

HERE = Path(__file__).parent
SERVICE = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"
SETTINGS = """
listen_http: off
evaluate: {{interval: 40ms}}
checkpoint: {{age: 150ms, size: 400000}}
shutdown: 2s
export: [{{endpoint: "http://{backend}", interval: 100ms}}]
forward: {{endpoint: "http://{backend}"}}
"""
FOREIGN = "app.number"
DELAYS = (0.0, 0.3, 1.0, 3.0)  # ms after a stage began, at most, in turn
# Ways to choose the moment of a kill; all of them are used before the first is used again.
AIMS = ("receive", "append", "commit", "fold", "checkpoint", "evaluate", "expose", "export", "forward", "recovery")
WAYS = (
    ("while it starts",) * 3 + ("while it runs",) * 5 + ("while it ends",) * 2 + (*AIMS, "commit", "fold", "checkpoint")
)


def load_requests():
    spec = importlib.util.spec_from_file_location("chaos_requests", HERE.parent / "tests" / "processor" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos_requests"] = module
    spec.loader.exec_module(module)
    return module.Otlp


OTLP = load_requests()


@dataclass
class Request:
    body: bytes
    number: int
    counts: np.ndarray  # (features, cells + 1): what it adds, or the total it says; the last column is the sums' total


class Client(threading.Thread):
    """A replica of a model version of its own. It sends until it is told to pause, and notes what was acknowledged."""

    def __init__(self, number: int, seed: int, features: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number, self.rng = number, np.random.default_rng([seed, number])
        self.cumulative = bool(number % 2)
        self.version = str(number)
        train = {f"x{i}": self.rng.normal(size=400) for i in range(features)}
        self.profile = Profile.build(train, model="m", version=self.version)
        self.edges = [variable.axis.edges for variable in self.profile.plan.variables]
        self.sender = OTLP.Sender(f"r{number}", f"i{number}")
        self.width = max(edges.size for edges in self.edges) + 2
        self.acknowledged = np.zeros((features, self.width), dtype=np.int64)
        self.total = self.acknowledged.copy()  # what it has counted
        self.sent = 0
        self.flying: Request | None = None
        self.former: list[bytes] = []
        self.numbers: set[int] = set()  # of the requests that were acknowledged
        self.counters: Counter[str] = Counter()
        self.go, self.paused, self.end = threading.Event(), threading.Event(), False
        self.target = ""

    def run(self) -> None:
        while not self.end:
            self.paused.set()
            self.go.wait()
            self.paused.clear()
            with grpc.insecure_channel(self.target) as channel:
                export = channel.unary_unary(SERVICE.format("metrics", "Metrics"))
                with contextlib.suppress(grpc.RpcError):
                    while self.go.is_set():
                        self.send(export)

    def send(self, export) -> None:
        if self.flying is None:
            self.flying = self.make()
        export(self.flying.body, timeout=5)
        request, self.flying = self.flying, None
        self.acknowledged = request.counts if self.cumulative else self.acknowledged + request.counts
        self.counters["acknowledged"] += 1
        if request.number % 4 == 0:
            self.numbers.add(request.number)
        self.former = [*self.former[-20:], request.body]
        if self.rng.random() < 0.1:
            export(self.former[self.rng.integers(len(self.former))], timeout=5)
            self.counters["sent twice"] += 1

    def make(self) -> Request:
        """The next request: of all features, of some, or of one."""
        features, n = len(self.edges), self.sent
        self.sent += 1
        size = int(self.rng.choice([1, features // 3 + 1, features]))
        counts = np.zeros_like(self.total)
        for feature in self.rng.choice(features, size, replace=False):
            cells = self.edges[feature].size + 1
            counts[feature, :cells] = self.rng.poisson(2, cells)
            counts[feature, -1] = counts[feature, :cells].sum()
        self.total += counts
        shown = self.total.copy() if self.cumulative else counts
        start, end = (0.0, (n + 1) / 6000) if self.cumulative else (n / 6000, (n + 1) / 6000)  # 10 ms each
        metrics = [m for f in np.flatnonzero(shown[:, -1]) for m in self.measure(int(f), shown[f], start, end)]
        if n % 4 == 0:
            metrics.append(Metric(name=FOREIGN))
            metrics[-1].gauge.data_points.add(time_unix_nano=OTLP.at(self.begin + end), as_int=n)
        return Request(self.sender.request(*metrics), n, shown)

    def measure(self, feature: int, counts: np.ndarray, start: float, end: float) -> list[Metric]:
        begin = self.begin
        given = {
            "temporality": OTLP.CUMULATIVE if self.cumulative else OTLP.DELTA,
            "labels": {
                semconv.ML_MODEL_VERSION: self.version,
                semconv.ML_REFERENCE_HASH: self.profile.hash,
                semconv.ML_FEATURE_NAME: f"x{feature}",
            },
        }
        edges = self.edges[feature]
        cells = counts[: edges.size + 1].tolist()
        return [
            self.sender.histogram(
                cells, begin + start, begin + end, edges=edges.tolist(), total=float(counts[-1]), **given
            ),
            self.sender.count(int(counts[-1]), begin + start, begin + end, **given),
        ]

    begin = time.time_ns() / OTLP.MINUTE - OTLP.EPOCH  # when all this began, in minutes

    def read(self, ingest: Ingest) -> np.ndarray:
        """What is held of this client."""
        held = np.zeros_like(self.total)
        for view in ingest.views():
            if view.key.version == self.version:
                for variable, counts in view.totals.items():
                    feature = int(variable.name[1:])
                    held[feature, : counts.cells.size] = counts.cells
                    held[feature, -1] = counts.seen
                    assert counts.sum == counts.seen, "the sum is that of the requests that are counted"
        return held


@dataclass
class Result:
    kills: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    unacknowledged: Counter[str] = field(default_factory=Counter)
    comparisons: int = 0


class Backend:
    """Takes what the processor exports and passes on, and counts the numbers in it, by client."""

    def __init__(self) -> None:
        self.numbers: Counter[tuple[str, int]] = Counter()
        self.exports = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        handlers = {"Export": grpc.unary_unary_rpc_method_handler(self._take)}
        name = SERVICE.format("metrics", "Metrics").split("/")[1]
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _take(self, body: bytes, _) -> bytes:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
            foreign = [metric for metric in metrics if metric.name == FOREIGN]
            self.exports += not foreign
            for metric in foreign:
                assert len(metrics) == 1, "only what is none of ours is passed on"
                self.numbers[names["service.instance.id"], metric.gauge.data_points[0].as_int] += 1
        return b""

    def close(self) -> None:
        self._server.stop(None)


class Maker:
    """Starts processors one after the other, see chaos_processor.py."""

    def __init__(self, board: Path, log: Path) -> None:
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "chaos_processor.py", board],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def start(self, arguments: list[object]) -> Process:
        self._process.stdin.write(json.dumps([str(part) for part in arguments]).encode() + b"\n")
        self._process.stdin.flush()
        return Process(int(self._process.stdout.readline()), self._process.stdout)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Process:
    def __init__(self, pid: int, ended) -> None:
        self.pid, self._ended, self._status = pid, ended, None

    def poll(self) -> int | None:
        if self._status is None and select.select([self._ended], [], [], 0)[0]:
            self._status = int(self._ended.readline())
        return self._status

    def wait(self) -> int:
        if self._status is None:
            self._status = int(self._ended.readline())
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Chaos:
    def __init__(self, folder: Path, seed: int, clients: int, features: int) -> None:
        # How a request fares is the machine's, and draws from a generator of its own: the schedule is the seed's alone.
        self.rng, self.fates, self.folder = random.Random(seed), random.Random(seed + 1), folder
        self.data, self.board = folder / "data", folder / "stages"
        self.clients = [Client(number, seed, features) for number in range(clients)]
        self.backend = Backend()
        (folder / "mlmon.yaml").write_text(SETTINGS.format(backend=self.backend.address))
        self.listen, self.http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.result, self.deck = Result(), []
        self.maker = Maker(self.board, folder / "log")
        self.process: Process | None = None
        for client in self.clients:
            client.target = self.listen
            client.start()

    def start(self, *, recovering: bool = False) -> None:
        self.board.write_bytes(bytes(Board.size))
        if recovering:
            self._aim("recovery")
        arguments = ["processor", "--data", self.data, "--config", self.folder / "mlmon.yaml"]
        self.process = self.maker.start([*arguments, "--listen", self.listen, "--http", self.http])

    def stages(self) -> list[str]:
        return [stage for stage, count in zip(STAGES, self.board.read_bytes()[: len(STAGES)], strict=True) if count]

    def wait_until_it_listens(self) -> None:
        while not self._is_ready():
            if self.process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text()[-3000:])
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def send_profiles(self) -> None:
        with grpc.insecure_channel(self.listen) as channel:
            export = channel.unary_unary(SERVICE.format("logs", "Logs"))
            for client in self.clients:
                parts = {1: gzip.compress(client.profile.to_bytes())}
                export(client.sender.profile(client.profile.hash, parts, 1, client.version), timeout=20)

    def cycle(self) -> None:
        """Start, let clients send, kill, look."""
        if not self.deck:
            self.deck = self.rng.sample(WAYS, len(WAYS))
        way = self.deck.pop()
        began = time.monotonic()
        self.start(recovering=way == "recovery")
        if way == "while it starts":
            self._sleep(began, self.rng.uniform(0.0, 1.2 * self.startup))
        elif way == "recovery":
            self._await_death()
        else:
            self.wait_until_it_listens()
            self.startup = time.monotonic() - began
            for client in self.clients:
                client.go.set()
            self._sleep(time.monotonic(), self.rng.uniform(0.02, 0.6))
            if way in AIMS:
                self._aim(way)
                if way == "expose":
                    threading.Thread(target=self._scrape, daemon=True).start()
                self._await_death()
            elif way == "while it ends":
                self.process.send_signal(signal.SIGTERM)
                self._sleep(time.monotonic(), self.rng.uniform(0.0, 0.15))
        self.kill()
        self.result.ways[f"when in {way}" if way in AIMS else way] += 1
        self.look()

    startup = 1.0  # seconds, until it is known better

    def _sleep(self, began: float, seconds: float) -> None:
        time.sleep(max(began + seconds - time.monotonic(), 0.0))

    def _aim(self, stage: str) -> None:
        """Have the processor kill itself when it is in the stage next."""
        most = DELAYS[self.result.ways[f"when in {stage}"] % len(DELAYS)]
        with self.board.open("r+b", buffering=0) as file:
            os.pwrite(
                file.fileno(), bytes([STAGES.index(stage) + 1, round(10 * self.rng.uniform(0.0, most))]), len(STAGES)
            )

    def _await_death(self) -> None:
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the stage in which it was to be killed was never reached"
            time.sleep(0.001)
        assert self.process.wait() == -signal.SIGKILL, (self.folder / "log").read_text()[-3000:]

    def _scrape(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(50):
                urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5).read()

    def kill(self) -> None:
        for client in self.clients:
            client.go.clear()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.result.kills += 1
        for client in self.clients:
            client.paused.wait()
        flying = any(client.flying is not None for client in self.clients)
        stages = self.stages() or ["none of these"]
        self.result.stages.update([*stages, *(["a request on its way"] if flying else [])])

    def look(self) -> None:
        """Check a copy of the directory, and settle what becomes of the requests that were on their way."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if not (self.data / "mlmon.db").exists():
            return
        shutil.copytree(self.data, copy)
        with contextlib.closing(sqlite3.connect(copy / "mlmon.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ingest = Ingest(copy, forwarding=True)
        try:
            profiles = {profile.hash for held in ingest.profiles().values() for profile in held}
            assert {client.profile.hash for client in self.clients} <= profiles
            for client in self.clients:
                self.settle(client, client.read(ingest))
        finally:
            ingest.close()

    def settle(self, client: Client, held: np.ndarray) -> None:
        request, known = client.flying, client.acknowledged
        if request is None:
            counted = None
            right = np.array_equal(held, known)
        else:
            after = request.counts if client.cumulative else known + request.counts
            counted = np.array_equal(held, after)
            right = counted or np.array_equal(held, known)
        if not right:
            wrong = np.argwhere(held != known)[:5].tolist()
            pairs = [(int(held[f, c]), int(known[f, c])) for f, c in wrong]
            raise AssertionError(f"client {client.number}: at {wrong} are counted, and were acknowledged: {pairs}")
        self.result.comparisons += 1
        if request is None:
            return
        again = self.fates.random() < 0.75
        self.result.unacknowledged[
            f"{'counted' if counted else 'not counted'}, {'sent again' if again else 'given up'}"
        ] += 1
        if not again:
            client.flying = None
            client.acknowledged = held

    def end(self) -> None:
        """All that is left is sent; then the processor's own page and its directory say the same."""
        self.start()
        self.wait_until_it_listens()
        for client in self.clients:
            client.go.set()
        self._sleep(time.monotonic(), 0.3)
        for client in self.clients:
            client.go.clear()
            client.paused.wait()
            assert client.flying is None, "the last request was acknowledged"
        acknowledged = {(client.sender.instance, n) for client in self.clients for n in client.numbers}
        deadline = time.monotonic() + 60
        while missing := acknowledged - set(self.backend.numbers):
            assert time.monotonic() < deadline, f"{len(missing)} of {len(acknowledged)} were not passed on"
            time.sleep(0.05)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0
        self.look()
        with contextlib.closing(sqlite3.connect(self.data / "mlmon.db")) as database:
            assert database.execute("SELECT count(*) FROM journal").fetchone() == (0,)

    def run(self, kills: int) -> None:
        self.start()
        self.wait_until_it_listens()
        self.send_profiles()
        self.kill()
        self.look()
        began = time.monotonic()
        while self.result.kills < kills:
            self.cycle()
            if self.result.kills % 50 == 0:
                print(f"{self.result.kills} kills, {time.monotonic() - began:.0f} s", flush=True)
        self.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule; the machine's timing is its own")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--json", type=Path, default=HERE / "chaos.json", help="where to write what happened")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mlmon-chaos-") as folder:
        chaos = Chaos(Path(folder), args.seed, args.clients, args.features)
        try:
            chaos.run(args.kills)
        finally:
            if chaos.process is not None:
                chaos.process.send_signal(signal.SIGKILL)
            chaos.maker.close()
            chaos.backend.close()
    result, clients = chaos.result, chaos.clients
    document = {
        "kills": result.kills,
        "seed": args.seed,
        "seconds": round(time.monotonic() - began),
        "ways": dict(sorted(result.ways.items())),
        "stages": {stage: result.stages[stage] for stage in (*STAGES, "a request on its way", "none of these")},
        "requests": {
            "acknowledged": sum(client.counters["acknowledged"] for client in clients),
            "sent twice": sum(client.counters["sent twice"] for client in clients),
            "on their way when it was killed": dict(sorted(result.unacknowledged.items())),
        },
        "passed on": {
            "acknowledged, and arrived": sum(len(client.numbers) for client in clients),
            "arrived more than once": sum(count > 1 for count in chaos.backend.numbers.values()),
        },
        "values acknowledged": int(sum(client.acknowledged[:, -1].sum() for client in clients)),
        "comparisons of all counts of a client": result.comparisons,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "date": time.strftime("%Y-%m-%d"),
    }
    args.json.write_text(json.dumps(document, indent=2) + "\n")
    args.json.with_suffix(".md").write_text(make_page(document))


if __name__ == "__main__":
    main()
