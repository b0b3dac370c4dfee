"""Names on the wire are decided in semconv/registry.yaml and nowhere else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from otel_mlmon import semconv

ROOT = Path(__file__).parents[2]
REGISTRY = yaml.safe_load((ROOT / "semconv" / "registry.yaml").read_text())
FILES = (".yaml", ".db", ".lock")
NAME = re.compile(r"(ml|mlmon)(\.[a-z][a-z0-9_]*)+")
SOURCES = sorted(
    path
    for folder in ("otel_mlmon", "processor", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "otel_mlmon" / "semconv.py"
)
UCUM = {"s", "By", "1"}


def attributes():
    return [a for g in REGISTRY["groups"] if g["type"] == "attribute_group" for a in g["attributes"]]


def metrics():
    return [group for group in REGISTRY["groups"] if group["type"] == "metric"]


def test_constants_and_page_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "semconv" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_change_of_the_registry_is_noticed(tmp_path):
    for name in (
        "semconv/generate.py",
        "semconv/registry.yaml",
        "otel_mlmon/semconv.py",
        "docs/semantic-conventions.md",
    ):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((ROOT / name).read_text())
    registry = tmp_path / "semconv" / "registry.yaml"
    registry.write_text(registry.read_text().replace("ml.feature.value", "ml.feature.values"))
    command = [sys.executable, tmp_path / "semconv" / "generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make generate" in done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_is_spelled_out(path):
    found = [
        f"line {node.lineno}: {node.value}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if NAME.fullmatch(node.value) and not node.value.endswith(FILES)
    ]
    assert not found


def test_every_name_has_a_constant_of_its_own():
    names = [a["id"] for a in attributes()] + [m["metric_name"] for m in metrics()]
    held = {value for key, value in vars(semconv).items() if key.isupper() and isinstance(value, str)}
    held |= {value.name for value in vars(semconv).values() if isinstance(value, semconv.Metric)}
    assert set(names) <= held
    assert len({a["id"] for a in attributes()}) == len(attributes())
    assert len({m["metric_name"] for m in metrics()}) == len(metrics())


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: metric["metric_name"])
def test_metrics_follow_the_naming_rules(metric):
    name, unit = metric["metric_name"], metric["unit"]
    assert NAME.fullmatch(name)
    assert metric["id"] == f"metric.{name}"
    # A bare 1 would make Prometheus append _ratio.
    assert unit in UCUM - {"1"} or re.fullmatch(r"\{[a-z]+\}", unit)
    assert not name.endswith(("_total", ".total", "_seconds", ".seconds", "_ratio"))
    assert metric["brief"].endswith(".")
    known = {a["id"] for a in attributes()} | {"error.type", "service.instance.id"}
    assert {a["ref"] for a in metric.get("attributes", [])} <= known


def test_what_other_languages_are_told_to_send_is_what_the_registry_has():
    text = (ROOT / "docs" / "other-languages.md").read_text()
    known = {group["metric_name"]: (group["instrument"], group["unit"]) for group in metrics()}
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("| `ml.")]
    told = {
        name: (kind.partition(",")[0], unit)
        for names, kind in rows
        for name, unit in zip(re.findall(r"`(.+?)`", names), re.findall(r"`(.+?)`", kind), strict=True)
    }
    assert len(told) == 9
    assert told == {name: known[name] for name in told}
    attributes_told = set(re.findall(r"`(ml\.[a-z.]+)`", text)) - known.keys()
    assert attributes_told <= {attribute["id"] for attribute in attributes()}
