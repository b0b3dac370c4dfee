"""docs/processor.md: every setting is there with its default, and its examples are right."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard, get_args

import pytest
import yaml
from otel_mlmon_processor import reasons
from otel_mlmon_processor.config import Config, Section, read_config
from otel_mlmon_processor.database import FORMAT, OLDEST
from otel_mlmon_processor.exporters.events import EVENTS
from otel_mlmon_processor.fold_settings import Caps
from otel_mlmon_processor.messages import MOST_MESSAGES
from otel_mlmon_processor.otlp_http import JSON_BYTES, JSON_MESSAGES
from otel_mlmon_processor.point_values import DecodeLimits
from otel_mlmon_processor.services import MESSAGE_BYTES
from pydantic_core import PydanticUndefined

from otel_mlmon import operations

PAGE = (Path(__file__).parents[2] / "docs" / "processor.md").read_text()
ROWS = {name: cell.strip() for name, cell in re.findall(r"^\| `([\w.\[\]]+)` \|([^|]*)\|", PAGE, re.MULTILINE)}


def settings_of(section: type[Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and defaults, also of sections in sections."""
    for name, field in section.model_fields.items():
        inner = next((part for part in (field.annotation, *get_args(field.annotation)) if is_section(part)), None)
        many = inner is not None and isinstance(field.default, tuple)
        if inner is None or not is_section(field.annotation):
            default = field.get_default(call_default_factory=True)
            yield prefix + name, None if default is PydanticUndefined else default
        if inner is not None:
            yield from settings_of(inner, f"{prefix}{name}{'[]' if many else ''}.")


def is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


SETTINGS = dict(settings_of(Config))


def test_every_setting_is_there_and_no_other():
    assert sorted(ROWS) == sorted(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_its_default_is_the_one_that_is_used(name, tmp_path):
    text = ROWS[name].strip("`")
    if not text:
        assert SETTINGS[name] is None
        return
    place, many = name.replace("[]", ""), "[]" in name
    value = yaml.safe_load(text)
    for part in reversed(place.split(".")):
        if part == place.split(".")[0] and part in ("export", "forward") and "." in place:
            value = {"endpoint": "http://localhost:1", **value}
            value = [value] if many else value
        value = {part: value}
    path = tmp_path / "mlmon.yaml"
    path.write_text(yaml.safe_dump(value))
    held = read_config(path)
    for part in place.split("."):
        held = getattr(held, part)
        held = held[0] if many and part == "export" else held
    assert held == SETTINGS[name]


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_its_examples_are_right(text, tmp_path):
    path = tmp_path / "mlmon.yaml"
    path.write_text(text)
    config = read_config(path)
    assert len(config.export) == 2
    assert config.forward is not None


# ------------------------------------------------------------------ docs/security.md


TESTS = Path(__file__).parents[1]


def test_every_test_that_the_threat_model_names_is_there():
    page = (TESTS.parent / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert len(named) > 30
    assert sorted(named - there) == []


def test_every_promise_of_the_threat_model_names_a_test():
    page = (TESTS.parent / "docs" / "security.md").read_text()
    tables = page.partition("## Threat model")[2].partition("**Not promised**")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and line != "| promise | test |"]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"\| `test_\w+`[^|]*\|$", row)] == []


# ------------------------------------------------------------------ docs/operations.md


OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
REASONS = re.findall(r"^\| ([\w.]+) \| `(\w+)` \|", OPERATIONS, re.MULTILINE)
COUNTERS = {
    "refused": (reasons.Refusal,),
    "dropped": (reasons.Unusable, reasons.Ignored),
    "send.dropped": (reasons.GivenUp,),
    "recorder.dropped": (operations.Drop,),
}


def test_every_reason_is_there_and_no_other():
    known = [(counter, why) for counter, kinds in COUNTERS.items() for kind in kinds for why in get_args(kind)]
    assert sorted(REASONS) == sorted(known)


DECODE, CAPS = DecodeLimits(), Caps()


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("too_many_messages", MOST_MESSAGES),
        ("too_many_messages", JSON_MESSAGES),
        ("too_many_points", DECODE.points),
        ("too_large", MESSAGE_BYTES >> 20),
        ("too_large", JSON_BYTES >> 20),
        ("identity", DECODE.text),
        ("attributes", DECODE.attributes),
        ("attribute_size", DECODE.text),
        ("too_many_cells", DECODE.cells),
        ("profile_part", DECODE.profile_part >> 20),
        ("profile_part", DECODE.profile_parts),
        ("profile_incomplete", CAPS.assemblies),
        ("profile_incomplete", CAPS.assembly_bytes >> 20),
        ("too_many_profiles", CAPS.generations),
        ("too_many_profiles", CAPS.document_bytes >> 20),
        ("too_many_bounds", CAPS.bounds),
        ("too_many_places", CAPS.places),
        ("too_many_operations", CAPS.operations),
        ("full", EVENTS),
    ],
)
def test_its_limits_are_those_of_the_code(reason, limit):
    row = re.findall(rf"^\| [\w.]+ \| `{reason}` \|.*", OPERATIONS, re.MULTILINE)[0]  # the request's, of too_large
    assert re.search(rf"(?<![\d,]){limit:,}(?![\d,])", row)


def test_every_reason_occurs_in_the_code():
    """That no other does is for mypy to say."""
    folders = (Path(reasons.__file__).parent, Path(operations.__file__).parent)
    files = {path for folder in folders for path in folder.rglob("*.py")} - {Path(reasons.__file__)}
    texts = {node.value for path in files for node in ast.walk(ast.parse(path.read_text())) if is_text(node)}
    assert {why for _, why in REASONS} - texts == set()


def is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_limit_is_explained():
    rows = set(re.findall(r"^\| `([\w.\[\]]+)` \|", OPERATIONS.partition("## What each limit does")[2], re.MULTILINE))
    bounds = {name for name in SETTINGS if name.startswith(("limits.", "checkpoint.")) or name.endswith(".timeout")}
    bounds |= {"forward.size", "forward.age", "retire", "shutdown", "alarms.memory"}
    bounds |= {"window.idle", "window.ahead", "window.hold"}
    assert rows & set(SETTINGS) == bounds


def test_the_formats_are_those_of_this_version():
    for text in (f"format      {FORMAT}\n", f"this one reads up to {FORMAT})", f"this one reads {OLDEST} to {FORMAT})"):
        assert text in OPERATIONS
