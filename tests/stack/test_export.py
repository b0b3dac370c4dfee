"""What leaves the processor by OTLP, at the far end of the real programs: the same series and counts as its /metrics."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon import Monitor, Profile

EXPORT = "{{evaluate: {{interval: 100ms}}, export: [{{endpoint: 'http://127.0.0.1:{port}', interval: 500ms}}]}}"
COUNTS = "sum by (ml_feature_name) (ml_feature_count_total)"
PLACE = {"job", "instance"}  # labels that say which way a series came


def draw(rows: int, seed: int) -> tuple[dict, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = {"x": rng.normal(size=rows), "low": rng.normal(-50, 1, rows), "city": rng.choice(["Rome", "Oslo"], rows)}
    return X, rng.beta(2, 5, rows)


@pytest.fixture(scope="module")
def profile():
    X, score = draw(5_000, 0)
    return Profile.build(X, model="m", version="1", predictions={"class": score > 0.3, "score": score})


def infer(monitor: Monitor, rows: int, seed: int = 1) -> None:
    X, score = draw(rows, seed)
    with monitor.inference(X) as call:
        call.record(np.column_stack([1 - score, score]))


def list_series(prometheus) -> set:
    """Series without what says which way they came: job, instance, the promoted name of the processor itself, and how
    whole bounds are written (`le="5.0"` by a scrape, `le="5"` by OTLP and remote write).
    """
    series = set()
    for labels, _ in prometheus.query('{__name__=~"ml.+"}'):
        if labels.get("service_name") == "otel-mlmon-processor":
            del labels["service_name"]
        if "le" in labels:
            labels["le"] = float(labels["le"])
        series.add(tuple(sorted((name, value) for name, value in labels.items() if name not in PLACE)))
    return series


def test_a_gateway_offers_it_to_prometheus_in_three_ways(start, model, wait, real):
    """SDK -> agent -> processor -> gateway -> Prometheus by OTLP, by remote write and by scrape."""
    by_otlp, by_remote_write = start.prometheus(), start.prometheus()
    gateway = start.gateway(by_otlp.url, by_remote_write.url)
    by_scrape = start.prometheus(f"127.0.0.1:{gateway.ports['SCRAPE']}", honor_labels=True)
    processor = start.processor(settings=EXPORT.format(port=gateway.ports["GRPC"]))
    direct = start.prometheus(processor)
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    monitor = model(f"127.0.0.1:{agent.ports['GRPC']}")
    for i in range(4):
        infer(monitor, 300 + i, i)
        assert monitor.flush()
    expected = dict.fromkeys(("x", "low", "city"), 1206.0)
    wait(lambda: direct.by("ml_feature_name", COUNTS) == expected, "the counts by scrape of the processor")
    for way in (by_otlp, by_remote_write, by_scrape):
        wait(lambda way=way: way.by("ml_feature_name", COUNTS) == expected, "the counts")
        wait(
            lambda way=way: list_series(way) == list_series(direct),
            lambda way=way: list_series(way) ^ list_series(direct),
        )
        assert way.query("sum(ml_inference_duration_seconds_count)")[0][1] == 4
        assert way.query('sum(ml_inference_duration_seconds_bucket{le="+Inf"})')[0][1] == 4
        assert way.query("sum(ml_inference_batch_size_sum)")[0][1] == 1206
        assert way.query("sum(ml_prediction_class_total)")[0][1] == 1206
        series = way.query("ml_feature_count_total or ml_inference_duration_seconds_count")
        assert len({labels["instance"] for labels, _ in series}) == 1  # the processor's
        assert {labels["job"] for labels, _ in series} == {"unknown_service:python"}
        (own,) = way.query("mlmon_processor_models")
        assert own[0]["job"] == "otel-mlmon-processor"
