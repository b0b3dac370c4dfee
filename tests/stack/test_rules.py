"""The rules, by the real promtool; and that what they name exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from otel_mlmon_processor.exporters.prometheus import prometheus_name

from otel_mlmon import semconv

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "collector-config" / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]


@pytest.mark.parametrize(
    "arguments",
    [["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"], ["test", "rules", "rules_test.yaml"],
     ["check", "config", "prometheus.yaml"]],
    ids=["check", "test", "configuration"],
)  # fmt: skip
def test_promtool_has_nothing_to_say(promtool, arguments):
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_quiet_and_firing():
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
    cases = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    assert sorted(cases) == sorted((rule["alert"], fires) for rule in ALERTS for fires in (False, True))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule):
    assert rule["labels"].keys() == {"severity", "team"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]
    assert set(headings) == {alert["alert"] for alert in ALERTS}


def test_every_metric_is_one_that_is_exposed():
    known = {prometheus_name(metric) for name, metric in vars(semconv).items() if name.startswith("METRIC_")}
    known |= {f"{name}_{end}" for name in known for end in ("total", "count", "bucket", "sum")}
    known |= {rule["record"].partition(":")[0] for rule in RULES if "record" in rule}
    named = {name for rule in RULES for name in re.findall(r"\b(?:ml|mlmon)_\w+(?=[{\[ :)]|$)", rule["expr"])}
    labels = {attribute.replace(".", "_") for attribute in vars(semconv).values() if isinstance(attribute, str)}
    assert named - labels <= known
