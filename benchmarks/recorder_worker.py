"""Time of one way to count rows, in a process and environment of its own: python recorder_worker.py PEER.

Each peer is used as its documentation says for this job, with what can be prepared prepared. Prints JSON: by input, the
CPU time of the whole process for a call, in microseconds, and for one-row numpy calls the 99.9th percentile of a call.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

NUMERIC, CATEGORICAL = 30, 5
NUMBERS = [f"n{i}" for i in range(NUMERIC)]
CATEGORIES = [f"c{i}" for i in range(CATEGORICAL)]
LABELS = np.array([f"category-{i}" for i in range(10)])
BATCHES = {1: 64, 32: 64, 1024: 32}  # rows: how many different inputs
KINDS = ("numpy", "dict", "frame", "numbers")
SECONDS = 0.4

Observe = Callable[[Any], None]


def make_columns(rng: np.random.Generator, rows: int, codes: bool) -> dict[str, Any]:
    """Positive numbers, as the SDK's histogram refuses others, and ten categories as names or codes."""
    columns: dict[str, Any] = {name: rng.gamma(2.0, 1.0 + i, rows) for i, name in enumerate(NUMBERS)}
    for name in CATEGORIES:
        chosen = rng.integers(0, 10, rows)
        columns[name] = chosen.astype(float) if codes else LABELS[chosen]
    return columns


def make_input(rng: np.random.Generator, rows: int, kind: str) -> Any:
    """numpy: a matrix (categories as codes); numbers: its numeric columns; dict: of scalars for one row; frame."""
    columns = make_columns(rng, rows, kind in ("numpy", "numbers"))
    if kind == "numbers":
        columns = {name: columns[name] for name in NUMBERS}
    if kind in ("numpy", "numbers"):
        return np.column_stack(list(columns.values()))
    if kind == "frame":
        return pd.DataFrame(columns)
    return {name: column[0].item() if rows == 1 else column for name, column in columns.items()}


def columns_of(X: Any) -> list[Any]:
    """Columns of any input, each an array or a list of one."""
    if isinstance(X, np.ndarray):
        return list(X.T)
    if isinstance(X, pd.DataFrame):
        return [X[name].to_numpy() for name in X.columns]
    return [column if isinstance(column, np.ndarray) else [column] for column in X.values()]


class Peer:
    """A way to count; `finish` does what is still to be done for the rows given."""

    def __init__(self, kind: str) -> None:
        self.names = NUMBERS if kind == "numbers" else [*NUMBERS, *CATEGORIES]

    def observe(self, X: Any) -> None:
        for i, column in enumerate(columns_of(X)):
            (self.count_numbers if i < NUMERIC else self.count_categories)(i, column)

    def count_numbers(self, i: int, column: Any) -> None:
        raise NotImplementedError

    def count_categories(self, i: int, column: Any) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Nothing waits."""


class OtelMlmon(Peer):
    def __init__(self, kind: str) -> None:
        from otel_mlmon import Monitor, Profile
        from otel_mlmon.config import Settings

        reference = make_columns(np.random.default_rng(1), 50_000, kind in ("numpy", "numbers"))
        if kind == "numbers":
            reference = {name: reference[name] for name in NUMBERS}
        types = {name: "category" for name in CATEGORIES if name in reference}
        profile = Profile.build(reference, model="bench", version="1", types=types)
        self._monitor = Monitor(profile, settings=Settings(exporters=()))
        self.observe = self._monitor.observe  # type: ignore[method-assign]

    def finish(self) -> None:
        from opentelemetry.sdk.metrics.export import AggregationTemporality

        self._monitor.collect(AggregationTemporality.CUMULATIVE)


class OpenTelemetrySdk(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        self._reader = InMemoryMetricReader()
        meter = MeterProvider([self._reader]).get_meter("bench")
        self._histogram = meter.create_histogram("feature.value")
        self._counter = meter.create_counter("feature.category")
        self._attributes = [{"feature": name} for name in self.names]
        self._known: dict[tuple[int, Any], dict[str, Any]] = {}

    def count_numbers(self, i: int, column: Any) -> None:
        for value in column:
            self._histogram.record(float(value), self._attributes[i])

    def count_categories(self, i: int, column: Any) -> None:
        for value in column:
            attributes = self._known.get((i, value))
            if attributes is None:
                attributes = self._known[i, value] = {**self._attributes[i], "category": str(value)}
            self._counter.add(1, attributes)

    def finish(self) -> None:
        self._reader.get_metrics_data()


class PrometheusClient(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        from prometheus_client import CollectorRegistry, Histogram
        from prometheus_client import Counter as PrometheusCounter

        registry = CollectorRegistry()
        histogram = Histogram("feature_value", "Values.", ["feature"], registry=registry)
        self._numbers = [histogram.labels(name) for name in NUMBERS]
        self._counter = PrometheusCounter("feature_category", "Values.", ["feature", "category"], registry=registry)
        self._known: dict[tuple[int, Any], Any] = {}

    def count_numbers(self, i: int, column: Any) -> None:
        observe = self._numbers[i].observe
        for value in column:
            observe(value)

    def count_categories(self, i: int, column: Any) -> None:
        for value in column:
            child = self._known.get((i, value))
            if child is None:
                child = self._known[i, value] = self._counter.labels(self.names[i], str(value))
            child.inc()


class Whylogs(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        from whylogs.core import DatasetProfile

        self._profile = DatasetProfile()

    def observe(self, X: Any) -> None:
        if isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=self.names) if len(X) > 1 else dict(zip(self.names, X[0].tolist(), strict=True))
        elif isinstance(X, dict) and isinstance(X[NUMBERS[0]], np.ndarray):
            X = pd.DataFrame(X)
        self._profile.track(X)


class DDSketch(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        import ddsketch

        self._sketches = [ddsketch.DDSketch(0.01) for _ in NUMBERS]
        self._counts = [Counter[Any]() for _ in self.names]

    def count_numbers(self, i: int, column: Any) -> None:
        add = self._sketches[i].add
        for value in column:
            add(value)

    def count_categories(self, i: int, column: Any) -> None:
        self._counts[i].update(column)


class Datasketches(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        import datasketches

        self._sketches = [datasketches.kll_doubles_sketch(200) for _ in NUMBERS]
        self._counts = [Counter[Any]() for _ in self.names]

    def count_numbers(self, i: int, column: Any) -> None:
        sketch = self._sketches[i]
        if len(column) == 1:
            sketch.update(column[0])
        else:
            sketch.update(np.array(column, dtype=np.float64))  # it takes none that is read-only

    def count_categories(self, i: int, column: Any) -> None:
        self._counts[i].update(column)


class BoostHistogram(Peer):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        import boost_histogram as bh

        reference = make_columns(np.random.default_rng(1), 50_000, True)
        levels = np.linspace(0, 1, 46)
        self._numbers = [bh.Histogram(bh.axis.Variable(np.quantile(reference[name], levels))) for name in NUMBERS]
        axis = bh.axis.IntCategory(range(10)) if kind == "numpy" else bh.axis.StrCategory(LABELS.tolist())
        self._categories = [bh.Histogram(axis) for _ in CATEGORIES]
        self._codes = kind == "numpy"

    def count_numbers(self, i: int, column: Any) -> None:
        self._numbers[i].fill(column)

    def count_categories(self, i: int, column: Any) -> None:
        self._categories[i - NUMERIC].fill(column.astype(int) if self._codes else list(column))


PEERS: dict[str, type[Peer]] = {
    "otel-mlmon": OtelMlmon,
    "opentelemetry-sdk": OpenTelemetrySdk,
    "prometheus-client": PrometheusClient,
    "whylogs": Whylogs,
    "ddsketch": DDSketch,
    "datasketches": Datasketches,
    "boost-histogram": BoostHistogram,
}


def measure(peer: Peer, inputs: list[Any]) -> float:
    """CPU seconds of the whole process for a call."""
    observe, size = peer.observe, len(inputs)
    for X in inputs[:4]:
        observe(X)
    peer.finish()
    calls = 0
    began = time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        for _ in range(max(1, calls // size) if calls < 10_000 else 100):  # asking for the time is not counted much
            for X in inputs:
                observe(X)
            calls += size
    peer.finish()
    spent = time.process_time() - began
    return spent / calls


def measure_calls(peer: Peer, inputs: list[Any], calls: int = 100_000) -> float:
    """99.9th percentile of the seconds that a call takes, of calls in a row without a pause."""
    took = np.empty(calls)
    clock, observe = time.perf_counter_ns, peer.observe
    for i in range(calls):
        X = inputs[i % len(inputs)]
        began = clock()
        observe(X)
        took[i] = clock() - began
    peer.finish()
    return float(np.percentile(took, 99.9)) / 1e9


def measure_inference(X: Any) -> dict[str, float]:
    """CPU microseconds of a whole recorded call of a model that costs nothing, and of the SDK's span alone."""
    from opentelemetry.sdk.metrics.export import AggregationTemporality
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    from otel_mlmon import Monitor, Profile
    from otel_mlmon.config import Settings

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 -- the base's signature
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Nowhere()))
    reference = make_columns(np.random.default_rng(1), 50_000, codes=True)
    profile = Profile.build(reference, model="bench", version="1", predictions=np.linspace(0, 1, 50_000))
    y, settings, calls = np.array([0.5]), Settings(exporters=()), 20_000
    found = {}
    for name, tracer_provider in (("no span", None), ("span", provider)):
        monitor = Monitor(profile, settings=settings, tracer_provider=tracer_provider)
        began = time.process_time()
        for _ in range(calls):
            with monitor.inference(X) as call:
                call.record(y)
        monitor.collect(AggregationTemporality.CUMULATIVE)
        found[name] = 1e6 * (time.process_time() - began) / calls
    tracer = provider.get_tracer("bench")
    attributes = dict(zip("abcd", ("bench", "1", "predict", 1), strict=True))
    began = time.process_time()
    for _ in range(calls):
        with tracer.start_as_current_span("predict bench", attributes=attributes):
            pass
    found["span alone"] = 1e6 * (time.process_time() - began) / calls
    return found


def main() -> int:
    name = sys.argv[1]
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"cpu_us": {}}
    for kind in KINDS:
        for rows, different in BATCHES.items():
            if kind == "numbers" and rows != 1024:
                continue
            inputs = [make_input(rng, rows, kind) for _ in range(different)]
            peer = PEERS[name](kind)
            found["cpu_us"][f"{kind} {rows}"] = 1e6 * measure(peer, inputs)
            if (kind, rows) == ("numpy", 1):
                found["p999_us"] = 1e6 * measure_calls(peer, inputs)
                if name == "otel-mlmon":
                    found["inference_us"] = measure_inference(inputs[0])
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
