"""What leaves the processor by OTLP, at the far end of the real programs: the series and counts of its /metrics."""

from __future__ import annotations

import time

import numpy as np
import pytest

from otel_mlmon import Monitor, Profile

EXPORT = "{{evaluate: {{interval: 100ms}}, export: [{{endpoint: 'http://127.0.0.1:{port}', interval: 500ms}}]}}"
COUNTS = "sum by (ml_feature_name) (ml_feature_count_total)"
PLACE = {"job", "instance", "scope_name", "scope_version"}  # labels that say which way a series came
REPLICAS = 'ml_drift_replica{ml_feature_name="x"}'


@pytest.fixture
def replicas(model, monkeypatch):
    """Four replicas of a model, one of them with a shifted feature, send to an address; rows of each."""

    def send(endpoint: str) -> int:
        for i in range(4):
            monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"service.name=svc,service.instance.id=replica-{i}")
            monitor = model(endpoint)
            for seed in range(2):
                infer(monitor, 300 + i, 10 * i + seed, shift=2.0 * (i == 3))
                assert monitor.flush()
        return 2 * sum(300 + i for i in range(4))

    return send


def draw(rows: int, seed: int, shift: float = 0.0) -> tuple[dict, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = {"x": rng.normal(shift, size=rows), "low": rng.normal(-50, 1, rows), "city": rng.choice(["Rome", "Oslo"], rows)}
    return X, rng.beta(2, 5, rows)


@pytest.fixture(scope="module")
def profile():
    X, score = draw(5_000, 0)
    return Profile.build(X, model="m", version="1", predictions={"class": score > 0.3, "score": score})


def infer(monitor: Monitor, rows: int, seed: int = 1, shift: float = 0.0) -> None:
    X, score = draw(rows, seed, shift)
    with monitor.inference(X) as call:
        call.record(np.column_stack([1 - score, score]))


ENDING = ("__name__", "ml_drift_replica")


def list_series(prometheus) -> set:
    """Series without what says which way they came: labels of place, the processor's own name and instance where a
    backend makes labels of resources, and how whole bounds are written (`le="5.0"` by a scrape, else `le="5"`).
    """
    series = set()
    for labels, _ in prometheus.query('{__name__=~"ml.+"}'):
        if labels.get("service_name") == "otel-mlmon-processor":
            del labels["service_name"]
        if labels["__name__"] != "ml_drift_replica":
            labels.pop("service_instance_id", None)
        if "le" in labels:
            labels["le"] = float(labels["le"])
        series.add(tuple(sorted((name, value) for name, value in labels.items() if name not in PLACE)))
    return series


def compare_series(pushed, scraped) -> set:
    """What one has and the other has not. A pushed series that has ended is shown for five minutes more: replicas that
    seemed to differ while not all had sent.
    """
    mine, theirs = list_series(pushed), list_series(scraped)
    return theirs - mine | {series for series in mine - theirs if ENDING not in series}


def test_a_gateway_offers_it_to_prometheus_in_three_ways(start, replicas, wait):
    """SDK -> agent -> processor -> gateway -> Prometheus by OTLP, by remote write and by scrape."""
    by_otlp, by_remote_write = start.prometheus(), start.prometheus()
    gateway = start.gateway(by_otlp.url, by_remote_write.url)
    by_scrape = start.prometheus(f"127.0.0.1:{gateway.ports['SCRAPE']}", honor_labels=True)
    processor = start.processor(settings=EXPORT.format(port=gateway.ports["GRPC"]))
    direct = start.prometheus(processor)
    agent = start.agent(f"127.0.0.1:{processor.otlp}")
    rows = replicas(f"127.0.0.1:{agent.ports['GRPC']}")
    expected = dict.fromkeys(("x", "low", "city"), rows)
    wait(lambda: direct.by("ml_feature_name", COUNTS) == expected, "the counts by scrape of the processor")
    wait(lambda: direct.query(REPLICAS), "the replica that differs")
    for way in (by_otlp, by_remote_write, by_scrape):
        wait(lambda way=way: way.by("ml_feature_name", COUNTS) == expected, "the counts")
        wait(lambda way=way: not compare_series(way, direct), lambda way=way: compare_series(way, direct))
        assert way.query("sum(ml_inference_duration_seconds_count)")[0][1] == 8
        assert way.query('sum(ml_inference_duration_seconds_bucket{le="+Inf"})')[0][1] == 8
        assert way.query("sum(ml_inference_batch_size_sum)")[0][1] == rows
        assert way.query("sum(ml_prediction_class_total)")[0][1] == rows
        series = way.query("ml_feature_count_total or ml_inference_duration_seconds_count")
        assert len({labels["instance"] for labels, _ in series}) == 1  # the processor's
        assert {labels["job"] for labels, _ in series} == {"svc"}
        (own,) = way.query("mlmon_processor_models")
        assert own[0]["job"] == "otel-mlmon-processor"


DIRECT = "{{evaluate: {{interval: 100ms}}, export: [{{endpoint: '{url}', protocol: http, interval: 500ms}}]}}"


def test_two_processors_write_no_series_of_each_other(start, model, wait, monkeypatch):
    """The same service and model at two processors, and two services with one model at one: all are told apart."""
    prometheus = start.prometheus()
    settings = DIRECT.format(url=f"{prometheus.url}/api/v1/otlp")
    first, second = start.processor(settings=settings), start.processor(settings=settings)
    for processor, service, rows in ((first, "a", 101), (first, "b", 202), (second, "a", 303)):
        monkeypatch.setenv(
            "OTEL_RESOURCE_ATTRIBUTES",
            f"service.name={service},service.namespace=shop,deployment.environment.name=prod",
        )
        monitor = model(f"127.0.0.1:{processor.otlp}")
        infer(monitor, rows)
        assert monitor.flush()
    counts = 'ml_feature_count_total{ml_feature_name="x", service_namespace="shop", deployment_environment_name="prod"}'

    def read():
        found = prometheus.query(counts)
        return sorted((labels["job"], labels["service_name"], value) for labels, value in found)

    wait(lambda: read() == [("shop/a", "a", 101), ("shop/a", "a", 303), ("shop/b", "b", 202)], read)
    assert len({labels["instance"] for labels, _ in prometheus.query(counts)}) == 2
    assert len(prometheus.query("mlmon_processor_models")) == 2
    described = {labels["job"] for labels, _ in prometheus.query('target_info{deployment_environment_name="prod"}')}
    assert described == {"shop/a", "shop/b"}


@pytest.mark.parametrize("way", ["otlp", "remote_write"])
def test_victoriametrics(start, replicas, wait, way):
    victoria = start.victoriametrics()
    if way == "otlp":
        settings = DIRECT.format(url=f"{victoria.url}/opentelemetry")
    else:
        gateway = start.gateway(victoria.url, victoria.url)  # that it takes no OTLP at Prometheus' path harms nothing
        settings = EXPORT.format(port=gateway.ports["GRPC"])
    processor = start.processor(settings=settings)
    direct = start.prometheus(processor)
    expected = dict.fromkeys(("x", "low", "city"), replicas(f"127.0.0.1:{processor.otlp}"))
    wait(lambda: direct.query(REPLICAS), "the replica that differs")
    wait(lambda: victoria.by("ml_feature_name", COUNTS) == expected, lambda: victoria.query(COUNTS))
    wait(lambda: not compare_series(victoria, direct), lambda: compare_series(victoria, direct))
    assert victoria.query("sum(ml_inference_duration_seconds_count)")[0][1] == 8


def test_a_gateway_that_is_away_delays_nothing_and_gets_the_newest_when_it_is_back(start, model, wait):
    prometheus = start.prometheus()
    gateway = start.gateway(prometheus.url, prometheus.url)
    processor = start.processor(settings=EXPORT.format(port=gateway.ports["GRPC"]))
    monitor = model(f"127.0.0.1:{processor.otlp}")
    infer(monitor, 100)
    assert monitor.flush()
    wait(lambda: prometheus.by("ml_feature_name", COUNTS).get("x") == 100, "the first counts")
    gateway.stop()

    def own(name: str) -> float:
        return sum(value for _, value in processor.samples(f"mlmon_processor_{name}"))

    infer(monitor, 11, 2)
    assert monitor.flush()
    wait(lambda: processor.samples("ml_window_rows")[0][1] == 111, "an evaluation")
    wait(lambda: own("send_behind_seconds") > 3, "the gauge that says how far behind")
    assert own("send_failures_total") >= 1
    infer(monitor, 7, 3)
    assert monitor.flush()
    start.gateway(prometheus.url, prometheus.url, folder=gateway.folder, ports=gateway.ports)
    wait(lambda: prometheus.by("ml_feature_name", COUNTS).get("x") == 118, "all counts", seconds=60)
    wait(lambda: own("send_behind_seconds") < 3, "it to be up to date")
    assert prometheus.query("max_over_time(mlmon_processor_send_failures_total[1m]) >= 1")


def test_what_prometheus_missed_is_in_the_gateways_queue(start, model, wait):
    """Also gauges of the time in which it was away."""
    prometheus = start.prometheus()
    gateway = start.gateway(prometheus.url, prometheus.url)
    processor = start.processor(settings=EXPORT.format(port=gateway.ports["GRPC"]))
    wait(lambda: prometheus.query("mlmon_processor_models == 0"), "the first export")
    prometheus.stop()
    monitor = model(f"127.0.0.1:{processor.otlp}")
    infer(monitor, 100)
    assert monitor.flush()

    def exports() -> float:
        return processor.samples("mlmon_processor_send_requests_total")[0][1]

    began, before = time.time(), exports()
    wait(lambda: exports() >= before + 4, "exports")
    ended = time.time()
    again = start.prometheus(folder=prometheus.log.parent, port=prometheus.port)
    missed = f"count_over_time(mlmon_processor_models[{round(1_000 * (ended - began))}ms] @ {ended:.3f})"
    wait(lambda: [value for _, value in again.query(missed) if value >= 3], lambda: again.query(missed), seconds=60)
    assert again.by("ml_feature_name", COUNTS)["x"] == 100
