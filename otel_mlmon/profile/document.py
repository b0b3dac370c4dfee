"""The profile as a value and as a JSON document. Light: the model process imports this; building is in `build`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_mlmon.numerics.binning import Axis
from otel_mlmon.numerics.histogram import Histogram

if TYPE_CHECKING:
    from os import PathLike

FORMAT: Final = "otel-mlmon/profile"
FORMAT_VERSION: Final = 1

Dtype = Literal["float", "integer", "boolean", "string", "datetime", "text", "empty"]
Transform = Literal["identity", "age", "hour", "length"]
Role = Literal["feature", "value", "class", "score"]


class ProfileError(ValueError):
    """A document that is not a profile of this version; the message names the field."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One thing that is counted, and how: a feature, something derived from one, or an output of the model.

    Args:
        name: as on the wire: the column's name, or `column.age`, `column.hour`, `column.length` for what is derived.
            For outputs the role again.
        column: the column of the input it is read from; "" for outputs.
        role: "feature", or which output: "value", "class", "score".
        dtype: of the column.
        transform: what is counted of the column: itself, its age in seconds, its hour of day (UTC), its length.
        axis: the cells; a NumericAxis or a CategoryAxis.
    """

    name: str
    column: str
    role: Role
    dtype: Dtype
    transform: Transform
    axis: Axis


@dataclass(frozen=True, slots=True)
class Plan:
    """What to count, decided once from a sample; parts built with one plan merge exactly."""

    variables: tuple[Variable, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable with what the reference holds of it.

    Args:
        variable: what and how.
        histogram: counts, invalid values, sum, min, max.
        m2: sum of squared deviations from the mean of the valid values (0 for categories).
        importance: of the feature to the model, where known; >= 0.
    """

    variable: Variable
    histogram: Histogram
    m2: float = 0.0
    importance: float | None = None

    @property
    def std(self) -> float:
        """Standard deviation of the valid values; 0 where there are fewer than two."""
        n = self.histogram.valid
        return (self.m2 / (n - 1)) ** 0.5 if n > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference of one version of one model. Immutable."""

    model: str
    version: str
    references: tuple[Reference, ...]
    rows: int
    created: str  # ISO 8601, UTC
    model_hash: str = ""
    framework: str = ""
    trained: str = ""  # ISO 8601, UTC; "" where unknown
    packages: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what the builder has to say, e.g. that parts had different plans

    @property
    def plan(self) -> Plan: ...
    @property
    def hash(self) -> str: ...  # first 16 hex digits of SHA-256 of the canonical document, see to_bytes
    @classmethod
    def build(cls, data: Any, *, model: str, version: str = "", predictions: Any = None, **options: Any) -> Profile: ...
    @classmethod
    def load(cls, path: str | PathLike[str]) -> Profile: ...
    @classmethod
    def from_bytes(cls, data: bytes) -> Profile: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    @classmethod
    def merge(cls, parts: Iterable[Profile]) -> Profile: ...
    def attach(self, model: Any) -> None: ...
