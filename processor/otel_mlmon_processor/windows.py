"""What the fold hands to the evaluation: frozen counts of a model over a sliding window. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Role = Literal["feature", "value", "class", "score"]


class ModelKey(NamedTuple):
    """What is merged: all replicas that share these are one model."""

    namespace: str  # service.namespace
    service: str  # service.name
    environment: str  # deployment.environment.name
    model: str
    version: str


class VariableKey(NamedTuple):
    """A feature, or an output of the model (then name is "")."""

    role: Role
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class VariableCounts:
    """Counts of one variable, merged.

    Args:
        seen: values, valid or not.
        invalid: values in no cell, by reason; reasons that did not occur may be absent.
        edges: explicit bounds (k,) of a numeric variable; None for categories.
        cells: counts (k + 1,) of a numeric variable; None for categories.
        sum: of the valid numeric values; None where a producer sent none.
        categories: counts by category label; None for numbers.
        exponential: the producer counted without a profile, in exponential buckets; `edges` are their bounds and
            change with the data.
    """

    seen: int
    invalid: Mapping[str, int]
    edges: Floats | None = None
    cells: Counts | None = None
    sum: float | None = None
    categories: Mapping[str, int] | None = None
    exponential: bool = False


class Window(NamedTuple):
    """Counts of each variable in one window; number n is the time (60 n, 60 (n + 1)] in seconds since 1970."""

    number: int
    variables: Mapping[VariableKey, VariableCounts]


class ReplicaCounts(NamedTuple):
    """Counts of one variable by replica (n), of those that count over the same cells.

    Args:
        names: of the replicas.
        invalid: values in no cell (n,).
        edges: explicit bounds (k,) of a numeric variable; None for categories.
        cells: counts (n, k + 1) of a numeric variable; None for categories.
        sums: of the valid numeric values (n,); NaN where a producer sent none.
        categories: counts (n,) by category label; None for numbers.
        exponential: as in VariableCounts.
    """

    names: Sequence[str]
    invalid: Counts
    edges: Floats | None
    cells: Counts | None
    sums: Floats
    categories: Mapping[str, Counts] | None
    exponential: bool = False


class Replicas(Protocol):
    """Counts by replica (service.instance.id)."""

    def __len__(self) -> int:
        """How many."""
        ...

    def of(self, key: VariableKey) -> Sequence[ReplicaCounts]:
        """Counts of one variable by all replicas, those together that count over the same cells."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OperationHistogram:
    """A merged operational histogram over the life of the model, of one set of attributes."""

    attributes: Mapping[str, str]
    edges: Floats
    cells: Counts
    sum: float


@dataclass(frozen=True, slots=True, eq=False)
class ModelView:
    """A model as the fold knows it at one moment.

    Args:
        key: which model.
        reference_hash: hash of the profile that the newest points were counted with; "" where they have none.
        start, end: the sliding window (start, end], seconds since 1970; end is the watermark's window.
        window: counts of each variable over the sliding window.
        totals: counts of each variable over the model's life.
        replicas: counts by replica over the last half to whole window; None where they are needed no more.
        active_replicas: replicas that sent within the window.
        operations: by metric name, the operational histograms.
        active_calls: sum over replicas of calls in progress.
        info: identity attributes of the newest info point (framework, hashes).
        dropped: by metric name and reason, what the recorders said they did not count.
        watermark: event time up to which all live replicas have sent, seconds since 1970.
        windows: those that were asked for, up to the watermark's, in order; they may be many.
        others: by profile hash, points that were counted with another profile than `reference_hash`; they are in none
            of the counts above.
        since, totals_since: when the counters of the model, and those of `totals`, were zero: the begin of the first
            interval that was counted, seconds since 1970; 0 where nothing was.
    """

    key: ModelKey
    reference_hash: str
    start: float
    end: float
    window: Mapping[VariableKey, VariableCounts]
    totals: Mapping[VariableKey, VariableCounts]
    replicas: Replicas | None
    active_replicas: int
    operations: Mapping[str, tuple[OperationHistogram, ...]]
    active_calls: int
    info: Mapping[str, str]
    dropped: Mapping[str, Mapping[str, int]]
    watermark: float = 0.0
    windows: Sequence[Window] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    since: float = 0.0
    totals_since: float = 0.0
