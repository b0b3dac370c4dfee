"""Who sends in ingest.py, and who answers in the place of what is behind a collector; each a process of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import grpc
import numpy as np
from google.rpc.error_details_pb2 import RetryInfo
from ingest_bodies import Load, Requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
RETRY_INFO = "google.rpc.retryinfo-bin"
BACK_OFF = 1.0  # s, where the server does not say when to come again; as SDKs do at first
AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@dataclass
class Phase:
    """What to do: so long, or so many requests of each flight (0: until all replicas have sent), at what rate.

    Who is rude comes again at once, whatever it is told.
    """

    seconds: float = 0.0
    rate: float | None = None  # requests/s of this client; None: as fast as they are acknowledged
    requests: int | None = None
    rude: bool = False


@dataclass
class Sent:
    """What was acknowledged. Times are those of time.monotonic, the same for all processes."""

    began: float = 0.0
    ended: float = 0.0
    requests: int = 0
    points: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # by feature
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of each request; paced: since it was due
    done: np.ndarray = field(default_factory=lambda: np.zeros(0))  # when
    refused: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0


def join(parts: list[Sent]) -> Sent:
    """Of several clients at once."""
    return Sent(
        min(part.began for part in parts),
        max(part.ended for part in parts),
        sum(part.requests for part in parts),
        np.sum([part.points for part in parts], axis=0),
        np.concatenate([part.seconds for part in parts]),
        np.concatenate([part.done for part in parts]),
        sum((part.refused for part in parts), Counter()),
        sum(part.cpu for part in parts),
    )


class Client:
    """Sends what a load says; a thread for each request that may be on its way."""

    def __init__(self, target: str, load: Load) -> None:
        self._channel = grpc.insecure_channel(target, [("grpc.max_send_message_length", -1)])
        self._export = self._channel.unary_unary(f"/{SERVICE}/Export")
        slots = [load.replicas[i :: load.flight] for i in range(load.flight)]
        self._requests = [Requests(load, slot) for slot in slots if slot]
        self._bodies = [requests.make() for requests in self._requests]
        self._pool = ThreadPoolExecutor(len(self._requests))
        self._lock = threading.Lock()

    def run(self, phase: Phase) -> Sent:
        """Send for a while."""
        cpu = time.process_time()
        self._due, self._began = 0, time.monotonic()
        jobs = [self._pool.submit(self._send_some, slot, phase) for slot in range(len(self._requests))]
        sent = join([job.result() for job in jobs])
        sent.began, sent.cpu = self._began, time.process_time() - cpu
        return sent

    def _send_some(self, slot: int, phase: Phase) -> Sent:
        requests, bodies = self._requests[slot], self._bodies[slot]
        sent = Sent(points=np.zeros(requests.features, np.int64))
        taken: list[tuple[float, float]] = []
        most = phase.requests if phase.requests is not None else 0
        until = self._began + phase.seconds
        while (due := self._next(phase)) < until or len(taken) < max(most, 0 if phase.seconds else requests.round):
            body, ranges = next(bodies)
            self._send(body, sent.refused, rude=phase.rude)
            done = time.monotonic()
            taken.append((done - due, done))
            for first, last in ranges:
                sent.points[first:last] += 1
        sent.requests, sent.ended = len(taken), time.monotonic()
        sent.seconds, sent.done = np.array(taken).reshape(-1, 2).T
        return sent

    def _next(self, phase: Phase) -> float:
        """When the next request is due; waits for it."""
        if phase.rate is None:
            return time.monotonic()
        with self._lock:
            due = self._began + self._due / phase.rate
            self._due += 1
        time.sleep(max(due - time.monotonic(), 0.0))
        return due

    def _send(self, body: bytes, refused: Counter[str], *, rude: bool) -> None:
        """Until it is acknowledged."""
        while True:
            try:
                answer = self._export(body, timeout=60)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    raise
                refused[error.code().name] += 1
                time.sleep(0.0 if rude else _wait_of(error))
                continue
            rejected = answer and ExportMetricsServiceResponse.FromString(answer).partial_success
            if rejected and rejected.rejected_data_points:
                raise AssertionError(f"{rejected.rejected_data_points} points refused: {rejected.error_message}")
            return


def _wait_of(error: grpc.RpcError) -> float:
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_INFO:
            delay = RetryInfo.FromString(value).retry_delay
            return delay.seconds + delay.nanos / 1e9
    return BACK_OFF


def serve(pipe: Connection, target: str, load: Load) -> None:
    """A client's process: phases come, and what was sent goes."""
    client = Client(target, load)
    pipe.send(None)
    for phase in iter(pipe.recv, None):
        pipe.send(client.run(phase))


def sink(pipe: Connection) -> None:
    """A process that answers at once, and counts points; its port goes first, then the number on each request."""
    points = Counter()
    lock = threading.Lock()

    def take(body: bytes, _) -> bytes:
        found = body.count(b"ml.feature.name")
        with lock:
            points["all"] += found
        return b""

    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    for _ in iter(pipe.recv, None):
        pipe.send(points["all"])
    server.stop(None)
