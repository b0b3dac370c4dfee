"""What a comparison found, frozen; its fields are those of the JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_mlmon.comparison.finding import Finding
from otel_mlmon.profile.shape import format_share

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Final = "otel-mlmon/comparison"
FORMAT_VERSION: Final = 1
TOO_FEW: Final = "too few values to say"
DIGITS: Final = 6  # significant ones, in the document


@dataclass(frozen=True, slots=True)
class TimeRange:
    """First and last time (ISO 8601, UTC), the days from one to the other, and those among them without a row."""

    first: str
    last: str
    days: int
    empty_days: int


@dataclass(frozen=True, slots=True)
class SideInfo:
    """One of the two: `kind` is "data" or "profile"; `duplicates` the share of rows that repeat an earlier one."""

    name: str
    kind: str
    rows: int
    duplicates: float | None
    time: TimeRange | None


@dataclass(frozen=True, slots=True)
class Settings:
    """Smallest effect worth hearing of; share of comparisons of unchanged data that may fail; tests that share it."""

    tolerance: float
    false_alarms: float
    tests: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one variable on one side: valid values, share of missing ones, and of numbers their figures (else None)."""

    count: int
    missing: float
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    median: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A number for each period or segment; None where there are too few values."""

    effect: tuple[float | None, ...]
    effect_lower: tuple[float | None, ...]
    mean_shift: tuple[float | None, ...]
    missing: tuple[float | None, ...]
    changed: tuple[bool | None, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """One variable; the fields are explained in docs/compare.schema.json."""

    name: str
    column: str
    role: str
    type: str
    transform: str
    changed: bool | None
    text: str
    since: str | None
    drift: Mapping[str, float | None]
    rates: Mapping[str, Mapping[str, float | None]]
    reference: Summary
    current: Summary
    distribution: Mapping[str, Any] | None
    periods: Series | None
    segments: Series | None

    @property
    def told(self) -> str:
        """What is said of it."""
        return self.text if self.changed is not None else TOO_FEW

    @property
    def missing_change(self) -> str:
        """Share of missing values before and after; "" where none are."""
        before, after = self.reference.missing, self.current.missing
        return f"{format_share(before)} -> {format_share(after)}" if before or after else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result. In a notebook it shows itself as a table.

    Args:
        verdict: one sentence.
        reference, current: what was compared.
        settings: that decided.
        findings: what differs, what matters most first.
        features: what moved most first.
        periods: unit, first days and rows of the periods; None without times.
        segments: column, names and rows; None where none were asked for.
    """

    verdict: str
    reference: SideInfo
    current: SideInfo
    settings: Settings
    findings: tuple[Finding, ...] = ()
    features: tuple[Feature, ...] = ()
    periods: Mapping[str, Any] | None = None
    segments: Mapping[str, Any] | None = None
    format: str = field(default=FORMAT, init=False)
    format_version: int = field(default=FORMAT_VERSION, init=False)

    @property
    def passed(self) -> bool:
        """Whether nothing has changed that counts: no finding of level fault or drift."""
        return all(finding.level == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, see docs/compare.schema.json; numbers to six digits, None where there is none."""
        document: dict[str, Any] = _plain(asdict(self))
        return {
            "format": document.pop("format"),
            "format_version": document.pop("format_version"),
            "passed": self.passed,
            **document,
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for each variable: what changed, the measures, the rates before and after. Needs pandas."""
        import pandas as pd

        rows = []
        for feature in self.features:
            row: dict[str, Any] = {
                "role": feature.role,
                "type": feature.type,
                "changed": feature.changed,
                "text": feature.text,
            }
            row |= dict(feature.drift)
            row["missing_before"], row["missing_after"] = feature.reference.missing, feature.current.missing
            row["mean_before"], row["mean_after"] = feature.reference.mean, feature.current.mean
            rows.append(row)
        names = pd.Index([feature.name for feature in self.features], name="feature")
        return pd.DataFrame(rows, index=names)

    def to_html(self) -> str:
        """The page, self-contained."""
        from otel_mlmon.report.html import render_page

        return render_page(self.to_dict())

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write the page to a file."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def save_json(self, path: str | PathLike[str]) -> None:
        """Write the JSON document to a file."""
        import json

        Path(path).write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def save_junit(self, path: str | PathLike[str]) -> None:
        """Write a JUnit report to a file: a test case for each variable, one for the data as a whole."""
        from otel_mlmon.report.junit import render_junit

        Path(path).write_text(render_junit(self), encoding="utf-8")

    def __str__(self) -> str:
        return self.verdict

    def __repr__(self) -> str:
        return f"<Comparison {'passed' if self.passed else 'changed'}: {self.verdict}>"

    def _repr_html_(self) -> str:
        """The table that notebooks show."""
        from otel_mlmon.report.notebook import render_table

        return render_table(self)


def _plain(value: Any) -> Any:
    """What JSON has: rounded numbers, None for what is no number, lists and objects."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
