"""The pipelines of examples/compare/ci: what they run, run as their runners do, on real files."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from otel_mlmon import compare

BIN = Path(sys.executable).parent
CI = Path(__file__).parents[2] / "examples" / "compare" / "ci"
BUILD = "otel-mlmon profile build train.parquet --model churn --version 3 -o train.profile.json"
INSTALL = "pip install 'otel-mlmon[compare]'"
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]


def read(name):
    return yaml.safe_load((CI / name).read_text())


def github_steps():
    return [step["run"] for step in read("github.yml")["jobs"]["compare"]["steps"] if "run" in step]


def gitlab_steps():
    job = read("gitlab.yml")["drift"]
    return ["\n".join(command for command in [*job["before_script"], *job["script"]])]


PIPELINES = {"github.yml": github_steps, "gitlab.yml": gitlab_steps}


@pytest.fixture(params=sorted(PIPELINES))
def pipeline(request):
    return request.param


@pytest.fixture
def repository(flights, tmp_path):
    """A folder with the profile and the script that are the user's own."""
    april = flights[flights.month == 4].drop(columns="month").sample(frac=1, random_state=1)
    half = len(april) // 2
    april[:half].to_parquet(tmp_path / "train.parquet")
    april[half:].to_parquet(tmp_path / "quiet.parquet")
    flights[flights.month == 12].drop(columns="month").to_parquet(tmp_path / "changed.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    script = tmp_path / "fetch_today.sh"
    script.write_text('#!/bin/sh\ncp "$TODAY.parquet" "$1"\n')
    script.chmod(0o755)
    subprocess.run(BUILD, shell=True, cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    return tmp_path


def environment(folder, **more):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary.md"), **more}


def run(name, folder, today):
    """Every step until one fails; nothing but the installation is left out."""
    for step in PIPELINES[name]():
        command = "\n".join(line for line in step.splitlines() if line != INSTALL)
        done = subprocess.run(
            [*BASH, command], cwd=folder, env=environment(folder, TODAY=today), capture_output=True, text=True
        )
        if done.returncode:
            break
    return done


def test_the_comment_says_how_the_profile_is_made(pipeline):
    lines = (line.lstrip("# ") for line in (CI / pipeline).read_text().splitlines() if line.startswith("#"))
    assert BUILD in " ".join(lines)


def test_installs_what_it_needs(pipeline):
    assert any(INSTALL in step.splitlines() for step in PIPELINES[pipeline]())


@pytest.mark.parametrize(("today", "status"), [("quiet", 0), ("changed", 1), ("broken", 2)])
def test_status_and_files(pipeline, repository, today, status):
    done = run(pipeline, repository, today)
    assert done.returncode == status, done.stderr
    page, report = repository / "drift.html", repository / "drift.xml"
    assert page.exists() is report.exists() is (status != 2)
    if status == 2:
        assert done.stderr.startswith("otel-mlmon compare: ")
        return
    said = str(compare(repository / "train.profile.json", repository / f"{today}.parquet"))
    assert said in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    suites = ET.parse(report).getroot()
    assert bool(int(suites.get("failures"))) is bool(status)


def test_github_takes_the_status_of_the_comparison_and_keeps_the_verdict(repository):
    assert read("github.yml")["jobs"]["compare"]["defaults"]["run"]["shell"] == "bash"  # with it comes pipefail
    done = run("github.yml", repository, "changed")
    assert (repository / "summary.md").read_text() == done.stdout


def test_what_is_published_is_what_is_written():
    *_, publish = read("github.yml")["jobs"]["compare"]["steps"]
    assert publish["if"] == "always()"
    assert publish["with"]["path"].split() == ["drift.html", "drift.xml"]
    job = read("gitlab.yml")["drift"]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["paths"] == ["drift.html"]
    assert job["artifacts"]["reports"] == {"junit": "drift.xml"}
    assert job["allow_failure"] == {"exit_codes": 1}
