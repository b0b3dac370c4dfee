"""Replicas that record, export, retry, restart and jump in time, over a network that delays and repeats, into a
processor that is restored from its checkpoints: in the end each count is there once.
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import FoldSettings

CELLS = 4
counts = st.lists(st.integers(0, 9), min_size=CELLS, max_size=CELLS)


class Replica:
    """A process of a replica; its clock may be off, and jump."""

    def __init__(self, otlp, sender, minute, *, cumulative):
        self.otlp, self.sender, self.cumulative = otlp, sender, cumulative
        self.started = self.exported = minute
        self.pending = np.zeros(CELLS, dtype=np.int64)
        self.total = np.zeros(CELLS, dtype=np.int64)

    def export(self, minute):
        """The next request: an increase since the last one, or all since the start."""
        self.total += self.pending
        if self.cumulative:
            minute = max(minute, self.exported + 0.01)  # SDKs keep cumulative times in order
            sent, start, temporality = self.total, self.started, self.otlp.CUMULATIVE
        else:
            sent, start, temporality = self.pending, self.exported, self.otlp.DELTA
        self.exported = minute
        options = {"temporality": temporality}
        body = self.sender.request(
            self.sender.histogram(sent.tolist(), start, minute, total=float(sent.sum()), **options),
            self.sender.count(int(sent.sum()), start, minute, **options),
        )
        self.pending = np.zeros(CELLS, dtype=np.int64)
        return body


class Machine(RuleBasedStateMachine):
    otlp = None  # given by the test

    def __init__(self):
        super().__init__()
        self.fold = Fold(FoldSettings(display=600.0))
        self.minute = 100.0
        self.lives = 0
        self.replicas = {}
        self.network = []  # requests that were sent and may come, again and again
        self.undelivered = []
        self.recorded = np.zeros(CELLS, dtype=np.int64)

    @rule(name=st.sampled_from("abc"), cumulative=st.booleans(), marked=st.booleans())
    def start(self, name, cumulative, marked):
        """A process starts, in place of the replica's former one, whose last export gets out."""
        if name in self.replicas:
            self.export(name, 0.0)
        self.lives += 1
        # A process without an incarnation is known by its instance.
        life = f"{name}-{self.lives}"
        sender = self.otlp.Sender(name, life) if marked else self.otlp.Sender(life, "")
        self.replicas[name] = Replica(self.otlp, sender, self.minute, cumulative=cumulative)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), values=counts)
    def record(self, data, values):
        replica = self.replicas[data.draw(st.sampled_from(sorted(self.replicas)))]
        replica.pending = replica.pending + values
        self.recorded += values

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), skew=st.sampled_from([0.0, 0.0, 0.0, 3.0, -3.0, 30.0, -30.0]))
    def export_one(self, data, skew):
        self.export(data.draw(st.sampled_from(sorted(self.replicas))), skew)

    def export(self, name, skew):
        self.minute += 0.37
        body = self.replicas[name].export(self.minute + skew)
        self.network.append(body)
        self.undelivered.append(body)

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def deliver(self, data):
        self.arrive(data.draw(st.sampled_from(self.network)))

    def arrive(self, body):
        self.fold.apply(self.otlp.at(self.minute), decode_metrics(body))
        if body in self.undelivered:
            self.undelivered.remove(body)

    @rule()
    def restore(self):
        self.fold = Fold.load(self.fold.dump(), self.fold.settings)

    @rule(minutes=st.sampled_from([1.0, 5.0, 300.0]))
    def wait(self, minutes):
        self.minute += minutes

    def teardown(self):
        for name in self.replicas:
            self.export(name, 0.0)
        for body in [*self.undelivered[::-1], *self.network]:
            self.arrive(body)
        if self.replicas:
            (view,) = self.fold.views()
            totals = view.totals[self.otlp.X]
            assert totals.cells.tolist() == self.recorded.tolist()
            assert totals.seen == self.recorded.sum()
            assert self.fold.counters().dropped.keys() <= {"ahead"}
            assert (view.window[self.otlp.X].cells <= totals.cells).all()
            assert (view.window[self.otlp.X].cells >= 0).all()


def test_each_count_is_there_once(otlp):
    machine = type("MachineOverOtlp", (Machine,), {"otlp": otlp}).TestCase
    machine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    machine().runTest()
