"""What a page of /metrics takes, beside prometheus_client on the same samples: `make bench-exposition`, a minute.

Writes exposition.json and .md beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exporters.families import Family, list_families
from otel_mlmon_processor.exporters.prometheus import expose, label, prometheus_name
from otel_mlmon_processor.intake import NO_COUNTERS
from otel_mlmon_processor.snapshot import Snapshot
from otel_mlmon_processor.windows import ModelKey, ModelView, VariableCounts, VariableKey
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from recorder import machine

from otel_mlmon import Profile

HERE = Path(__file__).resolve().parent
FEATURES, MODELS, ROUNDS = 35, 100, 5


def make_snapshot() -> Snapshot:
    """Models that are alike but for their names."""
    rows = np.random.default_rng(1).normal(size=(5_000, FEATURES))
    profile = Profile.build({f"feature_{i:02}": rows[:, i] for i in range(FEATURES)}, model="m", version="1")
    counts = {
        VariableKey("feature", reference.variable.name): VariableCounts(
            5_000, {}, reference.variable.axis.edges, reference.histogram.counts, sum=0.0
        )
        for reference in profile.references
    }
    view = ModelView(ModelKey("", "bench", "", "m", "1"), "", 0.0, 3600.0, counts, counts, None, 1, {}, 0, {}, {})
    state = evaluate_model(view, profile, tolerance=0.005)
    keys = [ModelKey("", "bench", "", f"model-{i:04}", "1") for i in range(MODELS)]
    return Snapshot(tuple(replace(state, view=replace(view, key=key)) for key in keys))


class Collector:
    """The families as prometheus_client wants them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return map(self._present, list_families(self._snapshot, NO_COUNTERS, (), 0.0))

    def _present(self, family: Family) -> Metric:
        kind = CounterMetricFamily if family.metric.instrument == "counter" else GaugeMetricFamily
        held = [({label(n): text for n, text in s.label().items()}, s.value) for s in family.samples]
        names = list(dict.fromkeys(name for labels, _ in held for name in labels))
        shown = kind(prometheus_name(family.metric), family.metric.description, labels=names)
        for labels, value in held:
            shown.add_metric([labels.get(name, "") for name in names], value)
        return shown


def write_here(snapshot: Snapshot) -> int:
    return sum(block.count("\n") for block in expose(list_families(snapshot, NO_COUNTERS, (), 0.0)))


def write_there(snapshot: Snapshot) -> int:
    return generate_latest(Collector(snapshot)).count(b"\n")


WRITERS: dict[str, Callable[[Snapshot], int]] = {"otel-mlmon": write_here, "prometheus_client": write_there}


def measure(write: Callable[[Snapshot], int], snapshot: Snapshot) -> dict[str, float]:
    """Microseconds a line, and bytes held at most, the second without a clock."""
    began = time.perf_counter()
    lines = write(snapshot)
    seconds = time.perf_counter() - began
    tracemalloc.start()
    try:
        write(snapshot)
        return {"us": 1e6 * seconds / lines, "bytes": tracemalloc.get_traced_memory()[1] / lines, "lines": lines}
    finally:
        tracemalloc.stop()


def render(result: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# What a scrape takes", "",
        f"`make bench-exposition`, {result['machine']}: the page of {MODELS} models with {FEATURES} features each, "
        f"{result['lines']:,.0f} lines,", f"from the same samples; medians of {ROUNDS} rounds of both.", "",
        "| | µs a line | bytes held at most, by line |", "|---|--:|--:|",
        *(f"| {name} | {case['us']:.1f} | {case['bytes']:.0f} |" for name, case in result["found"].items()), "",
        f"prometheus_client takes {result['ratio']:.1f} times as long ({result['least']:.1f} to {result['most']:.1f}).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "exposition.json", help="where to write; .md beside it")
    options = parser.parse_args()
    snapshot = make_snapshot()
    rounds = [{name: measure(write, snapshot) for name, write in WRITERS.items()} for _ in range(ROUNDS)]
    here, there = WRITERS
    ratios = [one[there]["us"] / one[here]["us"] for one in rounds]
    result = {
        "machine": machine(),
        "lines": rounds[0][here]["lines"],
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "found": {
            name: {key: statistics.median(one[name][key] for one in rounds) for key in ("us", "bytes")}
            for name in WRITERS
        },
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    options.json.with_suffix(".md").write_text(render(result))
    print(render(result))


if __name__ == "__main__":
    main()
