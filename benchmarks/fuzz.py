"""Coverage-guided fuzzing of what reads bytes of others, with atheris: `make fuzz`.

Targets (fuzz_targets.py): decode, profile, config, http. Each runs in a process with a limit of memory and of time an
input may take; profiles and settings are changed as documents too (fuzz_documents.py). The corpus is kept in
.bench/fuzz; `--keep` copies some of it to tests/processor/corpus, whose files the tests replay. Writes fuzz.json and
fuzz.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import Any

from environments import FOLDER, ROOT, make_environment
from fuzz_targets import TARGETS, list_seeds
from recorder import machine

HERE = Path(__file__).resolve().parent
RESULT = HERE / "fuzz.json"
KEPT = ROOT / "tests" / "processor" / "corpus"
ATHERIS = "atheris==3.0.0"
MEMORY = 1_500  # MiB
PATIENCE = 10  # s an input may take
LONGEST = 8_192  # bytes of an input: more than the longest seed has
_PEAK = re.compile(r"peak_rss_mb:\s+(\d+)")
_STATUS = re.compile(r"^#(\d+)\s+\S+.*?cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


def run(python: Path, target: str, runs: int, seconds: int) -> dict[str, Any]:
    """Until so many inputs, or so many seconds, or a finding."""
    corpus, findings = sow(target)
    total: dict[str, Any] = {"target": target, "inputs": 0, "longest": LONGEST, "peak_mib": 0, "findings": []}
    began = time.monotonic()
    for seed in itertools.count(7):
        left = seconds - int(time.monotonic() - began)
        if total["inputs"] >= runs or left <= 0 or total["findings"]:
            break
        limits = [f"-runs={runs - total['inputs']}", f"-max_total_time={left}", f"-seed={seed}"]
        code, told = work(python, target, corpus, f"-artifact_prefix={findings}/", "-print_final_stats=1", *limits)
        inputs, edges, features, size = map(int, (_STATUS.findall(told) or [(0, 0, 0, 0)])[-1])
        peak = int((_PEAK.search(told) or (0, 0))[1])
        total |= {"inputs": total["inputs"] + inputs, "peak_mib": max(total["peak_mib"], peak)}
        total |= {"edges": edges, "features": features, "corpus": size}
        found = sorted(findings.iterdir())
        standstills = [file for file in found if file.name.startswith("timeout-") and not work(python, target, file)[0]]
        total["findings"] = [file.name for file in found if file not in standstills]
        for file in standstills:  # of the machine, as the input is read in time alone
            file.unlink()
        if code and not found:
            total["findings"] = [f"ended with {code}"]  # no input, yet nothing to be passed over
        if total["findings"]:
            print(told[-3_000:], file=sys.stderr)
    return total | {"seconds": round(time.monotonic() - began, 1)}


def sow(target: str) -> tuple[Path, Path]:
    """Folders of the corpus, with what it begins with, and of findings."""
    corpus, findings = FOLDER / "fuzz" / target, FOLDER / "fuzz" / f"{target}-findings"
    shutil.rmtree(findings, ignore_errors=True)  # of runs before
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(list_seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    for file in sorted((KEPT / target).glob("*")):
        shutil.copy(file, corpus / file.name)
    return corpus, findings


def work(python: Path, target: str, *arguments: str | Path) -> tuple[int, str]:
    """One process; its exit code and what it said, which is kept in .bench/fuzz."""
    command = [python, HERE / "fuzz_worker.py", target, *arguments]
    command += [f"-max_len={LONGEST}", f"-timeout={PATIENCE}", f"-rss_limit_mb={MEMORY}"]
    log = FOLDER / "fuzz" / f"{target}.log"
    with log.open("w") as out:
        code = subprocess.run([str(part) for part in command], stderr=out, check=False, cwd=HERE).returncode
    return code, log.read_text(errors="replace")


def keep(target: str) -> None:
    """So few of the corpus that they take every step from line to line of our code that all of it takes."""
    folder = KEPT / target
    corpus = sorted((FOLDER / "fuzz" / target).iterdir(), key=lambda file: (file.stat().st_size, file.name))
    steps = dict(zip(corpus, trace(TARGETS[target], [file.read_bytes() for file in corpus]), strict=True))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    left = set().union(*steps.values())
    while left:
        best = max(steps, key=lambda file: len(steps[file] & left))
        left -= steps.pop(best)
        shutil.copy(best, folder / best.name[:16])


def trace(check: Callable[[bytes], None], inputs: Sequence[bytes]) -> list[set[tuple[str, int, int]]]:
    """Of each input the steps from line to line of our code, in all threads."""
    steps: set[tuple[str, int, int]] = set()
    last: dict[FrameType, int] = {}

    def note(frame: FrameType, event: str, _: object) -> Any:
        path = frame.f_code.co_filename
        if "/otel_mlmon" not in path:
            return None
        steps.add((path, last.get(frame, 0), frame.f_lineno))
        last[frame] = frame.f_lineno
        if event == "return":
            last.pop(frame)
        return note

    found = []
    threading.settrace(note)
    sys.settrace(note)
    for data in inputs:
        steps.clear()
        check(data)
        found.append(set(steps))
    sys.settrace(None)
    threading.settrace(None)
    return found


def render(kept: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Fuzzing",
        "",
        "Written by `make fuzz`. Inputs made by atheris (libFuzzer), guided by the branches of our own code that they",
        "reach. Two things that are not ours are replaced by faster ones (`benchmarks/fuzz_worker.py`); the tests",
        "replay some of the corpus with all as it is.",
        f"At most {PATIENCE} s an input and {MEMORY:,} MiB. Machine: {kept['machine']}.",
        "",
        "| target | inputs | bytes at most | hours | branches reached | corpus | memory at most | findings |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['target']} | {r['inputs']:,} | {r['longest']:,} | {r['seconds'] / 3600:.2f} | {r['edges']:,} "
        f"| {r['corpus']:,} | {r['peak_mib']} MiB | {len(r['findings'])} |"
        for r in kept["results"]
    ]
    lines += ["", "What each must hold, whatever the bytes (`benchmarks/fuzz_targets.py`):", ""]
    lines += [f"- *{name}*: {check.__doc__}" for name, check in TARGETS.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=list(TARGETS))
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of each target (a million)")
    parser.add_argument("--seconds", type=int, default=7_200, help="of each target at most (two hours)")
    parser.add_argument("--processes", type=int, default=1, help="targets at once")
    parser.add_argument("--keep", action="store_true", help="write the small corpus that the tests replay")
    options = parser.parse_args()
    python = make_environment("fuzz", [f"{ROOT}[processor,profile]", ATHERIS])
    known = json.loads(RESULT.read_text())["results"] if RESULT.exists() else []
    found = {result["target"]: result for result in known}
    with ThreadPoolExecutor(options.processes) as pool:
        running = [pool.submit(run, python, target, options.runs, options.seconds) for target in options.targets]
        for done in as_completed(running):
            result = done.result()
            print(json.dumps(result), flush=True)
            found[result["target"]] = result
            kept = {"machine": machine(), "results": [found[name] for name in TARGETS if name in found]}
            RESULT.write_text(json.dumps(kept, indent=1) + "\n")
            RESULT.with_suffix(".md").write_text(render(kept))
            if options.keep:
                keep(result["target"])
    return int(any(found[target]["findings"] for target in options.targets))  # of this run


if __name__ == "__main__":
    sys.exit(main())
