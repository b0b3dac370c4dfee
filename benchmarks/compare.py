"""Comparing two data sets: otel-mlmon against other tools on the same files, side by side.

    make bench-compare

Each measurement is a process of its own, in the tool's own environment, one after the other, ROUNDS times; medians.
Writes compare.json, compare.md and compare.png beside this file; the page says which figures are reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from compare_data import make_file
from compare_page import draw, render
from comparers import PINS
from environments import FOLDER, ROOT, make_environment
from recorder import machine

HERE = Path(__file__).resolve().parent
SIZES = (10_000, 1_000_000, 10_000_000)
REFERENCE = 100_000
LIMIT = 120.0  # seconds of a run
MEMORY = 18 << 30  # bytes of a run
OURS = ("otel-mlmon", "otel-mlmon, profile")
READ = "pyarrow"
WIDE = 1_000  # columns


@dataclass(frozen=True)
class Measured:
    """One tool on one pair of files.

    Args:
        tool: its name.
        rows: of the current data.
        columns: of both.
        mode: "memory" or "parquet".
        cores: that it could use; None: all.
        seconds: median, None where it was not run or did not end.
        memory: greatest of the process beyond what it had before, in bytes; the median.
        peak: greatest of the process, in bytes.
        note: why there is no figure.
    """

    tool: str
    rows: int
    columns: int
    mode: str
    cores: int | None
    seconds: float | None
    memory: float | None = None
    peak: float | None = None
    note: str = ""


def measure(
    tool: str,
    python: Path,
    files: tuple[Path, Path],
    *,
    rows: int,
    mode: str,
    rounds: int,
    columns: int = 35,
    cores: int | None = None,
) -> Measured:
    """Medians over processes; of short runs several in each."""
    print(f"{tool}: {rows:,} rows x {columns} from {mode} ...", file=sys.stderr, flush=True)
    case = (tool, rows, columns, mode, cores)
    runs: list[dict[str, Any]] = []
    for _ in range(rounds):
        command = [
            python,
            HERE / "compare_worker.py",
            tool,
            *files,
            mode,
            "5" if tool in (*OURS, READ) and rows <= 1_000_000 else "1",
        ]
        command += ["--cores", str(cores)] if cores else []
        shell = f"ulimit -v {MEMORY >> 10}; exec " + " ".join(f"'{part}'" for part in command)
        try:
            done = subprocess.run(
                ["bash", "-c", shell], check=False, capture_output=True, text=True, cwd=HERE, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return Measured(*case, None, note=f"not done in {LIMIT:.0f} s")
        if done.returncode:
            print(done.stderr[-2_000:], file=sys.stderr)
            what = "out of memory" if "MemoryError" in done.stderr or done.returncode < 0 else "failed"
            return Measured(*case, None, note=f"{what} (limit {MEMORY >> 30} GiB)" if "memory" in what else what)
        runs.append(json.loads(done.stdout))
        if max(runs[-1]["seconds"]) > 20:  # long enough to be steady
            break
    return Measured(
        *case,
        median(second for run in runs for second in run["seconds"]),
        median(run["peak_bytes"] - run["before_bytes"] for run in runs),
        median(run["peak_bytes"] for run in runs),
    )


def measure_sizes(pythons: dict[str, Path], sizes: list[int], rounds: int) -> list[Measured]:
    """All tools on all sizes; not those that would need more than the limit, by what the size before took."""
    data = FOLDER / "compare"
    reference = make_file(data / f"{REFERENCE}.parquet", REFERENCE, 1)
    results: list[Measured] = []
    for rows in sizes:
        current = make_file(data / f"current-{rows}.parquet", rows, 2)
        for tool, python in pythons.items():
            for mode in ("parquet",) if tool == READ else ("memory", "parquet"):
                last = [r for r in results if (r.tool, r.mode) == (tool, mode)][-1:]
                if last and (last[0].seconds or LIMIT) * (rows + REFERENCE) / (last[0].rows + REFERENCE) > LIMIT:
                    note = f"not run: would take more than {LIMIT:.0f} s"
                    results.append(Measured(tool, rows, 35, mode, None, None, note=note))
                else:
                    results.append(measure(tool, python, (reference, current), rows=rows, mode=mode, rounds=rounds))
    return results


def measure_growth(python: Path, sizes: list[int], rounds: int) -> list[Measured]:
    """Ours on one core, on many columns, and on a hundred million rows."""
    data = FOLDER / "compare"
    reference = data / f"{REFERENCE}.parquet"
    current = data / f"current-{sizes[-2]}.parquet"
    results = [
        measure(OURS[0], python, (reference, current), rows=sizes[-2], mode="memory", rounds=rounds, cores=cores)
        for cores in (1, 2)
    ]
    wide = [make_file(data / f"wide-{seed}.parquet", REFERENCE, seed, WIDE - 5) for seed in (3, 4)]
    results += [
        measure(OURS[0], python, (wide[0], wide[1]), rows=REFERENCE, mode=mode, rounds=rounds, columns=WIDE)
        for mode in ("memory", "parquet")
    ]
    folder = data / "hundred"
    folder.mkdir(exist_ok=True)
    for i in range(100):
        link = folder / f"{i:02}.parquet"
        link.unlink(missing_ok=True)
        link.symlink_to(current)
    results.append(measure(OURS[1], python, (reference, folder), rows=sizes[-2] * 100, mode="parquet", rounds=1))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each measurement (3)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows; writes nothing")
    parser.add_argument("--page", action="store_true", help="only write the page again from compare.json")
    asked = parser.parse_args()
    results = HERE / "compare.json"
    if not asked.page:
        pythons = {name: make_environment("otel-mlmon", [f"{ROOT}[compare]", "pandas==3.1.1"]) for name in OURS}
        pythons[READ] = pythons[OURS[0]]
        pythons |= {name: make_environment(name, pins) for name, pins in PINS.items()}
        sizes = [rows // 100 if asked.quick else rows for rows in SIZES]
        found = measure_sizes(pythons, sizes, asked.rounds)
        growth = measure_growth(pythons[OURS[0]], sizes, asked.rounds)
        kept = {
            "machine": machine(),
            "rounds": asked.rounds,
            "pins": PINS,
            "sizes": [asdict(one) for one in found],
            "growth": [asdict(one) for one in growth],
        }
        if asked.quick:
            print(json.dumps(kept, indent=1))
            return 0
        results.write_text(json.dumps(kept, indent=1) + "\n")
    kept = json.loads(results.read_text())
    page = render(kept)
    (HERE / "compare.md").write_text(page)
    draw(kept, HERE / "compare.png")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
