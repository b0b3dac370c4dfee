"""The families as Prometheus metrics: a custom collector, exposed in the text and the OpenMetrics format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from otel_mlmon import semconv
from otel_mlmon_processor.exporters.families import Family, write_bound
from otel_mlmon_processor.windows import OperationHistogram

# What the OpenTelemetry specification makes of units in names; annotations in braces are left out.
_UNITS: Final = {"s": "seconds", "By": "bytes"}


def prometheus_name(metric: semconv.Metric) -> str:
    """Name of a metric family by the OpenTelemetry rules; exposition appends `_total` to counters."""
    name = metric.name.replace(".", "_")
    unit = _UNITS.get(metric.unit, "")
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def label(attribute: str) -> str:
    """Name of a label by the OpenTelemetry rules."""
    return attribute.replace(".", "_")


class SnapshotCollector(Collector):
    """Yields metric families of the newest snapshot.

    Args:
        families: lists them.
    """

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Families with at least one sample."""
        return map(_present, self._families())


def _present(family: Family) -> Metric:
    """All samples have a label for each name that any of them has."""
    metric = family.metric
    held = [({label(name): text for name, text in s.label().items()}, s.value) for s in family.samples]
    names = list(dict.fromkeys(name for labels, _ in held for name in labels))
    kinds = {"counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
    kind = kinds.get(metric.instrument, GaugeMetricFamily)
    shown: Metric = kind(prometheus_name(metric), metric.description, labels=names, unit=_UNITS.get(metric.unit, ""))
    for labels, value in held:
        texts = [labels.get(name, "") for name in names]
        if isinstance(value, OperationHistogram):
            shown.add_metric(texts, _buckets(value), value.sum)  # type: ignore[attr-defined]  # all have it
        else:
            shown.add_metric(texts, value)  # type: ignore[attr-defined]
    return shown


def _buckets(histogram: OperationHistogram) -> list[tuple[str, float]]:
    bounds = [*map(write_bound, histogram.edges.tolist()), "+Inf"]
    return list(zip(bounds, np.cumsum(histogram.cells).astype(float).tolist(), strict=True))
