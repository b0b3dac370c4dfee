"""The state machine of tests/processor/ingest/test_machine.py for long: `make fuzz-exactness`.

Each seed runs many examples, each of up to 50 steps; after every step the processor's counts are compared with an exact
oracle. A failure is shrunk and printed, and ends the run with exit status 1. What was run is written to exactness.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests" / "processor"


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="run seed after seed until there are so many")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--examples", type=int, default=500, help="for each seed")
    parser.add_argument("--json", type=Path, default=HERE / "exactness.json", help="where to write what was run")
    args = parser.parse_args()
    machine = load("exactness_machine", TESTS / "ingest" / "test_machine.py")
    otlp = load("exactness_requests", TESTS / "conftest.py").Otlp
    began, steps, number = time.monotonic(), 0, args.seed
    while steps < args.steps:
        steps += machine.run(otlp, number=number, examples=args.examples, steps=50)
        print(f"seed {number}: {steps} steps in all, {time.monotonic() - began:.0f} s", flush=True)
        number += 1
    result = {
        "steps": steps,
        "seeds": [args.seed, number - 1],
        "examples": args.examples * (number - args.seed),
        "seconds": round(time.monotonic() - began),
        "failures": 0,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
