"""Replicas that record, export, retry, restart and reset, that change version, profile and bounds, and whose clocks are
off and jump, over a network that delays, repeats, reorders and enriches, into a processor that crashes: after every
step the counts are exactly those of what has arrived, each once.

Left out of the oracle, as no receiver can know them from the points (docs/operations.md says so): a counter that begins
again under its old start time and has no cell that fell, or whose clock was set back; and cumulative points that
overtake others when a counter begins again under its old start time, or a clock is set back.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otel_mlmon_processor.decode import decode_metrics
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.forms import Forms
from otel_mlmon_processor.layout import CATEGORY, CELLS, EXPONENTIAL, SEEN

from otel_mlmon import semconv

BOUNDS = ((0.0, 1.0, 2.0), (0.0, 1.5, 2.0), (-5.0, 0.0, 5.0))
KEYS = {np.array(edges).tobytes(): number for number, edges in enumerate(BOUNDS)}
SCALE = 5  # of the buckets that the oracle counts
# Of zero buckets, at ends of buckets of all scales: else a sender's scale, which its zero bucket does not tell, decides
# what is in it.
THRESHOLDS = (0.0, 2.0**-0.25, 1.0)
CALLS = semconv.METRIC_ML_INFERENCE_ACTIVE_CALLS.name
DURATION = semconv.METRIC_ML_INFERENCE_DURATION.name
DROPPED = semconv.METRIC_MLMON_RECORDER_DROPPED.name
# What a process sends, each a stream of its own.
STREAMS = ("cells", "seen", "buckets", "category a", "category b", "invalid", "dropped", "duration")

cells = st.lists(st.integers(0, 9), min_size=4, max_size=4)
# Of exponential histograms, by sign and index; None is the zero bucket.
buckets = st.dictionaries(st.tuples(st.sampled_from((1, -1)), st.integers(-40, 40)), st.integers(1, 5), max_size=3)


class Item(NamedTuple):
    """A point, as the oracle sees it. Of one `count` (all deltas of a stream, or a counter's life since it began from
    zero) the points are numbered."""

    stream: str
    count: tuple
    number: int
    end: float
    counts: Counter
    place: tuple  # version, profile, bounds


class Request(NamedTuple):
    """Some points; `bodies` by two paths, the second of which enriches the resource."""

    items: tuple[Item, ...]
    bodies: tuple[bytes, bytes]

    def __repr__(self) -> str:
        first = self.items[0]
        return f"<{first.count} {first.number}: {', '.join(item.stream for item in self.items)}>"


class Replica:
    """A process. Its clock is `skew` minutes ahead of the true time."""

    def __init__(self, otlp, life, sender, now, *, cumulative, version):
        self.otlp, self.life, self.sender, self.cumulative, self.version = otlp, life, sender, cumulative, version
        self.skew, self.profile, self.bounds, self.scale = 0.0, 0, 0, SCALE
        self.threshold = 0.0  # of the zero bucket
        self.newest = self.started = self.exported = now
        self.begun = 0  # how often the counters began from zero
        self.hidden = False  # once without a new start time
        self.number = 0
        self.pending, self.total, self.calls = Counter(), Counter(), 0
        self.unsent: list[Request] = []

    @property
    def marked(self):
        return bool(self.sender.incarnation)

    def begin(self, now=None):
        """Counters begin from zero; at a new start time, where given."""
        self.total.clear()
        self.begun += 1
        if now is not None:
            self.started = now

    def export(self, now, splits, early=0.0):
        """The requests of an export, at most `splits`; `early`: a delta interval overlaps the one before by so much."""
        self.total += self.pending
        start = self.started if self.cumulative else self.exported - early
        counts = self.total if self.cumulative else self.pending
        self.number += 1
        self.exported, self.newest = now, max(self.newest, now)
        pairs = [self.measure(stream, counts, start, now) for stream in STREAMS]
        if self.marked:  # the others may share their identity, and a level belongs to one process
            level = Counter({(): self.calls})
            point = (0, now) if self.cumulative else (start, now)
            temporality = self.otlp.CUMULATIVE if self.cumulative else self.otlp.DELTA
            metric = self.sender.count(
                self.calls, *point, name=CALLS, temporality=temporality, monotonic=False, labels=self.labels()
            )
            pairs.append(
                (metric, Item("level", (self.life, self.cumulative, self.profile), self.number, now, level, ()))
            )
            self.calls *= self.cumulative
        self.pending = Counter()
        extra = {"environment": "prod"} if self.sender.instance or self.marked else {}
        extra |= {"namespace": "shop"} if self.marked else {}
        enriched = self.otlp.Sender(
            self.sender.instance, self.sender.incarnation, extra={"k8s.pod.name": self.life}, **extra
        )
        requests = []
        for first in range(splits):
            part = pairs[first::splits]
            metrics = [metric for metric, _ in part]
            bodies = self.sender.request(*metrics), enriched.request(*metrics[::-1])
            requests.append(Request(tuple(item for _, item in part), bodies))
        self.unsent += requests
        return requests

    def labels(self, **labels):
        names = {semconv.ML_MODEL_VERSION: self.version, semconv.ML_REFERENCE_HASH: f"h{self.profile}"}
        return {**names, **labels}

    def measure(self, stream, counts, start, end):
        mine = Counter({key: n for key, n in counts.items() if key[0] == stream})
        given = {"temporality": self.otlp.CUMULATIVE if self.cumulative else self.otlp.DELTA}
        kind, _, detail = stream.partition(" ")
        given["labels"] = labels = self.labels()
        if kind in ("cells", "duration"):
            numbers = [mine[stream, cell] for cell in range(4)]
            if kind == "duration":
                given["name"] = DURATION
            edges = BOUNDS[self.bounds if kind == "cells" else 0]
            total = float(np.dot(range(4), numbers))
            metric = self.sender.histogram(numbers, start, end, edges=edges, total=total, **given)
        elif kind == "buckets":
            labels[semconv.ML_FEATURE_NAME] = "z"
            metric = self.spread(mine, start, end, **given)
        else:
            if kind == "category":
                given["name"] = semconv.METRIC_ML_FEATURE_CATEGORY.name
                labels |= {semconv.ML_FEATURE_NAME: "c", semconv.ML_FEATURE_CATEGORY: detail}
            elif kind == "invalid":
                given["name"] = semconv.METRIC_ML_FEATURE_INVALID.name
                labels[semconv.ML_FEATURE_INVALID_REASON] = semconv.FeatureInvalidReason.NAN
            elif kind == "dropped":
                given["name"] = DROPPED
                labels[semconv.MLMON_REASON] = "why"
            metric = self.sender.count(mine[stream, 0], start, end, **given)
        profile = None if kind in ("dropped", "duration") else self.profile
        place = (self.version, profile, self.bounds if kind == "cells" else None)
        life = (self.started, self.begun, self.bounds if kind == "cells" else 0) if self.cumulative else ()
        count = (self.life, self.cumulative, self.profile, *life)
        return metric, Item(stream, count, self.number, end, mine, place)

    def spread(self, counts, start, end, *, temporality, labels):
        """An exponential histogram at the scale and with the zero threshold of now."""
        metric = Metric(name=semconv.METRIC_ML_FEATURE_VALUE.name)
        metric.exponential_histogram.aggregation_temporality = temporality
        held = coarsen(counts, self.scale, self.threshold)
        point = metric.exponential_histogram.data_points.add(
            scale=self.scale, zero_count=held[None], zero_threshold=self.threshold
        )
        at = self.otlp.at
        point.start_time_unix_nano, point.time_unix_nano, point.count = at(start), at(end), counts.total()
        for sign, side in ((1, point.positive), (-1, point.negative)):
            indexes = [bucket[1] for bucket in held if bucket is not None and bucket[0] == sign]
            if indexes:
                side.offset = min(indexes)
                side.bucket_counts.extend(held[sign, i] for i in range(min(indexes), max(indexes) + 1))
        self.sender.label(point, metric.name, labels)
        return metric


def coarsen(counts, scale, threshold):
    """Buckets at a scale, of those at SCALE; what begins below the threshold is in the zero bucket."""
    held = Counter()
    for (_, bucket), n in counts.items():
        if bucket is not None:
            sign, index = bucket
            begin, shift = 2.0 ** (index / 2.0**SCALE), max(SCALE - scale, 0)  # finer where all is in the zero bucket
            bucket = None if begin < threshold else (sign, index >> shift)
        held[bucket] += n
    return held


class Machine(RuleBasedStateMachine):
    otlp = None  # given by whoever runs it
    steps = 0

    def __init__(self):
        super().__init__()
        # Nobody is forgotten, or what is sent again after that would count again: a named test has that.
        self.settings = FoldSettings(display=600.0, retire=1e9)
        self.fold, self.forms = Fold(self.settings), Forms()
        self.checkpoint, self.journal, self.begun = self.fold.dump(), [], None
        self.minute, self.ticks, self.lives = 100.0, 0, 0
        self.replicas: dict[str, Replica] = {}
        self.network: list[Request] = []
        self.recorded: Counter = Counter()  # by place and key: what was, and is not lost in a gap
        self.expected: Counter = Counter()  # what has arrived of it
        self.arrived: dict[tuple, Item] = {}
        self.levels: dict[tuple, dict[int, Item]] = {}

    def now(self, replica=None):
        """A time that was never before, of a replica's clock."""
        self.ticks += 1
        return self.minute + self.ticks * 1e-7 + (replica.skew if replica else 0.0)

    def draw(self, data):
        return self.replicas[data.draw(st.sampled_from(sorted(self.replicas)))]

    # ------------------------------------------------------------ processes

    @rule(
        name=st.sampled_from("abc"),
        cumulative=st.booleans(),
        known_by=st.sampled_from(["incarnation", "both", "instance", "start"]),
        version=st.sampled_from("12"),
        skew=st.sampled_from([0.0, 0.0, 3.0, -3.0]),
    )
    def start(self, name, cumulative, known_by, version, skew):
        """A process starts, in place of the replica's former one, whose last export gets out some time."""
        if name in self.replicas:
            self.export(self.replicas[name])
        self.lives += 1
        life = f"{name}-{self.lives}"
        instance, incarnation = {
            "incarnation": (name, life),  # the same instance id as before
            "both": (life, life),
            "instance": (life, ""),
            "start": ("", ""),  # like all such processes at once
        }[known_by]
        sender = self.otlp.Sender(instance, incarnation)
        replica = Replica(self.otlp, life, sender, self.now() + skew, cumulative=cumulative, version=version)
        replica.skew = skew
        self.replicas[name] = replica

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), cells=cells, buckets=buckets, calls=st.integers(0, 3))
    def record(self, data, cells, buckets, calls):
        self.count(self.draw(data), cells, buckets, calls)

    def count(self, replica, cells=(1, 2, 3, 4), buckets=MappingProxyType({(1, 7): 2, (-1, 3): 1}), calls=1):
        values = Counter({("cells", cell): n for cell, n in enumerate(cells)})
        values.update({("duration", cell): n for cell, n in enumerate(cells[::-1])})
        values.update({("buckets", bucket): n for bucket, n in buckets.items()})
        values.update({("buckets", None): cells[0], ("seen", 0): sum(cells), ("category a", 0): cells[1]})
        values.update({("category b", 0): cells[2], ("invalid", 0): cells[3], ("dropped", 0): calls})
        replica.pending += values
        replica.calls = calls if replica.cumulative else replica.calls + calls
        self.note(replica, values, 1)

    def note(self, replica, values, sign):
        for (stream, cell), n in values.items():
            profile = None if stream in ("dropped", "duration") else replica.profile
            place = (replica.version, profile, replica.bounds if stream == "cells" else None)
            self.recorded[place, (stream, cell)] += sign * n

    def export(self, replica, splits=1, early=0.0):
        self.minute += 0.37
        requests = replica.export(self.now(replica), splits, early)
        self.network += requests
        return requests

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), splits=st.integers(1, 3), cells=cells)
    def export_one(self, data, splits, cells):
        replica = self.draw(data)
        self.count(replica, cells)
        self.export(replica, splits)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), early=st.sampled_from([0.1, 5.0]))
    def export_an_interval_that_overlaps(self, data, early):
        replica = self.draw(data)
        self.count(replica)
        self.export(replica, early=early)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def lose_an_interval(self, data):
        """A gap: what was counted is lost before it is sent. A cumulative total has it next time."""
        replica = self.draw(data)
        if not replica.cumulative:
            self.note(replica, replica.pending, -1)
            replica.pending, replica.calls = Counter(), 0
            replica.exported = self.now(replica)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), minutes=st.sampled_from([4.0, -4.0, 90.0, -90.0]))
    def jump(self, data, minutes):
        """A clock is set."""
        replica = self.draw(data)
        if replica.cumulative and minutes < 0:
            if replica.hidden:
                return
            self.flush(replica)
        replica.skew += minutes
        self.count(replica)
        self.export(replica)
        for request in [sent for sent in self.network if sent.items[0].count[0] == replica.life][:-4:-1]:
            self.arrive(request)  # what was sent before comes again

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def begin_again_at_a_new_start(self, data):
        replica = self.draw(data)
        if replica.cumulative:
            self.export(replica)
            replica.begin(self.now(replica))

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def begin_again_at_the_old_start(self, data):
        """Seen by the cells that fell, so what was sent before has to come before."""
        replica = self.draw(data)
        if replica.cumulative and self.minute + replica.skew > replica.newest:
            self.export(replica)
            self.flush(replica)
            replica.hidden = True
            replica.begin()
            self.export(replica)
            self.flush(replica)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), bounds=st.integers(0, len(BOUNDS) - 1))
    def change_bounds(self, data, bounds):
        replica = self.draw(data)
        self.export(replica)
        if replica.cumulative:
            replica.begin(self.now(replica))
        replica.bounds = bounds

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), scale=st.integers(2, SCALE))
    def change_scale(self, data, scale):
        """Of exponential buckets; SDKs only make it coarser, with a new range of values."""
        self.draw(data).scale = scale

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), threshold=st.sampled_from(THRESHOLDS))
    def change_the_zero_bucket(self, data, threshold):
        self.draw(data).threshold = threshold

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), profile=st.integers(0, 3))
    def replace_profile(self, data, profile):
        """The process goes on with another profile: other streams, which begin from zero."""
        replica = self.draw(data)
        self.export(replica)
        replica.profile = profile
        replica.begin(self.now(replica))

    # ------------------------------------------------------------ the network and the processor

    @precondition(lambda self: self.network)
    @rule(data=st.data(), enriched=st.booleans(), times=st.integers(1, 2))
    def deliver(self, data, enriched, times):
        """Any request that was ever sent, by either path."""
        request = data.draw(st.sampled_from(self.network))
        for _ in range(times):
            self.arrive(request, enriched)

    def flush(self, replica):
        for request in list(replica.unsent):
            self.arrive(request)

    def arrive(self, request, enriched=False):
        entry = (self.otlp.at(self.minute), request.bodies[enriched])
        self.journal.append(entry)
        refused = self.fold.apply(entry[0], decode_metrics(entry[1], forms=self.forms))
        assert not refused
        for item in request.items:
            self.expect(item)
        for replica in self.replicas.values():
            if request in replica.unsent:
                replica.unsent.remove(request)

    def expect(self, item):
        if item.stream == "level":
            self.levels.setdefault(item.count, {})[item.number] = item
            return
        cumulative = item.count[1]
        at = (item.stream, item.count) if cumulative else (item.stream, item.count, item.number)
        known = self.arrived.get(at)
        if known is None or known.number < item.number:
            self.arrived[at] = item
            for key in item.counts | (known.counts if known else Counter()):
                self.expected[item.place, key] += item.counts[key] - (known.counts[key] if known else 0)

    @rule()
    def begin_a_checkpoint(self):
        if self.begun is None:
            whole = Fold.load(self.fold.dump(), self.settings).dump()
            self.begun = self.fold.begin_dump(), whole, len(self.journal)

    @rule(seconds=st.sampled_from([1e-6, 1e-4]))
    def go_on_with_the_checkpoint(self, seconds):
        if self.begun is not None:
            self.begun[0].go_on(seconds)

    @rule()
    def end_the_checkpoint(self):
        """It says what was when it was begun, whatever came since."""
        if self.begun is not None:
            unfinished, whole, since = self.begun
            self.checkpoint, self.journal, self.begun = unfinished.finish(), self.journal[since:], None
            assert Fold.load(self.checkpoint, self.settings).dump() == whole

    @rule()
    def crash(self):
        """What is not in the checkpoint is folded again from the journal, read in full, to the same state."""
        before, self.begun = self.fold.dump(), None
        self.fold = Fold.load(self.checkpoint, self.settings)
        for received, body in self.journal:
            self.fold.apply(received, decode_metrics(body))
        assert self.fold.dump() == before

    @rule(minutes=st.sampled_from([1.0, 5.0, 60.0, 300.0]))
    def wait(self, minutes):
        self.minute += minutes

    @invariant()
    def the_counts_are_those_of_what_arrived(self):
        type(self).steps += 1
        held, spread = read(self.fold)
        expected, buckets = Counter(), {}
        for (place, key), n in self.expected.items():
            if key[0] == "buckets":
                buckets.setdefault(place, Counter())[key] = n
            else:
                expected[place, key] += n
        assert +held == +expected
        for place, counts in buckets.items():
            got = spread.pop(place)
            assert got.scale >= 2
            assert got.threshold in THRESHOLDS
            positive, negative = (
                {(sign, index): n for index, n in side.items()}
                for sign, side in ((1, got.positive), (-1, got.negative))
            )
            assert Counter({None: got.zero, **positive, **negative}) == coarsen(+counts, got.scale, got.threshold)
        assert not any(got.count for got in spread.values())
        levels = [level.value for model in self.fold._state.models.values() for level in model.levels.values()]
        assert sum(levels) == sum(map(level_of, self.levels.values()))
        assert self.fold.counters().dropped.keys() <= {"ahead"}

    @invariant()
    def memory_is_reckoned_as_it_would_be_anew(self):
        state = self.fold._state
        assert state.memory.held == state.measure()
        assert state.spare.held == sum(g.spared for model in state.models.values() for g in model.generations.values())

    @invariant()
    def the_sliding_window_is_the_sum_of_its_windows(self):
        for model in self.fold._state.models.values():
            for generation in model.generations.values():
                held = np.zeros(generation.layout.width, dtype=np.int64)
                first = generation.last - self.settings.display_windows
                for window, tallies in generation.windows.items():
                    for span, tally in tallies.items():
                        if first < window <= generation.last and span <= self.settings.display_windows:
                            whole = tally.copy()
                            whole.unpack()
                            held[: whole.ints.size] += whole.ints
                running = np.zeros_like(held)
                running[: generation.running.ints.size] = generation.running.ints
                total = np.zeros_like(held)
                total[: generation.total.ints.size] = generation.total.ints
                assert running.tolist() == held.tolist()
                assert (held <= total).all()

    def teardown(self):
        for replica in self.replicas.values():
            self.export(replica)
            for request in replica.unsent[::-1]:
                self.arrive(request)
        for request in self.network:
            self.arrive(request, enriched=True)
        self.the_counts_are_those_of_what_arrived()
        assert +self.expected == +self.recorded


def level_of(items):
    """Of a process: the newest by its own clock, or the sum of the changes."""
    (cumulative,) = {item.count[1] for item in items.values()}
    if cumulative:
        return max(items.values(), key=lambda item: item.end).counts[()]
    return sum(item.counts[()] for item in items.values())


def read(fold):
    """All counts that are held, by place and key; and the exponential histograms by place.

    A model that was seen by both paths has two keys of merging; their counts are added.
    """
    held, spread = Counter(), {}
    for key, model in fold._state.models.items():
        for generation in model.generations.values():
            ints = np.zeros(generation.layout.width + 1, dtype=np.int64)
            ints[: generation.total.ints.size] = generation.total.ints
            place = (key.version, int(generation.hash[1:]), None)
            for slot in generation.layout.slots:
                kind, detail = slot.place.kind, slot.place.detail
                if kind == CELLS:
                    numbers = ints[slot.offset : slot.offset + slot.size]
                    bounds = (key.version, int(generation.hash[1:]), KEYS[detail])
                    held.update({(bounds, ("cells", cell)): int(n) for cell, n in enumerate(numbers)})
                    assert generation.total.sums[slot.total] == np.dot(range(4), numbers)
                    assert ints[slot.offset + slot.size] == 0  # none whose sum is unknown
                elif kind == EXPONENTIAL:
                    exponential = generation.total.exponentials.get(slot.number)
                    if exponential is not None:
                        spread.setdefault(place, type(exponential)()).merge(exponential)
                else:
                    stream = {SEEN: "seen", CATEGORY: f"category {detail}"}.get(kind, "invalid")
                    held[place, (stream, 0)] += int(ints[slot.offset])
        place = (key.version, None, None)
        for operation in model.operations.values():
            held.update({(place, ("duration", cell)): int(n) for cell, n in enumerate(operation.counts)})
        held[place, ("dropped", 0)] += model.dropped[DROPPED, "why"]
    return held, spread


def run(otlp, *, number, examples, steps):
    """Run the machine; gives the steps that were taken.

    Args:
        otlp: what builds requests, see conftest.
        number: the seed; None for the same examples in every run.
    """
    machine = type("MachineOverOtlp", (Machine,), {"otlp": otlp, "steps": 0})
    given = settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=number is None)
    run_state_machine_as_test(machine if number is None else seed(number)(machine), settings=given)
    return machine.steps


def test_each_count_is_there_once(otlp):
    assert run(otlp, number=None, examples=300, steps=40) > 3_000
