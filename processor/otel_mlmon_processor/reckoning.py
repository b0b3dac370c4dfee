"""What is held takes so much of the memory for counts; see `room`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from otel_mlmon_processor.exponential import ExponentialSum
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.model import Model
from otel_mlmon_processor.points import Attributes
from otel_mlmon_processor.producers import ProducerState, Series
from otel_mlmon_processor.room import BUCKETS, SERIES, size_of, size_of_names


def size_of_places(nbytes: int, settings: FoldSettings) -> int:
    """Bytes of what takes `nbytes` in a tally: in each window, in both sums of them, and in a view."""
    return nbytes * (settings.reserved + 3)


def size_of_series(series: Series) -> int:
    """Bytes of a series of one producer and its cumulative streams."""
    streams = series.cumulatives
    return SERIES * (1 + len(streams)) + sum(size_of(stream.reading) for stream in streams)


def size_of_operation(counts: object) -> int:
    """Bytes of an operational histogram, of what was read or what is held."""
    if isinstance(counts, ExponentialSum):
        return BUCKETS
    return len(counts) if isinstance(counts, bytes) else np.asarray(counts).nbytes


def measure(
    settings: FoldSettings,
    models: Iterable[Model],
    producers: Iterable[ProducerState],
    names: Iterable[tuple[str, Attributes]],
) -> int:
    """Bytes of all."""
    found = sum(size_of_names(attributes) for _, attributes in names)
    for producer in producers:
        found += sum(map(size_of_series, producer.series.values()))
    for model in models:
        found += sum(size_of_operation(operation.counts) for operation in model.operations.values())
        found += sum(size_of_places(each.layout.nbytes, settings) for each in model.generations.values())
    return found
