"""Ten times as many requests at once as keep the processor busy: what it takes in meanwhile, what it holds, who waits.

    make bench-overload

First clients that keep it busy; then ten times as many requests on their way at once, from ten connections, which come
again when they are told to, and for a quarter as long again at once, whatever they are told; beside them a quiet
client; the first ones alone again after each, as the speed of a machine changes meanwhile; at the end half of their
rate. All that was acknowledged must be there once. Writes overload.json and .md beside this file, and fails where a
reach is missed; --seconds shortens it (600), --json writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from ingest_cases import NOTHING, check, in_ms, running, sending, work_in
from ingest_client import Phase, Sent, join
from ingest_model import FEATURES, make_loads, send_profiles
from ingest_page import show_waits
from ingest_servers import Processor
from recorder import machine

HERE = Path(__file__).resolve().parent
BUSY, TIMES = 16, 10
QUIET = 2.0  # requests a second of a client that sends one at a time: more would wait for one another
POINTS = 10 * FEATURES  # of a request, as a collector's batch of ten replicas
MEMORY = 256 << 20  # `limits.memory`
# Bytes that it may hold by docs/operations.md: what it is made of, what is known of messages, the counts, a quarter to
# tell replicas apart and three copies of that, and `limits.bytes` as they came, read, and packed.
MOST = (170 + 60) * 10**6 + MEMORY + 4 * (MEMORY // 4) + 3 * (64 << 20)
SOON = 100.0  # ms: an acknowledgement that comes so soon is one of a processor that is not overloaded


def measure(seconds: float, connections: int) -> dict[str, Any]:
    """All of it."""
    with work_in() as folder, running(Processor(folder, memory=MEMORY)) as server:
        send_profiles(server.target, 2)
        flood = make_loads(POINTS, 20 * TIMES * BUSY, models=1, clients=connections)
        few, *others = [replace(load, flight=TIMES * BUSY // connections) for load in flood]
        (quiet,) = make_loads(FEATURES, 1, models=1, clients=1)
        quiet = replace(quiet, replicas=range(90_000, 90_001))
        with sending(server, [few, *others, quiet]) as clients:
            clients.run(Phase())
            nobody = [NOTHING] * len(others)
            calm = seconds / 4

            def unload() -> float:
                return rate_of(clients.run(Phase(calm / 2), *nobody, NOTHING)[0])

            *_, alone = clients.run(NOTHING, *nobody, Phase(calm / 2, rate=QUIET))
            full = [unload()]
            before = server.peak()
            *sent, beside = clients.run(*[Phase(seconds)] * (1 + len(others)), Phase(seconds, rate=QUIET))
            full.append(unload())
            *rude, patient = clients.run(*[Phase(calm, rude=True)] * (1 + len(others)), Phase(calm, rate=QUIET))
            peak = server.peak()
            recovered = recover(clients, full[-1] / POINTS / 2, len(others))
            full.append(unload())
            check(server, clients)
    return {
        "machine": machine(),
        "seconds": seconds,
        "at once": {"unloaded": BUSY, "overloaded": TIMES * BUSY, "connections": connections, "points": POINTS},
        "points_per_s": {"unloaded": [round(rate) for rate in full]},
        "polite": tell(join(sent), mean(full[:2]), beside),
        "rude": tell(join(rude), mean(full[1:]), patient),
        "peak_mb": {"before": round(before / 1e6), "after": round(peak / 1e6), "most": round(MOST / 1e6)},
        "quiet_alone": in_ms(alone.seconds),
        "recovered_after_s": recovered,
    }


def rate_of(sent: Sent) -> float:
    """Points a second."""
    return int(sent.points.sum()) / (sent.ended - sent.began)


def tell(sent: Sent, full: float, quiet: Sent) -> dict[str, Any]:
    """Of a flood, and of who was quiet meanwhile; `full`: points a second, unloaded."""
    refused = sum(sent.refused.values())
    return {
        "points_per_s": round(rate_of(sent)),
        "goodput": round(rate_of(sent) / full, 3),
        "acknowledged": sent.requests,
        "refused": refused,
        "asked_for": round((sent.requests + refused) * POINTS / (sent.ended - sent.began) / full, 2),
        "quiet": in_ms(quiet.seconds),
        "quiet_refused": sum(quiet.refused.values()),
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
    polite, rude, once, peak = found["polite"], found["rude"], found["at once"], found["peak_mb"]

    def row(what: str, of: Callable[[dict[str, Any]], str]) -> str:
        return f"| {what} | {of(polite)} | {of(rude)} |"

    rows = [
        row("requests sent, as a multiple of what it takes in unloaded", lambda of: f"{of['asked_for']:.1f}"),
        row("requests acknowledged", lambda of: f"{of['acknowledged']:,}"),
        row("asked to come again", lambda of: f"{of['refused']:,}"),
        row("points a second", lambda of: f"{of['points_per_s']:,}"),
        row("goodput, wanted >= 80 %", lambda of: f"{100 * of['goodput']:.0f} %"),
        row("a quiet client's acknowledgements, p50 and p99, ms", lambda of: show_waits(of["quiet"])),
        row("of its requests, asked to come again", lambda of: str(of["quiet_refused"])),
    ]
    listed = "\n".join(rows)
    unloaded = ", ".join(f"{rate:,}" for rate in found["points_per_s"]["unloaded"])
    return f"""# Overload

Written by `make bench-overload`: {once["overloaded"]} requests of {once["points"]} points on their way at once,
from {once["connections"]} connections, where {once["unloaded"]} keep the processor busy: {found["seconds"]:,.0f} s of
clients that come again when they are told to, {found["seconds"] / 4:,.0f} s of such as come again at once. All run on
one machine, and whoever sends takes processor time from who receives: {found["machine"]}.

| | as told | at once |
|---|---:|---:|
{listed}

| | |
|---|---:|
| points a second, unloaded: before, between, after | {unloaded} |
| memory at most, before and in the flood, of what may be with `limits.memory` of {MEMORY >> 20} MiB | \
{peak["before"]} MB, {peak["after"]} MB of {peak["most"]} MB |
| a quiet client's acknowledgements when alone, p50 and p99, ms | {show_waits(found["quiet_alone"])} |
| within {SOON:.0f} ms again, at half the rate, after | {found["recovered_after_s"]} s |
| acknowledged points that are lost, or there twice | 0 |

The quiet client sends {QUIET:.0f} requests a second, one at a time, each waited for from when it was due. Goodput is
against the mean of the rates unloaded before and after, {found["seconds"] / 8:,.0f} s each.
"""


def find_missed(found: dict[str, Any]) -> list[str]:
    """Reaches that were missed. Who is rude takes the processor's own time on this machine, so that has none."""
    peak = found["peak_mb"]
    missed = {
        "goodput below 80 %": found["polite"]["goodput"] < 0.8,
        "more memory than may be": peak["after"] > peak["most"],
        "not recovered within 10 s": found["recovered_after_s"] > 10,
        "a quiet client was refused": found["polite"]["quiet_refused"] + found["rude"]["quiet_refused"] > 0,
    }
    return [what for what, so in missed.items() if so]


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
    missed = find_missed(found)
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
