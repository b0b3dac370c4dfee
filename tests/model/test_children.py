"""Children of multiprocessing, of which those that are forked end without atexit, deliver what they have counted."""

from __future__ import annotations

import pytest

from otel_mlmon import semconv

SERVE = """
import multiprocessing, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.util import Finalize

from otel_mlmon import Monitor

monitor = Monitor("m")
assert monitor.flush()  # what that imports takes longer on a busy machine than a process waits at its end

def predict(rows):
    for _ in range(rows):
        with monitor.inference({"x": 1.0}) as call:
            call.record([1.0])
    return rows

def fail(rows):
    predict(rows)
    raise KeyError("mine")

def leave(rows):
    predict(rows)
    sys.exit(3)

def on_threads(rows):
    predict(1)
    ended = threading.Event()  # set after all finalizers but this one
    Finalize(None, ended.set, exitpriority=-1000)
    threading.Thread(target=lambda: (ended.wait(), predict(rows - 2))).start()
    ThreadPoolExecutor(1).submit(lambda: (ended.wait(), predict(1)))  # is not shut down

def with_children(rows):
    predict(rows)
    child = os.fork()
    if not child:
        predict(100 * rows)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    multiprocessing.Process(target=predict, args=(10 * rows,)).start()  # is not joined
"""


@pytest.fixture
def run_children(run_script, grpc_collector, tmp_path):
    """Run a script that can import `serve`; the rows that each process has sent, and what stands on stderr."""

    def run(code, serve=SERVE):
        (tmp_path / "serve.py").write_text(serve)
        done = run_script(
            code,
            OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        )
        assert done.returncode == 0, done.stderr
        rows = {}
        for point in grpc_collector.of(semconv.METRIC_ML_FEATURE_COUNT, name="x"):
            rows[point.incarnation] = rows.get(point.incarnation, 0) + point.point.as_int
        return sorted(rows.values()), done.stderr

    return run


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_deliver_what_they_counted_however_they_end(method, run_children):
    rows, error = run_children(
        f"""
        import multiprocessing
        import serve

        ENDS = serve.predict, serve.fail, serve.leave, serve.on_threads, serve.with_children
        if __name__ == "__main__":
            multiprocessing.set_start_method("{method}")
            children = [multiprocessing.Process(target=end, args=(i,)) for i, end in enumerate(ENDS, 3)]
            for child in children:
                child.start()
            for child in children:
                child.join(60)
            codes = [child.exitcode for child in children]
            assert codes == [0, 1, 3, 0, 0], codes
        """
    )
    assert rows == [3, 4, 5, 6, 7, 70, 700]
    assert error.count("Traceback") == 1
    assert error.splitlines()[-1] == "KeyError: 'mine'"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_an_executor_deliver_what_they_and_the_import_of_a_module_counted(method, run_children):
    """What is spawned imports it before it is a child; what is forked inherits what the parent counted."""
    rows, error = run_children(
        f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        import serve

        if __name__ == "__main__":
            with ProcessPoolExecutor(2, multiprocessing.get_context("{method}")) as pool:
                assert sum(pool.map(serve.predict, range(20))) == 190
        """,
        SERVE + "predict(1000)",
    )
    assert sum(n % 1000 for n in rows) == 190
    assert sum(n >= 1000 for n in rows) == (1 if method == "fork" else len(rows))
    assert error == ""
