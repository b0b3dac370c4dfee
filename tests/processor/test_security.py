"""Who may connect: a whole processor in this process, and clients with and without what they need."""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.request

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from otel_mlmon_processor import receiver
from otel_mlmon_processor.app import Processor
from otel_mlmon_processor.config import ConfigError, read_config
from otel_mlmon_processor.http import CONNECTIONS, _find_place
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.otlp_http import PROTOBUF
from otel_mlmon_processor.security import CHALLENGE, Tokens

from otel_mlmon import Monitor, Profile
from otel_mlmon.cli import main

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
TOKEN = "correct-horse_battery.staple~+/=="  # every kind of character that a token may have
PATHS = ("grpc", "otlp_http", "pages")


@pytest.fixture
def authority(real, tmp_path):
    return real.Authority(tmp_path)


@pytest.fixture
def stranger(real, tmp_path):
    """An authority that nobody trusts."""
    return real.Authority(tmp_path, "stranger")


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# of the agents\n\nanother-token\n  {TOKEN}   # of the first rack\n")
    return path


class Client:
    """One client of a processor by each of its three ways in."""

    def __init__(self, processor: Processor, tls: bool) -> None:
        self.processor, self.tls = processor, tls
        self.ports = {
            "grpc": processor._receiver.port,
            "otlp_http": processor._otlp_http.port,
            "pages": processor._http.port,
        }

    def url(self, way: str) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.ports[way]}"

    def ask(self, way: str, *, ca=None, pair=None, token=None, body=b"", page="/metrics"):
        """The status: of gRPC, of HTTP, or why there was no connection."""
        if way == "grpc":
            return self.call(ca=ca, pair=pair, token=token, body=body)[0]
        try:
            answer = self.get(way, ca=ca, pair=pair, token=token, body=body, page=page)
        except httpx.TransportError as error:
            return type(error)
        assert (answer.headers.get("www-authenticate") == CHALLENGE) is (answer.status_code == 401)
        return answer.status_code

    def call(self, *, ca=None, pair=None, token=None, body=b"", method=EXPORT):
        address = f"127.0.0.1:{self.ports['grpc']}"
        with self.channel(address, ca, pair) as channel:
            metadata = [("authorization", f"Bearer {token}")] if token is not None else None
            try:
                answer = channel.unary_unary(method)(body, timeout=10, metadata=metadata)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return grpc.StatusCode.OK, answer

    def channel(self, address, ca=None, pair=None):
        if not self.tls:
            return grpc.insecure_channel(address)
        certificate, key = (path.read_bytes() for path in pair) if pair else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca and ca.read_bytes(), key, certificate))

    def get(self, way: str, *, ca=None, pair=None, token=None, body=b"", page="/metrics"):
        context = ssl.create_default_context(cafile=ca)
        if pair:
            context.load_cert_chain(*pair)
        headers = {"authorization": f"bearer {token}".strip()} if token is not None else {}
        with httpx.Client(verify=context, headers=headers, timeout=10) as client:
            if way == "pages":
                return client.get(self.url(way) + page)
            return client.post(self.url(way) + "/v1/metrics", content=body, headers={"content-type": PROTOBUF})

    @property
    def refused(self):
        return self.processor._counters().refused


@pytest.fixture
def serve(tmp_path):
    """Starts processors on ports of the system's choice; each is stopped at the end."""
    started = []

    def start(**settings) -> Client:
        flags = dict.fromkeys(("listen", "listen_http", "http"), "127.0.0.1:0")
        processor = Processor(read_config(None, **flags, data=tmp_path / f"data{len(started)}", **settings))
        started.append(processor)
        processor.start()
        return Client(processor, "tls" in settings)

    yield start
    for processor in started:
        processor.stop()


def as_settings(authority, *, mutual=False, name="processor"):
    certificate, key = authority.issue(name)
    return {"certificate": certificate, "key": key, **({"client_ca": authority.ca} if mutual else {})}


NO_CONNECTION = {"grpc": grpc.StatusCode.UNAVAILABLE, "otlp_http": httpx.TransportError, "pages": httpx.TransportError}
LET_IN = {"grpc": grpc.StatusCode.OK, "otlp_http": 200, "pages": 200}
REFUSED = {"grpc": grpc.StatusCode.UNAUTHENTICATED, "otlp_http": 401, "pages": 401}
SIGNAL = {"grpc": "metrics", "otlp_http": "metrics", "pages": ""}


def is_lost(status, way: str) -> bool:
    return status is NO_CONNECTION[way] or (
        way != "grpc" and isinstance(status, type) and issubclass(status, httpx.TransportError)
    )


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("way", PATHS)
def test_who_has_a_token_is_let_in_and_nobody_else_and_it_is_counted(serve, tokens, way):
    client = serve(tokens=tokens)
    assert client.ask(way, token=TOKEN) == LET_IN[way]
    assert client.ask(way, token="another-token") == LET_IN[way]
    assert client.refused == {}
    for token in ("wrong", TOKEN[:-1], TOKEN + "=", "# of the agents", "another-token another-token"):
        assert client.ask(way, token=token) == REFUSED[way]
    assert client.refused == {(SIGNAL[way], "wrong_token"): 5}
    for token in (None, ""):
        assert client.ask(way, token=token) == REFUSED[way]
    assert client.refused[SIGNAL[way], "no_token"] == 2


@pytest.mark.parametrize("scheme", ["Basic", "Bearerx", "", "Token"])
def test_another_scheme_is_no_token(tokens, scheme):
    assert Tokens(tokens).refuse(f"{scheme} {TOKEN}") == "no_token"
    assert Tokens(tokens).refuse(f" BEARER  {TOKEN} ".encode()) is None
    assert Tokens(tokens).refuse("Bearer \xe9\u2014") == "wrong_token"


def test_a_token_is_compared_in_the_same_way_whether_it_is_right_and_wherever_it_stands(tmp_path, monkeypatch):
    """Time tells neither which token is meant nor how much of it is right, nor how long those in the file are."""
    path, known = tmp_path / "tokens", ["a" * 16, "b" * 32, "c" * 64]
    path.write_text("\n".join(known))
    tokens, compare, seen = Tokens(path), hmac.compare_digest, []

    def count(left, right):
        seen.append((len(left), len(right)))
        return compare(left, right)

    monkeypatch.setattr("otel_mlmon_processor.security.hmac.compare_digest", count)
    calls = []
    for token in (known[0], known[-1], "a" * 15, "wrong"):
        reason = tokens.refuse(f"Bearer {token}")
        assert reason == (None if token in known else "wrong_token")
        calls.append([*seen])
        seen.clear()
    assert calls == [[(32, 32)] * 3] * 4


def test_health_is_open_and_says_no_more_than_that(serve, tokens, authority):
    client = serve(tokens=tokens, tls=as_settings(authority, mutual=True))
    said = {page: client.get("pages", ca=authority.ca, page=page) for page in ("/", "/healthz", "/readyz")}
    assert {page: (answer.status_code, answer.text) for page, answer in said.items()} == {
        "/": (200, "otel-mlmon processor: /metrics, /healthz, /readyz; as tables: otel-mlmon status\n"),
        "/healthz": (200, "ok\n"),
        "/readyz": (200, "ready\n"),
    }
    pair = authority.issue("probe")
    with client.channel(f"127.0.0.1:{client.ports['grpc']}", authority.ca, pair) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_is_not_there_is_refused_too_where_there_is_no_token(serve, tokens):
    client = serve(tokens=tokens)
    for method in ("/no.Such/Export", "/x", "/grpc.health.v1.Health2/Check"):
        assert client.call(method=method)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert client.call(method=method, token=TOKEN)[0] is grpc.StatusCode.UNIMPLEMENTED
    assert client.refused == {("", "no_token"): 3}


@pytest.mark.parametrize("way", ["grpc", "otlp_http"])
def test_the_body_of_a_request_without_a_token_is_not_taken_in(serve, tokens, otlp, way):
    """A request that would be too large is refused for its token, before anybody has read it."""
    client = serve(tokens=tokens)
    sender = otlp.Sender()
    small = sender.request(sender.count(3, 0, 1))
    assert client.ask(way, token="wrong", body=small) == REFUSED[way]
    assert client.ask(way, token="wrong", body=bytes(40_000_000)) == REFUSED[way]
    assert client.refused == {("metrics", "wrong_token"): 2}
    assert not [*client.processor._ingest.views()]
    assert client.ask(way, token=TOKEN, body=small) == LET_IN[way]
    assert [view.totals[otlp.X].seen for view in client.processor._ingest.views()] == [3]


@pytest.mark.parametrize("way", PATHS)
def test_tokens_that_are_replaced_count_at_once(serve, tokens, caplog, way):
    caplog.set_level(logging.INFO)
    client = serve(tokens=tokens)
    assert client.ask(way, token="next") == REFUSED[way]
    tokens.write_text("next\n")
    assert client.ask(way, token="next") == LET_IN[way]
    assert client.ask(way, token=TOKEN) == REFUSED[way]
    replacement = tokens.with_name("replacement")  # as Kubernetes and careful people do
    replacement.write_text("last\n")
    replacement.replace(tokens)
    assert client.ask(way, token="last") == LET_IN[way]
    assert client.ask(way, token="next") == REFUSED[way]
    assert "next" not in caplog.text
    assert "last" not in caplog.text


@pytest.mark.parametrize("text", ["", "# nothing\n", "two words\n", None])
def test_a_token_file_that_breaks_leaves_things_as_they_were_and_is_logged_once(serve, tokens, caplog, text):
    client = serve(tokens=tokens)
    tokens.unlink() if text is None else tokens.write_text(text)
    for _ in range(3):
        assert client.ask("otlp_http", token=TOKEN) == 200
        assert client.ask("otlp_http", token="wrong") == 401
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert str(tokens) in said[0]
    assert said[1].startswith("refused: wrong_token;")
    tokens.write_text("mended\n")
    assert client.ask("otlp_http", token="mended") == 200
    assert client.ask("otlp_http", token=TOKEN) == 401


# ---------------------------------------------------------------- neighbours on the machine


def test_by_default_nobody_on_another_machine_can_connect():
    config = read_config(None)
    assert all(address.startswith("127.0.0.1:") for address in (config.listen, config.listen_http, config.http))


def test_the_data_directory_is_made_for_its_owner_alone(serve):
    client = serve()
    data = client.processor._config.data
    assert data.stat().st_mode & 0o777 == 0o700
    data.chmod(0o750)  # as somebody may want it
    client.processor.stop()
    Ingest(data).close()
    assert data.stat().st_mode & 0o777 == 0o750


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("way", PATHS)
def test_tls_is_for_those_who_trust_the_authority(serve, authority, stranger, way):
    client = serve(tls=as_settings(authority))
    assert client.ask(way, ca=authority.ca) == LET_IN[way]
    assert is_lost(client.ask(way, ca=stranger.ca), way)
    client.tls = False
    assert is_lost(client.ask(way), way)  # plain text


@pytest.mark.parametrize("way", PATHS)
def test_mutual_tls_lets_in_clients_of_the_authority_and_nobody_else(serve, authority, stranger, way):
    client = serve(tls=as_settings(authority, mutual=True))
    assert client.ask(way, ca=authority.ca, pair=authority.issue("client")) == LET_IN[way]
    assert client.refused == {}
    assert is_lost(client.ask(way, ca=authority.ca, pair=stranger.issue("client")), way)
    assert client.refused == ({} if way == "grpc" else {("", "handshake"): 1})  # gRPC tells nobody
    if way == "pages":  # where /healthz answers without
        assert client.ask(way, ca=authority.ca) == 401
        assert client.refused["", "no_certificate"] == 1
    else:
        assert is_lost(client.ask(way, ca=authority.ca), way)
        assert client.refused == ({} if way == "grpc" else {("", "handshake"): 2})


@pytest.mark.parametrize("way", PATHS)
def test_certificate_and_token_are_both_needed_where_both_are_set(serve, authority, tokens, way):
    client = serve(tls=as_settings(authority, mutual=True), tokens=tokens)
    pair = authority.issue("client")
    assert client.ask(way, ca=authority.ca, pair=pair, token=TOKEN) == LET_IN[way]
    assert client.ask(way, ca=authority.ca, pair=pair) == REFUSED[way]
    without = client.ask(way, ca=authority.ca, token=TOKEN)
    assert without == 401 if way == "pages" else is_lost(without, way)


@pytest.mark.parametrize("way", PATHS)
def test_certificate_key_and_authority_that_are_replaced_count_for_the_next_connection(serve, authority, stranger, way):
    client = serve(tls=as_settings(authority, mutual=True))
    ours, theirs = authority.issue("client"), stranger.issue("client")
    assert client.ask(way, ca=authority.ca, pair=ours) == LET_IN[way]
    files = client.processor._config.tls
    old = authority.ca.with_name("old.pem")
    shutil.copy(authority.ca, old)
    certificate, key = stranger.issue("processor")
    for new, path in ((certificate, files.certificate), (key, files.key), (stranger.ca, files.client_ca)):
        shutil.copy(new, path)
    assert client.ask(way, ca=stranger.ca, pair=theirs) == LET_IN[way]
    assert is_lost(client.ask(way, ca=old, pair=ours), way)  # another server by now
    assert is_lost(client.ask(way, ca=stranger.ca, pair=ours), way)  # another client


def test_a_connection_over_grpc_does_not_outlive_its_certificates_authority_for_long(
    serve, authority, stranger, monkeypatch, wait
):
    monkeypatch.setattr(receiver, "CONNECTION_AGE", 500)  # ms
    client = serve(tls=as_settings(authority, mutual=True))
    address = f"127.0.0.1:{client.ports['grpc']}"

    def call(channel):
        try:
            channel.unary_unary(EXPORT)(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with client.channel(address, authority.ca, authority.issue("client")) as channel:
        assert call(channel) is grpc.StatusCode.OK
        old = shutil.copy(authority.ca, authority.ca.with_name("old.pem"))
        shutil.copy(stranger.ca, client.processor._config.tls.client_ca)
        wait(lambda: call(channel) is grpc.StatusCode.UNAVAILABLE, "the connection to end")
    assert client.ask("grpc", ca=old, pair=stranger.issue("client")) is grpc.StatusCode.OK


@pytest.mark.parametrize("way", PATHS)
def test_a_certificate_without_its_key_leaves_things_as_they_were_until_the_key_is_there(
    serve, authority, stranger, caplog, way
):
    client = serve(tls=as_settings(authority))
    files = client.processor._config.tls
    certificate, key = stranger.issue("processor")
    shutil.copy(certificate, files.certificate)
    for _ in range(2):
        assert client.ask(way, ca=authority.ca) == LET_IN[way]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert re.search("key .* does not fit certificate", warning.getMessage())
    shutil.copy(key, files.key)
    assert client.ask(way, ca=stranger.ca) == LET_IN[way]
    assert is_lost(client.ask(way, ca=authority.ca), way)


def test_a_client_that_hangs_up_in_the_handshake_harms_nobody(serve, authority):
    client = serve(tls=as_settings(authority))
    for way in PATHS:
        for said in (b"", b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", client.ports[way]), timeout=10) as raw:
                raw.sendall(said)
        assert client.ask(way, ca=authority.ca) == LET_IN[way]


@pytest.mark.parametrize("way", ["otlp_http", "pages"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_of_tls_that_are_served(serve, authority, way, version):
    client = serve(tls=as_settings(authority, mutual=True))
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*authority.issue("client"))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", client.ports[way]), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 404")
        assert secure.version() == version.name.replace("_", ".")
        assert not secure.session.has_ticket  # to come back with, past a client_ca that has changed


# ---------------------------------------------------------------- who sends


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_monitor_takes_what_it_needs_from_the_standard_variables(serve, real, tokens, monkeypatch, protocol):
    authority = real.Authority(tokens.parent)
    client = serve(tls=as_settings(authority, mutual=True), tokens=tokens)
    certificate, key = authority.issue("model")
    way = "grpc" if protocol == "grpc" else "otlp_http"
    for name, value in {
        "PROTOCOL": protocol,
        "ENDPOINT": client.url(way),
        "CERTIFICATE": authority.ca,
        "CLIENT_CERTIFICATE": certificate,
        "CLIENT_KEY": key,
        "HEADERS": f"authorization=Bearer%20{TOKEN.replace('=', '%3D')}",
    }.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(value))
    # Which `requests` would rather trust.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(real.Authority(tokens.parent, "stranger").ca))
    profile = Profile.build({"x": [1.0, 2.0, 3.0, 4.0] * 10}, model="m", version="1")
    monitor = Monitor(profile)
    monitor.observe({"x": [1.0, 2.5]})
    assert monitor.flush()
    monitor.close()
    ((key, (sent,)),) = client.processor._ingest.profiles().items()
    assert (key.model, sent.hash) == ("m", profile.hash)
    assert client.refused == {}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20wrong")
    outdated = Monitor(profile)
    outdated.observe({"x": [1.0]})
    assert not outdated.flush()  # and whoever asks is told
    outdated.close()
    assert client.refused["metrics", "wrong_token"] > 0
    assert client.refused["logs", "wrong_token"] > 0
    assert [counts.seen for view in client.processor._ingest.views() for counts in view.totals.values()] == [2]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_sends_on_takes_up_other_certificates_and_tokens_without_a_restart(  # noqa: PLR0917 -- fixtures
    serve, authority, stranger, tokens, otlp, wait, protocol
):
    """Of both ends, one after the other: until ours are replaced too, nothing arrives and nothing is lost."""
    far = serve(tls=as_settings(authority, mutual=True), tokens=tokens)
    certificate, key = authority.issue("sender")
    ca, token = certificate.with_name("sender-ca.pem"), certificate.with_name("sender-token")
    shutil.copy(authority.ca, ca)
    token.write_text(TOKEN)
    files = {"tls": {"ca": ca, "certificate": certificate, "key": key}, "token": token}
    endpoint = {"endpoint": far.url("grpc" if protocol == "grpc" else "otlp_http"), "protocol": protocol, **files}
    near = serve(export=[{**endpoint, "interval": 0.1}], forward=endpoint)
    counters = [near.processor._exporters[0].counters, near.processor._forwarder.counters]
    sender = otlp.Sender()

    def arrives() -> None:
        before = [sum(one().acknowledged.values()) for one in counters]
        assert near.ask("grpc", body=sender.request(sender.count(1, 0, 1, name="none.of.ours"))) == LET_IN["grpc"]
        wait(
            lambda: all(sum(one().acknowledged.values()) > n for one, n in zip(counters, before, strict=True)),
            lambda: [one().failed for one in counters],
        )

    def fails() -> None:
        before = [sum(one().failed.values()) for one in counters]
        assert near.ask("grpc", body=sender.request(sender.count(1, 0, 1, name="none.of.ours"))) == LET_IN["grpc"]
        wait(lambda: all(sum(one().failed.values()) > n for one, n in zip(counters, before, strict=True)), "failures")

    arrives()
    tokens.write_text("next\n")
    fails()
    token.write_text("next\n")
    arrives()
    theirs, theirs_key = stranger.issue("processor")
    listener = far.processor._config.tls
    for new, path in ((theirs, listener.certificate), (theirs_key, listener.key), (stranger.ca, listener.client_ca)):
        shutil.copy(new, path)
    shutil.copy(stranger.ca, ca)  # connects anew, with a certificate that is not accepted any more
    fails()
    for new, path in zip(stranger.issue("sender"), (certificate, key), strict=True):
        shutil.copy(new, path)
    arrives()
    assert counters[1]().dropped == {}
    wait(lambda: counters[1]().pending == 0, "the last")


def test_status_asks_with_a_certificate_and_a_token(serve, authority, stranger, tokens, capsys):
    client = serve(tls=as_settings(authority, mutual=True), tokens=tokens)
    certificate, key = authority.issue("engineer")

    def status(*flags, ca=authority.ca):
        done = main(["status", "--url", client.url("pages") + "/metrics", "--ca", str(ca), *map(str, flags)])
        return done, "".join(capsys.readouterr())

    shown = ("--certificate", certificate, "--key", key)
    done, said = status("--token", tokens, *shown)
    assert (done, said) == (0, "no model has sent anything yet\n")
    done, said = status(*shown)
    assert done == 2
    assert "refuses (401 no_token)" in said
    assert "--token" in said
    assert status("--token", tokens)[0] == 2
    assert "CERTIFICATE_VERIFY_FAILED" in status("--token", tokens, *shown, ca=stranger.ca)[1]
    assert "name the authority of its certificate with --ca" in status("--token", tokens, *shown, ca=stranger.ca)[1]
    assert f"--ca: {tokens} holds no certificate in PEM" in status("--token", tokens, ca=tokens)[1]
    plain = client.url("pages").replace("https", "http") + "/metrics"
    assert main(["status", "--url", plain]) == 2
    assert "use https://" in capsys.readouterr().err
    assert "holds no token" in status("--token", "/dev/null", *shown)[1]


def test_status_without_ca_says_that_it_wants_one(serve, authority, capsys):
    client = serve(tls=as_settings(authority))
    assert main(["status", "--url", client.url("pages") + "/metrics"]) == 2
    assert "name the authority of its certificate with --ca" in capsys.readouterr().err


def test_status_asks_over_tls_where_there_is_none(serve, capsys):
    client = serve()
    url = client.url("pages").replace("http", "https") + "/metrics"
    assert main(["status", "--url", url]) == 2
    assert "if it is without TLS, use http://" in capsys.readouterr().err


def test_it_says_where_it_listens_and_that_it_is_https(serve, authority, caplog):
    caplog.set_level(logging.INFO)
    client = serve(tls=as_settings(authority))
    assert f"https://127.0.0.1:{client.ports['pages']}/metrics" in caplog.text


def test_a_scrape_shows_who_was_refused(serve, tokens):
    client = serve(tokens=tokens)
    client.ask("grpc")
    client.ask("otlp_http", token="wrong")
    client.ask("pages")
    request = urllib.request.Request(client.url("pages") + "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    text = urllib.request.urlopen(request, timeout=10).read().decode()
    for line in (
        'mlmon_processor_refused_total{mlmon_signal="metrics",mlmon_reason="no_token"} 1.0',
        'mlmon_processor_refused_total{mlmon_signal="metrics",mlmon_reason="wrong_token"} 1.0',
        'mlmon_processor_refused_total{mlmon_signal="",mlmon_reason="no_token"} 1.0',
    ):
        assert line in text


# ---------------------------------------------------------------- connections over HTTP


@pytest.fixture
def connect():
    """Opens connections to a port of this machine; what is open at the end is closed."""
    opened = []

    def open_one(port: int, source: str, said: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
        opened.append(connection)
        connection.sendall(said)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


SLOW = {
    "silent": b"",
    "headers": b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\n",
    "body": b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n1",
}
PAGE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def count_closed(client: Client) -> int:
    return client.refused.get(("", "connections"), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 are addresses of this machine on Linux alone")
@pytest.mark.parametrize("said", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("way", ["otlp_http", "pages"])
def test_who_takes_all_connections_keeps_nobody_else_out(serve, connect, wait, way, said):
    client = serve()
    held = [connect(client.ports[way], "127.0.0.2", said) for _ in range(CONNECTIONS + 36)]
    wait(lambda: count_closed(client) == 36, "those beyond to be refused")
    for _ in range(3):
        began = time.monotonic()
        assert client.ask(way) == 200
        assert time.monotonic() - began < 2.0
        with contextlib.suppress(ConnectionError):  # refused before it has said anything
            connect(client.ports[way], "127.0.0.2", said)  # it comes back at once, and takes what is free
    assert count_closed(client) >= 37
    answers = [connection.recv(12) for connection in held[CONNECTIONS:]]
    assert set(answers) <= {b"HTTP/1.1 503"}


def test_who_has_all_connections_gives_up_an_idle_one_of_its_own_for_a_new_one(serve, connect, wait):
    client = serve()
    port = client.ports["pages"]
    first, *others = [connect(port, "127.0.0.1", PAGE) for _ in range(CONNECTIONS)]
    for connection in (first, *others):
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert connect(port, "127.0.0.1", PAGE).recv(12) == b"HTTP/1.1 200"
    assert count_closed(client) == 1
    assert is_closed(first)  # idle for longest


def is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_of_many_addresses_of_one_network_is_one(host, place):
    assert _find_place(host) == place


# ---------------------------------------------------------------- settings


def make_files(real, folder) -> dict[str, str]:
    """Files by the names that stand for them below."""
    ours, theirs = real.Authority(folder), real.Authority(folder, "other")
    certificate, key = ours.issue()
    (folder / "tokens").write_text("one\n")
    (folder / "empty").write_text("# none yet\n")
    (folder / "spaces").write_text("good\nnot so good\n")
    locked = folder / "locked.key"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, secret))
    paths = {
        "CERT": certificate,
        "KEY": key,
        "CA": ours.ca,
        "OTHER": theirs.issue()[1],
        "TOKENS": folder / "tokens",
        "EMPTY": folder / "empty",
        "SPACES": folder / "spaces",
        "LOCKED": locked,
        "NONE": folder / "none",
        "FOLDER": folder,
    }
    return {name: str(path) for name, path in paths.items()}


WRONG = {
    "no certificate": ("tls: {key: KEY}", ["tls.certificate", "required"]),
    "no key": ("tls: {certificate: CERT}", ["tls.key", "required"]),
    "certificate is not there": ("tls: {certificate: NONE, key: KEY}", ["tls: certificate NONE cannot be read"]),
    "key is not there": ("tls: {certificate: CERT, key: NONE}", ["tls: key NONE cannot be read"]),
    "authority is not there": ("tls: {certificate: CERT, key: KEY, client_ca: NONE}", ["client_ca NONE cannot be"]),
    "key of another": ("tls: {certificate: CERT, key: OTHER}", ["key OTHER does not fit certificate CERT"]),
    "key with a password": ("tls: {certificate: CERT, key: LOCKED}", ["key LOCKED has a password"]),
    "key for certificate": ("tls: {certificate: KEY, key: KEY}", ["certificate KEY is no certificate"]),
    "certificate for key": ("tls: {certificate: CERT, key: CERT}", ["key CERT is no private key"]),
    "authority that is none": ("tls: {certificate: CERT, key: KEY, client_ca: TOKENS}", ["client_ca TOKENS is no"]),
    "certificate is a folder": ("tls: {certificate: FOLDER, key: KEY}", ["certificate FOLDER"]),
    "unknown key": ("tls: {certificate: CERT, key: KEY, ca: CA}", ["tls.ca: no such key", "certificate"]),
    "tokens are not there": ("tokens: NONE", ["tokens: NONE cannot be read"]),
    "tokens are a folder": ("tokens: FOLDER", ["tokens: FOLDER cannot be read"]),
    "no token": ("tokens: EMPTY", ["tokens: EMPTY holds no token"]),
    "no token, by spaces": ("tokens: SPACES", ["tokens: SPACES, line 2: a token is made of"]),
    "token with other signs": ("tokens: CERT", ["tokens: CERT, line 1: a token is made of"]),
    "token to send is not there": (
        "forward: {endpoint: 'http://[::1]:1', token: NONE}",
        ["forward.token: is the path of a file that holds the token, and there is no such file"],
    ),
    "token to send in place of its file": (
        "forward: {endpoint: 'http://[::1]:1', token: not so good}",
        ["forward.token: is the path of a file", "no such file"],
    ),
    "token to send is a folder": (
        "export: [{endpoint: 'http://[::1]:1', token: FOLDER}]",
        ["export.0.token: FOLDER cannot be read"],
    ),
    "no token to send": ("export: [{endpoint: 'http://[::1]:1', token: EMPTY}]", ["token: EMPTY holds no token"]),
    "two tokens to send": (
        "forward: {endpoint: 'http://[::1]:1', token: TOKENS, headers: {Authorization: not so good}}",
        ["forward: authorization is in `headers`, and `token` sends it too"],
    ),
    "our certificate is none": (
        "forward: {endpoint: 'https://[::1]:1', tls: {certificate: TOKENS, key: KEY}}",
        ["forward.tls: certificate TOKENS is no certificate in PEM"],
    ),
    "our key is of another": (
        "forward: {endpoint: 'https://[::1]:1', tls: {certificate: CERT, key: OTHER}}",
        ["forward.tls: key OTHER does not fit certificate CERT"],
    ),
    "our key has a password": (
        "forward: {endpoint: 'https://[::1]:1', tls: {certificate: CERT, key: LOCKED}}",
        ["forward.tls: key LOCKED has a password"],
    ),
    "authority of an endpoint that is none": (
        "forward: {endpoint: 'https://[::1]:1', tls: {ca: KEY}}",
        ["forward.tls: ca KEY is no certificate in PEM"],
    ),
    "address of all, no TLS": ("{listen: '0.0.0.0:1', tokens: TOKENS}", ["listen is 0.0.0.0:1", "in plain text"]),
    "address of all, no credentials": (
        "{listen_http: '0.0.0.0:1', tls: {certificate: CERT, key: KEY}}",
        ["listen_http is 0.0.0.0:1", "without asking who it is", "`tokens`", "`tls.client_ca`"],
    ),
    "address of all, nothing": ("http: 0.0.0.0:1", ["http is 0.0.0.0:1", "plain text", "asking", "insecure: true"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_of_a_setting_names_its_key_and_its_file_and_no_secret(real, tmp_path, case):
    text, named = WRONG[case]
    paths = make_files(real, tmp_path)

    def insert(text: str) -> str:
        return re.sub(r"\b[A-Z]{2,}\b", lambda match: paths.get(match[0], match[0]), text)

    file = tmp_path / "mlmon.yaml"
    file.write_text(insert(text))
    with pytest.raises(ConfigError) as error:
        read_config(file)
    missing = [part for part in map(insert, named) if part not in str(error.value)]
    assert not missing, str(error.value)
    assert "not so good" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("extra", ["tokens: TOKENS", "client_ca", "insecure: true"])
def test_another_address_needs_tls_and_one_kind_of_credentials(real, tmp_path, extra):
    paths = make_files(real, tmp_path)
    mutual = f", client_ca: {paths['CA']}" if extra == "client_ca" else ""
    text = "listen: 0.0.0.0:4317\nhttp: '[::]:9464'\nlisten_http: example.org:1\n"
    if not mutual:
        text += f"{extra.replace('TOKENS', paths['TOKENS'])}\n"
    if extra != "insecure: true":
        text += f"tls: {{certificate: {paths['CERT']}, key: {paths['KEY']}{mutual}}}\n"
    file = tmp_path / "mlmon.yaml"
    file.write_text(text)
    assert read_config(file).listen == "0.0.0.0:4317"
