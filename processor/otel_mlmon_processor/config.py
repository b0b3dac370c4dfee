"""Settings of the processor: one YAML file, checked at start; every error names its key and what is allowed."""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from otel_mlmon.numerics.measures import MEASURES
from otel_mlmon.semconv import DriftMeasure
from otel_mlmon.wording import say_unusable
from otel_mlmon_processor.security import Tls, make_client_context, read_tokens

LONGEST_SHOWN: Final = 200  # characters of a value in a message
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
# What the verdict and the reading of it rest on.
ALWAYS: Final = frozenset(
    {DriftMeasure.PSI, DriftMeasure.PSI_CORRECTED, DriftMeasure.WASSERSTEIN, DriftMeasure.EFFECT_LOWER}
)
SWITCHABLE: Final = frozenset({*MEASURES, DriftMeasure.MEAN_SHIFT}) - ALWAYS


class ConfigError(ValueError):
    """The file or a flag cannot be used; the message names the key."""


def read_duration(value: Any) -> Any:
    """Seconds of "90s", "5m", "1h", "7d" or of a number."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds, or one with ms, s, m, h or d")
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError('a duration is a number with ms, s, m, h or d, such as "90s" or "7d"')
        return float(match[1]) * _UNITS[match[2]]
    return value


def check_port(address: str) -> str:
    """The address, where its port is one."""
    if int(address.rpartition(":")[2]) > 65_535:
        raise ValueError("a port is at most 65535")
    return address


def is_loopback(address: str) -> bool:
    """Whether host:port can be reached from this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_off(value: Any) -> Any:
    """None of "off", which YAML reads as false."""
    return None if value is False or value == "off" else value


def check_tokens(path: Path) -> Path:
    """The file, where it holds tokens."""
    read_tokens(path)
    return path


def check_token(path: Path) -> Path:
    """The file, where it holds a token. What names no file may be the token itself, so it is not shown."""
    try:
        path.stat()
    except (OSError, ValueError):
        raise ValueError("is the path of a file that holds the token, and there is no such file") from None
    return check_tokens(path)


def check_path(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The path, where the system can look at it."""
    try:
        return check(value)
    except OSError as error:  # it is too long, or in a folder that may not be entered
        raise ValueError(f"the path cannot be used: {error.strerror}") from None


# From 1 ms, so that it is a whole number of nanoseconds or close to one, to a thousand years.
Duration = Annotated[float, BeforeValidator(read_duration), Field(ge=0.001, le=3.2e10)]
Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"), AfterValidator(check_port)]
File = Annotated[FilePath, WrapValidator(check_path)]
Folder = Annotated[DirectoryPath, WrapValidator(check_path)]


class Section(BaseModel):
    """Part of the file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WindowSection(Section):
    """How event time is cut.

    size: of a window. display: length of the sliding window that is shown and decided on, a whole number of windows.
    idle: a replica silent for so long no longer holds the window back. ahead: points further in the future open none.
    hold: alarms look at a window so long after it is over, as it may come in parts.
    """

    size: Duration = 60.0
    display: Duration = 3600.0
    idle: Duration = 300.0
    ahead: Duration = 300.0
    hold: Duration = 10.0

    @model_validator(mode="after")
    def _whole(self) -> WindowSection:
        if round(self.display * 1e9) % round(self.size * 1e9):
            raise ValueError("display must be a whole number of windows of `size`")
        return self


class EvaluateSection(Section):
    """interval: between evaluations. tolerance: the smallest change worth hearing of, in units of the effect D."""

    interval: Duration = 10.0
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.005


def read_moment(value: Any) -> Any:
    """The beginning of a date; a time without a zone is UTC."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise ValueError("must be a date such as 2026-12-31, or a time in ISO 8601")
    return value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)


class ModelAlarmsSection(Section):
    """What holds for one model. muted: until when (a date or a time; UTC) a feature is not listened to."""

    budget: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    tolerance: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    least_rows: Annotated[int | None, Field(ge=0)] = None
    muted: dict[str, Annotated[dt.datetime, BeforeValidator(read_moment)]] = {}


def read_models(plain: Mapping[str, Any]) -> dict[str, ModelAlarmsSection]:
    """Settings by model."""
    read = {}
    for name, settings in plain.items():
        try:
            read[name] = ModelAlarmsSection.model_validate(settings)
        except ValidationError as error:
            raise ValueError(f"{name}: {'; '.join(_explain(error, ModelAlarmsSection))}") from None
    return read


class AlarmsSection(Section):
    """Alarms of models whose profile says what is normal from minute to minute.

    budget: false alarms a model may raise in 30 days, all features, predictions and tests together. least_rows: values
    that a look at a feature must hold. learn: learn what is normal from production, in 7 to 14 days, where the profile
    does not say it (and the reference, where there is no profile), and alarm until then on what nothing normal could
    explain alone. memory: bytes for that, of all models; what does not fit is not learnt. models: by name, what differs
    for it: budget, tolerance, least_rows, and muted features with the date until which they are.
    """

    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    least_rows: Annotated[int, Field(ge=0)] = 0
    learn: bool = True
    memory: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    models: Annotated[dict[str, Any], AfterValidator(read_models)] = {}


class CheckpointSection(Section):
    """When the folded state replaces the journal.

    size: bytes that the journal holds by then. age: time since the last checkpoint.
    """

    size: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    age: Duration = 60.0


class LimitsSection(Section):
    """Most that is held; what is there stays, what comes on top is refused and counted.

    requests: that wait to be written, each client's an equal share. bytes: of these. models: and versions.
    producers: processes that send. streams: series of points of all producers. features: of a model. categories: of a
    feature. memory: bytes of the counts of all; a quarter as much beside it is to tell replicas apart.
    """

    requests: Annotated[int, Field(ge=2)] = 128
    bytes: Annotated[int, Field(ge=1 << 20)] = 64 * 1024 * 1024
    models: Annotated[int, Field(gt=0)] = 1_000
    producers: Annotated[int, Field(gt=0)] = 10_000
    streams: Annotated[int, Field(gt=0)] = 1_000_000
    memory: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    features: Annotated[int, Field(gt=0)] = 2_000
    categories: Annotated[int, Field(gt=0)] = 2_000


class ShowSection(Section):
    """What is exposed beside what the verdict rests on. measures: further ones. distribution: coarse histograms."""

    measures: tuple[str, ...] = tuple(sorted(SWITCHABLE))
    distribution: bool = True

    @model_validator(mode="after")
    def _known(self) -> ShowSection:
        unknown = set(self.measures) - SWITCHABLE - ALWAYS
        if unknown:
            raise ValueError(f"unknown measures {sorted(unknown)}; there are {', '.join(sorted(SWITCHABLE))}")
        return self


def check_endpoint(url: str) -> str:
    """The URL, where it is one of a place to send to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an endpoint is http://host:port or https://host:port, over HTTP with the path before /v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a name and a password go into `headers`, not into the endpoint")
    _ = parts.port  # raises where it is none
    return url


class ClientTlsSection(Section):
    """Files (PEM) of an endpoint with https, read again when they change.

    ca: who signed its certificate; absent: the system's. certificate, key: ours, for mTLS.
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None

    @model_validator(mode="after")
    def _usable(self) -> ClientTlsSection:
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("certificate and key go together")
        if self.files():  # the system's take 30 ms to load
            self.make_context()
        return self

    def files(self) -> list[Path]:
        """Those that are given."""
        return [path for path in (self.ca, self.certificate, self.key) if path is not None]

    def make_context(self) -> ssl.SSLContext:
        """What checks the endpoint, and shows our certificate.

        Raises:
            ValueError: a file cannot be used.
        """
        return make_client_context(self.ca, self.certificate, self.key)


class EndpointSection(Section):
    """Where OTLP is sent to.

    endpoint: http://host:port or https://host:port; over HTTP with the path before /v1/metrics. protocol: grpc or http.
    headers: sent with each request. token: file of the bearer token that is sent too, the first where it holds more;
    read again when it changes. compression: gzip or none. timeout: of an attempt. insecure: send to other than loopback
    addresses in plain text.
    """

    endpoint: Annotated[str, AfterValidator(check_endpoint)]
    protocol: Literal["grpc", "http"] = "grpc"
    headers: dict[
        Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")],
        Annotated[str, Field(pattern=r"^[\t\x20-\x7e]*$")],
    ] = {}
    token: Annotated[Path, AfterValidator(check_token)] | None = None
    compression: Literal["gzip", "none"] = "gzip"
    tls: ClientTlsSection = ClientTlsSection()
    timeout: Duration = 10.0
    insecure: bool = False

    @model_validator(mode="after")
    def _plain(self) -> EndpointSection:
        url = urlsplit(self.endpoint)
        if self.token is not None and "authorization" in map(str.lower, self.headers):
            raise ValueError("authorization is in `headers`, and `token` sends it too; give one of them")
        if self.protocol == "grpc" and url.path not in ("", "/"):
            raise ValueError(f"{self.endpoint} has a path, which gRPC has not; is it `protocol: http`?")
        if url.scheme == "http":
            if self.tls != ClientTlsSection():
                raise ValueError(f"{self.endpoint} is plain text, `tls` needs https://")
            if not self.insecure and not is_loopback(url.netloc if url.port else f"{url.netloc}:80"):
                raise ValueError(
                    f"{self.endpoint} is another machine, and http:// is plain text; use https://, or put "
                    "`insecure: true` where the network is yours alone"
                )
        return self


class ExportSection(EndpointSection):
    """A place to which what /metrics shows is sent. interval: between exports."""

    interval: Duration = 60.0


class ForwardSection(EndpointSection):
    """Where to pass on what the processor does not understand.

    size: bytes that may wait for it in the data directory; age: a request that waits longer is dropped.
    """

    size: Annotated[int, Field(gt=0)] = 1 << 30
    age: Duration = 86_400.0


class TlsSection(Section):
    """Files in PEM, read again when they change.

    certificate: of the processor, with those between it and its authority. key: its private key. client_ca: clients
    must have a certificate of these authorities.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> TlsSection:
        Tls(self.certificate, self.key, self.client_ca)
        return self


class Config(Section):
    """The file.

    listen: OTLP over gRPC. listen_http: OTLP over HTTP; off: not. http: /metrics, /healthz, /readyz. data:
    directory of what must not be lost. profiles: folder of profiles, which go before those that models send.
    export: places to send to by OTLP what /metrics shows. instance: this processor's service.instance.id there; empty:
    one made once and kept in the data directory. forward: where to pass on what is none of ours; absent: nowhere.
    retire: a model silent for so long is forgotten. shutdown: grace for requests that run. tls: of all three
    listeners. tokens: file of bearer tokens, one a line, one of which clients must send. insecure: listen on other
    than loopback addresses in plain text, or without asking who it is.
    """

    listen: Address = "127.0.0.1:4317"
    listen_http: Annotated[Address | None, BeforeValidator(read_off)] = "127.0.0.1:4318"
    http: Address = "127.0.0.1:9464"
    data: Path = Path("mlmon-data")
    profiles: Folder | None = None
    window: WindowSection = WindowSection()
    evaluate: EvaluateSection = EvaluateSection()
    alarms: AlarmsSection = AlarmsSection()
    checkpoint: CheckpointSection = CheckpointSection()
    limits: LimitsSection = LimitsSection()
    show: ShowSection = ShowSection()
    export: tuple[ExportSection, ...] = ()
    instance: str = ""
    forward: ForwardSection | None = None
    retire: Duration = 86_400.0
    shutdown: Duration = 10.0
    tls: TlsSection | None = None
    tokens: Annotated[Path, AfterValidator(check_tokens)] | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _loopback(self) -> Config:
        missing = [] if self.tls else ["in plain text (see `tls`)"]
        if self.tokens is None and (self.tls is None or self.tls.client_ca is None):
            missing.append("without asking who it is (see `tokens` and `tls.client_ca`)")
        for key in ("listen", "listen_http", "http"):
            address: str | None = getattr(self, key)
            if address is not None and missing and not self.insecure and not is_loopback(address):
                raise ValueError(
                    f"{key} is {address}, which others can reach, {' and '.join(missing)}; "
                    "put `insecure: true` into the settings (--config) where the network is yours alone"
                )
        return self


def read_config(path: Path | None, **flags: Any) -> Config:
    """The settings of a file, with flags (those not None) over them.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not allowed.
    """
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise ConfigError(say_unusable(error)) from None
        except (yaml.YAMLError, ValueError) as error:  # also of dates that are none
            raise ConfigError(f"{path}: {error}") from None
        except RecursionError:
            raise ConfigError(f"{path}: values are nested too deeply") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: keys and values are expected, got {type(values).__name__}")
    values.update({key: value for key, value in flags.items() if value is not None})
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        where = f"{path}: " if path is not None else ""
        raise ConfigError(where + "; ".join(_explain(error))) from None


def _explain(error: ValidationError, section: type[Section] | None = None) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = _keys(problem["loc"][:-1], section or Config)
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            yield f"{key}: no such key; {hint}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "path_not_directory":
                yield f"{key}: {problem['input']} is no folder; make it, or name one that is there"
                continue
            yield f"{key}: {message}{_show(problem)}" if key else message


def _show(problem: ErrorDetails) -> str:
    """What was given. Not of a whole section: that may hold secrets in `headers`, and aliases of YAML without end."""
    got = problem["input"]
    if isinstance(got, (dict, list, tuple, set)):
        return f", got a {type(got).__name__}"
    text = repr(got)
    # Of a token in place of its file, and a password in an address.
    if {"headers", "token"} & {*problem["loc"]} or "@" in text:
        return ""
    return f", got {text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + '...'}"


def _keys(path: tuple[int | str, ...], section: Any) -> list[str]:
    for part in path:
        if isinstance(part, str):  # a number is a place in a list of sections
            annotation = section.model_fields[part].annotation
            section = next(iter(get_args(annotation)), annotation)  # of a section that may be absent, or of a list
    return list(section.model_fields)
