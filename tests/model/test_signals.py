"""Signals: what they raise passes as it is, wherever it strikes, and counts go on being right."""

from __future__ import annotations

import linecache
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.config import Settings
from otel_mlmon.guard import is_outermost
from otel_mlmon.monitor import Inference
from otel_mlmon.recorder import BLOCK_ROWS

OURS = str(Path(otel_mlmon.__file__).parent)
FIRST = Inference.__exit__.__code__, Inference.__exit__.__code__.co_firstlineno + 1
COUNT, DURATION = semconv.METRIC_ML_FEATURE_COUNT, semconv.METRIC_ML_INFERENCE_DURATION


def interrupt_at(number, function):
    """Call a function and raise KeyboardInterrupt before the numbered line of ours that it runs; whether it got there.

    Not before the first of `__exit__`: no Python code guards the instant between the model and ours. Nor at a `with`,
    which a tracer sees again before its end; there the interpreter lets no signal in.
    """
    left = number

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and (frame.f_code, frame.f_lineno) != FIRST and not line.startswith("with "):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("filled", [0, BLOCK_ROWS - 2], ids=["in a block", "that fills a block"])
def test_an_interrupt_at_any_line_of_ours_leaves_later_calls_counted(filled, make_sink, make_monitor):
    number, came = 0, True
    sink = make_sink()
    monitor = make_monitor("m", exporter=sink, temporality="delta", settings=Settings(interval=86_400.0))
    rows = calls = 0
    row = np.ones((1, 2))

    def call():
        with monitor.inference(row) as inference:
            inference.record([1.0])

    monitor.observe(row)
    assert monitor.flush()
    while came:
        sink.requests.clear()
        if filled:
            monitor.observe(np.ones((filled, 2)))
        came = interrupt_at(number, call)
        number += 1
        assert is_outermost(), number
        for _ in range(5):
            call()
        assert monitor.flush()
        rows, calls = sink.total(COUNT, name="x0") - filled, sink.total(DURATION)
        assert rows in (5, 6), number
        assert calls in (5, 6), number
        assert [p.point.value for p in sink.of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)] == [0], number
    assert number > 50
    assert (rows, calls) == (6, 6)  # the last went through


def test_what_a_signal_raises_in_the_model_passes_as_it_is_and_the_process_goes_on(grpc_collector, run_script):
    done = run_script(
        """
        import os, signal
        from otel_mlmon import Monitor

        monitor = Monitor("m")
        for _ in range(3):
            try:
                with monitor.inference({"x": 1.0}):
                    os.kill(os.getpid(), signal.SIGINT)
                    signal.pause()
            except KeyboardInterrupt:
                pass
        with monitor.inference({"x": 1.0}):
            pass
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [p.point.as_int for p in grpc_collector.of(COUNT, name="x")] == [4]
    calls = {p.attributes.get("error.type"): p.point.count for p in grpc_collector.of(DURATION)}
    assert calls == {None: 1, "KeyboardInterrupt": 3}


TERMINATED = """
import os, signal, sys
from otel_mlmon import Monitor

{handle}
monitor = Monitor("m")
monitor.observe({{"x": 1.0}})
assert monitor.flush()
with monitor.inference({{"x": 2.0}}):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""


@pytest.mark.parametrize(
    ("handle", "code", "rows"),
    [("", -signal.SIGTERM, 1), ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))", 4, 2)],
    ids=["no handler", "a handler that exits"],
)
def test_a_process_that_is_terminated_delivers_what_is_left_where_it_ends_by_itself(
    handle, code, rows, grpc_collector, run_script
):
    done = run_script(
        TERMINATED.format(handle=handle),
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert sum(p.point.as_int for p in grpc_collector.of(COUNT, name="x")) == rows
