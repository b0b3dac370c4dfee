"""The rules, by the real promtool; and that what they name exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from otel_mlmon_processor.exporters.prometheus import prometheus_name

from otel_mlmon import semconv

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "collector-config" / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
TESTS = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]


@pytest.mark.parametrize(
    "arguments",
    [["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"], ["test", "rules", "rules_test.yaml"],
     ["check", "config", "prometheus.yaml"]],
    ids=["check", "test", "configuration"],
)  # fmt: skip
def test_promtool_has_nothing_to_say(promtool, arguments):
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_test_and_says_what_it_should():
    kinds = {(rule["alert"], rule["labels"]["severity"], rule["labels"]["team"]) for rule in ALERTS}
    texts = [case for test in TESTS for case in test.get("alert_rule_test", ())]
    labels = [(case["alertname"], alert["exp_labels"]) for case in texts for alert in case["exp_alerts"]]
    assert {(name, found["severity"], found["team"]) for name, found in labels} == kinds


def test_every_test_says_all_that_fires():
    """So that an alert which fires on another's fault, or on the quiet stream, is noticed."""
    for test in TESTS:
        last = test["promql_expr_test"][-1]
        assert "alertname=" not in last["expr"]
        firing = {sample["labels"] for sample in last["exp_samples"]}
        assert (
            last["expr"] == "ALERTS" if not firing else last["expr"].startswith("count by (alertname, severity, team)")
        )
        assert len(firing) == len(last["exp_samples"])
    quiet = {re.match(r"\w+", series["series"])[0] for series in TESTS[0]["input_series"]}
    # A quiet stream has all that alerts look at, or its silence would say nothing.
    named = {name for rule in RULES for name in re.findall(r"\b(?:ml|mlmon|otelcol)_\w+\b(?<!_)|\bup\b", rule["expr"])}
    known = {name for name in named if prometheus_names().get(name) or name.startswith("otelcol_") or name == "up"}
    assert known - quiet <= {
        "ml_prediction_drift",
        *(n for n in known if n.startswith("otelcol_") and "log_records" in n),
    }


def test_every_alert_says_what_to_do():
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted({rule["alert"] for rule in ALERTS})
    for rule in ALERTS:
        assert rule["labels"].keys() == {"severity", "team"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["labels"]["team"] in {"oncall", "data"}
        assert rule["annotations"].keys() == {"summary", "description", "query", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def prometheus_names() -> dict[str, semconv.Metric]:
    """All names that the processor can expose."""
    metrics = {prometheus_name(metric): metric for name, metric in vars(semconv).items() if name.startswith("METRIC_")}
    ends = {"counter": ("_total",), "histogram": ("_count", "_bucket", "_sum")}
    return {f"{name}{end}": metric for name, metric in metrics.items() for end in ends.get(metric.instrument, ("",))}


def test_every_metric_is_one_that_is_exposed():
    known = prometheus_names().keys() | {rule["record"] for rule in RULES if "record" in rule}
    labels = {attribute.replace(".", "_") for attribute in vars(semconv).values() if isinstance(attribute, str)}
    named = {name for rule in RULES for name in re.findall(r"\b(?:ml|mlmon)_\w+(?::\w+)*", rule["expr"])}
    assert named - labels <= known
