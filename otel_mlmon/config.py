"""Settings of the model process: environment variables OTEL_MLMON_* beside the standard OTEL_*."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

PROFILE: Final = "OTEL_MLMON_PROFILE"
MODEL_NAME: Final = "OTEL_MLMON_MODEL_NAME"
MODEL_VERSION: Final = "OTEL_MLMON_MODEL_VERSION"
CAPTURE_FEATURES: Final = "OTEL_MLMON_CAPTURE_FEATURES"

EXPORTERS: Final = ("otlp", "console", "none")
_OTHER_NAMES: Final = {"otlp_proto_grpc": "grpc", "otlp_proto_http": "http/protobuf"}  # of the Python exporters
PROTOCOLS: Final = ("grpc", "http/protobuf")
MAX_SECONDS: Final = 1e9  # what a thread can wait


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    Args:
        profile: path of the profile for models that carry none; "" for none.
        model_name, model_version: of models that carry no profile; "" leaves it to the class.
        capture_features: whether spans carry the feature values of one-row calls.
        disabled: OTEL_SDK_DISABLED.
        exporters: of metrics, from OTEL_METRICS_EXPORTER; empty for "none".
        protocol: of the OTLP exporter, "grpc" or "http/protobuf".
        interval: between exports, seconds.
        timeout: of one export, seconds.
        temporality: "cumulative" or "delta".
    """

    profile: str = ""
    model_name: str = ""
    model_version: str = ""
    capture_features: bool = False
    disabled: bool = False
    exporters: tuple[str, ...] = ("otlp",)
    protocol: str = "grpc"
    interval: float = 60.0
    timeout: float = 30.0
    temporality: str = "cumulative"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment; what cannot be understood is logged and left at its default, as OpenTelemetry asks."""

    def choice(value: str, allowed: tuple[str, ...], default: str, name: str) -> str:
        if value and value not in allowed:
            logger.warning("%s is %r, which is none of %s; using %r", name, value, ", ".join(allowed), default)
        return value if value in allowed else default

    def seconds(name: str, default: float) -> float:
        text = environ.get(name, "").strip()
        try:
            value = float(text) / 1000 if text else default
        except ValueError:
            value = 0.0
        if not (math.isfinite(value) and 0 < value <= MAX_SECONDS):
            logger.warning("%s is %r, not a number of milliseconds; using %g", name, text, default * 1000)
            return default
        return value

    def flag(name: str) -> bool:
        return environ.get(name, "").strip().lower() == "true"

    exporters = [part.strip().lower() for part in (environ.get("OTEL_METRICS_EXPORTER") or "otlp").split(",")]
    named = next((_OTHER_NAMES[part] for part in exporters if part in _OTHER_NAMES), "")
    exporters = ["otlp" if part in _OTHER_NAMES else part for part in exporters]
    known = tuple(choice(part, EXPORTERS, "none", "OTEL_METRICS_EXPORTER") for part in exporters if part)
    protocol = (
        named or environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    return Settings(
        profile=environ.get(PROFILE, ""),
        model_name=environ.get(MODEL_NAME, ""),
        model_version=environ.get(MODEL_VERSION, ""),
        capture_features=flag(CAPTURE_FEATURES),
        disabled=flag("OTEL_SDK_DISABLED"),
        exporters=tuple(dict.fromkeys(part for part in known if part != "none")),
        protocol=choice(protocol.strip().lower(), PROTOCOLS, "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        interval=seconds("OTEL_METRIC_EXPORT_INTERVAL", 60.0),
        timeout=seconds("OTEL_METRIC_EXPORT_TIMEOUT", 30.0),
        temporality="delta" if temporality_preference(environ) in ("delta", "lowmemory") else "cumulative",
    )


def temporality_preference(environ: Mapping[str, str] = os.environ) -> str:
    """Temporality of OTLP metrics: "delta", "lowmemory" or anything else, which is cumulative."""
    return environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
