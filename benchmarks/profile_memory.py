"""Peak memory and time of a profile of 10 million rows x 35 columns from parquet, in a process of its own (Linux).

Run by hand: python benchmarks/profile_memory.py [--rows N] [--rows-per-group N]. Writes profile_memory.json
beside this file and exits with 1 where the limit of 1 GiB is passed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

RESULTS = Path(__file__).with_suffix(".json")
LIMIT = 1 << 30
BUILD = """
import json, resource, sys, time
start = time.perf_counter()
from otel_mlmon import Profile
profile = Profile.build(sys.argv[1], model="bench", predictions="score", progress=True)
took = time.perf_counter() - start
own = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which a child takes over from the process that started it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "rows": profile.rows, "variables": len(profile.references), "bytes": len(profile.to_bytes()), "seconds": took,
    "cpu_seconds": own.ru_utime + own.ru_stime, "peak_bytes": peak * 1024,
}))
"""


def make_columns(rng: np.random.Generator, n: int) -> dict[str, object]:
    """35 columns: 20 float64, 5 float32, 3 integers, 4 strings (10 to 100,000 distinct), a boolean, a time, a score."""
    columns: dict[str, object] = {f"normal{i}": rng.normal(i, 1 + i, n) for i in range(12)}
    columns |= {f"lognormal{i}": rng.lognormal(i / 4, 1, n) for i in range(8)}
    columns |= {f"single{i}": rng.exponential(i + 1, n).astype(np.float32) for i in range(5)}
    columns |= {f"integer{i}": rng.integers(0, 10 ** (2 * i + 1), n) for i in range(3)}
    for i in range(4):
        names = np.array([f"category-{j}" for j in range([10, 100, 5_000, 100_000][i])])
        columns[f"string{i}"] = pa.array(names[rng.integers(0, names.size, n)])
    columns["flag"] = rng.random(n) < 0.1
    columns["moment"] = pa.array(1_700_000_000 + rng.integers(0, 10_000_000, n), pa.timestamp("s"))
    columns["score"] = rng.beta(2, 5, n)
    return columns


def write_parquet(path: Path, rows: int, group: int) -> None:
    """Random data, a row group at a time."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, group):
        table = pa.table(make_columns(rng, min(group, rows - start)))
        writer = writer or pa.parquet.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-per-group", type=int, default=1 << 20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        write_parquet(path, arguments.rows, arguments.rows_per_group)
        size = path.stat().st_size
        environment = {**os.environ, "TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(path)], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
    result = {
        **json.loads(done.stdout),
        "columns": 35,
        "file_bytes": size,
        "rows_per_group": arguments.rows_per_group,
        "limit_bytes": LIMIT,
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "platform": platform.platform()},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return int(result["peak_bytes"] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
