"""Who may connect, and what we show where we connect: TLS and tokens, from files that are read again on change."""

from __future__ import annotations

import hmac
import logging
import re
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Generic, NoReturn, TypeVar

from otel_mlmon_processor.reasons import Refusal

_LOG: Final = logging.getLogger(__name__)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
CHALLENGE: Final = 'Bearer realm="otel-mlmon"'  # what WWW-Authenticate says
# Why a client is refused.
NO_TOKEN: Final = "no_token"  # noqa: S105 -- a reason, no password
WRONG_TOKEN: Final = "wrong_token"  # noqa: S105 -- as above
NO_CERTIFICATE: Final = "no_certificate"
HANDSHAKE: Final = "handshake"
CONNECTIONS: Final = "connections"

T = TypeVar("T")


class Watched(Generic[T]):
    """What is in files. Read again when one has changed; while they cannot be used, what was read last stays.

    Raises:
        ValueError: they cannot be used at the start.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self._paths, self._read = paths, read
        self._lock = threading.Lock()
        self._seen = self._look()  # before reading, so that what changes meanwhile is read again
        self._value = read()

    def get(self) -> T:
        """What is in them now."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                names = ", ".join(map(str, self._paths))
                try:
                    self._value = self._read()
                    _LOG.info("read again, as it has changed: %s", names)
                except ValueError as error:
                    _LOG.warning("%s has changed and cannot be used, what was read before stays: %s", names, error)
            return self._value

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
            except OSError:
                found.append(None)
        return found


class Tokens:
    """Bearer tokens from a file: one a line, empty lines and `# comments` left out.

    Raises:
        ValueError: the file cannot be read, holds none, or a line is no token.
    """

    def __init__(self, path: Path) -> None:
        self._digests = Watched((path,), lambda: [_digest(token) for token in read_tokens(path)])

    def refuse(self, header: str | bytes | None) -> Refusal | None:
        """Why a request with this Authorization header is refused; None where it is let in."""
        text = header.decode(errors="replace") if isinstance(header, bytes) else header or ""
        scheme, _, token = text.strip().partition(" ")
        if scheme.lower() != "bearer" or not token:
            return NO_TOKEN
        presented = _digest(token.strip())
        # All of them, by digest, so that time tells neither how much of a token is right nor of which.
        right = [hmac.compare_digest(presented, digest) for digest in self._digests.get()]
        return None if any(right) else WRONG_TOKEN


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()


def read_tokens(path: Path) -> list[str]:
    """Tokens of a file.

    Raises:
        ValueError: it cannot be read, holds none, or a line is no token; the message never holds a token.
    """
    text = _read(path).decode(errors="replace")
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    tokens = [(number, token) for number, token in lines if token]
    if not tokens:
        raise ValueError(f"{path} holds no token; put one on a line of its own")
    for number, token in tokens:
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"{path}, line {number}: a token is made of letters, digits and -._~+/, with = at the end")
    return [token for _, token in tokens]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows and whom it trusts, in PEM, and contexts made of it.

    Args:
        certificate, key, client_ca: contents of the files.
        required: a client must show a certificate where there is a client_ca.
        optional: a certificate is checked where a client shows one.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    required: ssl.SSLContext
    optional: ssl.SSLContext


class Tls:
    """TLS of the listeners, from files in PEM.

    Args:
        certificate: of the server, with those between it and its authority.
        key: its private key.
        client_ca: authorities; clients must have a certificate of one of them.

    Raises:
        ValueError: a file cannot be used, or the key does not fit the certificate.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = certificate, key, client_ca
        self.mutual = client_ca is not None
        self._identity = Watched([certificate, key, *([client_ca] if client_ca else [])], self._make)

    def identity(self) -> Identity:
        """The present one."""
        return self._identity.get()

    def context(self, *, required: bool, failed: Callable[[], None]) -> ssl.SSLContext:
        """For a server; each connection has the present identity.

        Args:
            required: whether clients must show a certificate where there is a client_ca, or only may.
            failed: called after each handshake that failed.
        """

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = choose(self.identity())

        def choose(identity: Identity) -> ssl.SSLContext:
            return identity.required if required else identity.optional

        context = self._make_context(ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL)
        context.sni_callback = renew  # called for each handshake, with a name or without
        context.sslobject_class = _reporting(failed)
        return context

    def _make(self) -> Identity:
        required, optional = self._make_context(ssl.CERT_REQUIRED), self._make_context(ssl.CERT_OPTIONAL)
        certificate, key, client_ca = self._files
        return Identity(_read(certificate), _read(key), _read(client_ca) if client_ca else None, required, optional)

    def _make_context(self, mode: ssl.VerifyMode) -> ssl.SSLContext:
        certificate, key, client_ca = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Nobody comes back by a ticket past a client_ca that has changed.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        _show(context, certificate, key)
        if client_ca is not None:
            _trust(context, "client_ca", client_ca)
            context.verify_mode = mode
        return context


def make_client_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """What checks an endpoint, and shows our certificate where there is one.

    Args:
        ca: who signed the endpoint's certificate; None: the system's authorities.
        certificate: ours, for mTLS.
        key: its private key.

    Raises:
        ValueError: a file cannot be used, or the key does not fit the certificate.
    """
    if ca is not None:
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "ca", ca)  # only for an error that names it
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None and key is not None:
        _show(context, certificate, key)
    return context


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "certificate", certificate)  # only to see whether it is one

    def refuse_password() -> NoReturn:  # else OpenSSL asks at the terminal
        raise ValueError(f"key {key} has a password; give it without, readable for the processor alone")

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"key {key} does not fit certificate {certificate}") from None
        raise ValueError(f"key {key} is no private key in PEM") from None
    except OSError as error:
        raise ValueError(f"key {key} cannot be read: {error.strerror}") from None


def _trust(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{name} {path} is no certificate in PEM") from None
    except OSError as error:
        raise ValueError(f"{name} {path} cannot be read: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _reporting(failed: Callable[[], None]) -> type[ssl.SSLObject]:
    """A connection that says when its handshake fails; asyncio tells nobody."""

    class Reporting(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                failed()
                raise

    return Reporting
