"""The command as a user meets it."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from otel_mlmon import cli
from otel_mlmon.profile import Profile


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = 2_000
    return {
        "distance": rng.lognormal(6, 1, n),
        "carrier": rng.choice(["UA", "AA", "DL"], n, p=[0.6, 0.3, 0.1]),
        "stops": rng.integers(0, 3, n),
        "empty": [None] * n,
        "late": rng.random(n),
        "label": rng.choice(["late", "on time"], n),
    }


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
    """A working folder with a.parquet and b.csv, which differ in distance."""
    pa.parquet.write_table(pa.table(data), tmp_path / "a.parquet")
    pd.DataFrame({**data, "distance": np.asarray(data["distance"]) * 1.6}).to_csv(tmp_path / "b.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def build(name, output, *more):
    return run("profile", "build", name, "--model", "flights", "--version", 3, "-o", output, "--quiet", *more)


# ---------------------------------------------------------------- the frame


def test_help_lists_the_commands_and_imports_none_of_them():
    script = (
        "import sys; from otel_mlmon.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'pyarrow', 'rich', 'numpy', 'pandas', 'opentelemetry', 'grpc', 'pydantic'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name, text in cli.SUMMARIES.items():
        assert f"{name} " in done.stdout
        assert text in done.stdout


def test_the_version_is_the_distributions(capsys):
    with pytest.raises(SystemExit) as end:
        run("--version")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"otel-mlmon {version('otel-mlmon')}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["profile"], ["profile", "nonsense"], ["profile", "build"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert "usage: otel-mlmon" in capsys.readouterr().err


def test_every_command_says_in_help_what_the_list_says():
    for entry in cli.entry_points(group=cli.GROUP):
        assert entry.load().help == cli.SUMMARIES[entry.name]


def install(monkeypatch, name, module):
    monkeypatch.setattr(cli, "entry_points", lambda group: [EntryPoint(name, module, group)])


def test_a_missing_extra_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "needs_it.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, "processor", "needs_it:COMMAND")
    assert run("processor") == 2
    message = "otel-mlmon processor: needs a_package_that_is_not_there, which is not installed: "
    assert capsys.readouterr().err == f"{message}pip install 'otel-mlmon[processor]'\n"


def test_building_without_the_extra_names_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert build("a.parquet", "a.json") == 2
    assert "pip install 'otel-mlmon[profile]'" in capsys.readouterr().err


def test_the_script_runs_as_a_process(folder):
    script = [str(Path(sys.executable).with_name("otel-mlmon")), "profile"]
    command = [*script, "build", "a.parquet", "--model", "flights", "--prediction", "late"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    profile = Profile.load("flights.profile.json")
    assert done.stdout == f"flights.profile.json: 2,000 rows, 5 features, 1 outputs, hash {profile.hash}\n"
    assert done.stderr == ""
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.endswith(", replaced\n")
    failed = subprocess.run([*script, "show", "b.csv"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("otel-mlmon profile: b.csv: not a profile: not JSON")
    assert failed.stderr.count("\n") == 1
    # A reader that has enough is no error.
    piped = subprocess.run(
        f"{' '.join(script)} show flights.profile.json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stderr == ""


# ---------------------------------------------------------------- build


def test_build_takes_types_predictions_and_columns(folder, capsys):
    more = [
        "--types",
        "stops=numeric",
        "--prediction",
        "score=late",
        "--prediction",
        "class=label",
        "--exclude",
        "empty",
    ]
    assert build("a.parquet", "a.json", *more) == 0
    profile = Profile.load("a.json")
    assert (profile.model, profile.version, profile.rows) == ("flights", "3", 2_000)
    found = [(r.variable.role, r.variable.name) for r in profile.references]
    features = [("feature", "distance"), ("feature", "carrier"), ("feature", "stops")]
    assert found == [*features, ("score", "score"), ("class", "class")]
    assert profile.references[2].histogram.sum > 0
    assert build("a.parquet", "b.json", "--columns", "stops", "distance") == 0
    assert [r.variable.name for r in Profile.load("b.json").references] == ["stops", "distance"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.parquet"], "no such data file or folder: no.parquet"),
        (["a.parquet", "--types", "stops"], "--types must be COLUMN=TYPE with one of numeric, "),
        (["a.parquet", "--types", "stops=number"], "got 'stops=number'"),
        (["a.parquet", "--types", "nope=numeric"], "types: no column 'nope' in the data"),
        (["a.parquet", "--prediction", "nope"], "no column 'nope' in the data"),
        (["a.parquet", "--prediction", "late", "--prediction", "label"], "several --prediction need each its own role"),
        (["a.parquet", "--time-column", "late", "--timezone", "Mars/Base"], "Mars/Base"),
        (["a.parquet", "--plan", "a.parquet"], "a.parquet: not a profile"),
        (["a.parquet", "-o", "no/where.json"], "no such folder: no"),
        (["a.parquet", "--trained", "soon"], "ISO 8601"),
        (["a.parquet", "--categories", "0"], "categories"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(folder, arguments, message, capsys):
    assert run("profile", "build", *arguments, "--model", "flights", "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("otel-mlmon profile: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not list(folder.glob("*.json"))


COMMAND = Path(sys.executable).with_name("otel-mlmon")
WITH_FILES = {
    "build": ("profile", "build", "FILE", "--model", "m", "--output", "o.json"),
    "show": ("profile", "show", "FILE"),
    "merge": ("profile", "merge", "-o", "m.json", "FILE", "FILE"),
    "diff": ("profile", "diff", "FILE", "FILE"),
    "compare": ("compare", "FILE", "FILE"),
    "compare profile": ("compare", "FILE.json", "a.parquet"),
    "config": ("processor", "--check", "--config", "FILE"),
    "profiles": ("processor", "--check", "--profiles", "FILE"),
    "token": ("status", "--token", "FILE"),
    "ca": ("status", "--ca", "FILE"),
    "certificate": ("status", "--certificate", "FILE", "--key", "FILE"),
    "store": ("store", "check", "FILE"),
    "reference": ("reference", "show", "FILE"),
}
RIGHT = {("config", "empty"), ("profiles", "folder"), ("reference", "folder")}  # nothing is wrong with these


def put(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.touch(mode=0 if kind == "unreadable" else 0o600)


@pytest.mark.parametrize(
    ("command", "kind"), sorted({*product(WITH_FILES, ("missing", "folder", "empty", "unreadable"))} - RIGHT)
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(folder, command, kind, capsys):
    for name in ("it.parquet", "it.parquet.json"):
        put(folder / name, kind)
    arguments = [part.replace("FILE", "it.parquet") for part in WITH_FILES[command]]
    if kind == "unreadable" and os.geteuid() == 0:  # who may read everything unless that right is dropped
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", COMMAND, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status = cli.main(arguments)
        out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "it.parquet" in err
    assert "Errno" not in err
    assert "ssl.c" not in err


def test_parts_with_one_plan_merge_exactly(folder, data, capsys):
    table = pa.table(data)
    pa.parquet.write_table(table.slice(0, 700), "p1.parquet")
    pa.parquet.write_table(table.slice(700), "p2.parquet")
    assert build("a.parquet", "whole.json", "--prediction", "late") == 0
    for part in ("p1", "p2"):
        assert build(f"{part}.parquet", f"{part}.json", "--prediction", "late", "--plan", "whole.json") == 0
    assert run("profile", "merge", "p1.json", "p2.json", "-o", "merged.json") == 0
    assert run("profile", "merge", "p2.json", "p1.json", "-o", "other.json") == 0
    merged, whole = Profile.load("merged.json"), Profile.load("whole.json")
    assert merged.to_bytes() == Profile.load("other.json").to_bytes()
    assert merged.plan == whole.plan
    for left, right in zip(merged.references, whole.references, strict=True):
        assert left.histogram.counts.tolist() == right.histogram.counts.tolist()
    assert "note" not in capsys.readouterr().out


# ---------------------------------------------------------------- show, diff


def test_show_draws_a_line_for_each_variable(folder, capsys):
    build("a.parquet", "a.json", "--prediction", "late")
    capsys.readouterr()
    assert run("profile", "show", "a.json") == 0
    lines = capsys.readouterr().out.splitlines()
    profile = Profile.load("a.json")
    assert lines[0] == f"flights 3  2,000 rows, created {profile.created}, hash {profile.hash}"
    table = {line.split()[0]: line for line in lines[3:]}
    assert "█" in table["distance"]
    assert "UA 6" in table["carrier"]
    assert "100.0%" in table["empty"]
    assert "-> late" not in table
    assert "-> score" in "\n".join(lines)


def test_show_one_feature_and_its_cells(folder, capsys):
    build("a.parquet", "a.json")
    profile = Profile.load("a.json")
    capsys.readouterr()
    assert run("profile", "show", "a.json", "--feature", "distance") == 0
    assert "seen 2,000, counted 2,000" in (shown := capsys.readouterr().out)
    assert f"mean {profile.references[0].mean:.5g}" in shown
    assert run("profile", "show", "a.json", "--feature", "distance", "--boundaries") == 0
    shown = capsys.readouterr().out
    for edge in profile.references[0].variable.axis.edges.tolist():
        assert repr(edge) in shown
    assert run("profile", "show", "a.json", "--boundaries") == 0
    assert "_UNSEEN_" in capsys.readouterr().out
    assert run("profile", "show", "a.json", "--feature", "nope") == 2
    assert "no feature 'nope'; there are distance, carrier" in capsys.readouterr().err


def test_show_gives_bounds_and_labels_to_other_languages(folder, capsys):
    table = {
        "x": np.random.default_rng(0).normal(size=500),
        "flag": [True, False] * 250,
        "word": ["a", "a", "b", "b", "c"] * 100,
    }
    pa.parquet.write_table(pa.table({**table, "p": np.linspace(0, 1, 500)}), "kinds.parquet")
    build("kinds.parquet", "kinds.json", "--prediction", "score=p", "--categories", "2")
    capsys.readouterr()
    assert run("profile", "show", "kinds.json", "--boundaries", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    profile = Profile.load("kinds.json")
    edges = [r.variable.axis.edges.tolist() for r in profile.references if r.variable.name in ("x", "score")]
    assert {key: shown[key] for key in ("model", "version", "hash")} == {
        "model": profile.model, "version": profile.version, "hash": profile.hash
    }  # fmt: skip
    assert [shown["features"]["x"]["boundaries"], shown["predictions"]["score"]["boundaries"]] == edges
    assert shown["features"]["flag"]["labels"] == {"false": "false", "true": "true", "0": "false", "1": "true"}
    word = shown["features"]["word"]
    assert (word["column"], word["transform"], word["rest"]) == ("word", "identity", "_UNSEEN_")
    assert word["labels"] == {"a": "a", "b": "b", "c": "_OTHER_"}
    assert run("profile", "show", "kinds.json", "--feature", "word", "--json") == 0
    assert json.loads(capsys.readouterr().out)["features"] == {"word": word}


def test_show_does_not_take_names_for_markup(folder, capsys):
    pa.parquet.write_table(pa.table({"[red]x[/red]": ["[bold]a", "b\nc"]}), "odd.parquet")
    build("odd.parquet", "odd.json")
    capsys.readouterr()
    for more in ([], ["--boundaries"], ["--feature", "[red]x[/red]"]):
        assert run("profile", "show", "odd.json", *more) == 0
        assert "[red]x[/red]" in capsys.readouterr().out


def test_diff_tells_what_moved(folder, capsys):
    build("a.parquet", "a.json", "--prediction", "late")
    build("b.csv", "b.json", "--prediction", "late", "--exclude", "stops")
    capsys.readouterr()
    assert run("profile", "diff", "a.json", "b.json") == 0
    shown = capsys.readouterr().out
    assert "stops: the column is gone" in shown
    assert "distance: " in shown
    assert "changed  2 of 6 variables have changed: stops" in shown
    assert run("profile", "diff", "a.json", "a.json") == 0
    assert capsys.readouterr().out == f"the same profile, hash {Profile.load('a.json').hash}\n"
