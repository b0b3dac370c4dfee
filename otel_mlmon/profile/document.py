"""The profile as a value. Light: the model process imports this; building, merging and the JSON codec are apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from otel_mlmon.numerics.binning import Axis
from otel_mlmon.numerics.calibration import Calibration
from otel_mlmon.numerics.histogram import Histogram

if TYPE_CHECKING:
    from os import PathLike

    from otel_mlmon.profile.windows import Windows

FORMAT: Final = "otel-mlmon/profile"
FORMAT_VERSION: Final = 1
ATTRIBUTE: Final = (
    "otel_mlmon_profile"  # where `attach` leaves the document; no trailing "_": sklearn would take it for fitted
)

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
        decision: the first cell of each of the ~20 coarse cells that drift is decided on, see `coarse.decision_starts`;
            chosen with the axis, so that parts of one plan agree on them.
        origin: for an age whose data had no time of its own, the moment the reference's ages were taken at, in seconds
            since 1970 (the newest value that the planner saw); parts of one plan share it. Else None.
    """

    name: str
    column: str
    role: Role
    dtype: Dtype
    transform: Transform
    axis: Axis
    decision: tuple[int, ...]
    origin: float | None = None


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
        calibration: what is normal from minute to minute; None where the rows had no times.
    """

    variable: Variable
    histogram: Histogram
    m2: float = 0.0
    importance: float | None = None
    calibration: Calibration | None = None

    @property
    def std(self) -> float:
        """Standard deviation of the valid values; 0 where there are fewer than two."""
        n = self.histogram.valid
        return (self.m2 / (n - 1)) ** 0.5 if n > 1 else 0.0

    @property
    def mean(self) -> float:
        """Mean of the valid values; 0 where there are none, and for categories."""
        n = self.histogram.valid
        return self.histogram.sum / n if n else 0.0


class _PlanOf:
    """`Profile.plan(sample, ...)` decides a plan; `profile.plan` is the one the profile was built with."""

    @overload
    def __get__(self, profile: None, owner: type[Profile]) -> Callable[..., Plan]: ...
    @overload
    def __get__(self, profile: Profile, owner: type[Profile]) -> Plan: ...
    def __get__(self, profile: Profile | None, owner: type[Profile]) -> Plan | Callable[..., Plan]:
        if profile is not None:
            return Plan(tuple(reference.variable for reference in profile.references))
        from otel_mlmon.profile.build import make_plan

        return make_plan


@dataclass(frozen=True)
class Profile:
    """The reference of one version of one model. Immutable.

    `Profile.plan(sample, ...)` decides from a sample what to count and how (options: see `profile.build.make_plan`);
    parts built with `Profile.build(part, plan=plan)` merge exactly. An instance's `plan` is the one it was built with.
    """

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
    windows: Windows | None = None  # counts by minute, of parts that are to be merged

    plan = _PlanOf()

    def __repr__(self) -> str:
        name = " ".join(part for part in (self.model, self.version) if part)
        return f"<Profile {name!r}: {self.rows:,} rows, {len(self.references)} variables, hash {self.hash}>"

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical document (`to_bytes`) without `created` and `packages`.

        So a profile that is built anew from the same data is the same.
        """
        return hashlib.sha256(replace(self, created="", packages={}).to_bytes()).hexdigest()[:16]

    @classmethod
    def build(cls, data: Any, *, model: str, version: str = "", predictions: Any = None, **options: Any) -> Profile:
        """Profile of a data set; see `otel_mlmon.profile.build.build_profile` for inputs and options."""
        from otel_mlmon.profile.build import build_profile

        return build_profile(data, model=model, version=version, predictions=predictions, **options)

    @classmethod
    def merge(cls, parts: Iterable[Profile], *, part: bool = False) -> Profile:
        """One profile of the data of all parts, the same in whatever order they come.

        Parts that share a plan merge exactly, and what is normal from minute to minute is learnt from all of them if
        they were built with `part=True`; else distributions are kept as well as their cells allow: see `notes`.

        Args:
            parts: the profiles.
            part: whether the result is to be merged further.

        Raises:
            ProfileError: there are no parts, or they are of different models or versions.
        """
        from otel_mlmon.profile.merging import merge_profiles

        return merge_profiles(parts, part=part)

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Read a document.

        Raises:
            ProfileError: it is broken, foreign or of a newer version; the field and what is allowed are named.
        """
        from otel_mlmon.profile.codec import decode_profile

        return decode_profile(data)

    def to_bytes(self) -> bytes:
        """The canonical JSON document, UTF-8: equal profiles give equal bytes, and floats return exactly."""
        from otel_mlmon.profile.codec import encode_profile

        return encode_profile(self)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Profile:
        """Read a file.

        Raises:
            OSError: it cannot be read.
            ProfileError: it is not a profile; the file and the field are named.
        """
        from otel_mlmon.profile.codec import MAX_BYTES

        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # as much as says that it is too large
        try:
            return cls.from_bytes(data)
        except ProfileError as error:
            raise ProfileError(f"{os.fspath(path)}: {error}") from None

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file, whole or not at all: readers see the old one or the new one.

        Raises:
            OSError: it cannot be written, as where the disk is full; the file is named, and the old one is as it was.
        """
        import tempfile

        target = Path(path)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(target)
        except BaseException as error:
            Path(name).unlink(missing_ok=True)
            if isinstance(error, OSError):
                error.filename = os.fspath(path)
            raise

    def attach(self, model: Any) -> None:
        """Leave the document on a model, as text, so that it travels wherever joblib or pickle take the model.

        Works for scikit-learn estimators and pipelines, XGBoost's estimators and Booster, and any object that takes
        attributes. What pickles is a plain string: reading such a model needs no otel-mlmon. `sklearn.base.clone` makes
        a model without it, as it does with everything that fitting left.

        Raises:
            TypeError: the object takes no attributes.
        """
        from otel_mlmon.profile.attach import attach_text

        attach_text(model, self.to_bytes().decode())

    @classmethod
    def attached(cls, model: Any) -> Profile | None:
        """The profile that was attached to a model; None where there is none.

        Raises:
            ProfileError: what is attached is not a profile.
        """
        from otel_mlmon.profile.attach import read_text

        text = read_text(model)
        return None if text is None else cls.from_bytes(text.encode())
