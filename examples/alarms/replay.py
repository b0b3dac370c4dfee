"""Rows of the past through the real parts in one process: Monitor, OTLP bytes, Ingest, Watch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.core.alarm import AlarmEvent, AlarmState
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exporters.families import Family, list_families
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.snapshot import Snapshot
from otel_mlmon_processor.watch import Watch
from otel_mlmon_processor.windows import ModelView

from otel_mlmon import Monitor, Profile, semconv

TOLERANCE = 0.005
PIECE = 7_200.0  # s; the fold holds windows for four hours


class Handing(MetricExporter):
    """Hands requests to the processor's ingest, as its receiver would."""

    def __init__(self, ingest: Ingest) -> None:
        super().__init__()
        self._ingest = ingest

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        """Submit one request; durable and folded on return."""
        self._ingest.submit(semconv.MonSignal.METRICS, encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
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
        self._watch = Watch(folder, lambda _: chosen, hold=None, memory=None, clock=time.monotonic)
        self._seen: tuple[ModelView, AlarmState | None]
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

    def send(self, *shares: Mapping[str, Any]) -> list[AlarmEvent]:
        """Columns for each replica, with `time` in seconds since 1970; what the alarms say of them."""
        for monitor, columns in zip(self._monitors, shares, strict=True):
            rows = {name: values for name, values in columns.items() if name != "time"}
            monitor.observe(rows, time=columns["time"])
            monitor.flush()
        events: list[AlarmEvent] = []
        for view in self._ingest.views(self._watch.wanted()):
            looked = self._watch.look(view, self._profile)
            self._seen = view, looked.alarms
            events += looked.events
        return events

    def expose(self) -> list[Family]:
        """What /metrics would show now."""
        view, alarms = self._seen
        state = evaluate_model(view, self._profile, tolerance=TOLERANCE, alarms=alarms)
        return list(list_families(Snapshot((state,)), self._ingest.counters(), (), time.time()))


def replay(profile: Profile, rows: pd.DataFrame, settings: AlarmSettings | None = None) -> Iterator[AlarmEvent]:
    """What the alarms say of rows in the order of their `time`, handed over in pieces of two hours."""
    columns = {name: rows[name].to_numpy() for name in rows.columns}
    with Replay(profile, settings=settings) as running:
        pieces = np.flatnonzero(np.diff(columns["time"] // PIECE, prepend=-1, append=np.inf))
        for start, end in pairwise(pieces.tolist()):
            yield from running.send({name: values[start:end] for name, values in columns.items()})
