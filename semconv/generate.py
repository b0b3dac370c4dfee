"""Write otel_mlmon/semconv.py and docs/semantic-conventions.md from registry.yaml.

python semconv/generate.py            write both
python semconv/generate.py --check    exit 1 where either is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = ROOT / "semconv" / "registry.yaml"
MODULE = ROOT / "otel_mlmon" / "semconv.py"
PAGE = ROOT / "docs" / "semantic-conventions.md"
NOTICE = "Generated from semconv/registry.yaml by `make generate`: do not edit."


def constant(name: str) -> str:
    return name.replace(".", "_").upper()


def class_name(attribute: str) -> str:
    parts = attribute.removeprefix("ml").replace("_", ".").split(".")
    return "".join(part.capitalize() for part in parts)


def is_enum(attribute: dict[str, Any]) -> bool:
    return isinstance(attribute["type"], dict)


def groups_of(registry: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [group for group in registry["groups"] if group["type"] == kind]


def render_module(registry: dict[str, Any]) -> str:
    lines = [
        f'"""Names of the semantic conventions `ml.*` and `mlmon.*`. {NOTICE}"""',
        "",
        "from typing import Final, NamedTuple",
        "",
        "",
        "class Metric(NamedTuple):",
        '    """A metric of the registry: name, instrument, UCUM unit, description."""',
        "",
        "    name: str",
        "    instrument: str",
        "    unit: str",
        "    description: str",
        "",
    ]
    for group in groups_of(registry, "attribute_group"):
        lines += ["", f"# {group['brief']}"]
        lines += [f'{constant(a["id"])}: Final = "{a["id"]}"' for a in group["attributes"]]
    lines += ["", "# Events."]
    for event in groups_of(registry, "event"):
        lines.append(f'EVENT_{constant(event["name"])}: Final = "{event["name"]}"')
    lines += ["", "# Metrics."]
    for metric in groups_of(registry, "metric"):
        lines += [
            f"METRIC_{constant(metric['metric_name'])}: Final = Metric(",
            f'    "{metric["metric_name"]}",',
            f'    "{metric["instrument"]}",',
            f'    "{metric["unit"]}",',
            f'    "{metric["brief"]}",',
            ")",
        ]
    for group in groups_of(registry, "attribute_group"):
        for attribute in filter(is_enum, group["attributes"]):
            lines += ["", "", f"class {class_name(attribute['id'])}:"]
            lines += [f'    """Values of `{attribute["id"]}`."""', ""]
            for member in attribute["type"]["members"]:
                lines.append(f'    {member["id"].upper()}: Final = "{member["value"]}"')
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render_page(registry: dict[str, Any]) -> str:
    lines = ["# Semantic conventions", "", f"<!-- {NOTICE} -->", ""]
    lines += ["Stability of everything here: development.", "", "## Metrics", ""]
    lines += [row("name", "instrument", "unit", "what it is", "attributes"), row(*["---"] * 5)]
    for metric in groups_of(registry, "metric"):
        attributes = ", ".join(f"`{a['ref']}`" for a in metric["attributes"])
        what = " ".join(filter(None, (metric["brief"], metric.get("note"))))
        lines.append(row(f"`{metric['metric_name']}`", metric["instrument"], f"`{metric['unit']}`", what, attributes))
    lines += ["", "## Spans", ""]
    for span in groups_of(registry, "span"):
        lines += [span["brief"], "", row("attribute", "requirement"), row("---", "---")]
        for attribute in span["attributes"]:
            level = attribute["requirement_level"]
            text = level if isinstance(level, str) else " ".join(f"{k.replace('_', ' ')} {v}" for k, v in level.items())
            lines.append(row(f"`{attribute['ref']}`", text))
    lines += ["", "## Events", "", row("name", "what it is", "attributes"), row(*["---"] * 3)]
    for event in groups_of(registry, "event"):
        attributes = ", ".join(f"`{a['ref']}`" for a in event["attributes"])
        lines.append(row(f"`{event['name']}`", event["brief"], attributes))
    lines += ["", "## Attributes", ""]
    for group in groups_of(registry, "attribute_group"):
        lines += [
            f"### {group['brief']}",
            "",
            row("name", "type", "what it is", "examples or values"),
            row(*["---"] * 4),
        ]
        for attribute in group["attributes"]:
            if is_enum(attribute):
                values = "; ".join(f"`{m['value']}`: {m['brief']}" for m in attribute["type"]["members"])
                lines.append(row(f"`{attribute['id']}`", "enum", attribute["brief"], values))
            else:
                examples = ", ".join(f"`{example}`" for example in attribute["examples"])
                lines.append(row(f"`{attribute['id']}`", attribute["type"], attribute["brief"], examples))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    check = parser.parse_args().check
    registry = yaml.safe_load(REGISTRY.read_text())
    stale = []
    for path, text in ((MODULE, render_module(registry)), (PAGE, render_page(registry))):
        if not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(text)
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `make generate`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
