"""`opentelemetry-instrument` in front of plain scripts, as real processes that send to a real receiver."""

import io
import json
import os
import subprocess
import sys
import sysconfig
import venv
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from otel_mlmon import semconv

pytestmark = pytest.mark.timeout(120)

OFF = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
INSTRUMENT = Path(sys.executable).parent / "opentelemetry-instrument"
SERVE = """
import numpy as np
from sklearn.linear_model import LogisticRegression
X = np.random.default_rng(1).normal(size=(40, 2))
y = (X[:, 0] > 0).astype(int)
print(LogisticRegression().fit(X, y).predict(X[:7]).tolist())
try:
    import xgboost
    print(xgboost.XGBClassifier(n_estimators=2).fit(X, y).predict(X[:5]).tolist())
except ImportError:
    print("no xgboost")
"""
# Four ways into a thread; the last does not take the context along.
TASKS = """
import asyncio, contextvars, json
import anyio.to_thread
import numpy as np
from opentelemetry import trace
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X = np.random.default_rng(1).normal(size=(200, 2))
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, X[:, 0] > 0)
tracer = trace.get_tracer("app")

async def request(i):
    with tracer.start_as_current_span(f"request {i}"):
        rows = X[i : i + 1 + i % 3]
        await asyncio.sleep(0)
        if i % 4 == 0:
            return await anyio.to_thread.run_sync(model.predict, rows)
        if i % 4 == 1:
            return await asyncio.to_thread(model.predict, rows)
        loop = asyncio.get_running_loop()
        if i % 4 == 2:
            return await loop.run_in_executor(None, contextvars.copy_context().run, model.predict, rows)
        return await loop.run_in_executor(None, model.predict, rows)

async def main():
    return [len(result) for result in await asyncio.gather(*map(request, range(120)))]

print(json.dumps(asyncio.run(main())))
"""
# Worker processes are started by the same command line, so they are instrumented too.
WORKERS = """
import numpy as np
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

X = np.random.default_rng(1).normal(size=(60, 2))
y = (X[:, 0] > 0).astype(int)
cross_val_score(LogisticRegression(), X, y, cv=2, n_jobs=2)
cross_val_predict(LogisticRegression(), X, y, cv=2, n_jobs=2, method="predict_proba")
GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, n_jobs=2).fit(X, y)
model = BaggingClassifier(LogisticRegression(), 2, n_jobs=2, random_state=0).fit(X, y)
print(model.predict(X[:9]).tolist())
"""


@pytest.fixture
def run(receiver, tmp_path):
    def instrumented(script: str, *command, **environment: str) -> subprocess.CompletedProcess:
        path = tmp_path / "script.py"
        path.write_text(script)
        settings = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", OFF: "fastapi", **environment}
        command = [*(command or (INSTRUMENT, sys.executable)), path]
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return instrumented


def fake_distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def python_without(tmp_path):
    """An interpreter with all that this one has installed, less some."""

    def make(*prefixes: str) -> Path:
        folder = tmp_path / "venv"
        venv.create(folder, with_pip=False, symlinks=True)
        base = {"base": str(folder), "platbase": str(folder)}
        scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
        there = Path(sysconfig.get_path("purelib", scheme, base))
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not entry.name.startswith(prefixes) and not (there / entry.name).exists():
                (there / entry.name).symlink_to(entry)
        return folder / "bin" / "python"

    return make


def test_a_plain_script_is_recorded_with_exact_counts_and_says_the_same(receiver, run):
    done = run(SERVE)
    with redirect_stdout(io.StringIO()) as plain:
        exec(SERVE, {})
    assert (done.stdout, done.stderr) == (plain.getvalue(), "")
    assert receiver.features("LogisticRegression") == {"x0": 7, "x1": 7}
    assert receiver.features("XGBClassifier") == {"x0": 5, "x1": 5}
    first, second = map(json.loads, done.stdout.splitlines())
    assert receiver.classes("LogisticRegression") == {"1": sum(first), "0": 7 - sum(first)}
    assert receiver.classes("XGBClassifier") == {"1": sum(second), "0": 5 - sum(second)}


def test_where_xgboost_is_absent_only_it_is_skipped(receiver, run, python_without):
    python = python_without("xgboost")
    code = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    done = run(SERVE, python, "-c", code, python)
    assert done.stdout.splitlines()[1] == "no xgboost"
    assert done.stderr == ""
    assert receiver.features() == {"x0": 7, "x1": 7}


@pytest.mark.parametrize(
    "case",
    [("xgboost_cpu", "xgboost", {"LogisticRegression": 7}), ("scikit_learn", "sklearn", {"XGBClassifier": 5})],
    ids=["xgboost", "sklearn"],
)
def test_a_framework_that_is_too_old_is_skipped_alone_and_told_of(receiver, run, tmp_path, case):
    distribution, skipped, left = case
    fake_distribution(tmp_path, distribution, "0.9")
    done = run(SERVE, PYTHONPATH=str(tmp_path))
    assert {model: receiver.features(model)["x0"] for model, _ in receiver.models} == left
    assert f"otel_mlmon_{skipped} only instruments" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_one_framework_can_be_switched_off(receiver, run):
    done = run(SERVE, **{OFF: "fastapi,otel_mlmon_sklearn"})
    assert receiver.models == {("XGBClassifier", "")}
    assert receiver.features() == {"x0": 5, "x1": 5}
    assert done.stderr == ""


def test_where_the_sdk_is_disabled_nothing_is_sent_and_nothing_fails(receiver, run):
    done = run(SERVE, OTEL_SDK_DISABLED="true", OTEL_TRACES_EXPORTER="otlp")
    assert not receiver.metrics
    assert not receiver.traces
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_tasks_that_predict_in_threads_are_counted_exactly_and_are_children_of_their_spans(receiver, run):
    done = run(TASKS, **{OFF: "fastapi,otel_mlmon_xgboost"}, OTEL_TRACES_EXPORTER="otlp")
    sizes = [1 + i % 3 for i in range(120)]
    assert json.loads(done.stdout) == sizes
    assert receiver.features() == {"x0": sum(sizes), "x1": sum(sizes)}
    assert receiver.calls() == {("predict", ""): 120}

    ours = [span for scope, span in receiver.spans if scope == "otel_mlmon"]
    requests = {span.span_id: int(span.name.split()[1]) for scope, span in receiver.spans if scope == "app"}
    assert (len(ours), len(requests)) == (120, 120)
    assert {span.name for span in ours} == {"predict Pipeline"}
    rows_of = {}
    for span in ours:
        size = next(item.value.int_value for item in span.attributes if item.key == semconv.ML_INFERENCE_BATCH_SIZE)
        rows_of.setdefault(requests.get(span.parent_span_id), []).append(size)
    with_context = [i for i in range(120) if i % 4 != 3]
    assert {i: rows_of[i] for i in with_context} == {i: [sizes[i]] for i in with_context}
    assert len(rows_of[None]) == 30  # run_in_executor does not hand the context on


def test_what_models_do_on_worker_processes_is_part_of_their_call(receiver, run):
    done = run(WORKERS, **{OFF: "fastapi,otel_mlmon_xgboost"})
    assert len(json.loads(done.stdout)) == 9
    assert receiver.models == {("BaggingClassifier", "")}
    assert receiver.features() == {"x0": 9, "x1": 9}
    assert receiver.calls() == {("predict", ""): 1}
