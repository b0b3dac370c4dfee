"""Sends OTLP requests as bytes, over gRPC and over HTTP: what is exported and what is forwarded.

The exporters of the SDK take the SDK's types, not bytes, and read OTEL_EXPORTER_OTLP_* where a setting is absent or
empty. These read no environment variable, proxies' neither.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import grpc
import urllib3
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otel_mlmon_processor.config import EndpointSection
from otel_mlmon_processor.security import Watched, read_tokens
from otel_mlmon_processor.services import SERVICES, Service

AGENT: Final = f"otel-mlmon/{version('otel-mlmon')}"
# Which failures may pass, by the specification: https://opentelemetry.io/docs/specs/otlp/#failures; and beyond it those
# that say more of us than of the request: a token is renewed, and what waited for it is not lost.
PASSING_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
PASSING_STATUS: Final = frozenset({401, 403, 429, 502, 503, 504})
_ANSWER: Final = 64 * 1024  # bytes of an answer that are read
_SAID: Final = 300  # characters of it that are shown
_SERVICES: Final[Mapping[str, Service]] = {service.signal: service for service in SERVICES}


class UnsentError(Exception):
    """A request was not acknowledged.

    Args:
        reason: short and of a bounded number, for counting.
        message: for people.
        passing: whether another attempt may succeed.
        after: seconds to wait before it, where the endpoint said so.
    """

    def __init__(self, reason: str, message: str, *, passing: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.passing, self.after = reason, passing, after


class Acknowledged(NamedTuple):
    """The answer: items that the endpoint did not take, and why."""

    rejected: int
    message: str


class Client(Protocol):
    """A connection to an endpoint; one thread at a time."""

    def send(self, signal: str, body: bytes) -> Acknowledged:
        """Send the bytes of a request of one signal (semconv.MonSignal), once.

        Raises:
            UnsentError: it was not acknowledged.
        """

    def close(self) -> None:
        """End the connection, and a request that runs."""


def connect(settings: EndpointSection) -> Client:
    """A client of an endpoint; connects when something is sent, and anew when a file has changed.

    Raises:
        ValueError: a file cannot be used (by now; they were checked when the settings were read).
    """
    return RenewedClient(settings)


class RenewedClient:
    """The client of an endpoint, made anew when its token or one of its certificates has changed, see Client."""

    def __init__(self, settings: EndpointSection) -> None:
        files = [*settings.tls.files(), *([settings.token] if settings.token else [])]
        self._newest = Watched(files, lambda: _make(settings))
        self._used = self._newest.get()

    def send(self, signal: str, body: bytes) -> Acknowledged:
        """See Client."""
        newest = self._newest.get()
        if newest is not self._used:
            self._used.close()
            self._used = newest
        return newest.send(signal, body)

    def close(self) -> None:
        """See Client."""
        self._used.close()


def _make(settings: EndpointSection) -> Client:
    """With what is in the files now.

    Raises:
        ValueError: one of them cannot be used.
    """
    try:
        return HttpClient(settings) if settings.protocol == "http" else GrpcClient(settings)
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None


def _list_headers(settings: EndpointSection) -> dict[str, str]:
    token = {"authorization": f"Bearer {read_tokens(settings.token)[0]}"} if settings.token else {}
    return {**settings.headers, **token}


class GrpcClient:
    """OTLP over gRPC, see Client."""

    def __init__(self, settings: EndpointSection) -> None:
        url, tls = urlsplit(settings.endpoint), settings.tls
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.primary_user_agent", AGENT),
            ("grpc.max_reconnect_backoff_ms", 10_000),  # two minutes by default
        ]
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        if url.scheme == "http":
            self._channel = grpc.insecure_channel(url.netloc, options, compression)
        else:
            if tls.files():
                tls.make_context()  # gRPC says nothing of files that it cannot use
            held = [path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)]
            self._channel = grpc.secure_channel(url.netloc, grpc.ssl_channel_credentials(*held), options, compression)
        self._timeout = settings.timeout
        self._metadata = tuple((name.lower(), value) for name, value in _list_headers(settings).items())
        self._methods = {  # bytes in, bytes out: gRPC passes both through where no serialiser is given
            service.signal: self._channel.unary_unary(f"/{service.name}/Export", None, None) for service in SERVICES
        }

    def send(self, signal: str, body: bytes) -> Acknowledged:
        """See Client."""
        try:
            answer = self._methods[signal](body, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _explain(error) from None
        except ValueError as error:  # the channel is closed
            raise UnsentError("closed", str(error), passing=True) from None
        return _read_answer(_SERVICES[signal], answer)

    def close(self) -> None:
        """See Client."""
        self._channel.close()


def _explain(error: Any) -> UnsentError:
    code: grpc.StatusCode = error.code()
    after = None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            after = _read_delay(value)
    passing = code in PASSING_CODES or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None)
    message = f"{code.name}: {str(error.details())[:_SAID]}"
    return UnsentError(code.name.lower(), message, passing=passing, after=after)


def _read_delay(details: bytes) -> float | None:
    """What RetryInfo in the details of a status asks for."""
    try:
        for detail in Status.FromString(details).details:
            info = RetryInfo()
            if detail.Unpack(info):
                return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        pass
    return None


class HttpClient:
    """OTLP over HTTP in protobuf, see Client."""

    def __init__(self, settings: EndpointSection) -> None:
        options: dict[str, Any] = {}
        if settings.endpoint.startswith("https:"):
            options["ssl_context"] = settings.tls.make_context()
        timeout = urllib3.Timeout(connect=settings.timeout, read=settings.timeout)
        self._pool = urllib3.PoolManager(maxsize=1, retries=False, timeout=timeout, **options)
        self._endpoint, self._gzip = settings.endpoint.rstrip("/"), settings.compression == "gzip"
        self._headers = {"user-agent": AGENT, **_list_headers(settings), "content-type": "application/x-protobuf"}
        if self._gzip:
            self._headers["content-encoding"] = "gzip"

    def send(self, signal: str, body: bytes) -> Acknowledged:
        """See Client."""
        service = _SERVICES[signal]
        packed = gzip.compress(body, 6, mtime=0) if self._gzip else body
        try:
            response = self._pool.request(
                "POST", self._endpoint + service.path, body=packed, headers=self._headers, preload_content=False
            )
            try:
                answer = response.read(_ANSWER)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # which is a timeout to urllib3
            late = isinstance(error, urllib3.exceptions.TimeoutError) and not refused
            raise UnsentError("timeout" if late else "unreachable", str(error)[:_SAID], passing=True) from None
        if not 200 <= response.status < 300:
            raise UnsentError(
                f"http_{response.status}",
                f"{response.status} {response.reason}: {_read_error(answer)}",
                passing=response.status in PASSING_STATUS,
                after=_read_seconds(response.headers.get("retry-after", "")),
            )
        return _read_answer(service, answer)

    def close(self) -> None:
        """See Client."""
        self._pool.clear()


def _read_error(answer: bytes) -> str:
    """The message of a Status, else the text that it is."""
    try:
        message: str = Status.FromString(answer).message
    except DecodeError:
        message = ""
    return (message or answer.decode(errors="replace").strip())[:_SAID]


def _read_seconds(header: str) -> float | None:
    return float(header) if header.isascii() and header.isdigit() else None


def _read_answer(service: Service, answer: bytes) -> Acknowledged:
    """What an accepted request's answer says; one that is no answer of OTLP says nothing."""
    try:
        partial = service.response.FromString(answer).partial_success
    except DecodeError:
        return Acknowledged(0, "")
    return Acknowledged(getattr(partial, service.rejected), partial.error_message[:_SAID])
