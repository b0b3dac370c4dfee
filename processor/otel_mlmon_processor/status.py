"""The command `otel-mlmon status`: what /metrics says, as tables for people."""

from __future__ import annotations

import argparse
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, RemoteDisconnected
from pathlib import Path
from typing import Final
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from otel_mlmon import semconv
from otel_mlmon.cli import Command, CommandError
from otel_mlmon.numerics.drift import Shift
from otel_mlmon.numerics.rates import count_hidden, make_rate
from otel_mlmon.numerics.scales import LEAST_DAYS
from otel_mlmon.semconv import DriftMeasure
from otel_mlmon.wording import printable, say_shift, say_time, say_unusable
from otel_mlmon_processor.core.verdict import (
    Finding,
    ReplicaEffect,
    find_quality,
    find_replicas,
    label_of,
    rank,
    say_model,
)
from otel_mlmon_processor.exporters.prometheus import label, prometheus_name
from otel_mlmon_processor.security import read_tokens

URL: Final = "http://127.0.0.1:9464/metrics"
SECONDS: Final = 2.0
SHOWN: Final = 2  # variables of an alarm in a sentence
_OTHER_NAME: Final = (62, 64)  # OpenSSL's codes of a certificate for another host name, another address

# Counters of what did not arrive.
_LOSSES: Final = {
    semconv.METRIC_MLMON_PROCESSOR_REFUSED: "requests refused",
    semconv.METRIC_MLMON_PROCESSOR_DROPPED: "items of accepted requests not used",
    semconv.METRIC_MLMON_PROCESSOR_SEND_DROPPED: "requests not passed on, or exports given up",
}
_HARMLESS: Final = {"not_ml", "unused"}  # reasons: it was never meant for us

Losses = dict[str, dict[str, int]]  # what did not arrive: by reason, how many
Model = tuple[str, ...]  # service namespace, service, environment, model, version
Variable = tuple[str, str]  # role, name


@dataclass(slots=True)
class Seen:
    """What /metrics says of a model."""

    values: dict[str, float] = field(default_factory=dict)
    alarms: dict[Variable, float] = field(default_factory=dict)
    words: dict[Variable, tuple[str, float]] = field(default_factory=dict)  # of an alarm, and since when
    evidence: dict[Variable, float] = field(default_factory=dict)
    insufficient: set[Variable] = field(default_factory=set)
    drift: dict[Variable, dict[str, float]] = field(default_factory=dict)
    quality: dict[Variable, dict[str, float]] = field(default_factory=dict)
    change: dict[Variable, dict[str, float]] = field(default_factory=dict)
    replicas: dict[Variable, dict[str, float]] = field(default_factory=dict)

    @property
    def window_end(self) -> float:
        """End of the sliding window, seconds since 1970; 0 where there is none yet."""
        return self.values.get(semconv.METRIC_ML_WINDOW_END.name, 0.0)

    @property
    def learning(self) -> bool:
        """Whether it is not yet known what is normal."""
        learning = self.values.get(semconv.METRIC_ML_ALARM_LEARNING.name)
        return bool(learning) and self.values.get(semconv.METRIC_ML_ALARM_LEARNT.name, 0.0) < LEAST_DAYS

    @property
    def changed(self) -> bool:
        """Whether anything is part of an alarm."""
        return any(self.alarms.values())

    def say(self) -> str:
        """One sentence."""
        if not self.alarms and not self.insufficient:
            return "no reference: counts only"
        if self.words:
            since = say_time(min(since for _, since in self.words.values()))
            parts = [f"{label_of(*variable)}: {text}" for variable, (text, _) in self.words.items()][:SHOWN]
            more = sum(map(bool, self.alarms.values())) - len(parts)
            return f"ALARM since {since}: {'; '.join(parts)}" + (f"; and {more} more" if more > 0 else "")
        findings = self.findings()
        said = say_model(findings, bool(self.alarms))
        return f"no alarm; differs from the profile: {said}" if findings and not self.changed else said

    def say_alarms(self) -> str:
        """What decides whether there is an alarm, and how much of the budget is spent."""
        budget = self.values.get(semconv.METRIC_ML_ALARM_BUDGET.name)
        if budget is None:
            refused = self.values.get(semconv.METRIC_ML_ALARM_REFUSED.name)
            return "sliding window: not learnt, for want of memory" if refused else "sliding window"
        raised = self.values.get(semconv.METRIC_ML_ALARM_RAISED.name, 0.0)
        return f"budget: {raised:.0f} of {budget:g} spent in 30 days; {self._say_phase()}"

    def _say_phase(self) -> str:
        days = f"{self.values.get(semconv.METRIC_ML_ALARM_LEARNT.name, 0.0):.0f}"
        if self.learning:
            return f"learning, {days} of {LEAST_DAYS} days"
        if self.values.get(semconv.METRIC_ML_ALARM_LEARNING.name):
            return f"provisional, from {days} days"
        return "calibrated" if days == "0" else f"learnt from {days} days"

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, ranked as the processor does."""
        found: list[Finding] = []
        for (role, name), alarm in self.alarms.items():
            if alarm or self.learning:
                found += self._find(role, name)
        return rank(found)

    def _find(self, role: str, name: str) -> Iterator[Finding]:
        variable = (role, name)
        tolerance = self.values.get(semconv.METRIC_ML_DRIFT_TOLERANCE.name, 0.0)
        rows = round(self.values.get(semconv.METRIC_ML_REFERENCE_ROWS.name, 0.0))
        seen = round(self.values.get(semconv.METRIC_ML_WINDOW_ROWS.name, 0.0))
        changes = self.change.get(variable, {})
        rates = {}
        for measure, rate in self.quality.get(variable, {}).items():
            before = max(rate - changes.get(measure, 0.0), 0.0)
            known = (round(before * rows), rows)
            rates[measure] = make_rate(round(rate * seen), seen, known, count_hidden(measure))
        drift = self.drift.get(variable, {})
        yield from find_quality(role, name, rates, tolerance)
        shift = Shift(drift.get(DriftMeasure.MEAN_SHIFT), drift.get(DriftMeasure.WASSERSTEIN))
        apart = [ReplicaEffect(r, lower, "") for r, lower in self.replicas.get(variable, {}).items()]
        yield from find_replicas(role, name, sorted(apart, key=lambda r: -r.lower), tolerance)
        lower = drift.get(DriftMeasure.EFFECT_LOWER, 0.0)
        if lower > tolerance:
            yield Finding(role, name, "drift", lower, say_shift(shift))


def read_models(text: str) -> dict[Model, Seen]:
    """Models of an exposition in the text format."""
    models: dict[Model, Seen] = {}
    gauges = {
        prometheus_name(metric): metric.name
        for metric in (
            semconv.METRIC_ML_WINDOW_END,
            semconv.METRIC_ML_WINDOW_ROWS,
            semconv.METRIC_ML_DRIFT_TOLERANCE,
            semconv.METRIC_ML_REFERENCE_ROWS,
            semconv.METRIC_ML_MODEL_REPLICAS,
            semconv.METRIC_MLMON_PROCESSOR_LAG,
            semconv.METRIC_ML_ALARM_BUDGET,
            semconv.METRIC_ML_ALARM_RAISED,
            semconv.METRIC_ML_ALARM_LEARNING,
            semconv.METRIC_ML_ALARM_LEARNT,
            semconv.METRIC_ML_ALARM_REFUSED,
        )
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if label(semconv.ML_MODEL_NAME) not in labels:
                continue
            names = ("service_namespace", "service_name", "deployment_environment_name")
            parts = (*names, label(semconv.ML_MODEL_NAME), label(semconv.ML_MODEL_VERSION))
            seen = models.setdefault(tuple(labels.get(part, "") for part in parts), Seen())
            if family.name in gauges:
                seen.values[gauges[family.name]] = sample.value
            else:
                _read_variable(seen, family.name, labels, sample.value)
    return models


def read_losses(text: str) -> Losses:
    """What an exposition in the text format says was not taken, not used or not passed on; nothing where all was."""
    names = {prometheus_name(metric) + "_total": what for metric, what in _LOSSES.items()}
    lines = [line for line in text.splitlines() if line.startswith(tuple(names))]
    losses: Losses = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            reason = sample.labels.get(label(semconv.MLMON_REASON), "")
            if sample.name in names and sample.value and reason not in _HARMLESS:
                reasons = losses.setdefault(names[sample.name], {})
                reasons[reason] = reasons.get(reason, 0) + round(sample.value)
    return losses


def _read_variable(seen: Seen, family: str, labels: Mapping[str, str], value: float) -> None:
    feature = labels.get(label(semconv.ML_FEATURE_NAME), "")
    variable = ("feature", feature) if feature else (labels.get(label(semconv.ML_PREDICTION_SIGNAL), ""), "")
    measure = labels.get(label(semconv.ML_DRIFT_MEASURE), "") or labels.get(label(semconv.ML_QUALITY_MEASURE), "")
    if family == prometheus_name(semconv.METRIC_ML_DRIFT_ALARM):
        seen.alarms[variable] = value
    elif family == prometheus_name(semconv.METRIC_ML_ALARM_START):
        seen.words[variable] = labels.get(label(semconv.ML_ALARM_TEXT), ""), value
    elif family == prometheus_name(semconv.METRIC_ML_DRIFT_EVIDENCE):
        seen.evidence[variable] = value
    elif family == prometheus_name(semconv.METRIC_ML_DRIFT_INSUFFICIENT):
        seen.insufficient.add(variable)
    elif family == prometheus_name(semconv.METRIC_ML_DRIFT_REPLICA):
        seen.replicas.setdefault(variable, {})[labels.get("service_instance_id", "")] = value
    else:
        groups = {
            prometheus_name(semconv.METRIC_ML_FEATURE_DRIFT): seen.drift,
            prometheus_name(semconv.METRIC_ML_PREDICTION_DRIFT): seen.drift,
            prometheus_name(semconv.METRIC_ML_FEATURE_QUALITY): seen.quality,
            prometheus_name(semconv.METRIC_ML_FEATURE_QUALITY_CHANGE): seen.change,
        }
        if family in groups:
            groups[family].setdefault(variable, {})[measure] = value


def _plain(text: str) -> str:
    """As it stands, not as markup or a terminal's commands."""
    return escape(printable(text))


def render(models: Mapping[Model, Seen], losses: Losses) -> RenderableType:
    """A table of the models, one for each of what is wrong, and what did not arrive. Nothing is cut: it wraps."""
    said = [
        f"{what}: {', '.join(f'{reason} {n:,}' for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))}"
        for what, reasons in losses.items()
    ]
    if said:
        said.append("(what each reason means: docs/operations.md, What is not taken, and why)")
    lost = [f"[yellow]{_plain(line)}[/]" for line in said]
    if not models:
        return Group("no model has sent anything yet", *lost)
    table = _make_table("model", "replicas", "rows", "until (UTC)", "decided by", "what has changed")
    details: list[RenderableType] = []
    for (_, service, _, name, version), seen in sorted(models.items()):
        end = seen.window_end
        count = (
            f"{seen.values.get(metric.name, 0):.0f}"
            for metric in (semconv.METRIC_ML_MODEL_REPLICAS, semconv.METRIC_ML_WINDOW_ROWS)
        )
        colour = "red" if seen.changed else "green" if seen.alarms else "yellow"
        called = f"{name} {version}".strip() + f" of {service}"
        cells = (called, *count, say_time(end) if end else "-", seen.say_alarms())
        table.add_row(*map(_plain, cells), f"[{colour}]{_plain(seen.say())}[/]")
        if seen.words or seen.findings():
            details += [_plain(called), _list_details(seen)]
    return Group(table, *details, *lost)


def _list_details(seen: Seen) -> Table:
    """What the alarm says, then what the sliding window shows of the same."""
    table = _make_table("feature or output", "what has changed", "said by", "at least (D)")
    for variable, (text, since) in seen.words.items():
        said_by = f"alarm since {say_time(since)}, evidence {seen.evidence.get(variable, 0.0):.2g}"
        table.add_row(*map(_plain, (label_of(*variable), text, said_by)), "")
    for finding in seen.findings():
        table.add_row(_plain(finding.label), _plain(finding.text), "sliding window", f"{finding.size:.3g}")
    return table


def _make_table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def make_request(url: str, token: Path | None = None) -> urllib.request.Request:
    """For the exposition at a URL, with the first token of a file.

    Raises:
        CommandError: the address or the file cannot be used.
    """
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url} is no http:// address")
    try:
        request = urllib.request.Request(url)  # noqa: S310 -- http only, checked above
    except ValueError as error:
        raise CommandError(f"{url} does not answer ({error})") from None
    if token is not None:
        try:
            request.add_unredirected_header("Authorization", f"Bearer {read_tokens(token)[0]}")
        except ValueError as error:
            raise CommandError(f"--token: {error}") from None
    return request


def make_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Whom to trust (None: whom the system trusts) and what to show.

    Raises:
        CommandError: a file cannot be used.
    """
    for flag, path in (("--ca", ca), ("--certificate", certificate), ("--key", key)):
        try:
            if path is not None:
                path.read_bytes()  # OpenSSL does not say which file it is
        except OSError as error:
            raise CommandError(f"{flag}: {say_unusable(error)}") from None
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise CommandError(f"--ca: {ca} holds no certificate in PEM") from None
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError:
        where = f"{certificate} and {key} do" if key is not None else f"{certificate} does, and there is no --key,"
        raise CommandError(f"--certificate, --key: {where} not hold a certificate and its key in PEM") from None
    return context


def _hint(url: str, error: Exception) -> str:
    """What to do."""
    reason = getattr(error, "reason", error)  # of urllib
    if isinstance(reason, ssl.SSLCertVerificationError):
        if reason.verify_code in _OTHER_NAME:
            return "use a name or address that is in its certificate"
        return "name the authority of its certificate with --ca"
    if isinstance(reason, ssl.SSLError):
        return "if it is without TLS, use http://"
    if isinstance(error, RemoteDisconnected | ConnectionResetError) and url.startswith("http:"):
        return "if it is with TLS, use https://"
    return "is the processor running there?"


def look(request: urllib.request.Request, context: ssl.SSLContext) -> tuple[dict[Model, Seen], Losses]:
    """Models of the exposition, and what did not arrive.

    Raises:
        CommandError: it cannot be had, or is none.
    """
    url = request.full_url
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as response:  # noqa: S310 -- http only
            text: str = response.read().decode()
    except HTTPError as error:
        reason = error.read(80).decode(errors="replace").strip()
        hint = (
            "see --token, and --certificate with --key"
            if error.code == HTTPStatus.UNAUTHORIZED
            else "is it the processor's?"
        )
        raise CommandError(f"{url} refuses ({error.code} {printable(reason)}); {hint}") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: the address, or text that is none
        raise CommandError(f"{url} does not answer ({error}); {_hint(url, error)}") from None
    try:
        return read_models(text), read_losses(text)
    except ValueError:
        raise CommandError(f"{url} answers with something else than metrics; the processor's are at /metrics") from None


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `status`."""
    parser.epilog = (
        "exit status: 0 no alarm is on, 1 one is, 2 the processor does not answer. Under a budget the alarm decides; "
        "what else differs from the profile is shown while it is being learnt what is normal, and is none."
    )
    parser.add_argument("--url", default=URL, help=f"of the processor's metrics ({URL})")
    parser.add_argument("--watch", action="store_true", help=f"show it again every {SECONDS:g} s, until Ctrl-C")
    parser.add_argument("--token", type=Path, metavar="FILE", help="a bearer token")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="authorities to trust, PEM (those of the system)")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="to show, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="of the certificate")


def run(args: argparse.Namespace) -> int:
    """Show it; exit status 1 where an alarm is on."""
    console = Console()
    request, context = make_request(args.url, args.token), make_context(args.ca, args.certificate, args.key)
    models, losses = look(request, context)
    if not args.watch:
        console.print(render(models, losses))
        return 1 if any(seen.changed for seen in models.values()) else 0
    with Live(render(models, losses), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(SECONDS)
            live.update(render(*look(request, context)), refresh=True)


COMMAND = Command("show models, what has changed, and by how much", configure, run)
