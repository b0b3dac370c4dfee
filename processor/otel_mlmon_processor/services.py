"""OTLP's three services: what they are called over gRPC and over HTTP, their messages, the answer to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from otel_mlmon import semconv
from otel_mlmon_processor.intake import Outcome

MESSAGE_BYTES: Final = 16 * 1024 * 1024  # largest request, unpacked


@dataclass(frozen=True, slots=True)
class Service:
    """One of them.

    Args:
        signal: semconv.MonSignal.
        name: over gRPC.
        path: over HTTP.
        request, response, partial: classes of messages.
        rejected: the field of `partial` that counts what was not accepted.
    """

    signal: str
    name: str
    path: str
    request: type[Message]
    response: Any
    partial: Any
    rejected: str

    def answer(self, outcome: Outcome) -> Message:
        """The response to an accepted request; says what in it cannot be used."""
        count = sum(outcome.refused.values())
        if not count:
            return self.response()  # type: ignore[no-any-return]
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(outcome.refused.items()))
        message = f"{count} of {outcome.items} cannot be used ({reasons})"
        partial = self.partial(**{self.rejected: count}, error_message=message)
        return self.response(partial_success=partial)  # type: ignore[no-any-return]


SERVICES: Final = (
    Service(
        semconv.MonSignal.METRICS,
        metrics.DESCRIPTOR.services_by_name["MetricsService"].full_name,
        "/v1/metrics",
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
        metrics.ExportMetricsPartialSuccess,
        "rejected_data_points",
    ),
    Service(
        semconv.MonSignal.LOGS,
        logs.DESCRIPTOR.services_by_name["LogsService"].full_name,
        "/v1/logs",
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
        logs.ExportLogsPartialSuccess,
        "rejected_log_records",
    ),
    Service(
        semconv.MonSignal.TRACES,
        traces.DESCRIPTOR.services_by_name["TraceService"].full_name,
        "/v1/traces",
        traces.ExportTraceServiceRequest,
        traces.ExportTraceServiceResponse,
        traces.ExportTracePartialSuccess,
        "rejected_spans",
    ),
)
