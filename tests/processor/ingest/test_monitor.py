"""The real Monitor against the real receiver: rows in, exact counts out."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.receiver import build_server
from otel_mlmon_processor.windows import VariableKey

from otel_mlmon.monitor import Monitor
from otel_mlmon.profile.document import Profile

RESOURCE = Resource({"service.name": "svc"})
DAY = 1_735_689_600.0  # 1 January 2025, UTC


@pytest.fixture
def receiving(tmp_path):
    ingest = Ingest(tmp_path, FoldSettings(display=86_400.0))
    server = build_server(ingest, "127.0.0.1:0")
    server.start()
    yield ingest, f"http://127.0.0.1:{server.port}"
    server.stop(0).wait()
    ingest.close()


def counts_of(reference, rows):
    return reference.variable.axis.count(rows).tolist()


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_rows_that_go_out_in_several_exports_of_one_minute_are_all_counted(receiving, temporality):
    ingest, endpoint = receiving
    rng = np.random.default_rng(5)
    train = {"x": rng.normal(size=2000), "city": rng.choice(["Rome", "Oslo"], 2000)}
    profile = Profile.build(train, model="m", version="1")
    numbers = []
    for _ in range(2):
        exporter = OTLPMetricExporter(endpoint, insecure=True)
        monitor = Monitor(profile, exporter=exporter, resource=RESOURCE, temporality=temporality)
        for step in range(12):  # three exports for each minute; every row of every export looks alike at times
            x = np.array([0.1, 0.1]) if step % 2 else rng.normal(size=2)
            city = np.array(["Rome", "Oslo"])
            minute = DAY + 60 * (step // 3) + np.array([10.0, 50.0])
            monitor.observe({"x": x, "city": city}, time=minute)
            assert monitor.flush()
            numbers.extend(x)
        monitor.close()
        exporter.shutdown()
    (view,) = ingest.views()
    by_name = {reference.variable.name: reference for reference in profile.references}
    for counts in (view.totals, view.window):
        x = counts[VariableKey("feature", "x")]
        assert x.seen == 48
        assert x.cells.tolist() == counts_of(by_name["x"], numbers)
        assert x.edges.tolist() == by_name["x"].variable.axis.edges.tolist()
        assert x.sum == pytest.approx(sum(numbers))
        assert dict(counts[VariableKey("feature", "city")].categories) == {"Rome": 24, "Oslo": 24}
    assert view.reference_hash == profile.hash
    assert view.end == DAY + 60 * 4
    assert len(view.replicas) == 2
    assert not ingest.counters().fold.dropped
    assert ingest.counters().ignored.keys() <= {"unused"}


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_calls_without_a_profile_are_counted_too(receiving, temporality):
    ingest, endpoint = receiving
    exporter = OTLPMetricExporter(endpoint, insecure=True)
    monitor = Monitor("m", version="1", exporter=exporter, resource=RESOURCE, temporality=temporality)
    for _ in range(3):
        with monitor.inference({"x": np.array([0.5, -2.0, np.nan]), "kind": np.array(["a", "b", "b"])}) as call:
            call.record(np.array([1.0, 2.0, 3.0]))
        assert monitor.flush()
    monitor.close()
    exporter.shutdown()
    (view,) = ingest.views()
    x = view.totals[VariableKey("feature", "x")]
    assert (x.seen, x.cells.sum(), dict(x.invalid), x.exponential) == (9, 6, {"nan": 3}, True)
    assert dict(view.totals[VariableKey("feature", "kind")].categories) == {"a": 3, "b": 6}
    assert view.totals[VariableKey("value", "")].seen == 9
    assert view.active_calls == 0
    assert sum(int(histogram.cells.sum()) for histograms in view.operations.values() for histogram in histograms) == 6
    assert not ingest.counters().fold.dropped
