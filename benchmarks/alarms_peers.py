"""Other tools, each at its defaults in an environment of its own, on sampled windows of the streams of alarms.py.

    python benchmarks/alarms_peers.py [--quick]

Writes alarms_peers.json, which the page of alarms.py shows. Each tool gets a sample of 10,000 rows of the reference and
one window after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from comparers import PINS
from environments import make_environment

HERE = Path(__file__).resolve().parent
RESULT = HERE / "alarms_peers.json"
TOOLS = {
    **PINS,
    "frouros": ["frouros==0.9.0", "numpy==1.26.4", "pandas==2.3.3", "pyarrow==21.0.0"],
}
KINDS = ("independent", "season + autoregressive")
WINDOWS = {"none": 30, "mean + 0.25 sd": 10, "mean + 0.5 sd": 10}


def plan(quick: bool) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "rows": 1_000, "change": change, "windows": 2 if quick else windows}
        for kind in KINDS
        for change, windows in WINDOWS.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two windows each; writes nothing")
    quick = parser.parse_args().quick
    known = json.loads(RESULT.read_text())["tools"] if RESULT.exists() and not quick else {}
    for tool, pins in TOOLS.items():
        if tool in known:
            continue
        command = [make_environment(tool, pins), HERE / "alarms_peers_worker.py", tool]
        done = subprocess.run(
            command, input=json.dumps(plan(quick)), stdout=subprocess.PIPE, text=True, cwd=HERE, check=True
        )
        known[tool] = [json.loads(line) for line in done.stdout.splitlines()]
        print(tool, known[tool], file=sys.stderr, flush=True)
        if not quick:
            RESULT.write_text(json.dumps({"pins": TOOLS, "tools": known}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
