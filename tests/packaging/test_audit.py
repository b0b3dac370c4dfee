"""The audit of dependencies that is part of `make check`, by the real pip-audit, over a service of our own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("pip_audit")
AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"


def audit(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, AUDIT, "--services", "osv", "--osv-url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def service():
    """Answers as osv.dev does; the vulnerabilities by package are to be filled in."""
    known: dict[str, list[object]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"vulns": known.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}", known
    server.shutdown()
    server.server_close()


def test_a_known_vulnerability_fails_and_is_named(service):
    url, known = service
    affected = [
        {
            "package": {"name": "pyyaml", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99.0"}]}],
        }
    ]
    known["pyyaml"] = [{"id": "PYSEC-0000-1", "summary": "s", "details": "d", "affected": affected}]
    done = audit(url)
    assert done.returncode == 1, done
    assert re.search(r"pyyaml \S+: PYSEC-0000-1, mended in 99\.0", done.stderr)


def test_where_nothing_is_known_all_are_audited(service):
    done = audit(service[0])
    assert done.returncode == 0, done
    number = re.fullmatch(r"dependencies: (\d+) audited for known vulnerabilities, 0 skipped\n", done.stdout)
    assert int(number[1]) > 30
    assert done.stderr == ""


def test_a_service_that_is_not_there_is_said_loudly_and_does_not_fail():
    done = audit("http://127.0.0.1:1")
    assert done.returncode == 0
    assert re.match(r"dependencies: 0 audited for known vulnerabilities, \d+ skipped\n", done.stdout)
    assert "WARNING: NOTHING WAS AUDITED" in done.stderr
    assert "WARNING: NOT AUDITED" in done.stderr
    assert "grpcio" in done.stderr
