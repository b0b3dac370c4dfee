"""The pages, by a real uvicorn on a port of the system's choice."""

from __future__ import annotations

import socket
import threading

import httpx
import pytest
from otel_mlmon_processor.http import HttpServer, make_application
from prometheus_client.parser import text_string_to_metric_families as parse_text

# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def ready():
    return threading.Event()


LINES = ["# TYPE given gauge\n", "given 2.5\n"]


def expose():
    yield from LINES


@pytest.fixture
def server(ready):
    server = HttpServer(make_application(expose, ready.is_set), "127.0.0.1:0")
    server.start()
    yield server
    server.stop(10)


@pytest.fixture
def client(server):
    # The socket listens before the thread serves, so the first request waits instead of failing.
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
        yield client


@pytest.mark.parametrize("accept", [PROMETHEUS, "*/*", "text/plain", "text/html,*/*;q=0.8", "", "nonsense"])
def test_metrics_are_text(client, accept):
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    (family,) = parse_text(answer.text)
    assert [(sample.name, sample.value) for sample in family.samples] == [("given", 2.5)]


@pytest.mark.parametrize("before", [0, 1])
def test_what_breaks_is_told_and_the_server_goes_on(before):
    """As a status where nothing has been sent; else the answer ends before its end."""
    broken = threading.Event()

    def show():
        yield from LINES[:before]
        if broken.is_set():
            raise RuntimeError("broken")
        yield from LINES[before:]

    server = HttpServer(make_application(show, lambda: True), "127.0.0.1:0")
    server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/metrics"
        broken.set()
        if before:
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(url, timeout=10)
        else:
            assert httpx.get(url, timeout=10).status_code == 500
        broken.clear()
        assert httpx.get(url, timeout=10).status_code == 200
    finally:
        server.stop(10)


def test_blocks_are_made_as_they_are_taken():
    """Of a page without end only what one has read, and what systems keep on the way; and no more once one has gone."""
    block, made, gone = "#" * 65_535 + "\n", [], threading.Event()

    def show():
        try:
            while True:
                made.append(1)
                yield block
        finally:
            gone.set()

    server = HttpServer(make_application(show, lambda: True), "127.0.0.1:0")
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(64):
                assert client.recv(65_536)
            assert httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=10).status_code == 200
        assert gone.wait(10)
        assert len(made) * len(block) < 32 << 20
    finally:
        server.stop(10)


def test_a_client_that_accepts_gzip_can_read_what_it_gets(client, server):
    assert "given 2.5" in client.get("/metrics", headers={"accept-encoding": "gzip"}).text
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))
    # Nothing is packed, and nothing says it is.
    assert b"given 2.5" in answer
    assert b"content-encoding" not in answer.lower()


def test_alive_at_once_and_ready_when_it_is(client, ready):
    assert (client.get("/").status_code, "/metrics" in client.get("/").text) == (200, True)
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "ok\n")
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, "starting\n")
    ready.set()
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (200, "ready\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(client, method, path):
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/x", "/metrics2", "/metrics/x", "/../etc/passwd", "/docs"])
def test_other_pages_are_not_there(client, path):
    assert client.get(path).status_code == 404


def test_two_servers_on_one_port_are_refused_clearly(server):
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{server.port} for HTTP: .*in use"):
        HttpServer(make_application(expose, lambda: True), f"127.0.0.1:{server.port}")


def test_a_port_is_taken_before_anything_is_served():
    """Two processors that start at once: the second must hear of it from the constructor, not from a thread."""
    application = make_application(expose, lambda: True)
    first = HttpServer(application, "127.0.0.1:0")
    try:
        with pytest.raises(OSError, match="in use"):
            HttpServer(application, f"127.0.0.1:{first.port}")
    finally:
        first.stop(1)


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no.such.host.invalid:0"])
def test_an_address_of_another_machine_is_refused_clearly(address):
    with pytest.raises(OSError, match=f"cannot listen on {address} for HTTP"):
        HttpServer(make_application(expose, lambda: True), address)


def test_version_6_of_ip_is_served():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = HttpServer(make_application(expose, lambda: True), "[::1]:0")
    except OSError:
        pytest.skip("this machine has no IPv6")
    server.start()
    try:
        assert httpx.get(f"http://[::1]:{server.port}/readyz", timeout=10).status_code == 200
    finally:
        server.stop(10)


def test_stopping_ends_the_thread_and_frees_the_port():
    server = HttpServer(make_application(expose, lambda: True), "127.0.0.1:0")
    server.start()
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz", timeout=10).status_code == 200
    server.stop(10)
    assert not server._thread.is_alive()
    HttpServer(make_application(expose, lambda: True), f"127.0.0.1:{server.port}").stop(1)
