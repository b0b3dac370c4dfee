"""Receivers of OTLP over gRPC and over HTTP that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

Hook = Callable[[Any], None]
_CODES = {grpc.StatusCode.UNAVAILABLE: 503, grpc.StatusCode.RESOURCE_EXHAUSTED: 429}


class Receiver:
    """Takes OTLP over gRPC; `before` and `after` are called around the taking of a request."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.before: Hook = lambda _: None
        self.after: Hook = lambda _: None
        self.port = 0
        self.start()

    def start(self) -> None:
        self.server: Any = grpc.server(ThreadPoolExecutor(8))
        metrics = type("M", (metrics_service_pb2_grpc.MetricsServiceServicer,), {"Export": self._take_metrics})
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(metrics, self.server)
        logs = type("L", (logs_service_pb2_grpc.LogsServiceServicer,), {"Export": self._take_logs})
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(logs, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()

    def _take_metrics(self, request: Any, context: Any) -> Any:
        self.before(context)
        self.requests.append(request)
        self.after(context)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _take_logs(self, request: Any, context: Any) -> Any:  # noqa: ARG002 -- the profile
        self.before(context)
        self.after(context)
        return logs_service_pb2.ExportLogsServiceResponse()


class _AbortedError(Exception):
    """The request gets another status than 200."""


class _Context:
    """What hooks use of gRPC's."""

    def abort(self, code: grpc.StatusCode, _: str) -> None:
        raise _AbortedError(_CODES[code])

    def set_trailing_metadata(self, _: Any) -> None:
        """Retry-After has whole seconds, which are longer than the exporter's timeout."""


class HttpReceiver(Receiver):
    """The same over http/protobuf, a connection for each request."""

    def start(self) -> None:
        takes = {"/v1/metrics": self._take_metrics, "/v1/logs": self._take_logs}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_metrics = self.path == "/v1/metrics"
                try:
                    request = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body) if is_metrics else None
                    answer, status = takes[self.path](request, _Context()).SerializeToString(), 200
                except _AbortedError as aborted:
                    answer, status = b"", aborted.args[0]
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
