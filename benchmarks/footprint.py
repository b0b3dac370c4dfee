"""What otel-mlmon brings into a model process: distributions, bytes on disk, time to import; peers beside it.

    make bench-footprint

Each is installed in a fresh environment. Sizes are of site-packages without byte code. Import times are wall time of a
whole Python process, less that of one that imports numpy and the SDK only, all in turn; medians. Writes footprint.json
and footprint.md beside this file; the page says which figures are reached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from environments import ROOT, make_environment

HERE = Path(__file__).resolve().parent
OURS, AUTO = "otel-mlmon", "otel-mlmon[auto]"
BASE = "import numpy, opentelemetry.sdk.metrics, opentelemetry.sdk.trace"
# What a model process installs, and what it imports to begin.
PINS: dict[str, tuple[list[str], str]] = {
    OURS: ([str(ROOT)], "import otel_mlmon; otel_mlmon.Monitor; otel_mlmon.Profile"),
    AUTO: ([f"{ROOT}[auto]"], "import otel_mlmon; otel_mlmon.Monitor; otel_mlmon.Profile"),
    "numpy + OpenTelemetry": (["numpy", "opentelemetry-exporter-otlp"], BASE),
    "whylogs": (["whylogs==1.6.4", "numpy==1.26.4", "pandas==2.3.3"], "import whylogs"),
    "evidently": (["evidently==0.7.23", "pandas==2.3.3"], "import evidently"),
    "nannyml": (["nannyml==0.13.1", "pandas==2.3.3", "statsmodels==0.14.5"], "import nannyml"),
    "alibi-detect": (["alibi-detect==0.13.0"], "import alibi_detect"),
}


def measure_size(python: Path) -> dict[str, int]:
    """Distributions and bytes of an environment."""
    (site,) = python.parent.parent.glob("lib/python3*/site-packages")
    files = [path for path in site.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {
        "distributions": len(list(site.glob("*.dist-info"))),
        "bytes": sum(path.stat().st_size for path in files if not path.is_symlink()),
    }


def time_import(python: Path, code: str) -> float:
    """Seconds of a process that does nothing else."""
    began = time.perf_counter()
    subprocess.run([python, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def run(rounds: int) -> dict[str, Any]:
    """Sizes, and medians of times."""
    found: dict[str, Any] = {}
    pythons = {}
    for name, (pins, _) in PINS.items():
        try:
            pythons[name] = make_environment(f"footprint-{''.join(filter(str.isalnum, name))}", pins)
        except subprocess.CalledProcessError:
            print(f"{name} cannot be installed here and is left out", file=sys.stderr)
            continue
        found[name] = measure_size(pythons[name])
    times: dict[str, list[float]] = {name: [] for name in pythons}
    extra = []
    for _ in range(rounds):
        base = time_import(pythons[OURS], BASE)
        for name, python in pythons.items():
            times[name].append(time_import(python, PINS[name][1]))
        extra.append(time_import(pythons[OURS], f"{BASE}; {PINS[OURS][1]}") - base)
    for name, taken in times.items():
        found[name]["import_seconds"] = median(taken)
    found[OURS]["extra_seconds"] = median(extra)
    return found


def check(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is promised: what, limit, measured, whether reached."""
    ours = found[OURS]
    size, extra = ours["bytes"] / 1e6, ours["extra_seconds"]
    return [
        ("distributions", "24", str(ours["distributions"]), ours["distributions"] <= 24),
        ("on disk", "110 MB", f"{size:.0f} MB", size <= 110),
        ("import, beyond numpy and the SDK", "0.1 s", f"{extra:.3f} s", extra <= 0.1),
    ]


def render(found: dict[str, Any], rounds: int) -> str:
    """The page."""
    lines = [
        "# Footprint",
        "",
        "Written by `make bench-footprint`: what a model process installs, and the time of a process that imports it,",
        f"median of {rounds}; {os.cpu_count()} cores, Python {platform.python_version()} on {platform.system()}.",
        "",
        "| | distributions | on disk | import |",
        "|---|---:|---:|---:|",
    ]
    for name, one in found.items():
        size = f"{one['bytes'] / 1e6:,.0f} MB"
        lines.append(f"| {name} | {one['distributions']} | {size} | {one['import_seconds']:.2f} s |")
    lines += ["", "| wanted | limit | measured | |", "|---|---:|---:|---|"]
    lines += [
        f"| {what} | {limit} | {measured} | {'reached' if reached else '**not reached**'} |"
        for what, limit, measured, reached in check(found)
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="processes of each (11)")
    rounds = parser.parse_args().rounds
    found = run(rounds)
    result = {"pins": {name: pins for name, (pins, _) in PINS.items() if not name.startswith(OURS)}, "found": found}
    (HERE / "footprint.json").write_text(json.dumps(result, indent=1) + "\n")
    page = render(found, rounds)
    (HERE / "footprint.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
