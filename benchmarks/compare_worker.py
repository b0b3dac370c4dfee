"""Time and memory of one way to compare two parquet files, in a process and environment of its own.

    compare_worker.py TOOL REFERENCE CURRENT memory|parquet RUNS [--cores N]

Prints JSON: seconds of each run, and the greatest memory of the process before (data in memory included) and after.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(NML_DISABLE_USAGE_LOGGING="1", DO_NOT_TRACK="1")  # no tool may call home


def prepare(tool: str, reference: str, current: str, mode: str) -> Callable[[], Any]:
    """What is timed; what can be loaded or imported beforehand is."""
    if tool == "pyarrow":  # no comparison: what reading alone costs
        import pyarrow.parquet as pq

        return lambda: pq.read_table(current)
    if tool.startswith("otel-mlmon"):
        import otel_mlmon
        from otel_mlmon.comparison import compare  # noqa: F401 -- imported before the clock runs

        before: Any = reference if mode == "parquet" else read_frame(reference)
        if tool == "otel-mlmon, profile":
            before = otel_mlmon.Profile.build(before, model="benchmark")
        after: Any = current if mode == "parquet" else read_frame(current)
        return lambda: otel_mlmon.compare(before, after)
    from comparers import COMPARERS

    detect = COMPARERS[tool]
    head = read_frame(reference).head(1_000)
    detect(head, head)  # imports, and what is compiled on first use
    if mode == "parquet":
        return lambda: detect(read_frame(reference), read_frame(current))
    frames = read_frame(reference), read_frame(current)
    return lambda: detect(*frames)


def read_frame(path: str) -> Any:
    import pandas as pd

    return pd.read_parquet(path)


def peak_memory() -> int:
    """Greatest resident memory so far, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("tool")
    parser.add_argument("reference")
    parser.add_argument("current")
    parser.add_argument("mode", choices=["memory", "parquet"])
    parser.add_argument("runs", type=int)
    parser.add_argument("--cores", type=int)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    out, sys.stdout = sys.stdout, sys.stderr  # some tools print
    run = prepare(asked.tool, asked.reference, asked.current, asked.mode)
    before, seconds = peak_memory(), []
    for _ in range(asked.runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "before_bytes": before, "peak_bytes": peak_memory()}), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
