"""The recorder against other ways to count the same rows, side by side: 30 numeric and 5 categorical columns.

    make bench-recorder

Each runs in a process and environment of its own, one after the other, ROUNDS times; medians. Figures are CPU time of
the whole process, so what the recorder does later on its own thread is in them. Writes recorder.json and recorder.md
beside this file; the page says which figures are reached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from environments import ROOT, make_environment

PINS = {
    "otel-mlmon": [str(ROOT)],
    "opentelemetry-sdk": ["opentelemetry-sdk==1.45.2"],
    "prometheus-client": ["prometheus-client==0.26.0"],
    "whylogs": ["whylogs==1.6.4", "numpy==1.26.4", "pandas==2.3.3"],  # it needs numpy 1
    "ddsketch": ["ddsketch==3.0.1"],
    "datasketches": ["datasketches==5.2.0"],
    "boost-histogram": ["boost-histogram==1.8.1"],
}
COMMON = ["numpy==2.4.6", "pandas==3.1.1"]
COMMON_OLD = ["numpy==2.2.6", "pandas==2.3.3"]  # the newest for Python 3.10
HERE = Path(__file__).resolve().parent
OURS = "otel-mlmon"


def run(rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians of whole calls of ours, and of all peers."""
    common = COMMON if sys.version_info >= (3, 11) else COMMON_OLD
    pythons = {n: make_environment(n, pins if len(pins) > 1 else [*common, *pins]) for n, pins in PINS.items()}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PINS}
    for number in range(1, rounds + 1):
        for name, python in pythons.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr)
            command = [python, HERE / "recorder_worker.py", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE)
            runs[name].append(json.loads(done.stdout))
    inference = [r["inference_us"] for r in runs[OURS]]
    return {"inference_us": {case: median(one[case] for one in inference) for case in inference[0]}}, {
        name: {
            "cpu_us": {case: median(r["cpu_us"][case] for r in found) for case in found[0]["cpu_us"]},
            "p999_us": median(r["p999_us"] for r in found),
        }
        for name, found in runs.items()
    }


def check(peers: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is promised: what, limit, measured, whether reached."""
    ours = peers[OURS]["cpu_us"]
    value = ours["numbers 1024"] / 1024 / 30 * 1000
    tail = peers[OURS]["p999_us"]
    rows = [
        (
            "a one-row numpy call, its share of counting included",
            "3 µs",
            f"{ours['numpy 1']:.2f} µs",
            ours["numpy 1"] <= 3,
        ),
        ("a one-row dict, likewise", "5 µs", f"{ours['dict 1']:.2f} µs", ours["dict 1"] <= 5),
        ("a numeric value at 1,024 rows", "10 ns", f"{value:.1f} ns", value <= 10),
        ("99.9 % of one-row calls, made without a pause", "50 µs", f"{tail:.1f} µs", tail <= 50),
    ]
    for name in ("opentelemetry-sdk", "whylogs"):
        least, case = min((peers[name]["cpu_us"][case] / ours[case], case) for case in ours)
        rows.append((f"faster than {name}, at the least ({case})", "50 times", f"{least:.0f} times", least >= 50))
    least, name, case = min((peers[n]["cpu_us"][c] / ours[c], n, c) for n in peers if n != OURS for c in ours)
    rows.append((f"faster than every other, at the least ({name}, {case})", "1 time", f"{least:.2f} times", least > 1))
    return rows


def render(peers: dict[str, Any], calls: dict[str, float], rounds: int) -> str:
    """The page."""
    cases = list(peers[OURS]["cpu_us"])
    lines = [
        "# Recorder",
        "",
        "Written by `make bench-recorder`. CPU time of the whole process for one call, counting included, in",
        f"microseconds; medians of {rounds} runs, all in turn on one machine ({machine()}).",
        "30 numeric and 5 categorical columns; `numbers` is the numeric ones alone, from numpy. In brackets: how many",
        "times as long as otel-mlmon.",
        "",
        "| input, rows | " + " | ".join(f"{name} {PINS[name][0].partition('==')[2]}".strip() for name in peers) + " |",
        "|---|" + "---:|" * len(peers),
    ]
    for case in cases:
        ours = peers[OURS]["cpu_us"][case]
        cells = [
            say(peers[name]["cpu_us"][case]) + ("" if name == OURS else f" ({peers[name]['cpu_us'][case] / ours:,.1f})")
            for name in peers
        ]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    tails = " | ".join(say(peers[name]["p999_us"]) for name in peers)
    lines += [f"| numpy 1, 99.9 % of calls are faster than | {tails} |", ""]
    lines += [
        f"A whole one-row call, `with monitor.inference(X) as call: call.record(y)`: {calls['no span']:.1f} µs, and",
        f"where the SDK records its span {calls['span']:.1f} µs; such a span alone takes {calls['span alone']:.1f} µs.",
        "",
    ]
    lines += ["| wanted | limit | measured | |", "|---|---:|---:|---|"]
    lines += [
        f"| {what} | {limit} | {measured} | {'reached' if reached else '**not reached**'} |"
        for what, limit, measured, reached in check(peers)
    ]
    return "\n".join(lines) + "\n" + NOTES


NOTES = """
Why some are not reached: a DataFrame costs what pandas takes to hand out its values, some 50 µs for one row of mixed
types, whoever counts them; at 1,024 rows whylogs works on whole columns too. Batches of 32 rows as a dict of arrays
cost 35 small copies, so that the caller may reuse the arrays; the sketches of datasketches are updated on the spot.

Each peer is used as its documentation says: the SDK's histogram and counter with one attribute set a feature;
prometheus-client with its children bound; whylogs' `DatasetProfile.track`; one DDSketch or KLL sketch a feature and a
`Counter` a category; boost-histogram with 45 quantile cells a feature. None of them but whylogs counts missing values,
NaN or wrong types apart, as the recorder does.
"""


def say(microseconds: float) -> str:
    return f"{microseconds:,.0f}" if microseconds >= 100 else f"{microseconds:.3g}"


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    rounds = parser.parse_args().rounds
    calls, peers = run(rounds)
    result = {
        "rounds": rounds,
        "machine": machine(),
        "pins": {n: p for n, p in PINS.items() if n != OURS},
        **calls,
        "peers": peers,
    }
    (HERE / "recorder.json").write_text(json.dumps(result, indent=1) + "\n")
    page = render(peers, calls["inference_us"], rounds)
    (HERE / "recorder.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
