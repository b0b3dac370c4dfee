"""The HTTP side: /metrics, /healthz, /readyz, for GET only."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def make_application(registry: CollectorRegistry, is_ready: Callable[[], bool]) -> Starlette:
    """The pages.

    Args:
        registry: what /metrics shows.
        is_ready: whether what was acknowledged before has been recovered and the receiver listens.
    """

    def show_metrics(request: Request) -> Response:  # runs on a thread of the pool
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    async def show_health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_readiness(_: Request) -> Response:
        ready = is_ready()
        return PlainTextResponse("ready\n" if ready else "starting\n", status_code=200 if ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/healthz", show_health, methods=["GET"]),
            Route("/readyz", show_readiness, methods=["GET"]),
        ]
    )


class HttpServer:
    """Serves an application on a thread of its own.

    Args:
        application: what to serve.
        address: host:port; port 0 takes a free one, see `port`.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, application: Starlette, address: str) -> None:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host.strip("[]"), int(port)))
            self._socket.listen()  # now, as two sockets may be bound to one port until one of them listens
        except OSError as error:
            self._socket.close()
            raise OSError(f"cannot listen on {address} for HTTP: {error.strerror or error}") from None
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=5, limit_concurrency=64
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
