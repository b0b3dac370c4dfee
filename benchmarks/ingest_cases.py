"""The cases of ingest.py: a server on a fresh folder, clients, what was measured, and whether all is counted once."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ingest_bodies import Load, Requests
from ingest_client import Phase, join
from ingest_model import FEATURES, make_histograms, make_loads, make_whole, recognize, send_profiles
from ingest_servers import (
    BATCH,
    ROOT,
    SPAWN,
    Clients,
    Collector,
    Processor,
    Server,
    Sink,
    free_port,
    read_usage,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otel_mlmon_processor.exporters.prometheus import prometheus_name
from otel_mlmon_processor.fold_settings import Caps, FoldSettings
from otel_mlmon_processor.ingest import Ingest, IngestSettings
from prometheus_client.samples import Sample

from otel_mlmon import semconv

NOTHING = Phase(seconds=1e-9)  # to send
NEVER = {"age": 86_400.0, "size": 1 << 40}  # a checkpoint
Figures = dict[str, Any]


@contextlib.contextmanager
def work_in() -> Iterator[Path]:
    """A folder on the disk of this tree, removed afterwards."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=ROOT / ".bench") as folder:
        yield Path(folder)


@contextlib.contextmanager
def sending(server: Server | Sink, loads: Sequence[Load]) -> Iterator[Clients]:
    clients = Clients(server.target, loads)
    try:
        yield clients
    finally:
        clients.close()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Any]:
    try:
        yield server
    finally:
        server.kill()


def in_ms(seconds: np.ndarray) -> Figures:
    return {f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def clock(server: Server | Sink, clients: Clients, *phases: Phase, drain: Callable[[], None] = lambda: None) -> Figures:
    """A phase, and what it took of the machine; of the server also until `drain` returns."""
    before = server.usage()
    sent = join(clients.run(*phases))
    drain()
    ended, after = time.monotonic(), server.usage()
    points, wall = int(sent.points.sum()), sent.ended - sent.began
    cpu = after.cpu - before.cpu
    return {
        "points": points,
        "requests": sent.requests,
        "points_per_s": round(points / wall),
        "drained_per_s": round(points / (ended - sent.began)),
        "points_per_core": round(points / cpu),
        "cores": round(cpu / (ended - sent.began), 2),
        "client_cores": round(sent.cpu / wall, 2),
        **in_ms(sent.seconds),
        "pause_ms": round(1e3 * float(np.diff(np.sort(sent.done)).max(initial=0)), 1),
        "written_per_point": round((after.written - before.written) / points),
        "written_mb_per_s": round((after.written - before.written) / (ended - sent.began) / 1e6, 1),
        "rss_mb": round(after.rss / 1e6, 1),
        "refused": dict(sent.refused),
    }


def check(processor: Processor, clients: Clients, *, restarted: bool = False, points: int = FEATURES) -> list[Sample]:
    """All that was acknowledged is there, once: in the counters, which are returned, and after the end on the disk.

    Args:
        processor: it is stopped.
        clients: that sent.
        restarted: so that its counters began anew.
        points: that are sent with those of 35 features.

    Raises:
        AssertionError: it is not.
    """
    samples = processor.samples()
    acknowledged = int(clients.by_feature.sum()) * points // FEATURES
    received = find_sum(samples, semconv.METRIC_MLMON_PROCESSOR_RECEIVED, semconv.MonSignal.METRICS)
    assert restarted or received == acknowledged, f"{received:,} points received, {acknowledged:,} acknowledged"
    duplicates = find_sum(samples, semconv.METRIC_MLMON_PROCESSOR_DUPLICATES)
    dropped, unused = (find_sum(samples, semconv.METRIC_MLMON_PROCESSOR_DROPPED, why) for why in ("", "unused"))
    assert not duplicates, f"{duplicates:,} points were taken for duplicates"
    assert dropped == unused, f"{dropped - unused:,} points were dropped"  # the age of the profile is not used
    processor.stop()
    check_cells([processor.data], clients)
    return samples


def find_sum(samples: Sequence[Sample], metric: semconv.Metric, label: str = "") -> float:
    """Of the samples of a metric, those with a value of a label alone."""
    names = {prometheus_name(metric), f"{prometheus_name(metric)}_total"}
    return sum(s.value for s in samples if s.name in names and (not label or label in s.labels.values()))


def check_cells(directories: Sequence[Path], clients: Clients) -> None:
    """Each point adds the same counts, whether as a delta or to a total; so many of them are in all cells."""
    export = ExportMetricsServiceRequest.FromString(make_histograms())
    points = export.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    expected = {
        next(pair.value.string_value for pair in point.attributes if pair.key == semconv.ML_FEATURE_NAME): times
        * np.array(point.bucket_counts)
        for point, times in zip(points, clients.by_feature, strict=True)
    }
    held: dict[str, np.ndarray] = {}
    for data in directories:
        with contextlib.closing(Ingest(data, parse=recognize)) as ingest:
            for view in ingest.views():
                found = [(variable, counts) for variable, counts in view.totals.items() if variable.role == "feature"]
                for variable, counts in found:
                    held[variable.name] = held.get(variable.name, 0) + counts.cells
    assert held.keys() == expected.keys()
    for name, cells in expected.items():
        assert np.array_equal(held[name], cells), f"{name}: {held[name].sum():,} values counted, not {cells.sum():,}"


@dataclass(frozen=True)
class Scale:
    """How long things take: s of a phase, s of warming up, and a share of what else is large."""

    phase: float = 3.0
    warm: float = 1.5
    share: float = 1.0


def measure_processor(points: int, replicas: int, cumulative: bool, scale: Scale, *, whole: bool = False) -> Figures:
    """At full load, and at half of it, for longer, as an evaluation comes every 10 s. Many streams are measured for
    longer at full load, too, as a checkpoint of them is long.
    """
    longer = replace(scale, phase=4 * scale.phase)
    loads, sent = make_loads(points, replicas, cumulative=cumulative), FEATURES
    if whole:
        body, sent = make_whole()
        loads = [replace(load, whole=body) for load in loads]
    with work_in() as folder, running(Processor(folder)) as server:
        send_profiles(server.target, 1)
        with sending(server, loads) as clients:
            clients.run(Phase())
            clients.run(Phase(scale.warm))
            full = clock(server, clients, Phase(longer.phase if replicas > 1000 else scale.phase))
            half = clock(server, clients, halve(full, longer, len(clients)))
            check(server, clients, points=sent)
    return {**full, "half": half, "sent": sent}


def halve(full: Figures, scale: Scale, clients: int) -> Phase:
    """Half of the requests a second."""
    rate = full["points_per_s"] * full["requests"] / full["points"]
    return Phase(scale.phase, rate=rate / 2 / clients)


def measure_collector(config: str, points: int, replicas: int, cumulative: bool, scale: Scale) -> Figures:
    """The same of the collector; what it acknowledged must come out of it."""
    with work_in() as folder:
        sink = Sink()
        path = ROOT / "collector-config" / "agent.yaml"
        if config == "batch":
            path = folder / "batch.yaml"
            path.write_text(BATCH)
        try:
            loads = make_loads(points, replicas, cumulative=cumulative)
            with (
                running(Collector(folder, path, MLMON_ENDPOINT=sink.target)) as server,
                sending(server, loads) as clients,
            ):
                drain = partial(await_all, sink, clients)
                clients.run(Phase())
                clients.run(Phase(scale.warm))
                drain()
                full = clock(server, clients, Phase(scale.phase), drain=drain)
                half = clock(server, clients, halve(full, scale, len(clients)), drain=drain)
                lost = int(clients.by_feature.sum()) - sink.points()
        finally:
            sink.close()
    return {**full, "half": half, "lost": lost}


def measure_grpc(points: int, replicas: int, cumulative: bool, scale: Scale) -> Figures:
    """The same of a server of gRPC for Python that does nothing: no processor can be faster."""
    sink = Sink()
    try:
        with sending(sink, make_loads(points, replicas, cumulative=cumulative)) as clients:
            clients.run(Phase(scale.warm))
            full = clock(sink, clients, Phase(scale.phase))
            half = clock(sink, clients, halve(full, scale, len(clients)))
    finally:
        sink.close()
    return {**full, "half": half}


def measure_sharded(shards: int, scale: Scale) -> Figures:
    """Eight models behind a collector with sharded.yaml, before so many processors: what each takes for a point."""
    with work_in() as folder, contextlib.ExitStack() as stack:
        processors = []
        for number in range(shards):
            (folder / f"{number}").mkdir()
            processors.append(stack.enter_context(running(Processor(folder / f"{number}"))))
        addresses = {f"MLMON_{number}": processors[number % shards].target for number in range(2)}
        addresses |= {f"SHARD_{number}": f"127.0.0.1:{free_port()}" for number in range(2)}
        config = ROOT / "collector-config" / "sharded.yaml"
        collector = stack.enter_context(running(Collector(folder, config, **addresses)))
        send_profiles(collector.target, 8)
        clients = stack.enter_context(sending(collector, make_loads(10 * FEATURES, 400, models=8)))

        def count() -> list[float]:
            name, signal = semconv.METRIC_MLMON_PROCESSOR_RECEIVED, semconv.MonSignal.METRICS
            return [find_sum(processor.samples(), name, signal) for processor in processors]

        def drain() -> None:
            while sum(count()) < clients.by_feature.sum():
                time.sleep(0.1)

        clients.run(Phase())
        clients.run(Phase(scale.warm))
        drain()
        before, used = count(), [processor.usage().cpu for processor in processors]
        found = clock(collector, clients, Phase(2 * scale.phase), drain=drain)
        shares = np.array(count()) - before
        cpu = np.array([processor.usage().cpu for processor in processors]) - used
        assert (shares > 0).all(), "all models went to one processor"
        for processor in processors:
            processor.stop()
        check_cells([processor.data for processor in processors], clients)
    return {
        "drained_per_s": found["drained_per_s"],
        "collector_per_core": found["points_per_core"],
        "processors_per_core": round(float(shares.sum() / cpu.sum())),
        "largest_share": round(float(shares.max() / shares.sum()), 2),
    }


def await_all(sink: Sink, clients: Clients, patience: float = 5.0) -> None:
    """Until the sink has all that was acknowledged, or nothing came for so long."""
    before, since = -1, time.monotonic()
    while (now := sink.points()) < int(clients.by_feature.sum()):
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() > since + patience:
            return
        time.sleep(0.02)


def measure_evaluation(scale: Scale) -> Figures:
    """Acknowledgements while 1,000 models are evaluated, one evaluation after the other."""
    models, longer = int(1000 * scale.share), replace(scale, phase=6 * scale.phase)
    with work_in() as folder, running(Processor(folder, evaluate=1.0)) as server:
        send_profiles(server.target, models)
        with sending(server, make_loads(FEATURES, models, models=models)) as clients:
            clients.run(Phase())
            server.await_evaluation()  # the first look at a model takes longer than all later ones
            clients.run(Phase(scale.warm))
            full = clock(server, clients, Phase(longer.phase))
            half = clock(server, clients, halve(full, longer, len(clients)))
            samples = check(server, clients)
    took = find_sum(samples, semconv.METRIC_MLMON_PROCESSOR_EVALUATION_DURATION)
    return {**full, "half": half, "models": models, "evaluation_s": round(took, 2)}


def measure_noise(scale: Scale) -> Figures:
    """One request of a quiet model every 50 ms, alone and beside a noisy model that sends as fast as it can."""
    with work_in() as folder, running(Processor(folder)) as server:
        send_profiles(server.target, 2)
        noisy, quiet = make_loads(FEATURES, 200, models=2)  # even numbers, odd numbers
        with sending(server, [noisy, noisy_too(noisy), replace(quiet, replicas=range(1, 3, 2))]) as clients:
            clients.run(Phase())
            *_, alone = clients.run(NOTHING, NOTHING, Phase(scale.phase, rate=20.0))
            *others, beside = clients.run(Phase(scale.phase), Phase(scale.phase), Phase(scale.phase, rate=20.0))
            check(server, clients)
    noise = join(others)
    return {
        "noisy_points_per_s": round(int(noise.points.sum()) / (noise.ended - noise.began)),
        "quiet_alone": in_ms(alone.seconds),
        "quiet_beside": in_ms(beside.seconds),
        "noisy": in_ms(noise.seconds),
    }


def noisy_too(load: Load) -> Load:
    """Other replicas of the same model."""
    return replace(load, replicas=range(load.replicas.start + 1000, load.replicas.stop + 1000, load.replicas.step))


def measure_start(scale: Scale) -> Figures:
    """What a start takes after kill -9 with a journal of which no checkpoint holds anything, and with hardly one."""
    few = [measure_few() for _ in range(3)]
    with work_in() as folder:
        with running(Processor(folder, **NEVER)) as server:
            send_profiles(server.target, 1)
            with sending(server, make_loads(FEATURES, 100)) as clients:
                clients.run(Phase(max(10 * scale.share, 3.0)))
        with running(Processor(folder, **NEVER)) as server:
            took, used = np.array([server.startup, server.usage().cpu]) - np.median(few, axis=0)
            check(server, clients, restarted=True)
    points = int(clients.by_feature.sum())
    return {
        "points": points,
        "few_s": round(float(np.median(few, axis=0)[0]), 2),
        "replay_s": round(float(took), 2),
        "points_per_s": round(points / took),
        "points_per_core": round(points / used),
    }


def measure_few() -> tuple[float, float]:
    """A start after kill -9 with the same model and a request of each replica: s, and s of processor time."""
    with work_in() as folder:
        with running(Processor(folder, **NEVER)) as server:
            send_profiles(server.target, 1)
            with sending(server, make_loads(FEATURES, 100)) as clients:
                clients.run(Phase())
        with running(Processor(folder, **NEVER)) as server:
            return server.startup, server.usage().cpu


def measure_memory(cumulative: bool, scale: Scale) -> Figures:
    """Memory of a stream: what 5,000 replicas take, without what 100 do, with and without what tells replicas apart."""
    (load,) = make_loads(1000, int(5000 * scale.share), cumulative=cumulative, clients=1)
    with SPAWN.Pool(1, maxtasksperchild=1) as pool:
        bare = pool.apply(hold, (load, Caps(spare=0)))
        whole = pool.apply(hold, (load, Caps()))
    return {**whole, "bytes_per_stream": bare["bytes_per_stream"], "with_replicas": whole["bytes_per_stream"]}


def hold(load: Load, caps: Caps, few: int = 100) -> Figures:
    """In a process of its own, without a server: each replica sends three times; then a checkpoint by hand, thrice."""
    settings = IngestSettings(checkpoint_bytes=NEVER["size"], checkpoint_age=NEVER["age"])
    seconds, held = [], []
    with work_in() as folder:
        ingest = Ingest(folder / "data", FoldSettings(caps=caps), settings)
        try:
            for replicas, rounds in ((load.replicas[:few], 30), (load.replicas[few:], 3)):
                requests = Requests(load, replicas)
                bodies = requests.make()
                for _ in range(rounds * requests.round):
                    ingest.submit(semconv.MonSignal.METRICS, next(bodies)[0])
                held.append(read_usage(os.getpid()).rss)
            for _ in range(3):
                ingest.submit(semconv.MonSignal.METRICS, next(bodies)[0])
                began = time.perf_counter()
                ingest.checkpoint()
                seconds.append(time.perf_counter() - began)
        finally:
            ingest.close()
        size = read_checkpoint(folder / "data")
    streams = len(load.replicas[few:]) * FEATURES
    return {
        "streams": streams,
        "bytes_per_stream": round((held[1] - held[0]) / streams),
        "checkpoint_ms": round(1e3 * float(np.median(seconds))),
        "checkpoint_mb": round(size / 1e6, 1),
    }


def read_checkpoint(data: Path) -> int:
    """Bytes of it."""
    with contextlib.closing(sqlite3.connect(data / "mlmon.db")) as database:
        (size,) = database.execute("SELECT sum(length(body)) FROM state").fetchone()
    return size


def measure_windows(scale: Scale) -> Figures:
    """Memory of the windows of a model: 50 models over five hours of event time, without that of the first minutes."""
    models, minutes = int(50 * scale.share), 300
    with work_in() as folder, running(Processor(folder, **NEVER)) as server:
        (load,) = make_loads(FEATURES, models, models=models, clients=1)
        load = replace(load, step=60.0, back=60.0 * (minutes + 5), flight=models)
        with sending(server, [load]) as clients:
            clients.run(Phase(requests=3))
            server.await_evaluation()
            before = server.usage().rss
            clients.run(Phase(requests=minutes - 3))
            server.await_evaluation()
            after = server.usage().rss
            check(server, clients)
        size = read_checkpoint(server.data)
    return {
        "models": models,
        "minutes": minutes,
        "bytes_per_model": round((after - before) / models),
        "checkpoint_bytes_per_model": round(size / models),
    }


def run_long(requests: int) -> list[Figures]:
    """Figures of each tenth of many requests to one processor.

    What tells replicas apart is kept for the sliding window: of four minutes, as with an hour memory would still grow
    when the run is over.
    """
    found = []
    with work_in() as folder, running(Processor(folder, display=240.0)) as server:
        send_profiles(server.target, 1)
        loads = make_loads(FEATURES, 1000)
        with sending(server, loads) as clients:
            clients.run(Phase())
            for _ in range(10):
                each = requests // 10 // sum(load.flight for load in loads)
                found.append(clock(server, clients, Phase(requests=each)))
                found[-1]["space_mb"] = round(sum(f.stat().st_size for f in server.data.glob("mlmon.db*")) / 1e6, 1)
                print(json.dumps(found[-1]), flush=True)
            check(server, clients)
    return found
