"""A comparison as a JUnit report, which continuous integration shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Final

from otel_mlmon.comparison.finding import Finding
from otel_mlmon.comparison.result import TOO_FEW, Comparison
from otel_mlmon.wording import printable

SUITE: Final = "otel-mlmon compare"


def render_junit(comparison: Comparison) -> str:
    """The document: a test case for each variable, one for the data as a whole; what has changed is a failure."""
    counted = [finding for finding in comparison.findings if finding.level != "note"]
    named = {feature.name for feature in comparison.features} | {feature.column for feature in comparison.features}
    cases = []
    for feature in comparison.features:
        mine = [f for f in counted if f.role == feature.role and f.name in (feature.name, feature.column)]
        case = _make_case(feature.role, feature.name, mine)
        if not mine and feature.changed is None:
            ET.SubElement(case, "skipped", message=TOO_FEW)
        cases.append(case)
    cases.append(
        _make_case("data", "columns and rows", [f for f in counted if f.role == "data" or f.name not in named])
    )
    failed = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    numbers = {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    root = ET.Element("testsuites", numbers)
    suite = ET.SubElement(root, "testsuite", {"name": SUITE, **numbers})
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = printable(comparison.verdict)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _make_case(role: str, name: str, findings: list[Finding]) -> ET.Element:
    case = ET.Element("testcase", {"classname": f"{SUITE}.{role}", "name": printable(name), "time": "0"})
    if findings:
        said = [printable(f"{f.name}: {f.text}" if f.name not in ("", name) else f.text) for f in findings]
        failure = ET.SubElement(case, "failure", type=findings[0].kind, message=said[0])
        failure.text = "\n".join(said)
    return case
