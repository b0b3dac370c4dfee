"""A disk that is full, a directory that cannot be written, a file that is damaged or another version's: the processor
says so in one line that names the file, and nothing that was acknowledged is lost. docs/operations.md says what to do.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import zlib
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


def check_checkpoint(server, otlp, send, wait, *, fill, free):
    """Fills the disk when the newest request is acknowledged, and in no checkpoint yet."""
    sender, total = otlp.Sender(), 0

    def take():
        nonlocal total
        assert send(server, sender.request(sender.count(1, total, total + 1))) is None
        total += 1

    def pending():
        return server.samples("mlmon_processor_journal_pending")[0][1]

    def failed():
        return "no checkpoint: " in server.log.read_text()

    for _ in range(20):
        take()
        wait(lambda: pending() == 0, "a checkpoint, so that the next is not due at once")
        take()
        fill()
        wait(lambda: failed() or pending() == 0, "a checkpoint that fails, unless one came before the disk was full")
        if failed():
            break
        free()
    says = server.log.read_text().partition("no checkpoint: ")[2].partition("\n")[0]
    assert says.startswith(f"{server.folder / 'data'}/mlmon.db: ")
    assert "full" in says
    assert "what was acknowledged is safe" in says
    assert pending() == 1
    late = sender.request(sender.count(1, total, total + 1))
    assert send(server, late).code() is grpc.StatusCode.UNAVAILABLE
    assert server.feature_counts() == {"x": total}
    free()
    wait(lambda: pending() == 0, "the checkpoint, without another request")
    assert send(server, late) is None
    wait(lambda: server.feature_counts() == {"x": total + 1}, "all of it once")
    return total + 1


SOON = "evaluate: {interval: 100ms}\ncheckpoint: {age: 500ms}\n"


def limit_files(server, size=None):
    """Of the process; None for no limit."""
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def test_a_limit_on_files_is_reached_and_lifted(real, otlp, send, tmp_path, wait):
    """Works for every user: the system refuses the same writes as on a full disk, with another error."""
    server = real.Processor(tmp_path)
    try:
        limit_files(server, 1_000_000)
        total = check_full(server, otlp, send, wait, lambda: limit_files(server))
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert otlp.count_in(tmp_path / "data") == total


def test_a_checkpoint_that_is_larger_than_a_limit_on_files_comes_when_that_is_lifted(real, otlp, send, tmp_path, wait):
    server = real.Processor(tmp_path, settings=SOON)
    try:
        log = server.folder / "data" / "mlmon.db-wal"
        total = check_checkpoint(
            server,
            otlp,
            send,
            wait,
            fill=lambda: limit_files(server, log.stat().st_size),  # not less: what the processor says is in a file, too
            free=lambda: limit_files(server),
        )
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert otlp.count_in(tmp_path / "data") == total


def can_mount() -> bool:
    return not subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode


needs_mount = pytest.mark.skipif(
    not shutil.which("unshare") or not can_mount(), reason="a file system of one's own is not allowed"
)


@pytest.fixture
def mounted(real, tmp_path):
    """Starts a processor whose data are on a file system of 2 MB, half of it taken by the file `other`; gives it, and
    where the process sees them.
    """
    data, script = tmp_path / "data", tmp_path / "processor"
    data.mkdir()
    script.write_text(
        f"#!/bin/sh\nmount -t tmpfs -o size=2m none {data} && head -c 1000000 /dev/zero > {data}/other\n"
        f'exec {real.BIN}/otel-mlmon processor "$@"\n'
    )
    script.chmod(0o755)

    def start(**options):
        server = real.Processor(tmp_path, program=["unshare", "--map-root-user", "--mount", script], **options)
        return server, Path(f"/proc/{server.process.pid}/root{data}")

    return start


@needs_mount
def test_a_full_disk_that_is_given_space_again(mounted, otlp, send, tmp_path, wait):
    server, inside = mounted()
    try:
        total = check_full(server, otlp, send, wait, (inside / "other").unlink)
        kept = shutil.copytree(inside, tmp_path / "kept")
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert otlp.count_in(kept) == total


@needs_mount
def test_a_checkpoint_that_finds_the_disk_full_comes_when_there_is_space_again(mounted, otlp, send, tmp_path, wait):
    server, inside = mounted(settings=SOON)

    def fill():
        with (inside / "other").open("ab", buffering=0) as other, contextlib.suppress(OSError):  # when it is full
            while True:
                other.write(bytes(1024))

    try:
        total = check_checkpoint(server, otlp, send, wait, fill=fill, free=(inside / "other").unlink)
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
        ("UPDATE state SET body = x'00'", "damaged (the checkpoint is not what was written)"),
        (f"UPDATE state SET body = x'00', crc = {zlib.crc32(bytes(1))}", "the checkpoint cannot be read ("),
        ("DELETE FROM state", "the checkpoint cannot be read ("),
        (
            "PRAGMA user_version = 99",
            "written by a newer version (format 99; this one reads up to 8): run that version",
        ),
        (
            "PRAGMA user_version = 1",
            "written by an older version (format 1; this one reads 3 to 8): move the directory away",
        ),
        ("PRAGMA application_id = 1", "this is a database of something else; name another directory"),
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


def test_a_damaged_state_of_the_alarms_is_put_aside_and_the_counts_are_there(real, filled, otlp, tmp_path, wait):
    filled.rename(tmp_path / "data")
    (tmp_path / "data" / "alarms.state").write_bytes(b"broken")
    server = real.Processor(tmp_path)
    try:
        wait(lambda: server.feature_counts() == {"x": 20}, "the counts")
        (line,) = [line for line in server.log.read_text().splitlines() if " ERROR " in line]
    finally:
        server.stop()
    assert "the alarms' state cannot be read (" in line
    assert f"); it is now {tmp_path}/data/alarms.broken, and alarms begin anew" in line
    assert (tmp_path / "data" / "alarms.broken").read_bytes() == b"broken"
    assert server.process.returncode == 0
    assert otlp.count_in(tmp_path / "data") == 20


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
