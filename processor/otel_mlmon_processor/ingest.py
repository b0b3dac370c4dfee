"""From request bytes to folded counts: validate, write, fold, acknowledge. Thread-safe.

One thread owns the journal and changes the fold. It takes all requests that wait, writes them in one commit, folds them
in the order of the journal and wakes their senders, so that the order of folding is the order of replay.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import grpc

from otel_mlmon import semconv
from otel_mlmon.profile.document import Profile
from otel_mlmon_processor.batch import Batch
from otel_mlmon_processor.decode import NOT_ML, MalformedError, decode_logs, decode_metrics, decode_traces
from otel_mlmon_processor.fold import Dump, Fold, FormatError, Unfinished
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.forms import Forms
from otel_mlmon_processor.intake import IngestCounters, IngestSettings, Outcome, RefusedError
from otel_mlmon_processor.journal import Entry, Journal, JournalError, pack_body
from otel_mlmon_processor.messages import MOST_MESSAGES, has_too_many
from otel_mlmon_processor.point_values import DecodeLimits
from otel_mlmon_processor.reasons import Reason, Refusal
from otel_mlmon_processor.views import build
from otel_mlmon_processor.waiting import Queue, Request
from otel_mlmon_processor.windows import ModelKey, ModelView

__all__ = ["Ingest", "IngestCounters", "IngestSettings", "Outcome", "RefusedError"]

_LOG: Final = logging.getLogger(__name__)
_INTERNAL: Final = "internal"
_AT_ONCE: Final = 32  # requests in a commit
_BYTES_AT_ONCE: Final = 4 << 20  # of them, about: some 50 ms of work, for which all others wait
_PAUSE: Final = 1.0  # s, at least, between two checkpoints that were not asked for
_SHARE: Final = 0.05  # of the time that these may take from requests
_STEP: Final = 0.005  # s, of a checkpoint between two commits of requests


class Ingest:
    """The receiving side over one data directory. The constructor recovers what was acknowledged before.

    Args:
        directory: of the journal.
        fold_settings, settings: see there.
        clock: nanoseconds since 1970.
        parse: reads a profile document.
        forwarding: whether what is none of ours is kept until `settle`. `outbox` is set when there is something.
            Without, what waited before is given up: `abandoned` has how many requests, by signal.

    Raises:
        JournalError: the directory, the database or what is in it cannot be used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        fold_settings: FoldSettings | None = None,
        settings: IngestSettings | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        parse: Callable[[bytes], Profile] = Profile.from_bytes,
        forwarding: bool = False,
    ) -> None:
        self.settings = settings or IngestSettings()
        self._clock = clock
        self._since = clock()
        self._journal = Journal(directory, clock)
        self._forwarding = forwarding
        self._forms = Forms()
        self.outbox = threading.Event()
        self.abandoned: Mapping[str, int] = {}
        try:
            self._fold, self._folded, self.recovered = self._recover(fold_settings, parse)
            self._journal.adopt()
            self._outbox_entries, self._outbox_bytes = self._journal.measure_outbox()
            if self._outbox_entries and not forwarding:
                self.abandoned = self._journal.abandon()
                _LOG.warning("%d requests that waited to be passed on are dropped: there is no `forward`",
                             self._outbox_entries)  # fmt: skip
                self._outbox_entries = self._outbox_bytes = 0
        except BaseException:
            self._journal.close()
            raise
        self._folding = threading.Lock()  # over the fold
        self._changed = threading.Condition()  # over all below; the writer alone waits for it
        self._queue = Queue(self.settings.pending, self.settings.pending_bytes)
        self._checkpoints: list[Future[None]] = []
        self._settled: list[int] = []
        self._closing = False
        self._received: Counter[str] = Counter()
        self._refused: Counter[tuple[str, Reason]] = Counter()
        self._ignored: Counter[Reason] = Counter()
        self._last_checkpoint = time.monotonic()
        self._pause = 0.0  # s, until the next
        self._making: _Making | None = None  # the checkpoint under way
        self._wanted: list[Future[None]] = []  # who waits for the next
        self._sealer = ThreadPoolExecutor(1, "mlmon-seal")
        self._writer = threading.Thread(target=self._run, name="mlmon-ingest", daemon=True)
        self._writer.start()

    @property
    def path(self) -> Path:
        """The database."""
        return self._journal.path

    @property
    def instance(self) -> str:
        """Random identity of what is kept in the directory."""
        return str(self._journal.instance)

    def submit(self, signal: str, body: bytes, client: str = "") -> Outcome:
        """Take in the bytes of a request of one signal (semconv.MonSignal); durable and folded on return.

        Args:
            signal: of what came.
            body: its bytes.
            client: from whom, so that none can take all the room.

        Raises:
            RefusedError: it was not accepted, with the gRPC code and the reason.
        """
        request = Request(signal, body, client)
        try:
            self._admit(request)
            return request.wait()
        except RefusedError as refused:
            self.count_refused(signal, refused.reason)
            raise

    def count_refused(self, signal: str, reason: Refusal) -> None:
        """Count a request that was not accepted; also of those that never came to `submit`. The first is told of."""
        with self._changed:
            first = not any(known == reason for _, known in self._refused)
            self._refused[signal, reason] += 1
        if first and reason != "closing":
            _LOG.warning("refused: %s; more of them are only counted, in mlmon_processor_refused_total", reason)

    def views(self, wanted: Mapping[ModelKey, Mapping[str, range]] = MappingProxyType({})) -> Iterator[ModelView]:
        """Views of all models, each of the moment it is asked for. Folding stands still while one's counts are copied.

        `wanted`: by model and profile hash, the windows that are wanted one by one.
        """
        with self._folding:
            keys = self._fold.models(self._clock())
        for key in keys:
            with self._folding:
                try:
                    captured = self._fold.capture(key, wanted.get(key, {}), self._clock())
                except KeyError:  # retired meanwhile
                    continue
            yield build(captured)

    def profiles(self) -> Mapping[ModelKey, tuple[Profile, ...]]:
        """Profiles that came as events, of each model the one created last first."""
        with self._folding:
            return self._fold.profiles()

    def counters(self) -> IngestCounters:
        """Counters for the processor's own health."""
        with self._folding:
            fold, models = self._fold.counters(), len(self._fold.models(self._clock()))
        with self._changed:
            return IngestCounters(
                dict(self._received),
                dict(self._refused),
                dict(self._ignored),
                self._journal.entries,
                self._journal.bytes,
                fold,
                models,
                self._queue.requests,
                self._since / 1e9,
                self._journal.created_ns / 1e9,
            )

    def outbox_size(self) -> tuple[int, int]:
        """Number and bytes of the requests that wait to be passed on."""
        with self._changed:
            return self._outbox_entries, self._outbox_bytes

    def settle(self, entry: Entry) -> None:
        """A request has been passed on or given up. That is written soon: after a crash before it comes again."""
        with self._changed:
            self._outbox_entries -= 1
            self._outbox_bytes -= entry.size
            self._settled.append(entry.seq)
            self._changed.notify()

    def checkpoint(self) -> None:
        """Write the folded state and delete the entries that are in it.

        Raises:
            JournalError: it could not be written.
            RefusedError: closed.
        """
        done: Future[None] = Future()
        with self._changed:
            if self._closing:
                raise RefusedError(grpc.StatusCode.UNAVAILABLE, "closing", "the processor is shutting down")
            self._checkpoints.append(done)
            self._changed.notify()
        done.result()

    def close(self) -> None:
        """Acknowledge what was accepted, refuse what comes, write a checkpoint, free the directory. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()

    # ---------------------------------------------------------------- callers' threads

    def _admit(self, request: Request) -> None:
        after = self.settings.retry_after
        with self._changed:
            if self._closing:
                raise RefusedError(grpc.StatusCode.UNAVAILABLE, "closing", "the processor is shutting down", after)
            told = self._queue.waits
            if not self._queue.admit(request):
                waiting = f"{self._queue.requests} requests wait to be written; come again"
                raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "overload", waiting, after)
            if not told:
                self._changed.notify()

    # ---------------------------------------------------------------- the writer's thread

    def _recover(self, settings: FoldSettings | None, parse: Callable[[bytes], Profile]) -> tuple[Fold, int, int]:
        checkpoint, entries = self._journal.recover()
        seq, count = checkpoint.seq if checkpoint else 0, 0
        limits = replace(self.settings.limits, points=sys.maxsize)  # what was acknowledged is taken
        try:
            fold = (
                Fold.load(Dump(checkpoint.parts, checkpoint.documents), settings, parse)
                if checkpoint
                else Fold(settings, parse)
            )
            for entry in entries:
                _apply(fold, entry.received_ns, _decode(entry.signal, entry.body, limits, self._forms))
                seq, count = entry.seq, count + 1
        except (FormatError, MalformedError) as error:
            raise JournalError(f"{self.path}: {error}") from error
        return fold, seq, count

    def _run(self) -> None:
        while True:
            requests, checkpoints, settled, closing = self._take()
            if requests:
                self._take_in(requests)
            if settled:
                self._settle(settled)
            self._checkpoint_some(checkpoints, hurry=closing)
            if closing:
                self._sealer.shutdown()
                self._journal.close()
                return

    def _take(self) -> tuple[list[Request], list[Future[None]], list[int], bool]:
        """What is to be done; waits until there is something, or a checkpoint is due."""
        queue = self._queue
        with self._changed:
            while not (queue.waits or self._checkpoints or self._settled or (self._closing and not queue.requests)):
                left = self._until_due()
                if left == 0.0:
                    break
                self._changed.wait(left)
            requests = queue.take(_AT_ONCE, _BYTES_AT_ONCE)
            checkpoints, settled = self._checkpoints, self._settled
            self._checkpoints, self._settled = [], []
            return requests, checkpoints, settled, self._closing and not queue.requests

    def _until_due(self) -> float | None:
        """Seconds until a checkpoint is to be made without being asked for; None while there is nothing for it."""
        if self._making is not None:  # its next step, unless that is another thread's
            return None if self._making.sealed is not None and not self._making.sealed.done() else 0.0
        if self._wanted:
            return 0.0
        if not self._journal.entries:
            return None
        full = self._journal.bytes >= self.settings.checkpoint_bytes
        wait = min(_PAUSE, self.settings.checkpoint_age) if full else self.settings.checkpoint_age
        return max(self._last_checkpoint + max(wait, self._pause) - time.monotonic(), 0.0)

    def _take_in(self, requests: list[Request]) -> None:
        """Read, write and fold requests, and answer them.

        All that is done in this thread: handing work between threads costs more than the work.
        """
        for request in requests:
            self._read(request)
        # Also of which nothing can be used: what was dropped is counted by the fold, and so after a restart.
        kept = [r for r in requests if r.batch.groups or r.batch.refused or r.waits]
        if kept:
            self._commit(kept)
        with self._changed:
            for request in requests:
                self._queue.leave(request)
                if isinstance(request.answer, Outcome):
                    self._received[request.signal] += request.answer.items
                    ignored = request.batch.ignored
                    self._ignored.update({why: n for why, n in ignored.items() if why != NOT_ML or not request.waits})
        for request in requests:
            request.wake()

    def _read(self, request: Request) -> None:
        if has_too_many(request.signal, request.body):
            request.answer = RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT, "too_many_messages", f"a request may hold {MOST_MESSAGES} messages"
            )
            return
        try:
            batch = _decode(request.signal, request.body, self.settings.limits, self._forms)
        except MalformedError as error:
            request.answer = RefusedError(grpc.StatusCode.INVALID_ARGUMENT, error.reason, str(error))
        except Exception as error:  # in our own code: whoever waits must be told, and the thread must live
            _LOG.exception("a request could not be read")
            request.answer = RefusedError(grpc.StatusCode.INTERNAL, _INTERNAL, f"could not be read: {error!r}")
        else:
            request.batch = batch
            request.waits = self._forwarding and bool(batch.ignored.get(NOT_ML))
            request.answer = Outcome(batch.items, batch.refused)

    def _commit(self, requests: list[Request]) -> None:
        """Write requests in one commit, and fold them."""
        now = self._clock()
        packed = [pack_body(request.body) for request in requests]
        try:
            first = self._journal.append(
                [(request.signal, now, body) for request, body in zip(requests, packed, strict=True)],
                [request.waits for request in requests],
            )
        except Exception as error:
            # Also what SQLite never raised in our tests.
            _LOG.error("%d requests refused: %s", len(requests), error, exc_info=not isinstance(error, JournalError))
            for request in requests:
                request.answer = RefusedError(
                    grpc.StatusCode.UNAVAILABLE, "storage", str(error), self.settings.retry_after
                )
            return
        for seq, request in enumerate(requests, start=first):
            batch = request.batch
            with self._folding:
                refused = _apply(self._fold, now, batch)
            self._folded = seq
            if refused:
                request.answer = Outcome(batch.items, Counter(batch.refused) + refused)
        waiting = [len(body.body) for request, body in zip(requests, packed, strict=True) if request.waits]
        if waiting:
            with self._changed:
                self._outbox_entries += len(waiting)
                self._outbox_bytes += sum(waiting)
            self.outbox.set()

    def _settle(self, seqs: list[int]) -> None:
        try:
            self._journal.settle(seqs)
        except Exception as error:  # they come again after a restart
            _LOG.error("not noted as passed on: %s", error, exc_info=not isinstance(error, JournalError))

    def _checkpoint_some(self, asked: list[Future[None]], *, hurry: bool) -> None:
        """Begin a checkpoint where one is due, or do a little more of it, so that requests hardly wait; in a `hurry`
        one of all that is folded. What is asked for while one is made waits for the next, which begins later.
        """
        self._wanted += asked
        if hurry and self._making is not None:  # one of all that is folded is for who waits for this, too
            if self._making.dump is not None:
                self._making.dump.give_up()
            self._wanted[:0], self._making = self._making.asked, None
        if hurry or self._until_due() == 0.0:
            self._go_on(hurry=hurry)

    def _go_on(self, *, hurry: bool) -> None:
        began = time.monotonic()
        if self._making is None:
            self._making = _Making(self._wanted, self._folded)
            self._wanted = []
        making, error = self._making, None
        try:
            done = self._make(making, hurry=hurry)
        except Exception as failed:
            _LOG.error("no checkpoint: %s", failed, exc_info=not isinstance(failed, JournalError))
            # Its traceback would hold this frame, this frame the error, and so both the dump.
            done, error = True, failed.with_traceback(None)
        making.took += time.monotonic() - began
        if done:
            self._end(making, error)

    def _make(self, making: _Making, *, hurry: bool) -> bool:
        """The next step of a checkpoint; whether it was the last."""
        if making.dump is None:
            with self._folding:
                making.dump = self._fold.begin_dump()
        if making.sealed is None:
            with self._folding:
                if not making.dump.go_on(None if hurry else _STEP):
                    return False
            making.sealed = self._sealer.submit(making.dump.seal)
            making.sealed.add_done_callback(lambda _: self._wake())
        if not (hurry or making.sealed.done()):
            return False
        self._journal.checkpoint(making.seq, self._clock(), *making.sealed.result())
        return True

    def _end(self, making: _Making, error: Exception | None) -> None:
        """It is written, or cannot be."""
        if making.dump is not None:
            making.dump.give_up()
        self._making = None
        self._last_checkpoint = time.monotonic()
        self._pause = making.took / _SHARE
        for asked in making.asked:
            asked.set_result(None) if error is None else asked.set_exception(error)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


@dataclass(slots=True)
class _Making:
    """A checkpoint that is being made: for whom, up to which entry, how far it is, and the seconds that it took."""

    asked: list[Future[None]]
    seq: int
    dump: Unfinished | None = None
    sealed: Future[Dump] | None = None
    took: float = 0.0


def _decode(signal: str, body: bytes, limits: DecodeLimits, forms: Forms) -> Batch:
    if signal == semconv.MonSignal.METRICS:
        return decode_metrics(body, limits, forms)
    if signal == semconv.MonSignal.LOGS:
        return decode_logs(body, limits)
    if signal == semconv.MonSignal.TRACES:
        return decode_traces(body)
    raise ValueError(f"no signal of OTLP: {signal!r}")


def _apply(fold: Fold, received_ns: int, batch: Batch) -> Counter[Reason]:
    """Fold; an error in our own code must not stop the others, now or at each start from here on."""
    try:
        return fold.apply(received_ns, batch)
    except Exception:
        _LOG.exception("a request could not be folded")
        return Counter({_INTERNAL: batch.items})
