"""From the rounds to medians, reaches, the page and the picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

Figures = dict[str, Any]
NAMES = {
    "processor": "otel-mlmon",
    "batch": "collector: batch",
    "agent": "collector: agent.yaml",
    "grpc": "gRPC for Python alone",
}
GRPC = "grpc, 35 points, 100 replicas, delta"


class Reach(NamedTuple):
    what: str
    wanted: str
    found: str
    reached: bool


def summarize(rounds: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Medians of each case."""
    return {name: find_medians(found) for name, found in rounds.items() if found}


def find_medians(found: Sequence[Any]) -> Any:
    first = found[0]
    if isinstance(first, dict):
        keys = {key: None for one in found for key in one}
        return {key: find_medians([one[key] for one in found if key in one]) for key in keys}
    middle = statistics.median(found)
    return round(middle) if isinstance(first, int) else middle


def shape_of(name: str) -> tuple[str, int, int, str]:
    """Server, points of a request, replicas and temporality."""
    server, points, replicas, temporality = name.split(", ")
    return server, int(points.split()[0]), int(replicas.split()[0]), temporality


def list_loads(cases: dict[str, Figures]) -> list[tuple[tuple[str, int, int, str], Figures]]:
    return [(shape_of(name), found) for name, found in cases.items() if "replicas" in name]


def list_reaches(cases: dict[str, Figures], long: Sequence[Figures]) -> list[Reach]:
    """What was to be reached, and what was measured."""
    found: list[Reach] = []
    large = [(shape, case) for shape, case in list_loads(cases) if shape[0] == "processor" and shape[1] >= 35]
    if large:
        rates = [case["points_per_core"] for _, case in large]
        waits = [case["half"]["p99_ms"] for _, case in large]
        ranges = f"{min(rates):,} to {max(rates):,}, {sum(r >= 100_000 for r in rates)} of {len(rates)} cases reach it"
        found += [
            Reach("points a second of processor time, requests of 35 points and more", ">= 100,000", ranges,
                  min(rates) >= 100_000),
            Reach("p99 of an acknowledgement at half of the full rate, same requests", "<= 100 ms",
                  f"{min(waits):.0f} to {max(waits):.0f} ms", max(waits) <= 100),
        ]  # fmt: skip
    for kind in ("delta", "cumulative"):
        if case := cases.get(f"memory, {kind}"):
            size = case["bytes_per_stream"]
            found.append(Reach(f"memory of a stream, {kind}", "<= 1,024 bytes", f"{size:,} bytes", size <= 1024))
    if case := cases.get("start"):
        found.append(
            Reach("points a second replayed at the start", ">= 200,000", f"{case['points_per_s']:,}",
                  case["points_per_s"] >= 200_000)
        )  # fmt: skip
    if case := cases.get("evaluation"):
        found.append(
            Reach(f"p99 at half of the full rate while {case['models']:,} models are evaluated", "<= 100 ms",
                  f"{case['half']['p99_ms']:.0f} ms", case["half"]["p99_ms"] <= 100)
        )  # fmt: skip
    if case := cases.get("noise"):
        wait = case["quiet_beside"]["p99_ms"]
        found.append(Reach("p99 of a quiet model beside a noisy one", "<= 100 ms", f"{wait:.0f} ms", wait <= 100))
    if long:
        sent = sum(part["requests"] for part in long)
        rates = [part["points_per_s"] for part in long]
        measures = [rates, [1 / as_clients(part) for part in long]]
        measures += [[part[key] for part in long] for key in ("rss_mb", "space_mb")]
        rate, speed, memory, space = (statistics.median(v[-3:]) / statistics.median(v[3:6]) for v in measures)
        found.append(
            Reach("flat: the last three tenths against the fourth to the sixth, medians",
                  "10^6 requests, rate (as the clients' own work shows the machine's speed) >= 90 %, memory and space "
                  "on the disk <= 110 %",
                  f"{sent:,} requests, rate {speed:.0%} (as it was, {rate:.0%}; tenths from {min(rates):,} to "
                  f"{max(rates):,}), memory {memory:.0%}, space {space:.0%}",
                  sent >= 1_000_000 and speed >= 0.9 and max(memory, space) <= 1.1)
        )  # fmt: skip
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    align = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join([_line(head), f"|{'|'.join(align)}|", *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def load_table(cases: dict[str, Figures]) -> str:
    head = ["points a request", "replicas", "", "of", "points/s", "points/s a core", "p50, p99 ms",
            "at half: p50, p99 ms", "written, bytes a point", "MB/s", "memory, MB"]  # fmt: skip
    loads = list_loads(cases)
    order = sorted(loads, key=lambda load: (load[0][1:3], load[0][3], list(NAMES).index(load[0][0])))
    rows = [
        [
            f"{points:,}", f"{replicas:,}", temporality, NAMES[server],
            f"{min(case['points_per_s'], case['drained_per_s']):,}", f"{case['points_per_core']:,}",
            show_waits(case), show_waits(case["half"]),
            f"{case['written_per_point']:,}", f"{case['written_mb_per_s']:.0f}", f"{case['rss_mb']:.0f}",
        ]
        for (server, points, replicas, temporality), case in order
    ]  # fmt: skip
    return table(head, rows, 4)


def show_waits(case: Figures) -> str:
    return f"{case['p50_ms']:.0f}, {case['p99_ms']:.0f}"


def as_clients(part: Figures) -> float:
    """Processor time of the server for a point as against that of the clients, whose work is the same all the time."""
    return float(part["points_per_s"] / part["client_cores"] / part["points_per_core"])


def long_table(long: Sequence[Figures]) -> str:
    rows, sent = [], 0
    for part in long:
        sent += part["requests"]
        rows.append([f"{sent:,}", f"{part['points_per_s']:,}", f"{part['points_per_core']:,}",
                     f"{as_clients(part):.2f}", show_waits(part), f"{part['pause_ms']:.0f}",
                     f"{part['rss_mb']:.0f}", f"{part['space_mb']:.0f}"])  # fmt: skip
    head = ["requests so far", "points/s", "points/s a core", "processor time as against the clients'", "p50, p99 ms"]
    return table([*head, "longest time without an answer, ms", "memory, MB", "space, MB"], rows)


def say_rounds(times: list[int]) -> str:
    """How often cases were run."""
    few, most = min(times, default=0), max(times, default=0)
    said = "Each case was run once" if few == 1 else f"Medians of {few} rounds"
    return f"{said}." if few == most else f"{said}, some {most} times, of which these are the medians."


def render(document: Figures) -> str:
    """The page."""
    cases, long = summarize(document["rounds"]), document.get("long", {})
    tenths = long.get("tenths", [])
    reaches = [
        [reach.what, reach.wanted, reach.found, "reached" if reach.reached else "**not reached**"]
        for reach in list_reaches(cases, tenths)
    ]
    parts = [
        TEXT.format(
            machine=document["machine"],
            date=document["date"],
            disk=document["disk"],
            rounds=say_rounds([len(found) for found in document["rounds"].values()]),
            reaches=table(["reach", "wanted", "measured", ""], reaches, 4),
            loads=load_table(cases),
            lost=sum(case.get("lost", 0) for _, case in list_loads(cases)),
        )
    ]
    tellers = {
        GRPC: _tell_grpc,
        "whole": _tell_whole,
        "memory, delta": _tell_memory,
        "start": _tell_start,
        "evaluation": _tell_evaluation,
        "noise": _tell_noise,
        "sharded, 2 processors": _tell_sharded,
    }
    for name, write in tellers.items():
        if name in cases:
            parts.append(write(cases))
    if tenths:
        parts.append(f"## Flat\n\n35 points a request, 1,000 replicas, delta; {long['machine']}, {long['date']}. The "
                     "sliding window is four minutes here, not an hour: what tells replicas apart is kept for as long, "
                     "so all that is kept is there from the fourth tenth on. The machine's speed changes within "
                     "minutes; the clients' processor time for a point, whose work stays the same, shows by how "
                     "much.\n\n"
                     f"{long_table(tenths)}")  # fmt: skip
    return "\n".join(parts)


TEXT = """# How much the processor takes in

`make bench-ingest`, {date}: {machine}, {disk}. {rounds}

{reaches}

![points by second of processor time, and waiting](ingest.png)

## Loads

Two client processes with 16 requests on their way each send what a Monitor sends for 35 features of 50 cells, 982
bytes a point, over gRPC without compression, on the same cores. Points of replicas follow one another and are cut into
requests, as a collector cuts its batches. Each figure is of three seconds at full load, of twelve with 5,000 replicas;
*at half* with requests at half of that rate, each measured from when it was due, of the processor for twelve seconds,
as an evaluation comes every ten. *A core*: points by second of the server's processor time, user and system.
*Written*: bytes that it had the system write to the disk, by point. The processor runs with its defaults; what it
acknowledges is synced and folded. At the end of each case its counters, and all cells of all counts in its directory,
were those that had been acknowledged: none lost, none twice.

The collector: `otlp` to `otlp_grpc` with its `sending_queue` on `file_storage`, to a process that counts and answers at
once. *batch*: the `batch` processor before it and everything else at its defaults (no fsync), but no compression. It
acknowledges what is in memory. *agent.yaml*: [as we recommend it](../collector-config/agent.yaml): without the batch
processor, fsync, batches made of what is on the disk, gzip. Its rate and processor time are those until all was
delivered; {lost:,} of the points it had acknowledged were not. What either deletes before the system has written it is
never written. It neither decodes histograms nor keeps counts, and the processor does not send on.

{loads}
"""


def _tell_grpc(cases: dict[str, Figures]) -> str:
    alone, ours = (cases[f"{server}, {GRPC.partition(', ')[2]}"]["points_per_core"] for server in ("grpc", "processor"))
    return (
        "*gRPC for Python alone*: a server with the same library that answers at once and does nothing with what came. "
        f"In requests of 35 points it takes {alone:,} points a second of processor time, so no processor that receives "
        f"by it takes more; ours takes {ours / alone:.0%} of that.\n"
    )


def _tell_whole(cases: dict[str, Figures]) -> str:
    case = cases["whole"]
    return (
        f"With all that a Monitor sends for them, {case['sent']} points, 35 of them histograms of features, from 100 "
        f"replicas: {case['points_per_s']:,} points of features a second, {case['points_per_core']:,} a core, p50 and "
        f"p99 {show_waits(case)} ms, at half of that {show_waits(case['half'])} ms.\n"
    )


def _tell_memory(cases: dict[str, Figures]) -> str:
    rows = [
        [kind, f"{case['streams']:,}", f"{case['bytes_per_stream']:,}", f"{case['with_replicas']:,}",
         f"{case['checkpoint_mb']:.0f}", f"{case['checkpoint_ms']:,}"]
        for kind in ("delta", "cumulative")
        if (case := cases.get(f"memory, {kind}"))
    ]  # fmt: skip
    said = ""
    if windows := cases.get("windows"):
        said = (
            "\nThe windows of a model come on top, however many replicas it has: "
            f"{windows['bytes_per_model'] / 1e6:.1f} MB for 35 features of 50 cells over {windows['minutes'] // 60} "
            f"hours, and {windows['checkpoint_bytes_per_model'] / 1e6:.1f} MB in a checkpoint, measured with "
            f"{windows['models']} models.\n"
        )
    pauses = [
        f"{case['pause_ms']:.0f} ms ({points:,} points a request, {kind})"
        for (server, points, replicas, kind), case in list_loads(cases)
        if server == "processor" and replicas == 5000
    ]
    if pauses:
        said += (
            f"\nThe longest time without an acknowledgement at full load from 5,000 replicas: {', '.join(pauses)}.\n"
        )
    head = ["", "streams", "bytes a stream", "with windows by replica", "checkpoint, MB", "a checkpoint takes, ms"]
    return f"## Memory and checkpoints\n\n{MEMORY}\n{table(head, rows)}\n{said}"


MEMORY = """Growth of a process from 100 to 5,000 replicas of one model, 35 histograms of 50 cells each, no server and
no evaluation (which copies what it looks at): the state of streams, and with what tells replicas apart within the
sliding window.
"""


def _tell_start(cases: dict[str, Figures]) -> str:
    case = cases["start"]
    return (
        f"## Start after kill -9\n\nA journal of {case['points']:,} points of which no checkpoint holds anything is "
        f"folded in {case['replay_s']:.1f} s, {case['points_per_s']:,} points a second, beside the "
        f"{case['few_s']:.1f} s of a start with the same model and one request of each of its 100 replicas.\n"
    )


def _tell_evaluation(cases: dict[str, Figures]) -> str:
    case = cases["evaluation"]
    return (
        f"## Evaluation\n\n{case['models']:,} models of 35 features, each with its profile, under evaluation all the "
        f"time: {case['points_per_s']:,} points a second are taken in, p50 and p99 "
        f"{show_waits(case)} ms; at half of that, {show_waits(case['half'])} ms.\n"
    )


def _tell_noise(cases: dict[str, Figures]) -> str:
    case = cases["noise"]
    return (
        "## A noisy model beside a quiet one\n\nThe quiet one sends 20 requests a second: p50 and p99 "
        f"{show_waits(case['quiet_alone'])} ms alone, {show_waits(case['quiet_beside'])} ms beside a model that sends "
        f"as fast as it can ({case['noisy_points_per_s']:,} points a second).\n"
    )


def _tell_sharded(cases: dict[str, Figures]) -> str:
    rows = [
        [f"{shards}", f"{case['drained_per_s']:,}", f"{case['collector_per_core']:,}",
         f"{case['processors_per_core']:,}", f"{case['largest_share']:.0%}"]
        for shards in (1, 2)
        if (case := cases.get(f"sharded, {shards} processors"))
    ]  # fmt: skip
    head = ["processors", "points/s, all delivered", "points/s a core of the collector",
            "points/s a core of the processors", "largest share"]  # fmt: skip
    return (
        "## Shared among processors\n\nEight models in requests of 350 points through one collector with "
        "[sharded.yaml](../collector-config/sharded.yaml), its queues on the disk. All are on the same cores, so what "
        "tells how far it goes are the points by second of processor time: how many cores of which to have. At the "
        f"end the processors together held what was acknowledged, once.\n\n{table(head, rows)}\n"
    )


def draw_picture(document: Figures, path: Path) -> None:
    """Points by second of processor time, latency at half load, and the long run."""
    import matplotlib.pyplot as plt

    cases, tenths = summarize(document["rounds"]), document.get("long", {}).get("tenths", [])
    loads = list_loads(cases)
    shapes = sorted({shape[1:] for shape, _ in loads})
    figure, axes = plt.subplots(1, 3 if tenths else 2, figsize=(18 if tenths else 13, 6.5), layout="constrained")
    for number, (server, label) in enumerate(NAMES.items()):
        of = {shape[1:]: case for shape, case in loads if shape[0] == server}
        at = [shapes.index(shape) + 0.2 * (number - 1.5) for shape in of]
        axes[0].barh(at, [case["points_per_core"] for case in of.values()], 0.19, label=label)
        axes[1].barh(at, [case["half"]["p99_ms"] for case in of.values()], 0.19, label=label)
    axes[0].axvline(100_000, color="black", linestyle=":")
    axes[1].axvline(100, color="black", linestyle=":")
    for axis in axes[:2]:
        axis.set_yticks(range(len(shapes)), [f"{p:,} x {r:,}, {kind}" for p, r, kind in shapes])
        axis.invert_yaxis()
        axis.legend()
    axes[0].set(title="points a second of processor time", ylabel="points a request x replicas")
    axes[1].set(title="p99 of an acknowledgement at half of the full rate, ms", xscale="log")
    if tenths:
        sent = [sum(part["requests"] for part in tenths[: i + 1]) / 1e6 for i in range(len(tenths))]
        axes[2].plot(sent, [part["points_per_s"] for part in tenths], "o-", label="points/s")
        axes[2].plot(sent, [1000 * part["rss_mb"] for part in tenths], "s--", label="memory, kB")
        axes[2].set(title="one processor, many requests", xlabel="million requests", ylim=(0, None))
        axes[2].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
