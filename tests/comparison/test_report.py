"""What a person, a pipeline and a notebook get of a comparison: the real command on real files."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

import otel_mlmon
from otel_mlmon import cli
from otel_mlmon.report.junit import render_junit
from otel_mlmon.report.notebook import render_table
from otel_mlmon.report.terminal import show_comparison

ODD = "<script>alert(1)</script>"


@pytest.fixture
def folder(frame, tmp_path, monkeypatch):
    """A working folder: a.parquet, b.parquet like it, and c.parquet with a longer distance."""
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        data = frame(seed=seed)
        data["distance"] *= 1.3 if name == "c" else 1.0
        data.to_parquet(tmp_path / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return cli.main(["compare", *arguments])


def test_exit_status_and_text(folder, capsys):
    assert run("a.parquet", "b.parquet", "--time-column", "when") == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "passed  nothing has changed that is worth hearing of: 5 variables, 6,000 rows against 6,000\n"
    )
    assert "a.parquet, data, 6,000 rows, 2026-01-01 to 2026-01-30" in out
    assert err == ""
    assert run("a.parquet", "c.parquet", "--time-column", "when") == 1
    out, _ = capsys.readouterr()
    assert out.startswith("changed  1 of 5 variables have changed: distance: all values x 1.3")
    assert "drift  distance: all values x 1.3" in out
    lines = out.splitlines()
    assert next(i for i, line in enumerate(lines) if line.startswith("distance")) < lines.index(
        next(line for line in lines if line.startswith("delay"))
    )


def test_quiet_says_the_verdict_alone(folder, capsys):
    assert run("a.parquet", "c.parquet", "--exclude", "when", "--quiet") == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.parquet", "nope.parquet"), "no such data file or folder: nope.parquet"),
        (("a.parquet", "b.parquet", "--columns", "nope"), "no column 'nope' in the data"),
        (("a.parquet", "b.parquet", "--where", "import os"), "where: cannot read"),
        (("a.parquet", "b.parquet", "--html", "no/such/x.html"), "no such folder: no/such"),
        (("a.parquet", "b.parquet", "--types", "stops"), "--types must be COLUMN=TYPE"),
        (("a.parquet", "b.parquet", "--tolerance", "-1"), "tolerance: must be a number >= 0"),
        (("broken.json", "b.parquet"), "broken.json: "),
    ],
)
def test_errors_are_one_line_and_status_2(folder, capsys, arguments, message):
    (folder / "broken.json").write_text("{}")
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"otel-mlmon compare: {message}")
    assert len(err.splitlines()) == 1
    assert out == ""


def test_files_are_written(folder, capsys):
    arguments = ("a.parquet", "c.parquet", "--time-column", "when", "--by", "carrier")
    assert run(*arguments, "--json", "x.json", "--junit", "x.xml", "--html", "x.html") == 1
    document = json.loads((folder / "x.json").read_text(encoding="utf-8"))
    assert document["format"] == "otel-mlmon/comparison"
    assert document["segments"]["column"] == "carrier"
    assert "distance" in (folder / "x.html").read_text(encoding="utf-8")
    assert ET.parse(folder / "x.xml").getroot().get("failures") == "1"
    capsys.readouterr()
    assert run(*arguments, "--json", "-") == 1
    assert json.loads(capsys.readouterr().out) == document


def test_a_profile_is_a_reference(folder, capsys):
    assert cli.main(["profile", "build", "a.parquet", "--model", "m", "--exclude", "when", "--quiet"]) == 0
    assert run("m.profile.json", "b.parquet", "--exclude", "when") == 0
    assert "m.profile.json, profile, 6,000 rows" in capsys.readouterr().out


def test_rows_are_chosen_by_conditions(folder, capsys):
    status = run(
        "a.parquet", "a.parquet", "--exclude", "when", "--reference-where", "stops < 2", "--current-where", "stops == 2"
    )
    assert status == 1
    assert "stops: new: '2' 100 %" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_escapes_names_and_fits(frame, width):
    a, b = frame(seed=1), frame(seed=2)
    for side in (a, b):
        side["[red]odd[/red]\n\x1b[31m"] = side["distance"]
    result = otel_mlmon.compare(a, b.drop(columns="delay"), exclude=["when"])
    console = Console(file=io.StringIO(), width=width)
    show_comparison(result, console)
    text = console.file.getvalue()
    assert "[red]odd[/red]" in text or width < 100  # where the name is folded
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width


def test_many_variables_are_shortened():
    import numpy as np

    data = np.random.default_rng(0).normal(size=(200, 60))
    result = otel_mlmon.compare(data, data)
    for every, lines in ((False, 40), (True, 60)):
        console = Console(file=io.StringIO(), width=150)
        show_comparison(result, console, every=every)
        text = console.file.getvalue()
        assert sum(line.startswith("x") for line in text.splitlines()) == lines
        assert ("and 20 more (--all shows them)" in text) is not every


def test_junit_has_a_case_for_each_variable(frame):
    a, b = frame(seed=1), frame(seed=2)
    b["distance"] *= 1.3
    b[ODD] = 1
    few = otel_mlmon.compare(a, b.drop(columns="delay"), exclude=["when"])
    root = ET.fromstring(render_junit(few))
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert set(cases) == {"distance", "delay", "stops", "carrier", "weekend", "columns and rows"}
    assert cases["distance"].find("failure").get("message").startswith("all values x 1.3")
    assert cases["delay"].find("failure").get("message") == "the column is gone"
    assert cases["columns and rows"].find("failure").get("message") == f"{ODD}: a new column"
    assert cases["stops"].find("failure") is None
    assert root.get("tests") == "6"
    assert root.get("failures") == "3"
    small = ET.fromstring(render_junit(otel_mlmon.compare(a, a.iloc[:20], columns=["distance"])))
    assert small.get("skipped") == "1"


def test_junit_holds_no_character_that_xml_forbids(frame):
    a, b = frame(seed=1), frame(seed=2)
    b["x\x00\x1b\ufffe"] = 1
    ET.fromstring(render_junit(otel_mlmon.compare(a, b, exclude=["when"])))


def test_a_notebook_shows_a_table_and_escapes_names(frame):
    a, b = frame(seed=1), frame(seed=2)
    b[ODD] = 1
    result = otel_mlmon.compare(a, b, exclude=["when"])
    html = result._repr_html_()
    assert html == render_table(result)
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    root = ET.fromstring(html.replace("&#10007;", "x"))
    assert len(root.findall(".//tbody/tr")) == 5
    assert repr(result).startswith("<Comparison changed: ")


def test_the_page_is_saved(frame, tmp_path):
    result = otel_mlmon.compare(frame(seed=1), frame(seed=2), time_column="when")
    result.save_html(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == result.to_html()
