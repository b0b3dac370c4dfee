"""How much the processor takes in, on real clients, gRPC and disk, beside the real collector: `make bench-ingest`.

Writes ingest.json (each round as it is done; a run that was stopped goes on), .md and .png beside this file, in about
20 minutes. --quick (a minute) prints figures of few cases and writes nothing, and so does --only. --long sends 10^6
requests to one processor (10 minutes) and adds what it found. At the end of each case the processor's counters and all
counts in its directory must be those that were acknowledged.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from ingest_client import DIGEST, INCARNATION, INSTANCE, MODEL, Load, Names, Phase, Requests, join, mark_times
from ingest_page import draw_picture, render
from ingest_servers import BATCH, ROOT, Clients, Collector, Processor, Server, Sink
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.exporters.prometheus import prometheus_name
from otel_mlmon_processor.ingest import Ingest
from prometheus_client.samples import Sample
from recorder import machine

from otel_mlmon import Monitor, Profile, semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.profile.planning import choose_cells

HERE = Path(__file__).resolve().parent
RESULT = HERE / "ingest.json"
FEATURES, CELLS = 35, 50
CLIENTS = 2
NOTHING = Phase(seconds=1e-9)  # to send
NEVER = {"age": 86_400.0, "size": 1 << 40}  # a checkpoint
Figures = dict[str, Any]


# ------------------------------------------------------------------ what is sent


class Keep(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ExportMetricsServiceRequest] = []

    def export(self, metrics_data, *_, **__) -> MetricExportResult:
        self.requests.append(encode_metrics(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, *_, **__) -> bool:
        return True

    def shutdown(self, *_, **__) -> None:
        pass


@cache
def make_profile() -> Profile:
    """Of 35 normal features over three days, 50 cells each."""
    rng = np.random.default_rng(7)
    rows = {f"feature_{i:02}": rng.normal(size=20 * 3 * 1440) for i in range(FEATURES)}
    rows["time"] = 1.7e9 + np.arange(20 * 3 * 1440) * 3.0
    plan = Profile.plan(rows, time_column="time")
    variables = []
    for variable in plan.variables:
        axis = variable.axis
        first = (axis.cells - CELLS) // 2  # without some of those at the ends, far outside of the data
        axis = NumericAxis(axis.edges[first : first + CELLS - 1], axis.low - first, axis.high - first)
        cells = choose_cells(axis, axis.count_sorted(np.sort(rows[variable.column])))
        variables.append(replace(variable, axis=cells.axis, decision=cells.decision))
    return Profile.build(
        rows, model=MODEL, version="1", plan=replace(plan, variables=tuple(variables)), time_column="time"
    )


@cache
def make_export() -> ExportMetricsServiceRequest:
    """What a Monitor exports for a minute of 1,000 rows, with names in which each client puts its own."""
    keep, rng = Keep(), np.random.default_rng(8)
    resource = Resource.create({"service.name": "bench", "service.instance.id": INSTANCE})
    monitor = Monitor(make_profile(), exporter=keep, resource=resource, temporality="delta")
    with monitor.inference({f"feature_{i:02}": rng.normal(size=1000) for i in range(FEATURES)}) as call:
        call.record(np.zeros(1000))
    monitor.close()
    (scope,) = keep.requests[0].resource_metrics[0].scope_metrics
    scope.scope.attributes[0].value.string_value = INCARNATION
    for metric in scope.metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            for pair in point.attributes:
                if pair.key == semconv.ML_REFERENCE_HASH:
                    pair.value.string_value = DIGEST
    return keep.requests[0]


@cache
def make_histograms() -> bytes:
    """Its histograms of features alone."""
    request = ExportMetricsServiceRequest()
    request.CopyFrom(make_export())
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    kept = [metric for metric in metrics if metric.name == semconv.METRIC_ML_FEATURE_VALUE.name]
    del metrics[:]
    metrics.extend(kept)
    assert [len(metric.histogram.data_points) for metric in metrics] == [FEATURES]
    assert {len(point.bucket_counts) for point in metrics[0].histogram.data_points} == {CELLS}
    return request.SerializeToString()


@cache
def make_whole() -> tuple[bytes, int]:
    """The same with all that is sent, and how many points that are."""
    request, points = ExportMetricsServiceRequest(), 0
    request.CopyFrom(make_export())
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        held = getattr(metric, metric.WhichOneof("data")).data_points
        mark_times(held)
        points += len(held)
    return request.SerializeToString(), points


@cache
def name_model(number: int) -> tuple[Names, bytes]:
    """A model, and the document of its profile."""
    name = f"model-{number:04}"
    document = make_document().replace(MODEL.encode(), name.encode())
    return Names(name, hashlib.sha256(document).hexdigest()[:16]), document


def recognize(document: bytes) -> Profile:
    """One of these profiles, of another name, without reading it: reading a thousand takes a minute."""
    profile = replace(make_profile())
    vars(profile)["hash"] = hashlib.sha256(document).hexdigest()[:16]
    return profile


@cache
def make_document() -> bytes:
    return make_profile().to_bytes()


def make_loads(
    points: int, replicas: int, *, cumulative: bool = False, models: int = 1, clients: int = CLIENTS
) -> list[Load]:
    """A share of the replicas for each client."""
    names = tuple(name_model(i)[0] for i in range(models))
    return [
        Load(make_histograms(), points, range(i, replicas, clients), cumulative, names)
        for i in range(min(clients, replicas))
    ]


def send_profiles(target: str, models: int) -> None:
    """As events, from one process."""
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        for number in range(models):
            names, document = name_model(number)
            request = ExportLogsServiceRequest()
            resource = request.resource_logs.add()
            for key, value in (("service.name", "bench"), ("service.instance.id", "profiles")):
                resource.resource.attributes.add(key=key).value.string_value = value
            record = resource.scope_logs.add().log_records.add(event_name=semconv.EVENT_ML_REFERENCE_PROFILE)
            record.body.bytes_value = gzip.compress(document, 1)
            for key, text in (
                (semconv.ML_MODEL_NAME, names.model),
                (semconv.ML_MODEL_VERSION, "1"),
                (semconv.ML_REFERENCE_HASH, names.digest),
            ):
                record.attributes.add(key=key).value.string_value = text
            for key in (semconv.ML_REFERENCE_PART, semconv.ML_REFERENCE_PARTS):
                record.attributes.add(key=key).value.int_value = 1
            answer = export(request.SerializeToString(), timeout=60)
            assert not answer, answer


# ------------------------------------------------------------------ measuring


@contextlib.contextmanager
def work_in() -> Iterator[Path]:
    """A folder on the disk of this tree, removed afterwards."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=ROOT / ".bench") as folder:
        yield Path(folder)


@contextlib.contextmanager
def sending(server: Server, loads: Sequence[Load]) -> Iterator[Clients]:
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


def clock(server: Server, clients: Clients, *phases: Phase, drain: Callable[[], None] = lambda: None) -> Figures:
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
    check_cells(processor.data, clients)
    return samples


def find_sum(samples: Sequence[Sample], metric: semconv.Metric, label: str = "") -> float:
    """Of the samples of a metric, those with a value of a label alone."""
    names = {prometheus_name(metric), f"{prometheus_name(metric)}_total"}
    return sum(s.value for s in samples if s.name in names and (not label or label in s.labels.values()))


def check_cells(data: Path, clients: Clients) -> None:
    """Each point adds the same counts, whether as a delta or to a total; so many of them are in all cells."""
    export = ExportMetricsServiceRequest.FromString(make_histograms())
    points = export.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    expected = {
        next(pair.value.string_value for pair in point.attributes if pair.key == semconv.ML_FEATURE_NAME): times
        * np.array(point.bucket_counts)
        for point, times in zip(points, clients.by_feature, strict=True)
    }
    held: dict[str, np.ndarray] = {}
    ingest = Ingest(data, parse=recognize)
    try:
        for view in ingest.views():
            features = [(variable, counts) for variable, counts in view.totals.items() if variable.role == "feature"]
            for variable, counts in features:
                held[variable.name] = held.get(variable.name, 0) + counts.cells
    finally:
        ingest.close()
    assert held.keys() == expected.keys()
    for name, cells in expected.items():
        assert np.array_equal(held[name], cells), f"{name}: {held[name].sum():,} values counted, not {cells.sum():,}"


# ------------------------------------------------------------------ cases


@dataclass(frozen=True)
class Scale:
    """How long things take: s of a phase, s of warming up, and a share of what else is large."""

    phase: float = 3.0
    warm: float = 1.5
    share: float = 1.0


def measure_processor(points: int, replicas: int, cumulative: bool, scale: Scale, *, whole: bool = False) -> Figures:
    """At full load, and at half of it. Many streams are measured for longer, as a checkpoint of them is long."""
    if replicas > 1000:
        scale = replace(scale, phase=4 * scale.phase)
    loads, sent = make_loads(points, replicas, cumulative=cumulative), FEATURES
    if whole:
        body, sent = make_whole()
        loads = [replace(load, whole=body) for load in loads]
    with work_in() as folder, running(Processor(folder)) as server:
        send_profiles(server.target, 1)
        with sending(server, loads) as clients:
            clients.run(Phase())
            clients.run(Phase(scale.warm))
            full = clock(server, clients, Phase(scale.phase))
            half = clock(server, clients, halve(full, scale, len(clients)))
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
            with running(Collector(folder, path, sink)) as server, sending(server, loads) as clients:
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
    """What a start takes after kill -9 with a journal of which no checkpoint holds anything."""
    with work_in() as folder:
        with running(Processor(folder, **NEVER)) as server:
            empty, cpu = server.startup, server.usage().cpu
            send_profiles(server.target, 1)
            with sending(server, make_loads(FEATURES, 100)) as clients:
                clients.run(Phase(10 * scale.share))
        with running(Processor(folder, **NEVER)) as server:
            took, used = server.startup - empty, server.usage().cpu - cpu
            check(server, clients, restarted=True)
    points = int(clients.by_feature.sum())
    return {
        "points": points,
        "empty_s": round(empty, 2),
        "replay_s": round(took, 2),
        "points_per_s": round(points / took),
        "points_per_core": round(points / used),
    }


def measure_memory(cumulative: bool, scale: Scale) -> Figures:
    """Memory of a stream: that of 5,000 replicas, without that of 100. And a checkpoint of them, by hand."""
    few, many = 100, int(5000 * scale.share)
    with work_in() as folder, running(Processor(folder, **NEVER)) as server:
        send_profiles(server.target, 1)
        (load,) = make_loads(FEATURES, few, cumulative=cumulative, clients=1)
        with sending(server, [load, replace(load, replicas=range(few, many))]) as clients:
            clients.run(Phase(requests=200), NOTHING)
            server.await_evaluation()
            before = server.usage().rss
            for _ in range(3):
                clients.run(NOTHING, Phase())
            server.await_evaluation()
            after = server.usage().rss
            check(server, clients)
        checkpoints = measure_checkpoint(server.data, load)
    return {
        "streams": (many - few) * FEATURES,
        "bytes_per_stream": round((after - before) / (many - few) / FEATURES),
        **checkpoints,
    }


def measure_checkpoint(data: Path, load: Load, rounds: int = 3) -> Figures:
    """How long folding stands still for a checkpoint of what is in a directory."""
    bodies = Requests(load, range(90_000, 90_001)).make()
    ingest = Ingest(data)
    seconds = []
    try:
        for _ in range(rounds):
            ingest.submit(semconv.MonSignal.METRICS, next(bodies)[0])
            began = time.perf_counter()
            ingest.checkpoint()
            seconds.append(time.perf_counter() - began)
    finally:
        ingest.close()
    with contextlib.closing(sqlite3.connect(data / "mlmon.db")) as database:
        (size,) = database.execute("SELECT length(body) FROM checkpoint").fetchone()
    return {"checkpoint_ms": round(1e3 * float(np.median(seconds))), "checkpoint_mb": round(size / 1e6, 1)}


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
    return {"models": models, "minutes": minutes, "bytes_per_model": round((after - before) / models)}


def run_long(requests: int) -> list[Figures]:
    """Figures of each tenth of many requests to one processor."""
    found = []
    with work_in() as folder, running(Processor(folder)) as server:
        send_profiles(server.target, 1)
        loads = make_loads(FEATURES, 1000)
        with sending(server, loads) as clients:
            clients.run(Phase())
            for _ in range(10):
                each = requests // 10 // sum(load.flight for load in loads)
                found.append(clock(server, clients, Phase(requests=each)))
                print(json.dumps(found[-1]), flush=True)
            check(server, clients)
    return found


Case = Callable[[Scale], Figures]
SHAPES = (
    (1, 10, False),
    (1, 100, True),
    (35, 10, False),
    (35, 100, False),
    (35, 100, True),
    (35, 1000, False),
    (35, 1000, True),
    (35, 5000, False),
    (35, 5000, True),
    (100, 100, False),
    (100, 1000, True),
    (1000, 1000, False),
    (1000, 1000, True),
    (1000, 5000, False),
)
PEERS = ((1, 100, True), (35, 100, False), (35, 1000, True), (1000, 1000, False))
QUICK = (
    "processor, 1 points, 100 replicas, cumulative",
    "processor, 35 points, 100 replicas, delta",
    "processor, 35 points, 1000 replicas, cumulative",
    "batch, 35 points, 100 replicas, delta",
    "agent, 35 points, 100 replicas, delta",
    "start",
    "noise",
)


def list_cases() -> dict[str, Case]:
    """By name."""
    found: dict[str, Case] = {}
    for server, shapes in (("processor", SHAPES), ("batch", PEERS), ("agent", PEERS)):
        for points, replicas, cumulative in shapes:
            name = f"{server}, {points} points, {replicas} replicas, {'cumulative' if cumulative else 'delta'}"
            measure = measure_processor if server == "processor" else partial(measure_collector, server)
            found[name] = partial(measure, points, replicas, cumulative)
    found["whole"] = partial(measure_processor, FEATURES, 100, False, whole=True)
    found["memory, delta"] = partial(measure_memory, False)
    found["memory, cumulative"] = partial(measure_memory, True)
    found["windows"] = measure_windows
    found["start"] = measure_start
    found["evaluation"] = measure_evaluation
    found["noise"] = measure_noise
    return found


ONCE = ("memory", "windows", "evaluation")  # long, or not a matter of speed


def open_document() -> Figures:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {"rounds": {}}


def begin(document: Figures, rounds: int, cases: dict[str, Case]) -> Figures:
    """The document if its run was stopped, else a new one; the long run is kept."""
    found = document["rounds"]
    if found and any(len(found.get(name, [])) < count_rounds(name, rounds) for name in cases):
        return document
    return {**document, "machine": machine(), "disk": name_disk(), "date": time.strftime("%Y-%m-%d"), "rounds": {}}


def count_rounds(name: str, rounds: int) -> int:
    return 1 if name.startswith(ONCE) else rounds


def name_disk() -> str:
    find = ["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", str(ROOT)]
    return " on ".join(subprocess.run(find, capture_output=True, text=True, check=True).stdout.split())


def save(document: Figures) -> None:
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def run_all(rounds: int, cases: dict[str, Case], scale: Scale) -> None:
    """Rounds of all cases in turn, so that what else the machine does meets all of them alike."""
    document = begin(open_document(), rounds, cases)
    for number in range(rounds):
        for name, measure in cases.items():
            found = document["rounds"].setdefault(name, [])
            if len(found) > number or number >= count_rounds(name, rounds):
                continue
            found.append(measure(scale))
            print(name, json.dumps(found[-1]), flush=True)
            save(document)


def write_page() -> None:
    document = open_document()
    RESULT.with_suffix(".md").write_text(render(document))
    draw_picture(document, RESULT.with_suffix(".png"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few cases, a minute; writes nothing")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose name matches, once; writes nothing")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase, with --only")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    parser.add_argument("--long", action="store_true", help="10^6 requests, added to the results")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page from what there is")
    options = parser.parse_args()
    cases = list_cases()
    if options.list:
        print("\n".join(cases))
    elif options.quick or options.only:
        scale = Scale(2.0, 1.0, 0.1) if options.quick else Scale(options.seconds)
        for name in cases:
            if name in QUICK if options.quick else re.search(options.only, name):
                print(name, json.dumps(cases[name](scale)), flush=True)
    else:
        if options.long:
            tenths = run_long(1_000_000)
            save(
                {**open_document(), "long": {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "tenths": tenths}}
            )
        elif not options.page:
            run_all(options.rounds, cases, Scale())
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
