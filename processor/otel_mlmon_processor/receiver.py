"""The gRPC side: OTLP services for metrics, traces and logs, and gRPC health.

The handlers get the bytes of a request as they came: they are journaled unchanged and parsed once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from otel_mlmon_processor.ingest import Ingest, RefusedError
from otel_mlmon_processor.intake import name_client
from otel_mlmon_processor.security import Identity, Tls, Tokens
from otel_mlmon_processor.services import MESSAGE_BYTES, SERVICES, Service

RETRY_INFO: Final = "google.rpc.retryinfo-bin"  # the trailer that the Python SDK obeys
CONNECTION_AGE: Final = 3_600_000  # ms
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SIGNALS: Final = {service.name: service.signal for service in SERVICES}
STATUS_DETAILS: Final = "grpc-status-details-bin"  # the one that the Collector obeys


class Receiver:
    """The gRPC server over an Ingest.

    Args:
        ingest: takes the requests.
        address: host:port; port 0 takes a free one, see `port`.
        message_bytes: largest request, unpacked.
        tls: of the server; None for plain text.
        tokens: one of which a request must have; None lets all in.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        ingest: Ingest,
        address: str = "127.0.0.1:4317",
        *,
        message_bytes: int = MESSAGE_BYTES,
        tls: Tls | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        # More threads than requests may wait, so that there is always one to say that there are too many.
        pool = ThreadPoolExecutor(ingest.settings.pending + 16, thread_name_prefix="mlmon-otlp")
        options = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.so_reuseport", 0),  # a second processor on this port must fail, not share it
            # What a connection sends beyond is held back by its client, and not kept here until a thread is free.
            ("grpc.max_concurrent_streams", max(ingest.settings.pending // 2, 1)),
        ]
        if tls is not None and tls.mutual:
            # Within this time nobody is connected by a certificate that would be refused by now.
            options.append(("grpc.max_connection_age_ms", CONNECTION_AGE))
        gates = () if tokens is None else (_Gate(ingest, tokens),)
        self._server = grpc.server(pool, options=options, interceptors=gates)  # type: ignore[arg-type]  # any sequence
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in SERVICES:
            handlers = {"Export": grpc.unary_unary_rpc_method_handler(_export(ingest, service))}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _make_credentials(tls))
        except RuntimeError as error:
            # gRPC says no more in the exception than that it failed.
            raise OSError(
                f"cannot listen on {address} for OTLP: it is in use (does another processor or a collector "
                "run?), or no address of this machine; --listen gives another"
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
    tls: Tls | None = None,
    tokens: Tokens | None = None,
) -> Receiver:
    """A receiver that has bound its address and has not begun to serve; see Receiver."""
    return Receiver(ingest, address, message_bytes=message_bytes, tls=tls, tokens=tokens)


def _make_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials that follow the files; gRPC asks at each new connection."""
    shown = tls.identity()

    def renew() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        identity = tls.identity()
        if identity is shown:
            return None
        shown = identity
        return _configure(identity)

    # None of `renew`: no change; the stubs do not know.
    return grpc.dynamic_ssl_server_credentials(_configure(shown), renew, tls.mutual)  # type: ignore[arg-type]


def _configure(identity: Identity) -> grpc.ServerCertificateConfiguration:
    pair = (identity.key, identity.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=identity.client_ca)


_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class _Gate(grpc.ServerInterceptor):  # type: ignore[type-arg]  # which it has in the stubs alone
    """Lets in who has a token; health is open to all."""

    def __init__(self, ingest: Ingest, tokens: Tokens) -> None:
        self._ingest, self._tokens = ingest, tokens

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], _Handler | None], details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        service = details.method.lstrip("/").partition("/")[0]
        if service == HEALTH:
            return continuation(details)
        header = next((value for name, value in details.invocation_metadata if name == "authorization"), None)
        reason = self._tokens.refuse(header)
        if reason is None:
            return continuation(details)
        self._ingest.count_refused(_SIGNALS.get(service, ""), reason)
        # A handler of a stream, as it is called before a message is read.
        return grpc.stream_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
        )


def _export(ingest: Ingest, service: Service) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """The handler of a signal: bytes in, bytes out (gRPC passes both through where no serialiser is given)."""

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            outcome = ingest.submit(service.signal, body, _read_peer(context.peer()))
        except RefusedError as refused:
            _refuse(refused, context)
        return service.answer(outcome).SerializeToString()

    return export


def _read_peer(peer: str) -> str:
    """The client of gRPC's "ipv4:10.0.0.7:4242" or "ipv6:%5B::1%5D:4242"."""
    host, _, port = peer.partition(":")[2].rpartition(":")
    return name_client(host.removeprefix("%5B").removesuffix("%5D"), port)


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
