"""The wheel, built once, and fresh environments to install it in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Environment:
    """A virtual environment with nothing but what is asked for."""

    def __init__(self, folder: Path, *requirements) -> None:
        self.bin = folder / "bin"
        run(UV, "venv", "--quiet", "--python", sys.executable, folder)
        run(UV, "pip", "install", "--quiet", "--python", self.bin / "python", *requirements)

    def python(self, code: str, *arguments, **options) -> str:
        return run(self.bin / "python", "-I", "-W", "error", "-c", code, *arguments, **options)

    def distributions(self) -> set[str]:
        listed = run(UV, "pip", "list", "--format", "freeze", "--python", self.bin / "python")
        return {line.partition("==")[0] for line in listed.splitlines()}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def bare(wheel, tmp_path_factory) -> Environment:
    """As `pip install otel-mlmon` leaves it."""
    return Environment(tmp_path_factory.mktemp("bare") / "venv", wheel)


@pytest.fixture(scope="session")
def auto(wheel, tmp_path_factory) -> Environment:
    """With what `opentelemetry-instrument` needs."""
    return Environment(tmp_path_factory.mktemp("auto") / "venv", f"otel-mlmon[auto] @ {wheel.as_uri()}")


@pytest.fixture(scope="session")
def oldest(wheel, tmp_path_factory) -> Environment:
    """The oldest SDK and numpy that are supported."""
    pins = [f"opentelemetry-{part}==1.39.0" for part in ("api", "sdk", "exporter-otlp")]
    numpy = "numpy==1.26.*" if sys.version_info < (3, 13) else "numpy==2.1.*"  # the first with wheels for this Python
    return Environment(tmp_path_factory.mktemp("oldest") / "venv", wheel, numpy, *pins)
