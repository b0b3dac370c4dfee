"""One target under atheris, in an environment of its own: fuzz_worker.py TARGET, then libFuzzer's own arguments."""

from __future__ import annotations

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["otel_mlmon", "otel_mlmon_processor"]):
    from fuzz_targets import TARGETS
from fuzz_documents import READ, change_document


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Three times of four the document is changed, else bytes of it."""
    random = Random(seed)
    changed = change_document(target, data, most, random) if random.random() < 0.75 else None
    return changed if changed is not None else atheris.Mutate(data, most)


if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target], custom_mutator=mutate if target in READ else None)
    atheris.Fuzz()
