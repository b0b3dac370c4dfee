"""The composition root: which stage hands what to which.

receiver -> ingest (journal, fold) -> views -> watch (alarms), evaluate -> snapshot -> /metrics, export
                    -> forward
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon_processor.alarms import AlarmSettings
from otel_mlmon_processor.config import ALWAYS, Config, ModelAlarmsSection
from otel_mlmon_processor.core.alarm import AlarmEvent
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exporters.events import count_unclaimed
from otel_mlmon_processor.exporters.families import Family, list_families
from otel_mlmon_processor.exporters.otlp import OtlpExporter
from otel_mlmon_processor.exporters.prometheus import expose
from otel_mlmon_processor.fold_settings import PROFILE_BYTES, Caps, FoldSettings
from otel_mlmon_processor.forward import Forwarder, count_abandoned
from otel_mlmon_processor.hold import MINUTE
from otel_mlmon_processor.http import HttpServer, make_application
from otel_mlmon_processor.ingest import Ingest, IngestCounters, IngestSettings
from otel_mlmon_processor.intake import NO_COUNTERS
from otel_mlmon_processor.otlp_client import connect
from otel_mlmon_processor.otlp_http import make_otlp_application
from otel_mlmon_processor.reasons import Refusal
from otel_mlmon_processor.receiver import Receiver, build_server
from otel_mlmon_processor.references import References
from otel_mlmon_processor.security import CONNECTIONS, HANDSHAKE, NO_CERTIFICATE, Tls, Tokens
from otel_mlmon_processor.snapshot import ModelState, Snapshot
from otel_mlmon_processor.watch import Looked, Watch
from otel_mlmon_processor.windows import ModelKey

_LOG = logging.getLogger(__name__)
FEATURE_BYTES: Final = 8_192  # of a profile's document: twice what a feature with seasons has
SAID: Final = 5  # findings in a log line
REST: Final = 2.0  # times the processor time that a model took the evaluation rests: requests need it too


class Processor:
    """A running processor.

    Args:
        config: its settings.

    Raises:
        OSError: an address cannot be bound.
        ValueError: certificates or tokens cannot be used (by now; the settings were checked when they were read).
        JournalError: the data directory cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._snapshot = Snapshot()
        self._ingest: Ingest | None = None
        self._receiver: Receiver | None = None
        self._otlp_http: HttpServer | None = None
        self._exporters: list[OtlpExporter] = []
        self._unclaimed = 0  # events of alarms that waited for endpoints that are no longer in the settings
        self._forwarder: Forwarder | None = None
        self._references = References(config.profiles)
        self._measures = ALWAYS | set(config.show.measures)
        self._stop = threading.Event()
        self._said: dict[ModelKey, tuple[str, ...]] = {}
        self._watch: Watch | None = None
        self._tls = Tls(**dict(config.tls)) if config.tls is not None else None
        self._tokens = Tokens(config.tokens) if config.tokens is not None else None
        pages = make_application(self._expose, lambda: self._receiver is not None, self._refuse)
        self._http = HttpServer(pages, config.http, self._make_context(required=False), self._count_closed)
        self._evaluator = threading.Thread(target=self._evaluate_always, name="mlmon-evaluate", daemon=True)

    def start(self) -> None:
        """Recover, listen, evaluate."""
        config, limits = self._config, self._config.limits
        self._http.start()
        try:
            settings = FoldSettings(
                window=config.window.size,
                display=config.window.display,
                idle_timeout=config.window.idle,
                ahead=config.window.ahead,
                retire=config.retire,
                caps=Caps(
                    models=limits.models,
                    producers=limits.producers,
                    streams=limits.streams,
                    memory=limits.memory,
                    spare=limits.memory // 4,
                    variables=limits.features,
                    categories=limits.categories,
                    profile_bytes=max(PROFILE_BYTES, limits.features * FEATURE_BYTES),
                ),
            )
            intake = IngestSettings(
                pending=limits.requests,
                pending_bytes=limits.bytes,
                checkpoint_bytes=config.checkpoint.size,
                checkpoint_age=config.checkpoint.age,
            )
            self._ingest = Ingest(config.data, settings, intake, forwarding=config.forward is not None)
            self._connect(self._ingest)
            if config.window.size == MINUTE:
                memory = config.alarms.memory if config.alarms.learn else None
                self._watch = Watch(
                    config.data,
                    self._alarm_settings,
                    hold=config.window.hold,
                    memory=memory,
                    clock=time.monotonic,
                    unsent=self._list_unsent,
                )
                self._restore(self._watch.unsent)
            receiver = build_server(self._ingest, config.listen, tls=self._tls, tokens=self._tokens)
            if config.listen_http is not None:
                application = make_otlp_application(self._ingest, tokens=self._tokens)
                context = self._make_context(required=True)
                self._otlp_http = HttpServer(application, config.listen_http, context, self._count_closed)
        except BaseException:
            if self._ingest is not None:
                self._ingest.close()
            self._http.stop(1.0)
            raise
        self._evaluate()
        receiver.start()
        self._receiver = receiver
        if self._otlp_http is not None:
            self._otlp_http.start()
        self._evaluator.start()
        for sender in (*self._exporters, *([self._forwarder] if self._forwarder is not None else ())):
            sender.start()
        _LOG.info(
            "listening: OTLP over gRPC on %s%s, %s://%s/metrics; data in %s",
            _with_port(config.listen, receiver.port),
            f", over HTTP on {_with_port(config.listen_http, self._otlp_http.port)}"
            if config.listen_http is not None and self._otlp_http is not None
            else "",
            "http" if self._tls is None else "https",
            _with_port(config.http, self._http.port),
            config.data,
        )

    def stop(self) -> None:
        """Acknowledge what was accepted, refuse what comes, evaluate and export it, write a checkpoint, end.

        All but the checkpoint ends within about `shutdown`; requests and events that an endpoint does not take are in
        the directory.
        """
        deadline = time.monotonic() + self._config.shutdown

        def left() -> float:
            return max(deadline - time.monotonic(), 0.0)

        if self._receiver is not None:
            stopped = self._receiver.stop(left() / 2)  # the other half is for what follows
            if self._otlp_http is not None:
                self._otlp_http.stop(left() / 2)
            stopped.wait(left())
        self._stop.set()
        if self._evaluator.is_alive():
            self._evaluator.join(left())
        evaluated = not self._evaluator.is_alive()
        if evaluated:
            self._try_to_evaluate()
        for sender in (*self._exporters, *([self._forwarder] if self._forwarder is not None else ())):
            sender.stop(left())
        if evaluated and self._watch is not None:
            self._watch.save()  # now, so that events which were sent at the last moment are not sent again
        if self._ingest is not None:
            self._ingest.close()
        self._http.stop(left())
        _LOG.info("stopped; everything acknowledged is in %s", self._config.data)

    def _connect(self, ingest: Ingest) -> None:
        """Make, and do not start, what sends to other places."""
        rng, forward = random.Random(), self._config.forward  # noqa: S311 -- spreads attempts
        for section in self._config.export:
            self._exporters.append(
                OtlpExporter(
                    connect(section),
                    section.endpoint,
                    self._list_families,
                    instance=self._config.instance or ingest.instance,
                    interval=section.interval,
                    clock=time.time,
                    rng=rng,
                )
            )
        if forward is not None:
            self._forwarder = Forwarder(
                ingest,
                connect(forward),
                forward.endpoint,
                most_bytes=forward.size,
                most_age=forward.age,
                clock=time.time_ns,
                rng=rng,
            )

    def _list_unsent(self) -> list[tuple[str, Sequence[Any]]]:
        """Endpoints that events of alarms wait for, and these events."""
        return [(exporter.endpoint, unsent) for exporter in self._exporters if (unsent := exporter.events.unsent())]

    def _restore(self, saved: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Have the events sent that waited when the last process ended, each to its endpoint."""
        left = list(self._exporters)  # of two with one name each has its own
        for endpoint, events in saved:
            exporter = next((each for each in left if each.endpoint == endpoint), None)
            if exporter is not None:
                left.remove(exporter)
                exporter.events.restore(events)
            else:
                self._unclaimed += len(events)
                _LOG.warning("%d events of alarms waited for %s, which is not in `export` any more: dropped",
                             len(events), endpoint)  # fmt: skip

    def _counters(self) -> IngestCounters:
        return self._ingest.counters() if self._ingest is not None else NO_COUNTERS

    def _expose(self) -> Generator[str]:
        return expose(self._list_families(time.time()))

    def _list_families(self, now: float) -> Iterator[Family]:
        sending = [exporter.counters() for exporter in self._exporters]
        if self._unclaimed:
            sending.append(count_unclaimed(self._unclaimed))
        if self._forwarder is not None:
            sending.append(self._forwarder.counters())
        elif self._ingest is not None and self._ingest.abandoned:
            sending.append(count_abandoned(self._ingest.abandoned))
        shown = self._config.show.distribution
        return list_families(self._snapshot, self._counters(), sending, now, distribution=shown)

    def _make_context(self, *, required: bool) -> ssl.SSLContext | None:
        """Of TLS over HTTP. Client certificates are not required where /healthz is, which must answer without."""
        if self._tls is None:
            return None
        return self._tls.context(required=required, failed=lambda: self._count_refused(HANDSHAKE))

    def _refuse(self, header: str | None, certified: bool) -> Refusal | None:
        """Why a scrape is refused."""
        reason = self._tokens.refuse(header) if self._tokens is not None else None
        if self._tls is not None and self._tls.mutual and not certified:
            reason = NO_CERTIFICATE
        if reason is not None:
            self._count_refused(reason)
        return reason

    def _count_closed(self) -> None:
        self._count_refused(CONNECTIONS)

    def _count_refused(self, reason: Refusal) -> None:
        if self._ingest is not None:
            self._ingest.count_refused("", reason)  # of no signal

    def _evaluate_always(self) -> None:
        while not self._stop.wait(self._config.evaluate.interval):
            self._try_to_evaluate(rest=REST)

    def _try_to_evaluate(self, *, rest: float = 0.0) -> None:
        try:
            self._evaluate(rest=rest)
        except Exception:
            _LOG.exception("an evaluation failed; the last one stays")

    def _evaluate(self, *, rest: float = 0.0) -> None:
        """Look at all models; after each, rest for so many times the processor time it took, unless the end is near."""
        if self._ingest is None:
            return
        began, used = time.perf_counter(), time.thread_time()
        self._references.refresh()
        sent = self._ingest.profiles()
        models, watch = [], self._watch
        for view in self._ingest.views(watch.wanted() if watch is not None else {}):
            profile = self._references.choose(view.key, view.reference_hash, sent)
            looked = watch.look(view, profile) if watch is not None else Looked(None, [])
            self._tell(view.key, looked.events)
            tolerance = self._alarm_settings(view.key.model).tolerance
            reference = profile or looked.reference
            models.append(
                evaluate_model(view, reference, tolerance=tolerance, measures=self._measures, alarms=looked.alarms)
            )
            self._stop.wait(rest * (time.thread_time() - used))
            used = time.thread_time()
        if watch is not None:
            watch.obey()
            watch.keep({model.view.key for model in models})
        took = time.perf_counter() - began
        self._snapshot = Snapshot(tuple(models), took, self._references.conflicts, time.time())
        for model in models:
            self._say(model)
        for key in set(self._said) - {model.view.key for model in models}:
            del self._said[key]
            _LOG.info("model forgotten: %s of %s, silent for long", f"{key.model} {key.version}".strip(), key.service)

    def _alarm_settings(self, model: str) -> AlarmSettings:
        """What holds for a model."""
        general, own = self._config.alarms, self._config.alarms.models.get(model, ModelAlarmsSection())
        return AlarmSettings(
            budget=general.budget if own.budget is None else own.budget,
            tolerance=self._config.evaluate.tolerance if own.tolerance is None else own.tolerance,
            least_rows=general.least_rows if own.least_rows is None else own.least_rows,
            muted={feature: until.timestamp() for feature, until in own.muted.items()},
        )

    def _tell(self, key: ModelKey, events: Iterable[AlarmEvent]) -> None:
        for event in events:
            name = f"{key.model} {key.version}".strip()
            level = logging.INFO if event.kind == semconv.AlarmState.CLEAR else logging.WARNING
            _LOG.log(level, "%s of %s: %s", name, key.service, event.say())
            for exporter in self._exporters:
                exporter.events.tell(key, event)

    def _say(self, model: ModelState) -> None:
        """One line for each model that is new, and for each change of what is told of its sliding window.

        A warning where it decides; under a budget `_tell` warns.
        """
        key = model.view.key
        name = f"{key.model} {key.version}".strip()
        if key not in self._said:
            _LOG.info("model seen: %s of %s%s", name, key.service, "" if model.profile else ", without a profile yet")
        before, after = self._said.get(key, ()), tuple(f"{f.label} ({f.kind})" for f in model.told)
        raised, cleared = Counter(after) - Counter(before), Counter(before) - Counter(after)
        if raised:
            new = [str(finding) for finding in model.told if f"{finding.label} ({finding.kind})" in raised]
            more = f"; and {len(new) - SAID} more" if len(new) > SAID else ""
            level, said = _weigh(model)
            _LOG.log(level, "%s: %s: %s%s", said, name, "; ".join(new[:SAID]), more)
        if cleared:
            _LOG.info("as before again: %s: %s", name, ", ".join(cleared))
        self._said[key] = after


def _weigh(model: ModelState) -> tuple[int, str]:
    """Level and first words of what differs over the sliding window."""
    if model.budgeted is None:
        return logging.WARNING, "changed"
    return logging.INFO, "over the sliding window" if model.budgeted.active else "no alarm; differs from the profile"


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
