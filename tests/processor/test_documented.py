"""docs/processor.md: every setting is there with its default, and its examples are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from otel_mlmon_processor.config import Config, Section, read_config
from pydantic_core import PydanticUndefined

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
