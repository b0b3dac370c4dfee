"""Real forks: what was counted before is the parent's, and both deliver exactly what they counted."""

from __future__ import annotations

import pytest

from otel_mlmon import semconv

COUNT = semconv.METRIC_ML_FEATURE_COUNT


def by_incarnation(collector, temporality):
    """Rows of x from each process: the sum of its deltas, or its last total; with its start times."""
    rows, starts, instances = {}, {}, {}
    for point in collector.of(COUNT, name="x"):
        if temporality == "delta":
            rows[point.incarnation] = rows.get(point.incarnation, 0) + point.point.as_int
        else:
            assert point.point.as_int >= rows.get(point.incarnation, 0)
            rows[point.incarnation] = point.point.as_int
        starts.setdefault(point.incarnation, []).append(point.point.start_time_unix_nano)
        instances.setdefault(point.incarnation, set()).add(point.resource["service.instance.id"])
    return rows, starts, instances


ENDS = {
    "ends": "sys.exit(0)",
    "flushes and leaves": "assert monitor.flush(); os._exit(0)",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("sent", ["sent", "not sent"])
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_what_was_predicted_before_a_fork_is_counted_once_and_both_go_on(
    temporality, sent, end, grpc_collector, run_script
):
    """As under gunicorn --preload, with a connection that was in use before the fork or none."""
    done = run_script(
        f"""
        import os, sys
        from otel_mlmon import Monitor

        monitor = Monitor("m")
        for _ in range(1000):
            monitor.observe({{"x": 1.0}})
        with monitor.inference({{"x": 1.0}}) as call:
            pass
        if {sent == "sent"}:
            assert monitor.flush()
        child = os.fork()
        for _ in range(10 if child else 300):
            monitor.observe({{"x": 2.0}})
        if not child:
            {ENDS[end]}
        assert monitor.flush()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        monitor.observe({{"x": 3.0}})
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=temporality,
    )
    assert done.returncode == 0, done.stderr
    rows, starts, instances = by_incarnation(grpc_collector, temporality)
    assert sorted(rows.values()) == [300, 1012]
    (child,) = [incarnation for incarnation, n in rows.items() if n == 300]
    (parent,) = [incarnation for incarnation, n in rows.items() if n == 1012]
    assert min(starts[child]) > min(starts[parent])
    assert instances[child].isdisjoint(instances[parent])
    calls = grpc_collector.of(semconv.METRIC_ML_INFERENCE_DURATION)
    assert {p.incarnation for p in calls} == {parent}
    assert {p.point.count for p in calls} == {1}


def test_several_workers_of_one_master_deliver_exactly(grpc_collector, run_script):
    done = run_script(
        """
        import os, sys
        import numpy as np
        from otel_mlmon import Monitor

        monitor = Monitor("m")
        monitor.observe(np.ones((5, 1)))
        monitor.flush()
        children = []
        for number in range(4):
            child = os.fork()
            if not child:
                for _ in range(100 * (number + 1)):
                    monitor.observe(np.ones((1, 1)))
                sys.exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    assert done.returncode == 0, done.stderr
    rows = {}
    for point in grpc_collector.of(COUNT, name="x0"):
        rows[point.incarnation] = rows.get(point.incarnation, 0) + point.point.as_int
    assert sorted(rows.values()) == [5, 100, 200, 300, 400]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_fork_while_threads_record_and_export_does_not_deadlock(protocol, collectors, run_script):
    collector = collectors[protocol]
    done = run_script(
        """
        import os, sys, threading
        import numpy as np
        from otel_mlmon import Monitor

        monitor, stop, counts = Monitor("m"), threading.Event(), [0] * 8

        def call(i):
            while not stop.is_set():
                with monitor.inference(np.ones((1, 1))) as call:
                    call.record([1.0])
                counts[i] += 1

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(counts))]
        for thread in threads:
            thread.start()
        for _ in range(10):
            child = os.fork()
            if not child:  # only this thread is there
                for _ in range(7):
                    with monitor.inference(np.ones((1, 1))) as inference:
                        inference.record([1.0])
                assert monitor.flush()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        for thread in threads:
            thread.join()
        print(sum(counts))
        """,
        coverage=False,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        OTEL_METRIC_EXPORT_INTERVAL="5",
    )
    assert done.returncode == 0, done.stderr
    rows = {}
    for point in collector.of(COUNT, name="x0"):
        rows[point.incarnation] = rows.get(point.incarnation, 0) + point.point.as_int
    children, parent = sorted(rows.values())[:-1], max(rows.values())
    assert children == [7] * 10
    assert parent == int(done.stdout)
    levels = {p.incarnation: p.point.as_int for p in collector.of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)}
    assert set(levels.values()) == {0}


def test_a_fork_while_the_collector_does_not_answer_is_not_held_up_by_it(grpc_collector, run_script):
    """The export under way is ended, the child delivers, and the parent sends again what was not acknowledged."""
    done = run_script(
        """
        import os, socket, sys
        with socket.create_server(("127.0.0.1", 0)) as silent:
            away = f"http://127.0.0.1:{silent.getsockname()[1]}"
            there, os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"], away
            from otel_mlmon import Monitor
            monitor = Monitor("m")
            monitor.observe({"x": 1.0})
            silent.accept()  # the export has begun
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = there
            child = os.fork()
        monitor.observe({"x": 2.0})
        assert monitor.flush()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        OTEL_METRIC_EXPORT_INTERVAL="5",
    )
    assert done.returncode == 0, done.stderr
    rows, _, _ = by_incarnation(grpc_collector, "delta")
    assert sorted(rows.values()) == [1, 2]


def test_a_call_during_which_the_process_forks_is_the_parents(grpc_collector, run_script):
    done = run_script(
        """
        import os, sys
        from otel_mlmon import Monitor

        monitor = Monitor("m")
        with monitor.inference({"x": 1.0}):
            child = os.fork()
        monitor.observe({"x": 2.0})
        assert monitor.flush()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    assert done.returncode == 0, done.stderr
    rows, _, _ = by_incarnation(grpc_collector, "delta")
    assert sorted(rows.values()) == [1, 2]
    levels = grpc_collector.of(semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS)
    assert {p.point.as_int for p in levels} == {0}
    assert [p.point.count for p in grpc_collector.of(semconv.METRIC_ML_INFERENCE_DURATION)] == [1]


def test_requests_that_waited_in_the_applications_exporter_stay_the_parents(grpc_collector, run_script):
    done = run_script(
        """
        import os
        from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricsData
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
        from otel_mlmon import Monitor
        from otel_mlmon.export import MonitoredExporter

        class Failing(MetricExporter):
            failing, sums = True, []
            def export(self, data, timeout_millis=10_000, **kwargs):
                if self.failing:
                    return MetricExportResult.FAILURE
                for resource in data.resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            if metric.name.endswith("feature.count"):
                                self.sums += [point.value for point in metric.data.data_points]
                return MetricExportResult.SUCCESS
            def force_flush(self, timeout_millis=10_000): return True
            def shutdown(self, timeout_millis=30_000, **kwargs): pass

        monitor, exporter = Monitor("m"), Failing()
        wrapper = MonitoredExporter(exporter, monitor, temporality=AggregationTemporality.DELTA)
        monitor.observe({"x": [1.0, 1.0]})
        wrapper.export(MetricsData([]))
        child = os.fork()
        exporter.failing = False
        monitor.observe({"x": 2.0})
        wrapper.export(MetricsData([]))
        assert exporter.sums == ([2, 1] if child else [1]), exporter.sums
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.endpoint,
    )
    assert done.returncode == 0, done.stderr
