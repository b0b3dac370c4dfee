"""What the recorder counts of the rows that a profile was built from is what the profile counted."""

import datetime as dt
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from otel_mlmon import Monitor, semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.profile import Profile

START = dt.datetime(2013, 1, 1, 6, 30)


class Kept(MetricExporter):
    """Keeps what is exported."""

    def __init__(self):
        super().__init__()
        self.points = []

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.points += [(metric.name, dict(point.attributes), point) for point in metric.data.data_points]
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass

    def of(self, metric, name):
        return [
            (a, point) for m, a, point in self.points if m == metric.name and a.get(semconv.ML_FEATURE_NAME) == name
        ]


def rows(n=3_000):
    rng = np.random.default_rng(3)
    return {
        "number": np.where(rng.random(n) < 0.02, np.nan, rng.normal(5, 2, n)),
        "atom": np.where(rng.random(n) < 0.4, 0.0, rng.exponential(size=n)),
        "single": rng.lognormal(size=n).astype(np.float32).astype(np.float64),
        "few": rng.integers(0, 7, n),
        "many": rng.integers(0, 10_000, n),
        "flag": rng.random(n) < 0.2,
        "word": rng.choice(["UA", "AA", "DL"], n).astype(object),
        "id": np.array([f"id{i}" for i in rng.integers(0, 2_000, n)], dtype=object),
        "when": np.datetime64(START) + rng.integers(0, 10**7, n).astype("timedelta64[s]"),
        "essay": np.array(
            [f"{i} {'lorem ipsum ' * int(k)}" for i, k in enumerate(rng.integers(4, 30, n))], dtype=object
        ),
        "nothing": np.full(n, np.nan),
    }


NULLABLE = {"few": "Int64", "many": "Int32", "flag": "boolean", "word": "string", "id": "category"}
CONTAINERS = {
    "dict": dict,
    "pandas": pd.DataFrame,
    "nullable": lambda data: pd.DataFrame(data).astype(NULLABLE),
    "polars": lambda data: pl.DataFrame({name: column.tolist() for name, column in data.items()}),
    "arrow": lambda data: pa.table({name: pa.array(column) for name, column in data.items()}),
    "rows": lambda data: pd.DataFrame(data).to_dict("records"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_training_rows_are_counted_alike_when_served(name):
    data = rows()
    profile = Profile.build(pd.DataFrame(data), model="m")
    newest = next(v.origin for v in profile.plan.variables if v.transform == "age")
    exporter = Kept()
    monitor = Monitor(profile, exporter=exporter, temporality="delta", clock=lambda: newest)
    try:
        monitor.observe(CONTAINERS[name](data))
        assert monitor.flush()
    finally:
        monitor.close()
    for reference in profile.references:
        variable, histogram = reference.variable, reference.histogram
        if isinstance(variable.axis, NumericAxis):
            ((_, point),) = exporter.of(semconv.METRIC_ML_FEATURE_VALUE, variable.name)
            assert list(point.bucket_counts) == histogram.counts.tolist(), variable.name
            assert (point.min, point.max) == (histogram.min, histogram.max)
            assert point.sum == pytest.approx(histogram.sum, rel=1e-12)
        else:
            points = exporter.of(semconv.METRIC_ML_FEATURE_CATEGORY, variable.name)
            sent = {attributes[semconv.ML_FEATURE_CATEGORY]: point.value for attributes, point in points}
            counts = zip(variable.axis.labels, histogram.counts.tolist(), strict=True)
            assert sent == {label: count for label, count in counts if count}, variable.name
        ((_, seen),) = exporter.of(semconv.METRIC_ML_FEATURE_COUNT, variable.name)
        assert seen.value == histogram.seen
        points = exporter.of(semconv.METRIC_ML_FEATURE_INVALID, variable.name)
        invalid = {attributes[semconv.ML_FEATURE_INVALID_REASON]: point.value for attributes, point in points}
        assert sum(invalid.values()) == histogram.invalid.total, variable.name


def test_reading_a_profile_imports_nothing_heavy(tmp_path):
    path = tmp_path / "m.json"
    Profile.build({"x": [1.0, 2.0]}, model="m").save(path)
    script = (
        "import sys; from otel_mlmon.profile import Profile\n"
        f"profile = Profile.load({str(path)!r}); profile.hash; profile.plan; Profile.attached(object())\n"
        "heavy = {'pyarrow', 'pandas', 'polars', 'rich', 'scipy', 'sklearn', 'otel_mlmon.profile.build',\n"
        "         'otel_mlmon.profile.sources', 'otel_mlmon.columns'} & {*sys.modules}\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
