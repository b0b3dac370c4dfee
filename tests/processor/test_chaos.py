"""A processor that is killed at all stages of its life while clients send; `make chaos` does it for long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.endurance
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.server
@pytest.mark.timeout(400)
def test_killed_forty_times_it_holds_each_acknowledged_request_once(tmp_path):
    """The script compares after each kill, and fails where anything differs."""
    command = [sys.executable, SCRIPT, "--kills", "40", "--seed", "3", "--json", tmp_path / "chaos.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=350)
    assert done.returncode == 0, done.stderr[-5000:]
    result = json.loads((tmp_path / "chaos.json").read_text())
    assert result["kills"] == 40
    assert result["comparisons of all counts of a client"] >= 4 * 35
    assert result["requests"]["acknowledged"] > 40
    assert len(result["ways"]) == 13
    aims = [way.removeprefix("when in ") for way in result["ways"] if way.startswith("when in ")]
    assert len(aims) == 10
    assert all(result["stages"][stage] for stage in ("start", *aims)), result["stages"]
    assert result["passed on"]["acknowledged, and arrived"] > 5
    assert "**none differed**" in (tmp_path / "chaos.md").read_text()
