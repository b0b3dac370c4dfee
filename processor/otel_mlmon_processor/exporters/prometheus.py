"""The families in Prometheus' text format, written here: prometheus_client takes four times as long, and holds all
samples and the whole text at once, 0.8 GB for a thousand models (benchmarks/exposition.md).

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). Tests compare it with
prometheus_client.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cache
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon_processor.exporters.families import Family, name_model, write_bound
from otel_mlmon_processor.windows import ModelKey, OperationHistogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BLOCK: Final = 1_000  # lines, at least
_UNITS: Final = {"s": "seconds", "By": "bytes"}  # in names, by the OpenTelemetry specification; {braces} are none


def prometheus_name(metric: semconv.Metric) -> str:
    """Name of a metric family by the OpenTelemetry rules; exposition appends `_total` to counters."""
    name = metric.name.replace(".", "_")
    unit = _UNITS.get(metric.unit, "")
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


@cache
def label(attribute: str) -> str:
    """Name of a label by the OpenTelemetry rules."""
    return attribute.replace(".", "_")


def expose(families: Iterable[Family]) -> Generator[str]:
    """Families with at least one sample, in blocks of whole lines."""
    lines: list[str] = []
    for family in families:
        for line in _write_family(family):
            lines.append(line)
            if len(lines) >= _BLOCK:
                yield "".join(lines)
                lines.clear()
    yield "".join(lines)


def _write_family(family: Family) -> Iterator[str]:
    metric = family.metric
    kind = metric.instrument if metric.instrument in ("counter", "histogram") else "gauge"
    name = prometheus_name(metric) + ("_total" if kind == "counter" else "")
    about = metric.description.replace("\\", r"\\").replace("\n", r"\n")
    head = f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
    models: dict[ModelKey, str] = {}
    for model, attributes, value, _ in family.samples:
        if head:
            yield head
            head = ""
        labels = _write_labels(attributes)
        if model is not None:
            shared = models.get(model) or models.setdefault(model, _write_labels(name_model(model)))
            labels = f"{shared},{labels}" if labels else shared
        if isinstance(value, OperationHistogram):
            yield from _write_histogram(name, labels, value)
        elif labels:
            yield f"{name}{{{labels}}} {_write_number(value)}\n"
        else:
            yield f"{name} {_write_number(value)}\n"


def _write_histogram(name: str, labels: str, histogram: OperationHistogram) -> Iterator[str]:
    bounds = [*map(write_bound, histogram.edges.tolist()), "+Inf"]
    counts = np.cumsum(histogram.cells).tolist()
    for bound, n in zip(bounds, counts, strict=True):
        yield f'{name}_bucket{{{labels},le="{bound}"}} {n}\n'
    yield f"{name}_count{{{labels}}} {counts[-1]}\n{name}_sum{{{labels}}} {_write_number(histogram.sum)}\n"


def _write_labels(attributes: Mapping[str, str]) -> str:
    return ",".join([f'{label(name)}="{_escape(text)}"' for name, text in attributes.items()])


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _write_number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
