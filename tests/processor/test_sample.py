"""A data directory that was written by the version that brought a format is opened by this one.

When the format changes, the old sample stays, and a new one is made: `python tests/processor/test_sample.py` makes what
is not there. The newest has an alarms.state too, of which no older version is read: it is deleted and made anew.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.alarm_store import FILE
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.database import FORMAT
from otel_mlmon_processor.exporters.events import EventQueue
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.journal import JournalError
from otel_mlmon_processor.sending import SendingTally
from otel_mlmon_processor.watch import Watch
from otel_mlmon_processor.windows import ModelKey, VariableCounts, VariableKey, Window

from otel_mlmon import semconv
from otel_mlmon.numerics.scales import DAY
from otel_mlmon.profile.document import Profile

SAMPLES = Path(__file__).parent / "samples"
NAMES = sorted(path.name for path in SAMPLES.iterdir()) if SAMPLES.exists() else []
COUNTS, VALUE = semconv.METRIC_ML_FEATURE_COUNT.name, semconv.METRIC_ML_FEATURE_VALUE.name
CALLS = semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name
DURATION = semconv.METRIC_ML_INFERENCE_DURATION.name
PLACE = "http://127.0.0.1:4317"
KEYS = [ModelKey("shop", "svc", "prod", name, "1") for name in ("m", "bare", "new")]
START = 20_000 * DAY  # windows


def make_profile() -> Profile:
    train = {"x": [0.0, 1.0, 2.0, 3.0] * 5, "c": ["a", "b"] * 10}
    return Profile.build(train, model="m", version="1", created="2025-01-01T00:00:00Z")


def make_requests(otlp) -> list[tuple[str, bytes]]:
    """Two replicas over two paths, deltas and totals of every kind, a profile, and something that is not ours."""
    first = otlp.Sender("a", "i", namespace="shop", environment="prod")
    second = otlp.Sender("b", "", namespace="shop", environment="prod")
    total = {"temporality": otlp.CUMULATIVE}
    spread = Metric(name=VALUE)
    spread.exponential_histogram.aggregation_temporality = otlp.CUMULATIVE
    point = spread.exponential_histogram.data_points.add(scale=1, count=7, zero_count=2, sum=9.0)
    point.start_time_unix_nano, point.time_unix_nano = otlp.at(0), otlp.at(2)
    point.positive.offset = 3
    point.positive.bucket_counts.extend([4, 0, 1])
    second.label(point, VALUE, {semconv.ML_FEATURE_NAME: "z"})
    foreign = Metric(name="app.requests")
    foreign.gauge.data_points.add(time_unix_nano=otlp.at(2), as_int=1)
    category, invalid = semconv.METRIC_ML_FEATURE_CATEGORY.name, semconv.METRIC_ML_FEATURE_INVALID.name
    a = {semconv.ML_FEATURE_NAME: "c", semconv.ML_FEATURE_CATEGORY: "a"}
    nan = {semconv.ML_FEATURE_INVALID_REASON: semconv.FeatureInvalidReason.NAN}
    profile = make_profile()
    return [
        ("logs", first.profile(profile.hash, {1: gzip.compress(profile.to_bytes(), mtime=0)}, 1)),
        (
            "metrics",
            first.request(
                first.histogram([1, 2, 3, 4], 0, 1, total=12.5),
                first.count(11, 0, 1),
                first.count(6, 0, 1, name=category, labels=a),
                first.count(1, 0, 1, name=invalid, labels=nan),
                first.histogram([5, 0, 0, 1], 0, 1, name=DURATION, total=0.5),
                first.count(3, 0, 1, name=CALLS, monotonic=False, **total),
            ),
        ),
        (
            "metrics",
            second.request(
                second.histogram([10, 0, 0, 10], 0, 1, total=40.0, **total),
                second.count(20, 0, 1, **total),
            ),
        ),
        # Here a checkpoint is written.
        (
            "metrics",
            second.request(
                second.histogram([12, 0, 0, 10], 0, 2, total=40.0, **total),
                second.count(22, 0, 2, **total),
                spread,
                foreign,
            ),
        ),
        ("metrics", first.request(first.histogram([0, 1, 0, 0], 1, 2, total=0.5), first.count(1, 1, 2))),
    ]


def fill(directory: Path, otlp) -> None:
    ingest = Ingest(directory, forwarding=True, clock=lambda: otlp.at(2))
    for number, request in enumerate(make_requests(otlp)):
        if number == 3:
            ingest.checkpoint()
        ingest.submit(*request)
    with contextlib.closing(sqlite3.connect(directory / "copy.db")) as copy:
        source = sqlite3.connect(ingest.path)
        source.backup(copy)
        source.close()
    ingest.close()
    (directory / "copy.db").rename(directory / "mlmon.db")


def open_watch(directory: Path, queue: EventQueue) -> Watch:
    unsent = lambda: [(PLACE, queue.unsent())]  # noqa: E731
    settings = {"hold": None, "memory": 10**8, "clock": lambda: 0.0}
    return Watch(directory, lambda model: AlarmSettings(), unsent=unsent, **settings)


def view_model(views, key: ModelKey, windows=()):
    profile = make_profile() if key.model == "m" else None
    return views.view(profile, {"x": VariableCounts(0, {})}, key=key, windows=windows), profile


def fill_alarms(directory: Path, views) -> None:
    """What is known of a model with a profile after nine days, at the end of which an alarm is raised; of one without
    after four; and of one that is new. Nobody has taken the event.
    """
    rng, queue = np.random.default_rng(93), EventQueue(SendingTally(semconv.MonPurpose.EXPORT, PLACE))
    watch = open_watch(directory, queue)
    for key, days in zip(KEYS, (9, 4, 0.1), strict=True):
        _, profile = view_model(views, key)
        for minute in range(0, round(days * DAY), 20):
            x = rng.integers(0, 4 if minute < 8 * DAY else 2, 40).astype(float)
            variables = views.variables(profile, {"x": x, "c": rng.choice(["a", "b"], 40)})
            if profile is None:
                edges = np.arange(-1.0, 4.0)
                cells = np.bincount(np.searchsorted(edges, x), minlength=edges.size + 1)
                variables = {VariableKey("feature", "x"): VariableCounts(40, {}, edges, cells, float(x.sum()))}
            view, _ = view_model(views, key, (Window(START + minute, variables),))
            for event in watch.look(view, profile).events:
                queue.tell(key, event)
    watch.save()


def read(directory: Path, otlp, again=()):
    """What is held, after some requests more."""
    ingest = Ingest(directory, forwarding=True, clock=lambda: otlp.at(2))
    for request in again:
        ingest.submit(*request)
    (view,) = ingest.views()
    ((profile,),) = ingest.profiles().values()
    counters = ingest.counters()
    x, c, z = (view.totals[type(otlp.X)("feature", name)] for name in "xcz")
    (replicas,) = view.replicas.of(otlp.X)
    held = {
        "key": tuple(view.key),
        "x": (x.cells.tolist(), x.edges.tolist(), x.sum, x.seen, dict(x.invalid)),
        "c": dict(c.categories),
        "z": (z.cells[z.cells > 0].tolist(), z.sum),
        "window": view.window[otlp.X].cells.tolist(),
        "replicas": dict(zip(replicas.names, replicas.cells.tolist(), strict=True)),
        "calls": (view.active_calls, view.operations[DURATION][0].cells.tolist()),
        "profile": profile.hash,
        "counters": (ingest.recovered, counters.fold.points, counters.fold.producers, ingest.outbox_size()[0]),
    }
    ingest.close()
    return held, counters.fold.duplicates


@pytest.fixture(params=NAMES)
def sample(request, tmp_path):
    return shutil.copytree(SAMPLES / request.param, tmp_path / "data")


def test_there_is_a_sample_of_this_format():
    assert f"format-{FORMAT}" in NAMES


def test_it_is_opened_with_what_was_counted(sample, otlp):
    held, duplicates = read(sample, otlp)
    assert held == {
        "key": ("shop", "svc", "prod", "m", "1"),
        "x": ([13, 3, 3, 14], [0.0, 1.0, 2.0], 53.0, 34, {"nan": 1}),
        "c": {"a": 6},
        "z": ([2, 4, 1], 9.0),
        "window": [13, 3, 3, 14],
        "replicas": {"a": [1, 3, 3, 4], "b": [12, 0, 0, 10]},
        "calls": (3, [5, 0, 0, 1]),
        "profile": "0482b175a3084371",
        "counters": (2, 13, 2, 1),
    }
    assert duplicates == 0


def test_it_knows_what_it_has_counted(sample, otlp):
    before, _ = read(shutil.copytree(sample, sample.parent / "other"), otlp)
    metrics = [request for request in make_requests(otlp) if request[0] == "metrics"]
    after, duplicates = read(sample, otlp, again=metrics)
    assert {**after, "counters": None} == {**before, "counters": None}
    assert duplicates == 12  # all but the level, of which the newest is kept


def test_the_command_calls_it_sound(sample, real):
    done = subprocess.run(
        [real.BIN / "otel-mlmon", "store", "check", sample], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "journal     2 requests since" in done.stdout
    assert "outbox      1 requests wait" in done.stdout


def test_the_alarms_are_loaded_whole(tmp_path, views, wait):
    directory = shutil.copytree(SAMPLES / f"format-{FORMAT}", tmp_path / "data")
    queue = EventQueue(SendingTally(semconv.MonPurpose.EXPORT, PLACE))
    watch = open_watch(directory, queue)
    wait(  # what is normal is reckoned anew by another thread
        lambda: watch.look(*view_model(views, KEYS[0])).alarms.phase != "learning", "what was learnt"
    )
    states = {key.model: watch.look(*view_model(views, key)).alarms for key in KEYS}
    learnt = {name: (state.phase, state.days, state.raised) for name, state in states.items()}
    assert learnt == {"m": ("provisional", 8, 1), "bare": ("learning", 2, 0), "new": ("learning", 0, 0)}
    assert states["m"].alarm.text == "x: mean down 0.9 sd, spread x 0.45"  # halves of 0, 1, 2, 3
    last = {key.model: window.start - 1 - START for key, held in watch.wanted().items() for window in held.values()}
    assert last == {"m": 9 * DAY - 20, "bare": 4 * DAY - 20, "new": 140}
    ((place, saved),) = watch.unsent
    queue.restore(saved)
    (event,) = queue.unsent()
    assert (place, event.key, event.kind) == (PLACE, KEYS[0], "raise")
    assert 0 < event.time / 60 - (START + 8 * DAY) <= 60
    assert event.text.startswith("alarm: x: mean down ")
    assert not list(directory.glob("*.broken"))


DAMAGES = {
    "another": ("UPDATE document SET body = x'00'", "is not what was written"),
    "none": ("DELETE FROM document", "is missing"),
}


@pytest.mark.parametrize(("statement", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_profile_that_was_damaged_is_found_and_named(tmp_path, real, statement, says):
    directory = shutil.copytree(SAMPLES / f"format-{FORMAT}", tmp_path / "data")
    with contextlib.closing(sqlite3.connect(directory / "mlmon.db", isolation_level=None)) as database:
        (digest,) = database.execute("SELECT digest FROM document").fetchone()
        database.execute(statement)
    with pytest.raises(JournalError, match=rf"the profile {digest} {says}.*restore a backup"):
        Ingest(directory)
    command = [real.BIN / "otel-mlmon", "store", "check", directory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"the profile {digest} {says}" in done.stdout


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("sample_requests", Path(__file__).parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sample_requests"] = module
    spec.loader.exec_module(module)
    target = SAMPLES / f"format-{FORMAT}"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "data", module.Otlp)
        fill_alarms(Path(folder) / "data", module.Views)
        for name in ("mlmon.db", FILE):
            if not (target / name).exists():
                shutil.copy(Path(folder) / "data" / name, target)
