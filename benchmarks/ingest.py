"""How much the processor takes in, on real clients, gRPC and disk, beside the real collector: `make bench-ingest`.

Writes ingest.json (each round as it is done; a run that was stopped goes on), .md and .png beside this file, in about
20 minutes. --quick (a minute) prints figures of few cases and writes nothing, and so does --only. --long sends 10^6
requests to one processor (10 minutes) and adds what it found. At the end of each case the processor's counters and all
counts in its directory must be those that were acknowledged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ingest_cases import (
    Figures,
    Scale,
    measure_collector,
    measure_evaluation,
    measure_grpc,
    measure_memory,
    measure_noise,
    measure_processor,
    measure_sharded,
    measure_start,
    measure_windows,
    run_long,
    work_in,
)
from ingest_model import FEATURES
from ingest_page import draw_picture, render
from ingest_servers import ROOT
from recorder import machine

HERE = Path(__file__).resolve().parent
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
ALONE = ((1, 100, True), (35, 100, False), (1000, 1000, False))
QUICK = (
    "processor, 1 points, 100 replicas, cumulative",
    "processor, 35 points, 100 replicas, delta",
    "processor, 35 points, 1000 replicas, cumulative",
    "batch, 35 points, 100 replicas, delta",
    "agent, 35 points, 100 replicas, delta",
    "grpc, 35 points, 100 replicas, delta",
    "start",
    "noise",
)


def list_cases() -> dict[str, Case]:
    """By name."""
    found: dict[str, Case] = {}
    for server, shapes in (("processor", SHAPES), ("batch", PEERS), ("agent", PEERS), ("grpc", ALONE)):
        for points, replicas, cumulative in shapes:
            name = f"{server}, {points} points, {replicas} replicas, {'cumulative' if cumulative else 'delta'}"
            others = {"processor": measure_processor, "grpc": measure_grpc}
            measure = others.get(server) or partial(measure_collector, server)
            found[name] = partial(measure, points, replicas, cumulative)
    found["whole"] = partial(measure_processor, FEATURES, 100, False, whole=True)
    found["memory, delta"] = partial(measure_memory, False)
    found["memory, cumulative"] = partial(measure_memory, True)
    found["windows"] = measure_windows
    found["start"] = measure_start
    found["evaluation"] = measure_evaluation
    found["noise"] = measure_noise
    found |= {f"sharded, {shards} processors": partial(measure_sharded, shards) for shards in (1, 2)}
    return found


ONCE = ("memory", "windows", "evaluation")  # long, or not a matter of speed


class Document:
    """The results' file: what each round found, as soon as it is done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held: Figures = json.loads(path.read_text()) if path.exists() else {"rounds": {}}

    def save(self) -> None:
        self._path.write_text(json.dumps(self.held, indent=1) + "\n")

    def write_page(self) -> None:
        self._path.with_suffix(".md").write_text(render(self.held))
        draw_picture(self.held, self._path.with_suffix(".png"))

    def run_all(self, rounds: int, cases: dict[str, Case], scale: Scale) -> None:
        """Rounds of all cases in turn, so that what else the machine does meets all of them alike. Goes on where a run
        was stopped; begins anew after one that was not.
        """
        wanted = {name: 1 if name.startswith(ONCE) else rounds for name in cases}
        found = self.held["rounds"]
        if not found or all(len(found.get(name, [])) >= times for name, times in wanted.items()):
            found = {}
            self.held |= {**describe(), "rounds": found}
        for number in range(rounds):
            for name, measure in cases.items():
                if len(found.get(name, [])) <= number < wanted[name]:
                    found.setdefault(name, []).append(measure(scale))
                    print(name, json.dumps(found[name][-1]), flush=True)
                    self.save()

    def run_long(self, requests: int) -> None:
        self.held["long"] = {**describe(), "tenths": run_long(requests)}
        self.save()


def describe() -> Figures:
    """When and where."""
    find = ["findmnt", "-n", "-o", "FSTYPE", "-T", str(ROOT)]
    system = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    disk = f"{system} that writes {measure_disk():.0f} MB/s, synced"
    return {"machine": machine(), "disk": disk, "date": time.strftime("%Y-%m-%d")}


def measure_disk(size: int = 256 << 20) -> float:
    """MB/s of one file written at once."""
    block = os.urandom(size)
    with work_in() as folder, (folder / "block").open("wb", buffering=0) as file:
        began = time.perf_counter()
        file.write(block)
        os.fsync(file.fileno())
        return size / (time.perf_counter() - began) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase (default: 3)")
    parser.add_argument("--quick", action="store_true", help="few cases, a minute; writes nothing")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose name matches, once; writes nothing")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    parser.add_argument(
        "--long", type=int, nargs="?", const=1_000_000, metavar="REQUESTS", help="10^6 of them, or so many"
    )
    parser.add_argument("--page", action="store_true", help="run nothing; write the page from what there is")
    parser.add_argument("--json", type=Path, default=HERE / "ingest.json", help="where results are")
    options = parser.parse_args()
    cases, scale = list_cases(), Scale(options.seconds)
    if options.list:
        print("\n".join(cases))
        return 0
    if options.quick or options.only:
        scale = Scale(2.0, 1.0, 0.1) if options.quick else scale
        for name in cases:
            if name in QUICK if options.quick else re.search(options.only, name):
                print(name, json.dumps(cases[name](scale)), flush=True)
        return 0
    document = Document(options.json)
    if options.long:
        document.run_long(options.long)
    elif not options.page:
        document.run_all(options.rounds, cases, scale)
    document.write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
