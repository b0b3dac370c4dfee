"""Taking in as a whole: what was acknowledged is there once, whatever happens to the process."""

from __future__ import annotations

import contextlib
import gc
import gzip
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otel_mlmon_processor.fold import Fold
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.ingest import Ingest, IngestSettings, RefusedError
from otel_mlmon_processor.journal import JournalError
from otel_mlmon_processor.point_values import DecodeLimits
from otel_mlmon_processor.waiting import Request

from otel_mlmon import semconv

METRICS = semconv.MonSignal.METRICS
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
SERVER = textwrap.dedent(
    """
    import sys, threading
    from otel_mlmon_processor.ingest import Ingest, IngestSettings
    from otel_mlmon_processor.receiver import build_server
    ingest = Ingest(sys.argv[1], settings=IngestSettings(checkpoint_bytes=1500, checkpoint_age=0.05))
    server = build_server(ingest, "127.0.0.1:0")
    server.start()
    print(server.port, flush=True)
    threading.Event().wait()
    """
)


def seen(ingest, otlp):
    return sum(view.totals[otlp.X].seen for view in ingest.views())


def crash(ingest, to):
    """The directory as a killed process would leave it, as far as other processes can see."""
    shutil.copytree(ingest.path.parent, to)
    return to


@contextlib.contextmanager
def blocked(path):
    """Hold the database, as a backup might: what comes now has to wait."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


steps = st.lists(
    st.one_of(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 9)), st.sampled_from(["checkpoint"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15)
@given(steps)
def test_replay_after_a_crash_gives_what_was_there(otlp, tmp_path_factory, steps):
    base = tmp_path_factory.mktemp("ingest")
    clock = iter(range(otlp.at(6), otlp.at(7), 10**6)).__next__
    ingest, expected = Ingest(base / "live", clock=clock), {}
    for step in steps:
        if step == "checkpoint":
            ingest.checkpoint()
            continue
        instance, minute, count = step
        sender = otlp.Sender(instance, instance)
        ingest.submit(METRICS, sender.request(sender.count(count, minute, minute + 1)))
        expected.setdefault((instance, minute), count)
    again = Ingest(crash(ingest, base / "crashed"), clock=clock)
    assert seen(again, otlp) == seen(ingest, otlp) == sum(expected.values())
    assert again.counters().fold == ingest.counters().fold
    for one, other in zip(ingest.views(), again.views(), strict=True):
        assert (one.key, one.end, one.watermark, one.active_replicas) == (
            other.key, other.end, other.watermark, other.active_replicas,
        )  # fmt: skip
        assert one.window[otlp.X].seen == other.window[otlp.X].seen
    ingest.close()
    again.close()


def test_many_at_once_are_counted_exactly_and_replayed_in_the_same_order(otlp, tmp_path):
    ingest = Ingest(tmp_path / "live")

    def send(number):
        sender = otlp.Sender(f"r{number}", f"i{number}")
        for minute in range(10):
            body = sender.request(
                sender.histogram([number, minute, 0, 1], minute, minute + 1), sender.count(1, minute, minute + 1)
            )
            ingest.submit(METRICS, body)
            ingest.submit(METRICS, body)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(16)))
    again = Ingest(crash(ingest, tmp_path / "crashed"))
    assert again.recovered == 320
    for one in (ingest, again):
        (view,) = one.views()
        assert view.totals[otlp.X].cells.tolist() == [120 * 10, 45 * 16, 0, 160]
        assert one.counters().fold.duplicates == 320
        assert len(view.replicas) == 16
    assert again.counters().fold == ingest.counters().fold
    ingest.close()
    again.close()


def test_requests_that_wait_are_written_in_one_commit(otlp, tmp_path):
    times = iter(range(1, 1000))
    ingest = Ingest(tmp_path, clock=lambda: otlp.at(10) + next(times))
    sender = otlp.Sender()
    bodies = [sender.request(sender.count(1, minute, minute + 1)) for minute in range(10)]
    with ThreadPoolExecutor(10) as pool:
        with blocked(ingest.path):
            first = pool.submit(ingest.submit, METRICS, bodies[0])
            until(lambda: ingest.counters().waiting == 1)
            rest = [pool.submit(ingest.submit, METRICS, body) for body in bodies[1:]]
            until(lambda: ingest.counters().waiting == 10)
            assert not first.done()
        for answer in (first, *rest):
            answer.result()
    with contextlib.closing(sqlite3.connect(ingest.path)) as database:
        groups = database.execute("SELECT count(*) FROM journal GROUP BY received_ns ORDER BY received_ns").fetchall()
    assert sum(size for (size,) in groups) == 10
    assert len(groups) <= 3  # those that came while the first one waited went together
    ingest.close()


def test_a_database_that_cannot_be_written_refuses_and_recovers(otlp, tmp_path):
    ingest = Ingest(tmp_path)
    sender = otlp.Sender()
    body = sender.request(sender.count(4, 0, 1))
    with blocked(ingest.path):  # for longer than SQLite waits
        with pytest.raises(RefusedError, match="locked") as refused:
            ingest.submit(METRICS, body)
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        assert refused.value.retry_after
    assert seen(ingest, otlp) == 0
    ingest.submit(METRICS, body)
    assert seen(ingest, otlp) == 4
    assert ingest.counters().refused == {(METRICS, "storage"): 1}
    ingest.close()


@pytest.mark.parametrize("when", [{"checkpoint_age": 0.05}, {"checkpoint_bytes": 1}])
def test_a_checkpoint_is_made_when_the_journal_is_large_or_old(otlp, tmp_path, when):
    sender, ingest = otlp.Sender(), Ingest(tmp_path / "live", settings=IngestSettings(**when))
    for minute in range(3):
        ingest.submit(METRICS, sender.request(sender.count(4, minute, minute + 1)))
    until(lambda: ingest.counters().journal_entries == 0)
    again = Ingest(crash(ingest, tmp_path / "crashed"))
    assert (again.recovered, seen(again, otlp)) == (0, 12)
    ingest.close()
    again.close()


def test_closing_answers_those_who_wait_and_refuses_the_others(otlp, tmp_path):
    ingest = Ingest(tmp_path)
    sender = otlp.Sender()
    with ThreadPoolExecutor(2) as pool:
        with blocked(ingest.path):
            waiting = pool.submit(ingest.submit, METRICS, sender.request(sender.count(4, 0, 1)))
            until(lambda: ingest.counters().waiting == 1)
            closing = pool.submit(ingest.close)
            until(lambda: _is_closing(ingest))
            assert not waiting.done()
        assert waiting.result().items == 1
        closing.result()
    with pytest.raises(RefusedError) as refused:
        ingest.submit(METRICS, b"")
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(RefusedError):
        ingest.checkpoint()
    ingest.close()
    again = Ingest(tmp_path)
    assert (again.recovered, seen(again, otlp)) == (0, 4)
    again.close()


def _is_closing(ingest):
    try:
        ingest.submit(METRICS, b"")
    except RefusedError as refused:
        return refused.reason == "closing"
    return False


def test_requests_are_answered_while_a_checkpoint_is_made(otlp, tmp_path, monkeypatch):
    monkeypatch.setattr("otel_mlmon_processor.ingest._STEP", 0.0)  # it does not go on
    ingest, sender = Ingest(tmp_path / "live"), otlp.Sender()
    other = otlp.Sender("b", "j")
    ingest.submit(METRICS, other.request(other.count(1, 0, 1)))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ingest.checkpoint)
        while ingest._making is None:
            pass
        second = pool.submit(ingest.checkpoint)
        for minute in range(1, 6):
            ingest.submit(METRICS, sender.request(sender.count(1, minute, minute + 1)))
        assert not first.done()
        assert seen(ingest, otlp) == 6
        again = Ingest(crash(ingest, tmp_path / "crashed"))
        assert (seen(again, otlp), again.counters().journal_entries) == (6, 6)
        again.close()
        monkeypatch.setattr("otel_mlmon_processor.ingest._STEP", 1.0)
        first.result(20)
        second.result(20)  # which was asked for later, and holds what came meanwhile
    assert ingest.counters().journal_entries == 0
    again = Ingest(crash(ingest, tmp_path / "again"))
    assert seen(again, otlp) == 6
    again.close()
    ingest.close()


def test_closing_writes_one_checkpoint_in_place_of_that_under_way(otlp, tmp_path, monkeypatch):
    monkeypatch.setattr("otel_mlmon_processor.ingest._STEP", 0.0)  # it does not go on
    ingest, sender, written = Ingest(tmp_path), otlp.Sender(), []
    write = ingest._journal.checkpoint
    monkeypatch.setattr(ingest._journal, "checkpoint", lambda seq, *rest: (written.append(seq), write(seq, *rest)))
    other = otlp.Sender("b", "j")  # which does not change, and is not written for that
    ingest.submit(METRICS, other.request(other.count(1, 0, 1)))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ingest.checkpoint)
        until(lambda: ingest._making is not None)
        ingest.submit(METRICS, sender.request(sender.count(1, 1, 2)))
        assert not asked.done()
        ingest.close()
        assert asked.result() is None
    assert len(written) == 1
    again = Ingest(tmp_path)
    assert (again.recovered, seen(again, otlp)) == (0, 2)
    again.close()


def test_the_first_refusal_for_each_reason_is_logged(tmp_path, caplog):
    ingest = Ingest(tmp_path)
    try:
        for signal, reason in (("metrics", "overload"), ("logs", "overload"), ("", "wrong_token"), ("", "wrong_token")):
            ingest.count_refused(signal, reason)
    finally:
        ingest.close()
    said = [record.getMessage() for record in caplog.records if "refused: " in record.getMessage()]
    assert [text.split(";")[0] for text in said] == ["refused: overload", "refused: wrong_token"]


def test_a_request_of_too_many_points_is_refused_and_what_was_acknowledged_is_taken_up(otlp, tmp_path):
    sender, few = otlp.Sender(), IngestSettings(limits=DecodeLimits(points=1))
    body = sender.request(sender.count(4, 0, 1), sender.count(4, 1, 2))
    ingest = Ingest(tmp_path / "live")
    ingest.submit(METRICS, body)
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    ingest.close()
    again = Ingest(tmp_path / "killed", settings=few)
    assert (again.recovered, seen(again, otlp)) == (1, 8)
    with pytest.raises(RefusedError, match="a request may hold 1 points") as refused:
        again.submit(METRICS, body)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "too_many_points")
    assert again.counters().refused == {(METRICS, "too_many_points"): 1}
    again.close()


def test_a_request_of_which_nothing_can_be_used_is_counted_and_so_after_a_crash(otlp, tmp_path):
    ingest, sender = Ingest(tmp_path / "data"), otlp.Sender()
    metric = sender.count(-1, 0, 1)
    assert ingest.submit(METRICS, sender.request(metric, metric)).refused == {"negative": 2}
    assert ingest.counters().fold.dropped == {"negative": 2}
    crashed = crash(ingest, tmp_path / "crashed")
    ingest.close()
    again = Ingest(crashed)
    assert again.counters().fold.dropped == {"negative": 2}
    again.close()


def test_a_mistake_of_ours_in_one_request_stops_no_other(otlp, tmp_path, caplog):
    def stumble(_):
        raise RuntimeError("a mistake")

    ingest = Ingest(tmp_path, parse=stumble)
    sender = otlp.Sender()
    outcome = ingest.submit(semconv.MonSignal.LOGS, sender.profile("h", {1: gzip.compress(b"{}")}, 1))
    assert outcome.refused == {"internal": 1}
    ingest.submit(METRICS, sender.request(sender.count(4, 0, 1)))
    again = Ingest(crash(ingest, tmp_path / "crashed"), parse=stumble)
    assert seen(again, otlp) == seen(ingest, otlp) == 4
    assert caplog.text.count("a request could not be folded") == 2
    ingest.close()
    again.close()


def test_other_windows_in_the_settings_keep_what_was_counted(otlp, tmp_path):
    sender = otlp.Sender()
    ingest = Ingest(tmp_path)
    ingest.submit(METRICS, sender.request(sender.count(4, 0, 1)))
    ingest.close()
    again = Ingest(tmp_path, FoldSettings(window=3600, display=86_400))
    assert seen(again, otlp) == 4
    again.submit(METRICS, sender.request(sender.count(4, 0, 1), sender.count(5, 1, 2)))
    (view,) = again.views()
    assert (view.totals[otlp.X].seen, view.window[otlp.X].seen) == (9, 5)
    again.close()


def test_reading_does_not_see_half_a_request(otlp, tmp_path):
    """Two features that always come together are equal in every view."""
    ingest, sender, stop = Ingest(tmp_path), otlp.Sender(), threading.Event()
    name = semconv.ML_FEATURE_NAME

    def write():
        for minute in range(150):
            pair = [sender.count(1, minute, minute + 1, labels={name: feature}) for feature in ("x", "y")]
            ingest.submit(METRICS, sender.request(*pair))
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        for view in ingest.views():
            assert len({counts.seen for counts in view.totals.values()}) == 1
            assert len({counts.seen for counts in view.window.values()}) == 1
    writer.join()
    assert seen(ingest, otlp) == 150
    ingest.close()


# ------------------------------------------------------------------ real processes


class Server:
    """A real process that serves a directory."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(directory)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.export = self.channel.unary_unary(EXPORT)

    def kill(self):
        self.channel.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.server
def test_what_was_acknowledged_survives_kill_9(otlp, tmp_path):
    sender = otlp.Sender()
    server = Server(tmp_path)
    for minute in range(3):
        assert server.export(sender.request(sender.count(4, minute, minute + 1)), timeout=20) == b""
    server.kill()
    ingest = Ingest(tmp_path)
    assert seen(ingest, otlp) == 12
    ingest.submit(METRICS, sender.request(sender.count(4, 2, 3)))  # the client sends the last one again
    assert seen(ingest, otlp) == 12
    ingest.close()


@pytest.mark.server
def test_killed_again_and_again_while_clients_send_and_retry_everything_is_there_once(otlp, tmp_path):
    """Four clients send until each request is acknowledged; the server is killed at random times, also while it makes
    checkpoints (every 50 ms) and while it starts."""
    rng, sent, lock = random.Random(3), 40, threading.Lock()
    server = Server(tmp_path)
    holder = {"server": server}

    def client(number):
        sender = otlp.Sender(f"r{number}", f"i{number}")
        for minute in range(sent):
            body = sender.request(sender.histogram([1, number, 0, 0], minute, minute + 1))
            while True:
                with lock:
                    export = holder["server"].export
                try:
                    export(body, timeout=10)
                    break
                except (grpc.RpcError, ValueError):  # killed, or its channel has been closed
                    time.sleep(0.01)
            if minute % 7 == 0:
                time.sleep(rng.uniform(0, 0.05))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for _ in range(6):
            time.sleep(rng.uniform(0.02, 0.2))
            with lock:
                holder["server"].kill()
                holder["server"] = Server(tmp_path)
        for answer in clients:
            answer.result(timeout=60)
    holder["server"].kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlmon.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    ingest = Ingest(tmp_path)
    (view,) = ingest.views()
    assert view.totals[otlp.X].cells.tolist() == [4 * sent, 6 * sent, 0, 0]
    ingest.close()


@pytest.mark.server
def test_two_processes_on_one_directory(tmp_path):
    server = Server(tmp_path)
    with pytest.raises(JournalError, match=f"another processor .process {server.process.pid}. uses this directory"):
        Ingest(tmp_path)
    server.kill()
    Ingest(tmp_path).close()


# ------------------------------------------------------------------ room


def test_no_client_takes_the_room_of_another(tmp_path, otlp):
    """In requests and in bytes, however many of its requests wait; and a client alone has half of it."""
    body = otlp.Sender().request(otlp.Sender().count(1, 0, 1))
    large = body + bytes([8 << 3 | 2, 0xD0, 0x0F]) + bytes(2_000)  # with a field that nobody knows
    intake = IngestSettings(pending=12, pending_bytes=6 * len(large), retry_after=0.1)
    with contextlib.closing(Ingest(tmp_path, settings=intake)) as ingest, ThreadPoolExecutor(60) as pool:

        def send(client, what, number):
            before = ingest.counters()
            waiting, refused = before.waiting, sum(before.refused.values())
            answers = [pool.submit(ingest.submit, METRICS, what, client) for _ in range(number)]

            def settled():
                now = ingest.counters()
                return now.waiting - waiting + sum(now.refused.values()) - refused == number

            until(settled)
            return answers, ingest.counters().waiting - waiting

        with blocked(ingest.path):
            answers, loud = send("loud", body, 20)
            more, quiet = send("quiet", body, 3)
            bulky, large_ones = send("bulky", large, 5)
            assert (loud, quiet, large_ones) == (6, 3, 1)  # 12 // 2; all; 6 // (3 + 1), of the bytes
            answers += more + bulky
        held = [answer for answer in answers if answer.exception() is None]
        assert len(held) == loud + quiet + large_ones
        for answer in answers:
            if answer.exception() is not None:
                assert answer.exception().reason == "overload"
        ingest.submit(METRICS, large, "bulky")
        assert ingest.counters().waiting == 0


@pytest.fixture
def no_collections():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("asked", [False, True], ids=["that was due", "that was asked for"])
def test_a_checkpoint_that_fails_leaves_nothing_in_memory(otlp, tmp_path, monkeypatch, asked):
    made, began = [], Fold.begin_dump

    def begin(fold):
        dump = began(fold)
        made.append(weakref.ref(dump))
        return dump

    def fail(*_):
        raise JournalError("the disk is full")

    monkeypatch.setattr(Fold, "begin_dump", begin)
    age = 1e9 if asked else 0.01
    ingest, sender = Ingest(tmp_path, settings=IngestSettings(checkpoint_age=age)), otlp.Sender()
    with monkeypatch.context() as patched:
        patched.setattr(ingest._journal, "checkpoint", fail)
        ingest.submit(METRICS, sender.request(sender.count(1, 0, 1)))
        if asked:
            with pytest.raises(JournalError):
                ingest.checkpoint()
        until(lambda: made and all(dump() is None for dump in made[:1]))
    ingest.close()


@pytest.mark.usefixtures("no_collections")
def test_a_request_that_was_refused_leaves_nothing_in_memory(otlp, tmp_path):
    ingest, sender = Ingest(tmp_path), otlp.Sender()
    for _ in range(5):
        with contextlib.suppress(RefusedError):
            ingest.submit(METRICS, b"no OTLP")
    for minute in range(2):  # the writer holds those of its last turn
        ingest.submit(METRICS, sender.request(sender.count(1, minute, minute + 1)))
    assert sum(isinstance(held, Request) for held in gc.get_objects()) <= 1
    ingest.close()
