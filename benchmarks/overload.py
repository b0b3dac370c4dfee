"""Ten times as many requests at once as keep the processor busy: what it takes in meanwhile, what it holds, who waits.

    make bench-overload

First clients that keep it busy; then ten times as many requests on their way at once, from ten connections, which come
again when they are told to; beside them a quiet client; then the rate of the half. At the end all that was acknowledged
must be there once. Writes overload.json and .md beside this file; --seconds shortens it (600), --json writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ingest_cases import NOTHING, check, in_ms, running, sending, work_in
from ingest_client import Phase, join
from ingest_model import FEATURES, make_loads, send_profiles
from ingest_servers import Processor
from recorder import machine

HERE = Path(__file__).resolve().parent
BUSY, TIMES = 16, 10
QUIET = 2.0  # requests a second of a client that sends one at a time: more would wait for one another
POINTS = 10 * FEATURES  # of a request, as a collector's batch of ten replicas
SOON = 100.0  # ms: an acknowledgement that comes so soon is one of a processor that is not overloaded


def measure(seconds: float, connections: int) -> dict[str, Any]:
    """All of it."""
    with work_in() as folder, running(Processor(folder)) as server:
        send_profiles(server.target, 2)
        flood = make_loads(POINTS, 20 * TIMES * BUSY, models=1, clients=connections)
        few, *others = [replace(load, flight=TIMES * BUSY // connections) for load in flood]
        (quiet,) = make_loads(FEATURES, 1, models=1, clients=1)
        quiet = replace(quiet, replicas=range(90_000, 90_001))
        with sending(server, [few, *others, quiet]) as clients:
            clients.run(Phase())
            nobody = [NOTHING] * len(others)
            calm = seconds / 4
            *_, alone = clients.run(NOTHING, *nobody, Phase(calm, rate=QUIET))
            *busy, _ = clients.run(Phase(calm), *nobody, NOTHING)
            before = server.usage()
            *sent, beside = clients.run(Phase(seconds), *[Phase(seconds)] * len(others), Phase(seconds, rate=QUIET))
            after = server.usage()
            most, overloaded = join(busy), join(sent)
            full = int(most.points.sum()) / (most.ended - most.began)
            recovered = recover(clients, full / POINTS / 2, len(others))
            check(server, clients)
    taken = int(overloaded.points.sum()) / (overloaded.ended - overloaded.began)
    return {
        "machine": machine(),
        "seconds": seconds,
        "at once": {"unloaded": BUSY, "overloaded": TIMES * BUSY, "connections": connections, "points": POINTS},
        "points_per_s": {"unloaded": round(full), "overloaded": round(taken)},
        "goodput": round(taken / full, 3),
        "refused": dict(overloaded.refused),
        "acknowledged": overloaded.requests,
        "rss_mb": {"before": round(before.rss / 1e6), "after": round(after.rss / 1e6)},
        "quiet": {"alone": in_ms(alone.seconds), "beside": in_ms(beside.seconds), "refused": dict(beside.refused)},
        "recovered_after_s": recovered,
    }


def recover(clients: Any, rate: float, others: int) -> float:
    """Seconds until acknowledgements come soon again, at half of what it can take."""
    began = time.monotonic()
    while True:
        sent, *_ = clients.run(Phase(0.5, rate=rate), *[NOTHING] * others, NOTHING)
        if not sent.refused and float(np.percentile(sent.seconds, 99)) * 1e3 <= SOON:
            return round(time.monotonic() - began - 0.5, 2)
        if time.monotonic() - began > 60:
            raise AssertionError("not recovered within a minute")


def render(found: dict[str, Any]) -> str:
    """The page."""
    rate, quiet, once = found["points_per_s"], found["quiet"], found["at once"]
    refused = sum(found["refused"].values())
    return f"""# Overload

Written by `make bench-overload`: {once["overloaded"]} requests of {once["points"]} points on their way at once,
from {once["connections"]} connections, for {found["seconds"]:,.0f} s, where {once["unloaded"]} keep the processor busy.
Clients come again when they are told to. All run on one machine: {found["machine"]}.

| | |
|---|---:|
| points a second, unloaded | {rate["unloaded"]:,} |
| points a second, overloaded | {rate["overloaded"]:,} |
| goodput, wanted >= 80 % | {100 * found["goodput"]:.0f} % |
| requests acknowledged / asked to come again | {found["acknowledged"]:,} / {refused:,} |
| memory before and after | {found["rss_mb"]["before"]} MB, {found["rss_mb"]["after"]} MB |
| a quiet client's acknowledgements, p50 and p99: alone | {quiet["alone"]["p50_ms"]} ms, {quiet["alone"]["p99_ms"]} ms |
| beside the flood | {quiet["beside"]["p50_ms"]} ms, {quiet["beside"]["p99_ms"]} ms |
| of its requests, asked to come again | {sum(quiet["refused"].values())} |
| within {SOON:.0f} ms again, at half the rate, after | {found["recovered_after_s"]} s |
| acknowledged points that are lost, or there twice | 0 |

The quiet client sends {QUIET:.0f} requests a second, one at a time, each waited for from when it was due.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of overload")
    parser.add_argument("--connections", type=int, default=10, help="of the flood, each from a process of its own")
    parser.add_argument("--json", type=Path, default=HERE / "overload.json", help="where to write; .md beside it")
    options = parser.parse_args()
    found = measure(options.seconds, options.connections)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    options.json.with_suffix(".md").write_text(render(found))
    print(render(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
