"""Rows of the past through the real parts in one process: Monitor, OTLP bytes, Ingest, Watch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.core.alarm import AlarmEvent
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.snapshot import ModelState
from otel_mlmon_processor.watch import Watch

from otel_mlmon import Monitor, Profile, semconv

HOUR = 3600.0


class Handing(MetricExporter):
    """Hands requests to the processor's ingest, as its receiver would."""

    def __init__(self, ingest: Ingest) -> None:
        super().__init__()
        self._ingest = ingest

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Submit one request; durable and folded on return."""
        self._ingest.submit(semconv.MonSignal.METRICS, encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing to close."""


class Replay:
    """A model's replicas and a processor. Rows go in with their times; what the alarms say comes out.

    Args:
        profile: the reference.
        replicas: that share the rows.
        settings: of the alarms.
    """

    def __init__(self, profile: Profile, replicas: int = 1, settings: AlarmSettings | None = None) -> None:
        self._profile = profile
        self._folder = tempfile.TemporaryDirectory(prefix="mlmon-replay-")
        folder, chosen = Path(self._folder.name), settings or AlarmSettings()
        self._ingest = Ingest(folder)
        self._watch = Watch(folder, lambda _: chosen, memory=None, clock=time.monotonic)
        self._monitors = [
            Monitor(
                profile,
                exporter=Handing(self._ingest),
                temporality="delta",
                resource=Resource({"service.name": "replay", "service.instance.id": f"replica-{i + 1}"}),
            )
            for i in range(replicas)
        ]
    def __enter__(self) -> Replay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for monitor in self._monitors:
            monitor.close()
        self._ingest.close()
        self._folder.cleanup()

    def send(self, *shares: pd.DataFrame) -> list[AlarmEvent]:
        """One frame of rows for each replica, with `time` in seconds since 1970; what the alarms say of it."""
        for monitor, rows in zip(self._monitors, shares, strict=True):
            monitor.observe(rows.drop(columns="time"), time=rows["time"].to_numpy())
            monitor.flush()
        events: list[AlarmEvent] = []
        for view in self._ingest.views(self._watch.after()):
            looked = self._watch.look(view, self._profile)
            events += looked.events
        return events
