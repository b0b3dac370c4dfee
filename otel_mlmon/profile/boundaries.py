"""What a producer in another language has to know of a profile: names, bounds, labels, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.profile.document import Profile, Reference


def list_boundaries(profile: Profile, references: Sequence[Reference]) -> dict[str, Any]:
    """Identity of a profile and the cells of some of its features and predictions.

    A number has `boundaries`, ascending, as a histogram of OTLP takes them: (lower, upper]. Anything else has `labels`,
    the label of each value that is known, and `rest`, the label of every other one.
    """
    return {
        "model": profile.model,
        "version": profile.version,
        "hash": profile.hash,
        "features": {r.variable.name: _describe(r) for r in references if r.variable.role == "feature"},
        "predictions": {r.variable.role: _describe(r) for r in references if r.variable.role != "feature"},
    }


def _describe(reference: Reference) -> dict[str, Any]:
    variable, axis = reference.variable, reference.variable.axis
    read = {"column": variable.column, "transform": variable.transform} if variable.role == "feature" else {}
    if isinstance(axis, NumericAxis):
        return {**read, "boundaries": axis.edges.tolist()}
    labels = {name: axis.labels[code] for name, code in axis.codes.items()}
    if variable.dtype == "boolean":  # which is 0 or 1 where it comes as a number
        rest = axis.labels[axis.default]
        labels |= {"0": labels.get("false", rest), "1": labels.get("true", rest)}
    return {**read, "labels": labels, "rest": axis.labels[axis.default]}
