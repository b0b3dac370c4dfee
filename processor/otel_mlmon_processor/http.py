"""The HTTP side: /metrics, /healthz, /readyz, and / which names them, for GET only."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from otel_mlmon_processor.exporters.prometheus import CONTENT_TYPE
from otel_mlmon_processor.security import CHALLENGE

PATIENCE = 30.0  # s for a request to come whole, and for its answer to be taken
CONNECTIONS = 64  # at once; then a client that has fewer than another takes the place of one of the other's
_FULL = b"all connections are taken; come again\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\n%s" % (len(_FULL), _FULL)
)
_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger
CERTIFIED = "certified"  # in the state of a request: whether the client has shown a certificate


def make_application(
    expose: Callable[[], Generator[str]],
    is_ready: Callable[[], bool],
    refuse: Callable[[str | None, bool], str | None] = lambda _header, _certified: None,
) -> Starlette:
    """The pages; all but /metrics are open to all.

    Args:
        expose: what /metrics shows, in blocks, each made when the one before has been taken.
        is_ready: whether what was acknowledged before has been recovered and the receiver listens.
        refuse: why /metrics is refused, given the Authorization header and whether there was a certificate.
    """

    def show_metrics(request: Request) -> Response:  # runs on a thread of the pool
        reason = refuse(request.headers.get("authorization"), getattr(request.state, CERTIFIED, False))
        if reason is not None:
            return PlainTextResponse(f"{reason}\n", status_code=401, headers={"www-authenticate": CHALLENGE})
        return _Blocks(expose())

    async def show_index(_: Request) -> Response:
        return PlainTextResponse("otel-mlmon processor: /metrics, /healthz, /readyz; as tables: otel-mlmon status\n")

    async def show_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_readiness(_: Request) -> Response:
        ready = is_ready()
        return PlainTextResponse("ready\n" if ready else "starting\n", status_code=200 if ready else 503)

    return make_starlette(
        [
            Route("/", show_index, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/healthz", show_health, methods=["GET"]),
            Route("/readyz", show_readiness, methods=["GET"]),
        ]
    )


class _Blocks(StreamingResponse):
    """Text that is made as it is taken; what makes it is closed when the client goes, not when garbage is collected."""

    def __init__(self, blocks: Generator[str]) -> None:
        self._blocks = blocks
        first = next(blocks, "")  # before the status is sent
        super().__init__(chain([first], blocks), headers={"content-type": CONTENT_TYPE})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._blocks.close()


def make_starlette(routes: Sequence[Route]) -> Starlette:
    """These paths and no other: a slash at the end is no redirection to a host that the client names."""
    application = Starlette(routes=list(routes))
    application.router.redirect_slashes = False
    return application


class _Connection(H11Protocol):
    """Uvicorn's own, which also tells the application whether the client has shown a certificate, and has a deadline.

    A request must have come whole, and then its answer must have been taken, within PATIENCE each. Without that a few
    clients that send or read a byte now and then (slowloris) would take all connections.

    When all are taken, the client with the most of them gives one up to a client that has fewer: an idle one, else that
    whose request has been awaited longest. A client with the most gives up an idle one of its own, or is refused.
    Behind one address all are one client.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        closed: Callable[[], None],
    ) -> None:
        self._state = dict(app_state)
        self._closed = closed  # called for each connection that is refused or given up for want of room
        self.since = time.monotonic()  # when it began to wait for what it waits for
        self.place = ""  # where the client is
        self._deadline: asyncio.TimerHandle | None = None
        super().__init__(config, server_state, self._state, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as Uvicorn has it
        self._state[CERTIFIED] = bool(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        self.place = _find_place(self.client[0]) if self.client is not None else ""
        self._wait(self._await_request)
        if len(self.connections) > CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():  # TLS gives what came before the end
            super().data_received(data)

    def on_response_complete(self) -> None:
        self._wait(self._await_request)
        super().on_response_complete()

    def _wait(self, then: Callable[[], None] | None) -> None:
        self.since = time.monotonic()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(PATIENCE, then) if then is not None else None

    def _make_room(self) -> None:
        """Close one connection, of whom has most."""
        self._closed()
        others = [one for one in self.connections if isinstance(one, _Connection) and one is not self]
        held = Counter(one.place for one in others)
        ((place, most),) = held.most_common(1)
        own = held[self.place] + 1
        if most > own:
            victims = [one for one in others if one.place == place]
        else:
            victims = [one for one in others if one.place == self.place and one.is_idle()]
        if victims:
            victims.sort(key=lambda one: (not one.is_idle(), one.is_whole(), one.since))
            victims[0].leave()
        else:
            self.leave(_REFUSAL)

    def leave(self, answer: bytes = b"") -> None:
        """End it, after this answer to whatever it asks."""
        self.connections.discard(self)  # at once: others come before the loop says that it is lost
        if answer:
            self.transport.write(answer)
            self.transport.close()
        else:
            self._abort()

    def _abort(self) -> None:
        """End it, with all that waits for the client: the system would keep megabytes of it for minutes."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def is_idle(self) -> bool:
        """Whether it has had its answer and asks for nothing."""
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.IDLE

    def is_whole(self) -> bool:
        """Whether a request has come whole, and its answer is being made or taken."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _await_request(self) -> None:
        if self.is_whole():
            self._wait(self._abort)
        else:
            self._abort()


def _find_place(host: str) -> str:
    """The address, or of version 6 the network, of which one client may have all addresses."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((address, 64), strict=False))


class HttpServer:
    """Serves an application on a thread of its own.

    Args:
        application: what to serve.
        address: host:port; port 0 takes a free one, see `port`.
        context: of TLS; None for plain text.
        closed: called for each connection that is refused or given up for want of room.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        application: Starlette,
        address: str,
        context: ssl.SSLContext | None = None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host.strip("[]"), int(port)))
            self._socket.listen()  # now, as two sockets may be bound to one port until one of them listens
        except OSError as error:
            self._socket.close()
            raise OSError(
                f"cannot listen on {address} for HTTP: {error.strerror or error}; does another processor run? Another "
                "address is given by --http (metrics) and --listen-http (OTLP)"
            ) from None
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            application,
            http=partial(_Connection, closed=closed),  # type: ignore[arg-type]  # whatever makes one
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=5,
            limit_concurrency=2 * CONNECTIONS,  # requests that run, also of those who have hung up
            ssl_context_factory=(lambda *_: context) if context else None,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="mlmon-http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Answer what runs, then end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._socket.close()
