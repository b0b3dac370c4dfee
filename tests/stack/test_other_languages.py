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

pytestmark = pytest.mark.timeout(300)

CARRIERS = ["UA", "B6", "EV", "9E"]
PROTOCOLS = ["http/protobuf", "http/json", "grpc"]
QUICK = {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_METRIC_EXPORT_TIMEOUT": "200"}
SETTINGS = "evaluate: {{interval: 100ms}}\nprofiles: {}\n"
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


def shares_of(values: np.ndarray, bounds) -> dict[float, float]:
    """The same of the values themselves."""
    return {bound: pytest.approx(float((values <= bound).mean()), abs=1e-9) for bound in bounds}


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counts_are_those_sent(start, node, reference, wait, protocol, temporality):
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
        wait(lambda name=name, values=values: shares(processor, name) == shares_of(values, shares(processor, name)), name)
    assert any(bound < 0 < share for bound, share in shares(processor, "dep_delay").items())
    assert {value for _, value in processor.samples("ml_prediction_count_total")} == {1_000}
    assert {value for _, value in processor.samples("ml_inference_duration_seconds_count")} == {1_000}
