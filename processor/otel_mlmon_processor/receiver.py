"""The gRPC side: OTLP services for metrics, traces and logs, and gRPC health.

The handlers get the bytes of a request as they came: they are journaled unchanged and parsed once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from otel_mlmon_processor.ingest import Ingest, RefusedError
from otel_mlmon_processor.services import MESSAGE_BYTES, SERVICES, Service

RETRY_INFO: Final = "google.rpc.retryinfo-bin"  # the trailer that the Python SDK obeys
STATUS_DETAILS: Final = "grpc-status-details-bin"  # the one that the Collector obeys


class Receiver:
    """The gRPC server over an Ingest.

    Args:
        ingest: takes the requests.
        address: host:port; port 0 takes a free one, see `port`.
        message_bytes: largest request, unpacked.
        credentials: of the server; None for plain text.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        ingest: Ingest,
        address: str = "127.0.0.1:4317",
        *,
        message_bytes: int = MESSAGE_BYTES,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        # More threads than requests may wait, so that there is always one to say that there are too many.
        pool = ThreadPoolExecutor(ingest.settings.pending + 16, thread_name_prefix="mlmon-otlp")
        options = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.so_reuseport", 0),  # a second processor on this port must fail, not share it
        ]
        self._server = grpc.server(pool, options=options)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in SERVICES:
            handlers = {"Export": grpc.unary_unary_rpc_method_handler(_export(ingest, service))}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            # gRPC says no more in the exception than that it failed.
            raise OSError(
                f"cannot listen on {address} for OTLP: it is in use, or no address of this machine"
            ) from error

    def start(self) -> None:
        """Begin to serve; the services are healthy from now on."""
        self._server.start()
        for name in ("", *(service.name for service in SERVICES)):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new requests, answer those that run within `grace` seconds; the event is set when all has ended."""
        self._health.enter_graceful_shutdown()
        return self._server.stop(grace)


def build_server(
    ingest: Ingest,
    address: str = "127.0.0.1:4317",
    *,
    message_bytes: int = MESSAGE_BYTES,
    credentials: grpc.ServerCredentials | None = None,
) -> Receiver:
    """A receiver that has bound its address and has not begun to serve; see Receiver."""
    return Receiver(ingest, address, message_bytes=message_bytes, credentials=credentials)


def _export(ingest: Ingest, service: Service) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """The handler of a signal: bytes in, bytes out (gRPC passes both through where no serialiser is given)."""

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            outcome = ingest.submit(service.signal, body)
        except RefusedError as refused:
            _refuse(refused, context)
        return service.answer(outcome).SerializeToString()

    return export


def _refuse(refused: RefusedError, context: grpc.ServicerContext) -> NoReturn:
    if refused.retry_after is not None:
        whole = int(refused.retry_after)
        delay = Duration(seconds=whole, nanos=int((refused.retry_after - whole) * 1e9))
        info = RetryInfo(retry_delay=delay)
        status = Status(code=refused.code.value[0], message=refused.message)
        status.details.add().Pack(info)
        context.set_trailing_metadata(
            ((RETRY_INFO, info.SerializeToString()), (STATUS_DETAILS, status.SerializeToString()))
        )
    context.abort(refused.code, refused.message)
    raise AssertionError("abort raises")
