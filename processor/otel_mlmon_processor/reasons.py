"""Why something is not taken, not used or given up, as the counters say it; docs/operations.md lists them all."""

from __future__ import annotations

from typing import Literal, TypeAlias

# A whole request, which the client hears of by its status; also a connection, a handshake and a scrape:
# mlmon.processor.refused.
Refusal: TypeAlias = Literal[
    "closing",
    "connections",
    "content_encoding",
    "content_type",
    "handshake",
    "incomplete",
    "internal",
    "malformed",
    "no_certificate",
    "no_token",
    "not_gzip",
    "not_json",
    "overload",
    "storage",
    "too_large",
    "too_many_messages",
    "too_many_points",
    "wrong_token",
]

# Items of a request that is acknowledged, which the client hears of as partial success: mlmon.processor.dropped.
Unusable: TypeAlias = Literal[
    "attribute_size",
    "attributes",
    "bounds",
    "bounds_changed",
    "cells",
    "counts",
    "identity",
    "instrument",
    "internal",
    "memory",
    "negative",
    "no_category",
    "no_feature",
    "no_model",
    "no_reason",
    "no_signal",
    "not_an_integer",
    "profile_incomplete",
    "profile_invalid",
    "profile_mismatch",
    "profile_not_gzip",
    "profile_part",
    "profile_too_large",
    "scale",
    "segment",
    "sum",
    "temporality",
    "time",
    "too_large",
    "too_many_bounds",
    "too_many_categories",
    "too_many_cells",
    "too_many_features",
    "too_many_models",
    "too_many_operations",
    "too_many_places",
    "too_many_producers",
    "too_many_profiles",
    "too_many_streams",
    "too_old",
]

# Items that nobody is told of: the same counter.
Ignored: TypeAlias = Literal["ahead", "no_recorded_value", "no_window", "not_ml", "unused"]

Reason: TypeAlias = Refusal | Unusable | Ignored

# What was to be sent: mlmon.processor.send.dropped, beside the answers of endpoints.
GivenUp: TypeAlias = Literal["age", "full", "internal", "no_export", "no_forward", "size"]
