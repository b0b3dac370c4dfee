"""OTLP over HTTP, protobuf and JSON, plain or gzip: the same requests as over gRPC, taken in the same way.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from otel_mlmon_processor.http import CONNECTIONS, make_starlette
from otel_mlmon_processor.ingest import Ingest, RefusedError
from otel_mlmon_processor.intake import Outcome, name_client
from otel_mlmon_processor.messages import MOST_MESSAGES
from otel_mlmon_processor.reasons import Refusal
from otel_mlmon_processor.security import CHALLENGE, Tokens
from otel_mlmon_processor.services import MESSAGE_BYTES, SERVICES, Service

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
JSON_BYTES: Final = 4 * 1024 * 1024  # largest request in JSON, which takes the more memory the less it says
JSON_MESSAGES: Final = MOST_MESSAGES // 4  # lists and objects in it: one in ten bytes too
GZIP: Final = 31  # window bits that ask zlib for gzip's header
_HEX: Final = ("traceId", "spanId", "parentSpanId")  # which OTLP writes in hex, protobuf's JSON in base64
# Those that a client may try again are 429 and 503, by the specification.
_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


class _BadRequestError(Exception):
    """A request that can never succeed, with the HTTP status and the reason for counting."""

    def __init__(self, code: int, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class _Room:
    """Bytes for bodies that are being received, of all connections; one is taken in alone however large it is.
    `unpacking` is held by who unpacks one.

    Args:
        size: bytes. Each connection has an equal share of as much again for itself, so that small requests get in while
            large ones take all of it.
    """

    def __init__(self, size: int) -> None:
        self._size, self.share = size, size // CONNECTIONS
        self._taken = 0
        self.unpacking = threading.Lock()

    def take(self, held: int, wanted: int) -> bool:
        """Whether a body that holds so many bytes of it may hold so many; then it does."""
        others = self._taken - held
        if wanted > held and others and others + wanted > self._size:
            return False
        self._taken = others + wanted
        return True


def make_otlp_application(
    ingest: Ingest, *, message_bytes: int = MESSAGE_BYTES, tokens: Tokens | None = None
) -> Starlette:
    """POST on /v1/metrics, /v1/logs and /v1/traces.

    Args:
        ingest: takes the requests.
        message_bytes: largest request, packed and unpacked; of JSON JSON_BYTES at most.
        tokens: one of which a request must have; None lets all in.
    """
    room = _Room(ingest.settings.pending_bytes)
    return make_starlette(
        [
            Route(service.path, _export(ingest, service, message_bytes, tokens, room), methods=["POST"])
            for service in SERVICES
        ]
    )


def _export(
    ingest: Ingest, service: Service, most: int, tokens: Tokens | None, room: _Room
) -> Callable[[Request], Awaitable[Response]]:
    def take_in(packed: bytes, kind: str, encoding: str, client: str) -> Outcome:
        with room.unpacking:  # one at a time, as it takes memory; what comes of it is let in at once, or refused
            body = _unpack(packed, encoding, _limit(kind, most))
            if kind == JSON:
                body = _from_json(service.request, body)
        return ingest.submit(service.signal, body, client)

    async def export(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        reason = tokens.refuse(request.headers.get("authorization")) if tokens else None
        if reason is not None:
            ingest.count_refused(service.signal, reason)
            code = grpc.StatusCode.UNAUTHENTICATED
            response = _respond(Status(code=code.value[0], message=reason), kind, _CODES[code])
            response.headers["www-authenticate"] = CHALLENGE
            return response
        try:
            if kind not in (PROTOBUF, JSON):
                raise _BadRequestError(415, "content_type", f"content-type must be {PROTOBUF} or {JSON}, got {kind!r}")
            client = name_client(*request.client) if request.client is not None else ""
            async with _reading(request, _limit(kind, most), room, ingest, service.signal) as packed:
                encoding = request.headers.get("content-encoding", "")
                outcome = await run_in_threadpool(take_in, packed, kind, encoding, client)
        except _BadRequestError as bad:
            ingest.count_refused(service.signal, bad.reason)
            return _respond(Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=str(bad)), kind, bad.code)
        except RefusedError as refused:
            status = Status(code=refused.code.value[0], message=refused.message)
            response = _respond(status, kind, _CODES.get(refused.code, 500))
            if refused.retry_after is not None:
                response.headers["retry-after"] = str(math.ceil(refused.retry_after))
            return response
        return _respond(service.answer(outcome), kind, 200)

    return export


def _limit(kind: str, most: int) -> int:
    return min(most, JSON_BYTES) if kind == JSON else most


@contextlib.asynccontextmanager
async def _reading(request: Request, most: int, room: _Room, ingest: Ingest, signal: str) -> AsyncIterator[bytes]:
    """The body, which has its place in the room until it has been taken in."""
    parts, size, held = [], 0, 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                raise _too_large(most)
            wanted = max(size - room.share, 0)
            if not room.take(held, wanted):
                ingest.count_refused(signal, "overload")
                message, again = "too many large requests are being received; come again", ingest.settings.retry_after
                raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "overload", message, again)
            held = wanted
        body = b"".join(parts)
        parts.clear()
        yield body
    except ClientDisconnect:
        raise _BadRequestError(400, "incomplete", "the request ended early") from None
    finally:
        room.take(held, 0)


def _unpack(body: bytes, encoding: str, most: int) -> bytes:
    """Without its content-encoding; never more than `most` bytes are made of it."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise _BadRequestError(415, "content_encoding", f"content-encoding must be gzip or none, got {encoding!r}")
    unpacked = b""
    try:
        while body:  # gzip members may follow each other
            stream = zlib.decompressobj(GZIP)
            unpacked += stream.decompress(body, most + 1 - len(unpacked))
            if len(unpacked) > most:
                raise _too_large(most)
            if not stream.eof:
                raise zlib.error("incomplete")
            body = stream.unused_data
    except zlib.error as error:
        raise _BadRequestError(400, "not_gzip", f"the body is no gzip: {error}") from None
    return unpacked


def _too_large(most: int) -> _BadRequestError:
    return _BadRequestError(413, "too_large", f"a request may have at most {most} bytes, unpacked too")


def _from_json(message: type[Message], body: bytes) -> bytes:
    """The protobuf form of a request in OTLP's JSON."""
    if body.count(b"{") + body.count(b"[") > JSON_MESSAGES:  # those in texts too: there are not that many
        raise _BadRequestError(400, "too_many_messages", f"a request may hold {JSON_MESSAGES} lists and objects")
    try:
        document = json.loads(body)
        _read_ids(document)
        return json_format.ParseDict(document, message(), ignore_unknown_fields=True).SerializeToString()
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError) as error:
        raise _BadRequestError(400, "not_json", f"the body is no OTLP in JSON: {error}"[:300]) from None


def _read_ids(document: Any) -> None:
    """Turn ids from hex to base64, in place."""
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for name in _HEX:
                if isinstance(node.get(name), str):
                    node[name] = base64.b64encode(binascii.unhexlify(node[name])).decode()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _respond(message: Message, kind: str, code: int) -> Response:
    """In the form of the request."""
    if kind == JSON:
        return Response(json_format.MessageToJson(message, indent=None), code, media_type=JSON)
    return Response(message.SerializeToString(), code, media_type=PROTOBUF)
