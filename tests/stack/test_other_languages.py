"""A model server in Node.js: OpenTelemetry's own SDK, no Python in its process, drift like everyone else."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from otel_mlmon import Monitor, Profile

pytestmark = pytest.mark.timeout(300)

CARRIERS = ["UA", "B6", "EV", "9E"]
QUICK = {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_METRIC_EXPORT_TIMEOUT": "200"}
SETTINGS = "evaluate: {{interval: 100ms}}\nalarms: {{learn: false}}\nprofiles: {}\n"
QUIET = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


def draw(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Delays, which are negative where a flight is early, distances, of which some are alike, and carriers."""
    rng = np.random.default_rng(seed)
    delay = rng.gamma(2.0, 12.0, rows).round(1) - 15
    return {
        "dep_delay": delay,
        "distance": rng.choice([200.0, 733.0, *range(900, 2600, 7)], rows),
        "carrier": rng.choice(CARRIERS, rows, p=[0.4, 0.3, 0.2, 0.1]),
        "score": 1 / (1 + np.exp(-delay / 15)),
    }


@pytest.fixture(scope="module")
def reference(real, tmp_path_factory):
    """A folder with the profile, and what `profile show --boundaries --json` prints of it."""
    folder = tmp_path_factory.mktemp("profiles")
    pa.parquet.write_table(pa.table(draw(20_000, 0)), folder / "train.parquet")
    command = [real.BIN / "otel-mlmon", "profile"]
    build = ["build", "train.parquet", "--model", "flights", "--version", "3", "--prediction", "score=score"]
    subprocess.run([*command, *build, "--quiet"], cwd=folder, check=True)
    show = [*command, "show", "flights.profile.json", "--boundaries", "--json"]
    (folder / "bounds").write_bytes(subprocess.run(show, cwd=folder, check=True, capture_output=True).stdout)
    return folder


@pytest.fixture
def node(build, real, reference, tmp_path, request):
    """Starts examples/nodejs/model.js; each is ended at the end."""
    (tmp_path / "model.js").write_text((build.NODE_EXAMPLE / "model.js").read_text())
    (tmp_path / "package.json").write_text((build.NODE_EXAMPLE / "package.json").read_text())
    (tmp_path / "node_modules").symlink_to(build.install_node_modules())
    running, log = [], tmp_path / "node.log"
    log.touch()

    def run(processor, protocol="http/protobuf", **environment):
        port = processor.otlp if protocol == "grpc" else processor.otlp_http
        environment = {
            **os.environ, **QUICK, **QUIET, "OTEL_SERVICE_NAME": "flights-api", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **environment,
        }  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [build.find_node(), "model.js", reference / "bounds"]
        with log.open("a") as file:
            running.append(Node(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=file, **pipes)))
        return running[-1]

    yield run
    for server in running:
        with server.process:  # closes its pipes
            server.process.kill()
    if getattr(request.node, "failed", False):
        print(log.read_text()[-5_000:])


class Node:
    """A running model: rows in, predictions out."""

    def __init__(self, process) -> None:
        self.process = process

    def predict(self, rows) -> list[dict]:
        for row in rows:
            self.process.stdin.write(json.dumps(row) + "\n")
            self.process.stdin.flush()
        return [json.loads(self.process.stdout.readline()) for _ in rows]

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(30) == 0


def rows_of(table) -> list[dict]:
    names = ("dep_delay", "distance", "carrier")
    return [dict(zip(names, row, strict=True)) for row in zip(*(table[name].tolist() for name in names), strict=True)]


def spoil(rows: list[dict]) -> list[dict]:
    """Every kind of invalid value and category, once in a hundred rows."""
    for i in range(0, len(rows), 100):
        rows[i]["distance"] = None
        del rows[i + 1]["distance"]
        rows[i + 2]["distance"] = "far"
        rows[i + 3]["distance"] = -4_000.0  # an impossible one, which the reference does not hold
        rows[i + 4]["carrier"] = "ZZ"
        rows[i + 5]["carrier"] = None
        rows[i + 6]["dep_delay"] = None  # and the score is NaN
    return rows


def shares(processor, feature: str) -> dict[float, float]:
    """Share of the values up to each bound of the coarse cells."""
    return {
        float(labels["ml_cell_upper_bound"]): value
        for labels, value in processor.samples("ml_feature_distribution")
        if labels["ml_feature_name"] == feature
    }


def shares_of(values: np.ndarray, processor, feature: str) -> dict[float, float]:
    """The same of the values themselves, over the same bounds."""
    bounds = list(shares(processor, feature))
    assert len(bounds) > 10
    return {bound: pytest.approx(float((values <= bound).mean()), abs=1e-9) for bound in bounds}


@pytest.mark.parametrize(
    ("protocol", "temporality"),
    [("http/protobuf", "cumulative"), ("http/protobuf", "delta"), ("http/json", "delta"), ("grpc", "cumulative")],
)
def test_counts_are_those_sent(start, node, reference, wait, protocol, temporality):  # noqa: PLR0917
    processor = start.processor(settings=SETTINGS.format(reference))
    rows = spoil(rows_of(draw(1_000, 1)))
    model = node(processor, protocol, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=temporality)
    for i in range(5):  # over several exports
        part = rows[200 * i : 200 * i + 200]
        assert len(model.predict(part)) == 200
        wait(lambda n=200 * i + 200: processor.feature_counts().get("distance") == n, "an export")
    model.close()
    wait(lambda: processor.feature_counts() == dict.fromkeys(("dep_delay", "distance", "carrier"), 1_000), "counts")
    invalid = {
        (labels["ml_feature_name"], labels["ml_feature_invalid_reason"]): value
        for labels, value in processor.samples("ml_feature_invalid_total")
    }
    assert invalid == {
        ("distance", "missing"): 20, ("distance", "type"): 10, ("carrier", "missing"): 10, ("dep_delay", "missing"): 10
    }  # fmt: skip
    categories = {
        labels["ml_feature_category"]: value for labels, value in processor.samples("ml_feature_category_total")
    }
    sent = Counter(row["carrier"] for row in rows if row["carrier"])
    sent["_UNSEEN_"] = sent.pop("ZZ")
    assert categories == sent
    for name in ("dep_delay", "distance"):
        values = np.array([row[name] for row in rows if isinstance(row.get(name), float)])
        wait(lambda name=name, values=values: shares(processor, name) == shares_of(values, processor, name), name)
    assert any(bound < 0 < share for bound, share in shares(processor, "dep_delay").items())
    assert {value for _, value in processor.samples("ml_prediction_count_total")} == {1_000}
    assert {value for _, value in processor.samples("ml_inference_duration_seconds_count")} == {1_000}


def drift(processor, service: str, rows: int) -> dict[tuple[str, str], float] | None:
    """Drift measures of a service by feature or output, once so many rows have been evaluated."""
    if [value for labels, value in processor.samples("ml_window_rows") if labels["service_name"] == service] != [rows]:
        return None
    return {
        (labels.get("ml_feature_name", "score"), labels["ml_drift_measure"]): value
        for name in ("ml_feature_drift", "ml_prediction_drift")
        for labels, value in processor.samples(name)
        if labels["service_name"] == service and labels["ml_drift_measure"] != "mean_shift"  # which needs sums
    }


def changed(processor, service: str) -> set[str]:
    """Features and outputs that are said to have changed."""
    return {
        labels.get("ml_feature_name") or labels["ml_prediction_signal"]
        for labels, value in processor.samples("ml_drift_alarm")
        if value and labels["service_name"] == service
    }


def test_drift_is_that_of_a_python_process(start, node, reference, wait, monkeypatch):
    """Two replicas in Node.js beside one in Python that sees the same rows; then the same of other rows."""
    processor = start.processor(settings=SETTINGS.format(reference))
    profile = Profile.load(reference / "flights.profile.json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{processor.otlp}")
    for kind, longer in (("same", 0.0), ("later", 5.0)):
        table = draw(4_000, 2)
        table["dep_delay"] = table["dep_delay"] + longer
        rows = rows_of(table)
        replicas = [node(processor, protocol, OTEL_SERVICE_NAME=f"node-{kind}") for protocol in ("http/json", "grpc")]
        scores = [row["score"] for i in (0, 1) for row in replicas[i].predict(rows[2_000 * i : 2_000 * i + 2_000])]
        assert scores == pytest.approx((1 / (1 + np.exp(-table.pop("dep_delay") / 15))).tolist())
        for replica in replicas:
            replica.close()
        monkeypatch.setenv("OTEL_SERVICE_NAME", f"python-{kind}")
        monitor = Monitor(profile)
        monitor.observe(pa.Table.from_pylist(rows), {"score": np.array(scores)})
        monitor.close()
        one, other = (
            wait(lambda s=service: drift(processor, s, 4_000), service)
            for service in (f"node-{kind}", f"python-{kind}")
        )
        for name in ("dep_delay", "distance", "score"):  # which uses the mean where a sum was sent, else cells alone
            assert one.pop((name, "wasserstein")) == pytest.approx(other.pop((name, "wasserstein")), abs=0.005)
        assert one == pytest.approx(other)
        assert {"dep_delay", "distance", "carrier", "score"} == {name for name, _ in one}
        expected = {"dep_delay", "score"} if longer else set()
        assert changed(processor, f"node-{kind}") == changed(processor, f"python-{kind}") == expected
    replicas = {labels["service_name"]: value for labels, value in processor.samples("ml_model_replicas")}
    assert replicas == {"node-same": 2, "python-same": 1, "node-later": 2, "python-later": 1}


def test_where_node_is_missing_the_error_says_what_to_do(build, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"Node\.js 20\.6 or newer with npm is needed .*: install it"):
        build.install_node_modules()
