"""The JSON document of a profile, and back, checked by hand: the model process has no JSON Schema library.

The published schema is docs/profile.schema.json; a test keeps the two in agreement.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise, starmap
from operator import itemgetter
from typing import Any, Final, get_args

import numpy as np

from otel_mlmon.numerics.binning import Axis, CategoryAxis, NumericAxis
from otel_mlmon.numerics.coarse import COARSE_CELLS
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.numerics.windows import REASONS
from otel_mlmon.profile.calibration import read_calibration
from otel_mlmon.profile.document import (
    FORMAT,
    FORMAT_VERSION,
    Dtype,
    Profile,
    ProfileError,
    Reference,
    Role,
    Transform,
    Variable,
)
from otel_mlmon.profile.fields import MAX_COUNT, Fields, check_count, check_number, fail, show
from otel_mlmon.profile.windows import dump_windows, read_windows

MAX_BYTES: Final = 64 << 20
MAX_VALUES: Final = MAX_BYTES // 8  # numbers, texts and the like: a profile has one in ten bytes or fewer
MAX_NODES: Final = MAX_BYTES // 64  # lists and objects: one in seventy bytes or fewer
MAX_REFERENCES: Final = 20_000
MAX_EDGES: Final = 1_000
MAX_CATEGORIES: Final = 10_000
MAX_ENTRIES: Final = 1_000  # packages, notes
WIDTH: Final = 120  # of a line of numbers


# ---------------------------------------------------------------- writing


def encode_profile(profile: Profile) -> bytes:
    """Canonical document: fixed order of fields, long lists filled into lines, floats by their shortest exact form."""
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": profile.model,
        "version": profile.version,
        "model_hash": profile.model_hash,
        "framework": profile.framework,
        "trained": profile.trained,
        "created": profile.created,
        "rows": profile.rows,
        "packages": dict(sorted(profile.packages.items())),
        "notes": list(profile.notes),
        "references": [_dump_reference(reference) for reference in profile.references],
        "windows": None if profile.windows is None else dump_windows(profile.windows),
    }
    return (_layout(document, "") + "\n").encode()


def _dump_reference(reference: Reference) -> dict[str, Any]:
    variable, histogram = reference.variable, reference.histogram
    filled = isinstance(variable.axis, NumericAxis) and histogram.valid > 0
    return {
        "name": variable.name,
        "role": variable.role,
        "column": variable.column,
        "dtype": variable.dtype,
        "transform": variable.transform,
        "origin": variable.origin,
        "importance": reference.importance,
        "axis": _dump_axis(variable.axis),
        "decision": list(variable.decision),
        "histogram": {
            "counts": histogram.counts.tolist(),
            "invalid": {reason: getattr(histogram.invalid, reason) for reason in REASONS},
            "sum": float(histogram.sum),
            "min": float(histogram.min) if filled else None,
            "max": float(histogram.max) if filled else None,
            "m2": float(reference.m2),
        },
        "calibration": reference.calibration.to_plain() if reference.calibration is not None else None,
    }


def _dump_axis(axis: Axis) -> dict[str, Any]:
    if isinstance(axis, NumericAxis):
        return {"kind": "numeric", "low": int(axis.low), "high": int(axis.high), "edges": axis.edges.tolist()}
    return {"kind": "category", "closed": axis.closed, "names": list(axis.names), "others": list(axis.others)}


def _layout(value: Any, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        fields = (f"{inner}{_scalar(key)}: {_layout(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(fields) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + _layout(item, inner) for item in value) + f"\n{indent}]"
    if isinstance(value, list):
        return _fill([_scalar(item) for item in value], indent)
    return "{}" if value == {} else _scalar(value)


def _fill(items: list[str], indent: str) -> str:
    """A list on one line where it fits, else on as many lines as it takes."""
    line = f"[{', '.join(items)}]"
    if len(line) <= WIDTH:
        return line
    lines, width = [[]], 0  # type: tuple[list[list[str]], int]
    for item in items:
        if lines[-1] and width + len(item) + 2 > WIDTH:
            lines.append([])
            width = 0
        lines[-1].append(item)
        width += len(item) + 2
    return "[\n" + ",\n".join(f"{indent} {', '.join(group)}" for group in lines) + f"\n{indent}]"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# ---------------------------------------------------------------- reading


def decode_profile(data: bytes) -> Profile:
    """Read and check a document.

    Raises:
        ProfileError: names the field and what is allowed there.
    """
    document = _parse(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f'not a profile: field "format" must be "{FORMAT}"')
    version = document.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        hint = "; it was written by a newer otel-mlmon" if newer else ""
        raise ProfileError(f"format_version: must be {FORMAT_VERSION}, got {show(version)}{hint}")
    root = Fields(document, "", "format", "format_version")
    packages = root.object("packages", free=MAX_ENTRIES)
    profile = Profile(
        model=root.text("model", empty=False),
        version=root.text("version"),
        model_hash=root.text("model_hash"),
        framework=root.text("framework"),
        trained=root.text("trained"),
        created=root.text("created"),
        rows=root.count("rows"),
        packages={name: packages.text(name) for name in packages.fields},
        notes=tuple(root.texts("notes", MAX_ENTRIES)),
        references=tuple(starmap(_read_reference, root.objects("references", MAX_REFERENCES))),
    )
    if root.take("windows") is not None:
        variables = [reference.variable for reference in profile.references]
        profile = replace(profile, windows=read_windows(root.object("windows"), variables))
    root.close()
    _check_names(profile.references)
    return profile


def _parse(data: bytes) -> Any:
    if len(data) > MAX_BYTES:
        raise ProfileError(f"not a profile: more than {MAX_BYTES} bytes")
    # Those in texts count too. Counted before they are read, as two bytes become a hundred.
    nodes = data.count(b"{") + data.count(b"[")
    if nodes > MAX_NODES or nodes + data.count(b",") > MAX_VALUES:
        raise ProfileError(f"not a profile: more than {MAX_NODES} lists and objects, or {MAX_VALUES} values")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice, _ = max(Counter(key for key, _ in pairs).items(), key=itemgetter(1))
            raise ProfileError(f"not a profile: field {show(twice)} occurs twice")
        return fields

    if not data.strip():
        raise ProfileError("not a profile: the file is empty; was it written to its end?")
    try:
        return json.loads(data.decode(), object_pairs_hook=unique)  # NaN and Infinity are refused where they stand
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ProfileError(f"not a profile: not JSON: {error}") from None


def _read_reference(value: Any, path: str) -> Reference:
    if not isinstance(value, dict):
        fail(path, "an object", value)
    fields = Fields(value, path)
    axis = _read_axis(fields.object("axis"))
    variable = Variable(
        name=fields.text("name", empty=False),
        column=fields.text("column"),
        role=fields.choice("role", get_args(Role)),
        dtype=fields.choice("dtype", get_args(Dtype)),
        transform=fields.choice("transform", get_args(Transform)),
        axis=axis,
        decision=_read_decision(fields, axis),
        origin=fields.optional("origin"),
    )
    importance = fields.optional("importance", negative=False)
    inner = fields.object("histogram")
    histogram, m2 = _read_histogram(inner, axis)
    inner.close()
    known = fields.take("calibration") is not None
    calibration = read_calibration(fields.object("calibration"), variable) if known else None
    fields.close()
    return Reference(variable, histogram, m2, importance, calibration)


def _read_axis(fields: Fields) -> Axis:
    kind = fields.choice("kind", ("numeric", "category"))
    if kind == "category":
        names = fields.texts("names", MAX_CATEGORIES)
        others = fields.texts("others", MAX_CATEGORIES)
        closed = fields.flag("closed")
        fields.close()
        try:
            return CategoryAxis(tuple(names), tuple(others), closed)
        except ValueError as error:
            raise ProfileError(f"{fields.at('names')}: {error}") from None
    values = fields.items("edges", MAX_EDGES)
    edges = [check_number(value, f"{fields.at('edges')}[{i}]") for i, value in enumerate(values)]
    if not edges or any(a >= b for a, b in pairwise(edges)):
        raise ProfileError(f"{fields.at('edges')}: must be at least one number, each larger than the one before")
    low, high = fields.count("low"), fields.count("high")
    fields.close()
    if not low <= high < len(edges):
        raise ProfileError(f"{fields.at('low')}: need low <= high < {len(edges)}, got low {low}, high {high}")
    return NumericAxis(np.array(edges), low, high)


def _read_decision(fields: Fields, axis: Axis) -> tuple[int, ...]:
    path = fields.at("decision")
    starts = tuple(check_count(start, f"{path}[{i}]") for i, start in enumerate(fields.items("decision", COARSE_CELLS)))
    if starts[:1] != (0,) or any(a >= b for a, b in pairwise(starts)) or starts[-1] >= axis.cells:
        raise ProfileError(f"{path}: must ascend from 0 to less than the axis' {axis.cells} cells, got {show(starts)}")
    return starts


def _read_histogram(fields: Fields, axis: Axis) -> tuple[Histogram, float]:
    values = fields.items("counts", MAX_CATEGORIES + 2)
    counts = [check_count(value, f"{fields.at('counts')}[{i}]") for i, value in enumerate(values)]
    if len(counts) != axis.cells:
        raise ProfileError(f"{fields.at('counts')}: the axis has {axis.cells} cells, got {len(counts)} counts")
    reasons = fields.object("invalid")
    invalid = Invalid(**{reason: reasons.count(reason) for reason in REASONS})
    reasons.close()
    if sum(counts) + invalid.total > MAX_COUNT:
        raise ProfileError(f"{fields.at('counts')}: more than 2^53 values in all")
    total, m2 = fields.number("sum"), fields.number("m2", negative=False)
    least, most = fields.optional("min"), fields.optional("max")
    filled = isinstance(axis, NumericAxis) and any(counts)
    for key, value in (("min", least), ("max", most)):
        if (value is not None) != filled:
            fail(fields.at(key), "a number" if filled else "null, as there are no numbers", value)
    if least is None or most is None:
        return Histogram(axis, np.array(counts), invalid, total), m2
    if least > most:
        raise ProfileError(f"{fields.at('min')}: must be at most max {most!r}, got {least!r}")
    return Histogram(axis, np.array(counts), invalid, total, least, most), m2


def _check_names(references: tuple[Reference, ...]) -> None:
    seen: set[tuple[str, str]] = set()
    for i, reference in enumerate(references):
        key = (reference.variable.role, reference.variable.name)
        if key in seen:
            raise ProfileError(f"references[{i}].name: {key[1]!r} occurs twice with role {key[0]!r}")
        seen.add(key)
