"""Monitoring of machine-learning models in production, on OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_mlmon.comparison.compare import compare
    from otel_mlmon.monitor import Monitor
    from otel_mlmon.profile.document import Profile

__all__ = ["Monitor", "Profile", "compare"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that commands start without the SDK."""
    if name == "Monitor":
        from otel_mlmon.monitor import Monitor

        return Monitor
    if name == "Profile":
        from otel_mlmon.profile.document import Profile

        return Profile
    if name == "compare":
        from otel_mlmon.comparison.compare import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
