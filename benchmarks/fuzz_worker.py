"""One target under atheris, in an environment of its own: fuzz_worker.py TARGET, then libFuzzer's own arguments."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["otel_mlmon", "otel_mlmon_processor"]):
    from fuzz_targets import TARGETS

if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()
