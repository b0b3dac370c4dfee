"""A disk that is full, a directory that cannot be written, a file that is damaged or another version's: the processor
says so in one line that names the file, and nothing that was acknowledged is lost. docs/operations.md says what to do.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
from pathlib import Path

import grpc
import pytest

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


@pytest.fixture
def send():
    """Sends a request; gives None, or the error."""

    def call(server, body):
        with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
            try:
                channel.unary_unary(EXPORT)(body, timeout=20, wait_for_ready=True)
            except grpc.RpcError as error:
                return error
        return None

    return call


@pytest.fixture
def refuse(real):
    """Starts a processor that must end with 2 and one line, which is given."""

    def start(data, *before):
        ports = [f"--{name}=127.0.0.1:0" for name in ("listen", "listen-http", "http")]
        command = [*before, real.BIN / "otel-mlmon", "processor", "--data", data, *ports]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith("otel-mlmon processor: ")
        return done.stderr

    return start


# ------------------------------------------------------------------ a full disk


def fill_until_refused(server, otlp, send, sizes):
    """Requests of many bytes until one is refused; gives how many were acknowledged, and the one that was not."""
    for number in range(10_000):
        sender = otlp.Sender(extra={"padding": "x" * sizes})
        body = sender.request(sender.count(1, number, number + 1))
        error = send(server, body)
        if error is not None:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "retry" not in error.details()
            assert any(key == "google.rpc.retryinfo-bin" for key, _ in error.trailing_metadata())
            return number, body, error.details()
    raise AssertionError("it was never full")


def check_full(server, otlp, send, wait, free):
    acknowledged, body, says = fill_until_refused(server, otlp, send, 100_000)
    assert acknowledged
    assert f"{server.folder / 'data'}/mlmon.db: " in says
    assert "full" in says
    assert "what was acknowledged is safe" in says
    assert "requests refused: " in server.log.read_text()
    refused = [v for held, v in server.samples("mlmon_processor_refused_total") if held["mlmon_reason"] == "storage"]
    assert refused == [1]
    assert server.feature_counts().get("x", 0) <= acknowledged  # it goes on evaluating and answering
    free()
    assert send(server, body) is None
    assert send(server, body) is None
    wait(lambda: server.feature_counts() == {"x": acknowledged + 1}, "all of it once")
    return acknowledged + 1


def test_a_limit_on_files_is_reached_and_lifted(real, otlp, send, tmp_path, wait):
    """Works for every user: the system refuses the same writes as on a full disk, with another error."""
    server = real.Processor(tmp_path)
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
    try:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
        lift = lambda: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))  # noqa: E731
        total = check_full(server, otlp, send, wait, lift)
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert otlp.count_in(tmp_path / "data") == total


def can_mount() -> bool:
    return not subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode


@pytest.mark.skipif(not shutil.which("unshare") or not can_mount(), reason="a file system of one's own is not allowed")
def test_a_full_disk_that_is_given_space_again(real, otlp, send, tmp_path, wait):
    """A file system of 2 MB, half of it taken by something else, which is removed."""
    data, script = tmp_path / "data", tmp_path / "processor"
    data.mkdir()
    script.write_text(
        f"#!/bin/sh\nmount -t tmpfs -o size=2m none {data} && head -c 1000000 /dev/zero > {data}/other\n"
        f'exec {real.BIN}/otel-mlmon processor "$@"\n'
    )
    script.chmod(0o755)
    server = real.Processor(tmp_path, program=["unshare", "--map-root-user", "--mount", script])
    inside = Path(f"/proc/{server.process.pid}/root{data}")  # as the process sees it
    try:
        total = check_full(server, otlp, send, wait, (inside / "other").unlink)
        kept = shutil.copytree(inside, tmp_path / "kept")
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert otlp.count_in(kept) == total


# ------------------------------------------------------------------ what is found at the start


def test_a_directory_that_cannot_be_written(refuse, filled, otlp):
    """Also as root, who may write everywhere unless that right is dropped."""
    before = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    filled.chmod(0o555)
    (filled / "mlmon.lock").chmod(0o444)
    try:
        said = refuse(filled, *before)
        assert f"{filled}: cannot be used as the data directory: Permission denied" in said
        (filled / "mlmon.lock").chmod(0o644)
        (filled / "mlmon.db").chmod(0o444)
        said = refuse(filled, *before)
        assert f"{filled}/mlmon.db: cannot be written" in said
        assert "check the owner and the mode" in said
    finally:
        filled.chmod(0o755)
        (filled / "mlmon.db").chmod(0o644)
    assert otlp.count_in(filled) == 20


def test_a_damaged_file_is_left_as_it_is(refuse, filled, otlp):
    assert otlp.count_in(filled) == 20
    path = filled / "mlmon.db"  # without a write-ahead log beside it, as its user has closed it
    good = path.read_bytes()
    damaged = b"\xff" * 4096 + good[4096:]
    path.write_bytes(damaged)
    said = refuse(filled)
    assert f"{filled}/mlmon.db: damaged (" in said
    assert "restore a backup, or move the directory away to begin anew" in said
    assert path.read_bytes() == damaged
    path.write_bytes(good)  # as from a backup
    assert otlp.count_in(filled) == 20


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE journal SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE seq = 4", "damaged (entry 4 is not"),
        ("UPDATE checkpoint SET body = x'00'", "the checkpoint cannot be read ("),
        (
            "PRAGMA user_version = 99",
            "written by a newer version (format 99; this one reads up to 6): run that version",
        ),
        (
            "PRAGMA user_version = 1",
            "written by an older version (format 1; this one reads 3 to 6): move the directory away",
        ),
    ],
)
def test_what_this_version_cannot_trust_or_read_is_refused_by_name(refuse, filled, statement, says):
    database = sqlite3.connect(filled / "mlmon.db")
    database.execute(statement)
    database.commit()
    database.close()
    before = (filled / "mlmon.db").read_bytes()
    said = refuse(filled)
    assert f"{filled}/mlmon.db: " in said
    assert says in said
    assert (filled / "mlmon.db").read_bytes() == before


def test_two_processors_on_one_directory(real, refuse, otlp, send, tmp_path):
    server = real.Processor(tmp_path)
    try:
        said = refuse(tmp_path / "data")
        assert f"{tmp_path}/data: another processor (process {server.process.pid}) uses this directory; stop it" in said
        sender = otlp.Sender()
        assert send(server, sender.request(sender.count(4, 0, 1))) is None
    finally:
        server.stop()
    assert otlp.count_in(tmp_path / "data") == 4
