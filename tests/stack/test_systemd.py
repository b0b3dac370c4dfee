"""The unit of the processor, before systemd itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "collector-config" / "systemd" / "otel-mlmon-processor.service"
MOST_EXPOSED = 15  # of 100, by systemd's own reckoning; a service without any setting has 96


@pytest.fixture(scope="module")
def systemd():
    program = shutil.which("systemd-analyze")
    if program is None and not os.environ.get("CI"):
        pytest.skip("systemd-analyze is not here")
    assert program, "systemd-analyze is needed: apt install systemd"
    return lambda *arguments: subprocess.run(
        [program, "--no-pager", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def unit(real, tmp_path):
    """The unit with this environment's program and a folder for its state."""
    path = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/otel-mlmon/bin", str(real.BIN)).replace("/etc/otel-mlmon", str(tmp_path))
    path.write_text(text.replace("--data /var/lib/otel-mlmon", f"--data {tmp_path}/state"))
    return path


def test_systemd_has_nothing_to_say(systemd, unit):
    done = systemd("verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_hardened(systemd, unit):
    done = systemd("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_commands_run(real, unit):
    commands = dict(line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith("Exec"))
    port = real.free_port()
    settings = {"listen": real.free_port(), "listen_http": real.free_port(), "http": port}
    lines = [f"{name}: 127.0.0.1:{number}\n" for name, number in settings.items()]
    (unit.parent / "mlmon.yaml").write_text("".join(lines))
    check = subprocess.run(commands["ExecStartPre"].split(), capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout) == (0, "the settings are right\n"), check.stderr
    server = real.Server(commands["ExecStart"].split(), port, "/readyz", unit.parent / "log")
    server.stop()
    assert server.process.returncode == 0
    assert (unit.parent / "state").is_dir()
