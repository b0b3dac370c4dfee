"""Environments of their own for those who are compared, so that no pin of one holds another back."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"


def make_environment(name: str, requirements: Sequence[str]) -> Path:
    """A virtual environment with these packages, made once; the path of its Python.

    Paths of the tree itself are installed anew each time.

    Raises:
        subprocess.CalledProcessError: a package cannot be had.
    """
    stamp = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:8]
    folder = FOLDER / f"{name}-{stamp}"
    python = folder / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    own = [requirement for requirement in requirements if requirement.startswith(str(ROOT))]
    done = folder / ".done"
    if not done.exists():
        print(f"making an environment for {name} ...", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        others = [requirement for requirement in requirements if requirement not in own]
        if others:
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *others], check=True)
    if own:
        command = [uv, "pip", "install", "--quiet", "--python", python, "--reinstall-package", "otel-mlmon", *own]
        subprocess.run(command, check=True)
    done.touch()
    return python
