"""One target under atheris, in an environment of its own: fuzz_worker.py TARGET, then libFuzzer's own arguments.

Two things that are not ours are replaced by faster ones, so that there is time for more inputs; the tests replay the
corpus without. YAML is read by the loader in C, but of one input in 32. What Starlette would hand to a thread of its
pool is called at once.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import atheris
import starlette.concurrency
import yaml

load_slowly = yaml.safe_load


def load_yaml(text: str) -> Any:
    """In place of yaml.safe_load."""
    slow = zlib.crc32(text.encode(errors="replace")) % 32 == 0
    return load_slowly(text) if slow else yaml.load(text, yaml.CSafeLoader)


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """In place of run_in_threadpool."""
    return function(*arguments, **named)


yaml.safe_load = load_yaml
starlette.concurrency.run_in_threadpool = call  # before others import it

with atheris.instrument_imports(include=["otel_mlmon", "otel_mlmon_processor"]):
    from fuzz_documents import READ, change_document
    from fuzz_targets import TARGETS


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Three times of four the document is changed, else bytes of it."""
    random = Random(seed)
    changed = change_document(target, data, most, random) if random.random() < 0.75 else None
    return changed if changed is not None else atheris.Mutate(data, most)


if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target], custom_mutator=mutate if target in READ else None)
    atheris.Fuzz()
