"""What it costs that an acknowledgement is on the disk, and what it is good for: `make bench-sync`.

1. Commits of the journal under each `synchronous` of SQLite, with 1, 10 and 100 requests of 35 histograms (32 kB) each.
2. Power cuts (root and a loop device are needed): a journal on a file system of its own, in a file. The writer is
   stopped, and the file is copied as it is: what the kernel had not been told to write is not in it, as after a power
   cut. The copy is mounted and opened, and the entries that had been acknowledged are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from otel_mlmon_processor.journal import Journal, pack_body

HERE = Path(__file__).parent
LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")
BODY = 32 * 1024
SIZES = (1, 10, 100)


def set_level(journal: Journal, level: str) -> None:
    journal._database.execute(f"PRAGMA synchronous = {level}")  # noqa: SLF001 -- not for users to set


def measure(folder: Path, rounds: int) -> list[dict[str, object]]:
    """Rounds of all levels in turn, so that what else the machine does meets all of them alike."""
    rng = np.random.default_rng(1)
    seconds: dict[tuple[str, int], list[float]] = {(level, size): [] for size in SIZES for level in LEVELS}
    for number in range(rounds):
        for size in SIZES:
            for level in LEVELS:
                directory = folder / f"{number}-{size}-{level}"
                journal = Journal(directory)
                set_level(journal, level)
                bodies = [pack_body(rng.bytes(BODY)) for _ in range(size)]
                for _ in range(max(2_000 // (10 * size), 10)):
                    began = time.perf_counter()
                    first = journal.append([("metrics", 1, body) for body in bodies])
                    seconds[level, size].append(time.perf_counter() - began)
                    if journal.bytes > 64 << 20:
                        journal.checkpoint(first + size - 1, 1, [], {})
                journal.close()
                shutil.rmtree(directory)
    return [
        {
            "synchronous": level,
            "requests": size,
            "commits": len(taken),
            "p50_ms": round(1e3 * float(np.percentile(taken, 50)), 3),
            "p99_ms": round(1e3 * float(np.percentile(taken, 99)), 3),
            "requests_per_s": round(size / float(np.median(taken))),
        }
        for (level, size), taken in seconds.items()
    ]


# ------------------------------------------------------------------ power cuts


def write(directory: Path, level: str) -> None:
    """In a process of its own: append, and say so, without end."""
    journal = Journal(directory)
    set_level(journal, level)
    while True:
        seq = journal.append([("metrics", 1, pack_body(os.urandom(2_000)))])
        os.write(1, f"{seq}\n".encode())
        if seq % 100 == 0:
            journal.checkpoint(seq - 50, 1, [b"state"], {})


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(image: Path, at: Path):
    at.mkdir(exist_ok=True)
    run("mount", "-o", "loop,commit=300,noatime", image, at)
    try:
        yield at
    finally:
        run("umount", at)


def cut(folder: Path, level: str, rng: random.Random) -> tuple[int, int]:
    """Entries that were acknowledged before a power cut, and those of them that are gone after it."""
    image, copy = folder / "image", folder / "copy"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    with mounted(image, folder / "disk") as disk:
        command = [sys.executable, __file__, "--write", disk / "data", "--level", level]
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.1, 0.8))
        process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
            time.sleep(0.001)
        while True:  # until the kernel writes no more, so that it is a copy of one moment
            shutil.copyfile(image, copy)
            before = copy.read_bytes()
            if image.read_bytes() == before:
                break
        process.kill()
        process.wait()
        said = process.stdout.read().split(b"\n")
        process.stdout.close()
    acknowledged = int(said[-2])
    with mounted(copy, folder / "found") as found:
        last = 0
        if (found / "data" / "mlmon.db").exists():
            with contextlib.closing(sqlite3.connect(found / "data" / "mlmon.db")) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            journal = Journal(found / "data")
            checkpoint, entries = journal.recover()
            numbers = [entry.seq for entry in entries]
            first = checkpoint.seq + 1 if checkpoint else 1
            assert numbers == list(range(first, first + len(numbers))), "none in between is missing"
            last = first + len(numbers) - 1
            journal.close()
    return acknowledged, max(acknowledged - last, 0)


def cut_power(folder: Path, cuts: int) -> list[dict[str, object]] | None:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        print("no power cuts: they need root and a loop device", file=sys.stderr)
        return None
    rng = random.Random(1)
    found = []
    for level in LEVELS:
        results = []
        for _ in range(cuts):
            try:
                # A folder for each: another process may still hold what was mounted before.
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    results.append(cut(Path(place), level, rng))
            except (sqlite3.DatabaseError, AssertionError):
                results.append(None)
        whole = [result for result in results if result is not None]
        found.append(
            {
                "synchronous": level,
                "cuts": cuts,
                "acknowledged": sum(acknowledged for acknowledged, _ in whole),
                "lost": sum(lost for _, lost in whole),
                "cuts_with_loss": sum(lost > 0 for _, lost in whole),
                "damaged": len(results) - len(whole),
            }
        )
        print(found[-1], flush=True)
    return found


def make_page(document: dict) -> str:
    lines = [
        "# What `synchronous` costs, and what it is good for",
        "",
        f"`make bench-sync`, {document['date']}: Python {document['python']}, SQLite {document['sqlite']},",
        f"{document['file_system']}. A request has 32 kB, 35 histograms of about 50 cells. The processor uses `FULL`:",
        "an acknowledgement means that the write-ahead log was synced, one commit for all requests that wait.",
        "",
        "| synchronous | requests in a commit | p50, ms | p99, ms | requests/s |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {row['synchronous']} | {row['requests']} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
            f"| {row['requests_per_s']:,} |"
            for row in document["commits"]
        ),
        "",
    ]
    if document["power_cuts"]:
        lines += [
            "A power cut: the writer is stopped, and the file system (ext4 in a file) is copied as the kernel has",
            "written it so far, mounted and opened. What the kernel holds back is lost, as in a power cut; a disk that",
            "says it has written what it has not is not imitated. In WAL mode `EXTRA` does what `FULL` does.",
            "",
            "| synchronous | power cuts | acknowledged | of them lost | cuts with a loss | damaged |",
            "|---|--:|--:|--:|--:|--:|",
            *(
                f"| {row['synchronous']} | {row['cuts']} | {row['acknowledged']:,} | {row['lost']:,} "
                f"| {row['cuts_with_loss']} | {row['damaged']} |"
                for row in document["power_cuts"]
            ),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cuts", type=int, default=25, help="for each level")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: that of temporary files)")
    parser.add_argument("--json", type=Path, default=HERE / "sync.json")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--level", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write is not None:
        write(args.write, args.level)
    with tempfile.TemporaryDirectory(prefix="mlmon-sync-", dir=args.folder) as name:
        folder = Path(name)
        find = ["findmnt", "-n", "-o", "FSTYPE", "-T", name]
        system = subprocess.run(find, capture_output=True, text=True, check=True).stdout
        document = {
            "file_system": system.strip(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "date": time.strftime("%Y-%m-%d"),
            "commits": measure(folder, args.rounds),
            "power_cuts": cut_power(folder, args.cuts),
        }
    args.json.write_text(json.dumps(document, indent=2) + "\n")
    args.json.with_suffix(".md").write_text(make_page(document))


if __name__ == "__main__":
    main()
