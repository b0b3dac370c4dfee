"""Settings: what is allowed, and that each error names its key and what is allowed instead."""

from __future__ import annotations

import re
import time

import pytest
import trustme
from otel_mlmon_processor.config import ConfigError, is_loopback, read_config
from otel_mlmon_processor.fold_settings import FoldSettings
from otel_mlmon_processor.ingest import Ingest
from otel_mlmon_processor.journal import JournalError

from otel_mlmon.cli import main
from otel_mlmon.numerics.measures import MEASURES


@pytest.fixture
def read(tmp_path):
    """Settings from the text of a file."""

    def read_text(text: str, **flags):
        path = tmp_path / "mlmon.yaml"
        path.write_text(text)
        return read_config(path, **flags)

    return read_text


# What the file says; what the message must name.
WRONG = {
    "unknown key, near one": ("lisen: 127.0.0.1:1", ["lisen", "did you mean listen?"]),
    "unknown key, near none": ("zzz: 1", ["zzz", "listen", "http", "data", "profiles", "window"]),
    "unknown key of a section": ("window: {sise: 60s}", ["window.sise", "did you mean size?"]),
    "two errors at once": ("lisen: x\nretire: soon", ["lisen", "did you mean listen?", "retire", '"7d"']),
    "a key that is no text": ("1: 2", ["1"]),
    "no duration": ("window: {size: 5 parsecs}", ["window.size", "ms, s, m, h or d", "5 parsecs"]),
    "duration of zero": ("evaluate: {interval: 0s}", ["evaluate.interval", "0.001"]),
    "duration below nought": ("retire: -1", ["retire", "0.001"]),
    "endless duration": ("window: {display: .inf}", ["window.display"]),
    "duration that is no number": ("shutdown: .nan", ["shutdown"]),
    "duration that is a truth": ("window: {idle: true}", ["window.idle", "number of seconds"]),
    "duration that is a list": ("window: {ahead: [1]}", ["window.ahead", "number"]),
    "display is no whole number of windows": (
        "window: {size: 7s, display: 60s}",
        ["window", "whole number of windows"],
    ),
    "display is less than a window": ("window: {size: 60s, display: 30s}", ["window", "whole number of windows"]),
    "address of all, HTTP": ("listen_http: 0.0.0.0:4318", ["listen_http is 0.0.0.0:4318", "insecure: true"]),
    "address of all": ("listen: 0.0.0.0:4317", ["listen is 0.0.0.0:4317", "insecure: true"]),
    "address of all, version 6": ("http: '[::]:9464'", ["http is [::]:9464", "insecure: true"]),
    "address of a name": ("http: example.org:9464", ["http is example.org:9464", "insecure: true"]),
    "name that begins like loopback": ("listen: 127.example.org:1", ["listen is 127.example.org:1", "insecure: true"]),
    "name that begins with localhost": ("listen: localhost.example.org:1", ["listen is", "insecure: true"]),
    "address without a port": ("listen: localhost", ["listen", "localhost"]),
    "port beyond ports": ("listen: 127.0.0.1:65536", ["listen", "65535"]),
    "address that is a number": ("listen: 4317", ["listen", "string", "4317"]),
    "unknown measure": ("show: {measures: [ks, kss]}", ["show", "kss", "hellinger", "js", "linf"]),
    "measures that are no list": ("show: {measures: ks}", ["show.measures", "ks"]),
    "truth that is none": ("insecure: perhaps", ["insecure", "boolean", "perhaps"]),
    "tolerance of zero": ("evaluate: {tolerance: 0}", ["evaluate.tolerance", "greater than 0"]),
    "endless tolerance": ("evaluate: {tolerance: .inf}", ["evaluate.tolerance", "finite"]),
    "section that is none": ("window: 60", ["window", "60"]),
    "folder that is not there": ("profiles: /no/such/folder", ["profiles", "/no/such/folder"]),
    "unknown key of a place to export to": ("export: [{endpont: x}]", ["export.0.endpont", "did you mean endpoint?"]),
    "unknown key of forward": (
        "forward: {endpoint: 'http://[::1]:1', sise: 1}",
        ["forward.sise", "did you mean size?"],
    ),
    "unknown key of its files": ("forward: {tls: {cert: x}}", ["forward.tls.cert", "certificate"]),
    "place without an address": ("export: [{}]", ["export.0.endpoint", "required"]),
    "address without a scheme": ("export: [{endpoint: 'localhost:4317'}]", ["export.0.endpoint", "http://host:port"]),
    "address with a password": ("forward: {endpoint: 'http://a:b@localhost:1'}", ["forward.endpoint", "`headers`"]),
    "address with no port that is one": ("forward: {endpoint: 'http://localhost:x'}", ["forward.endpoint", "ort"]),
    "plain text to others": (
        "forward: {endpoint: 'http://example.org:1'}",
        ["forward", "example.org", "insecure: true"],
    ),
    "gRPC with a path": ("forward: {endpoint: 'http://localhost:1/v1'}", ["forward", "protocol: http"]),
    "protocol that is none": (
        "forward: {endpoint: 'http://[::1]:1', protocol: udp}",
        ["forward.protocol", "'grpc' or"],
    ),
    "file that is no certificate": ("forward: {tls: {ca: /etc/hostname}}", ["forward.tls", "PEM"]),
    "certificate without a key": ("forward: {tls: {certificate: /etc/hostname}}", ["forward.tls", "go together"]),
    "file that is not there": ("forward: {tls: {ca: /no/such/file}}", ["forward.tls.ca", "/no/such/file"]),
    "broken YAML": ("window: {size: 60s", ["mlmon.yaml", "line 1"]),
    "a date that is none": ("data: 2025-99-99", ["mlmon.yaml", "month"]),
    "a list": ("- 1", ["mlmon.yaml", "keys and values are expected", "list"]),
}


@pytest.mark.parametrize(("text", "named"), WRONG.values(), ids=WRONG.keys())
def test_an_error_names_its_key_and_what_is_allowed(read, text, named):
    with pytest.raises(ConfigError) as error:
        read(text)
    missing = [part for part in [*named, "mlmon.yaml"] if part not in str(error.value)]
    assert not missing, str(error.value)


def test_files_for_plain_text_are_refused(read, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    text = f"forward: {{endpoint: '%s://[::1]:1', tls: {{ca: {tmp_path / 'ca.pem'}}}}}"
    with pytest.raises(ConfigError, match="`tls` needs https://"):
        read(text % "http")
    assert read(text % "https").forward.tls.ca == tmp_path / "ca.pem"


NESTED = {
    "flow": "[" * 10_000 + "]" * 10_000,
    "mappings": "window: " + "{size: " * 20_000 + "1" + "}" * 20_000,
    "block": "\n".join("  " * depth + "window:" for depth in range(500)),
}


@pytest.mark.parametrize("case", NESTED)
def test_values_nested_deeply_are_a_clear_error(read, case):
    with pytest.raises(ConfigError, match=r"mlmon\.yaml: .*(nested too deeply|window)") as error:
        read(NESTED[case])
    assert len(str(error.value)) < 2_000


@pytest.mark.parametrize("key", ["listen", "data", "window", "alarms", "export"])
def test_aliases_that_grow_without_end_take_no_time_and_are_not_shown(read, key):
    """A billion laughs: each line is ten of the line before."""
    lines = ["a0: &a0 [laugh]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    began = time.monotonic()
    with pytest.raises(ConfigError, match=key) as error:
        read("\n".join([*lines, f"{key}: *a29"]))
    assert time.monotonic() - began < 10
    assert len(str(error.value)) < 20_000


def test_an_alias_of_itself_is_a_clear_error(read):
    with pytest.raises(ConfigError, match="window"):
        read("window: &a {size: *a}")
    with pytest.raises(ConfigError, match="export"):
        read("export: &a [*a]")


LONG = "/" + "x" * 5_000
PATHS = {
    "profiles": f"profiles: {LONG}",
    "tokens": f"tokens: {LONG}",
    "tls": f"tls: {{certificate: {LONG}, key: {LONG}}}",
    "tls, authority": f"tls: {{certificate: /etc/hostname, key: /etc/hostname, client_ca: {LONG}}}",
    "forward.tls.ca": f"forward: {{endpoint: 'https://localhost:1', tls: {{ca: {LONG}}}}}",
    "profiles, below a file": "profiles: /etc/hostname/x",
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_that_the_system_does_not_take_is_a_clear_error(read, case):
    with pytest.raises(ConfigError, match=case.split(",")[0]) as error:
        read(PATHS[case])
    assert "\n" not in str(error.value)


def test_a_data_directory_that_the_system_does_not_take_is_a_clear_error(read):
    with pytest.raises(JournalError, match="cannot be used as the data directory"):
        Ingest(read(f"data: {LONG}").data)


S3CRET = {
    "in a header beside a wrong key": "forward: {endpoint: 'http://localhost:1', headers: {a: s3cret}, sise: 1}",
    "in a header of a section without an endpoint": "forward: {headers: {authorization: s3cret}}",
    "in headers that are a list": "forward: {endpoint: 'http://localhost:1', headers: [s3cret]}",
    "in headers that are a text": "forward: {endpoint: 'http://localhost:1', headers: s3cret}",
    "in a header that is no text": "forward: {endpoint: 'http://localhost:1', headers: {a: [s3cret]}}",
    "in an export of another": "export: [{endpoint: 'http://localhost:1', headers: {a: s3cret}}, {endpoint: x}]",
    "in exports that are no list": "export: {endpoint: 'http://localhost:1', headers: {a: s3cret}}",
    "as a password": "forward: {endpoint: 'http://me:s3cret@localhost:1'}",
    "as a password of no address": "forward: {endpoint: 'me:s3cret@localhost'}",
    "as a password, with a path": "export: [{endpoint: 'https://me:s3cret@localhost:1/x', protocol: grpc}]",
    "where plain text is refused": "forward: {endpoint: 'http://example.org:1', headers: {a: s3cret}}",
}


@pytest.mark.parametrize("case", S3CRET)
def test_a_secret_is_not_shown_in_an_error(read, case):
    with pytest.raises(ConfigError) as error:
        read(S3CRET[case])
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("text", ["s3cret two\n", "# s3cret\n", ""])
def test_what_is_in_a_token_file_is_not_shown_in_an_error(read, tmp_path, text):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(ConfigError, match="tokens") as error:
        read(f"tokens: {tmp_path / 'tokens'}")
    assert "s3cret" not in str(error.value)


def test_a_long_value_is_cut(read):
    with pytest.raises(ConfigError, match="listen") as error:
        read(f"listen: {'x' * 100_000}")
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("header", ['authorization: "Bearer s3cret\\nx: y"', '"x y": s3cret'])
def test_a_header_that_is_none_is_not_shown(read, header):
    with pytest.raises(ConfigError, match=r"forward\.headers") as error:
        read(f"forward: {{endpoint: 'http://localhost:1', headers: {{{header}}}}}")
    assert "s3cret" not in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_config(path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        read_config(binary)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("1.5m", 90), ("2 h", 7200), ("7d", 604_800), ("30", None), ("45", None)],
)
def test_durations_have_units_or_are_seconds(read, text, seconds):
    if seconds is None:
        assert read(f"retire: {text}").retire == float(text)
        with pytest.raises(ConfigError, match="retire"):
            read(f"retire: '{text} '")  # text without a unit says nothing
    else:
        assert read(f"retire: {text}").retire == seconds


@pytest.mark.parametrize("text", ["", "{}", "# nothing but a comment"])
def test_an_empty_file_is_the_defaults_of_the_design(read, text):
    config = read(text)
    assert config == read_config(None)
    assert (config.window.size, config.window.display, config.retire) == (60, 3600, 86_400)
    assert config.evaluate.tolerance == 0.005
    assert is_loopback(config.listen)
    assert is_loopback(config.http)
    # All measures but those that the verdict rests on can be switched off; there are as many as there are functions.
    assert set(config.show.measures) | {"psi", "psi_corrected", "wasserstein", "effect_lower"} == {
        *MEASURES,
        "mean_shift",
    }


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:65535", "localhost:4317", "'[::1]:4317'"])
def test_loopback_is_let_in(read, address):
    assert read(f"listen: {address}").listen == address.strip("'")


def test_another_address_is_let_in_where_it_is_said_to_be_insecure(read):
    assert read("{listen: '0.0.0.0:4317', http: 'example.org:80', insecure: true}").listen == "0.0.0.0:4317"


@pytest.mark.parametrize("text", ["listen_http: off", "listen_http: 'off'", "listen_http: false", "listen_http:"])
def test_otlp_over_http_can_be_switched_off(read, text):
    assert read(text).listen_http is None
    assert read("", listen_http="off").listen_http is None
    assert read(text, listen_http="127.0.0.1:0").listen_http == "127.0.0.1:0"


def test_flags_go_before_the_file(read, tmp_path):
    text = "{listen: '127.0.0.1:1', http: '127.0.0.1:2', data: there, retire: 1h}"
    config = read(text, listen="127.0.0.1:3", http=None, data=tmp_path, profiles=tmp_path)
    assert (config.listen, config.http, config.data) == ("127.0.0.1:3", "127.0.0.1:2", tmp_path)
    assert (config.profiles, config.retire) == (tmp_path, 3600)
    with pytest.raises(ConfigError, match="listen"):
        read(text, listen="nowhere")


@pytest.mark.parametrize(
    "window", ["{size: 1ms, display: 3ms}", "{size: 300ms, display: 900ms}", "{size: 7d, display: 7d}"]
)
def test_windows_that_are_allowed_are_those_that_the_fold_takes(read, window):
    section = read(f"window: {window}").window
    settings = FoldSettings(window=section.size, display=section.display)
    assert settings.display_windows == round(section.display / section.size)


def test_windows_that_are_not_whole_nanoseconds_do_not_pass_to_fail_later(read):
    # A thousand windows to within 1e-9, but not in the nanoseconds that the fold counts in.
    with pytest.raises(ConfigError, match="whole number of windows"):
        read("window: {size: 0.0010000001, display: 1.0000001}")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["processor", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_check_ends_with_0_where_the_settings_are_right_and_opens_nothing(tmp_path, capsys):
    file = tmp_path / "mlmon.yaml"
    file.write_text(f"data: {tmp_path / 'data'}")
    status, out, err = run(capsys, "--check", "--config", file)
    assert (status, out, err) == (0, "the settings are right\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["mlmon.yaml"]


@pytest.mark.parametrize("text", ["lisen: x", "window: {size: 60s", "window: {display: .inf}"])
def test_check_ends_with_2_and_one_line_that_names_file_and_key(tmp_path, capsys, text):
    file = tmp_path / "mlmon.yaml"
    file.write_text(text)
    status, out, err = run(capsys, "--check", "--config", file)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"otel-mlmon processor: {file}")


def test_check_without_a_file_checks_the_flags(capsys):
    assert run(capsys, "--check")[0] == 0
    status, _, err = run(capsys, "--check", "--listen", "0.0.0.0:1")
    assert status == 2
    assert "listen is 0.0.0.0:1" in err


def test_help_names_each_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["processor", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--config", "--listen", "--http", "--data", "--profiles", "--check"))


def test_a_flag_that_is_none_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["processor", "--lisen", "x"])
    assert ended.value.code == 2
    assert "--lisen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("alarms: {budget: 0}", "alarms.budget: Input should be greater than 0"),
        ("alarms: {models: {m: {budgett: 1}}}", "alarms.models: m: budgett: no such key; did you mean budget?"),
        ("alarms: {models: {m: {muted: {x: soon}}}}", "m: muted.x: must be a date such as 2026-12-31"),
    ],
)
def test_settings_of_alarms_are_checked_by_name(tmp_path, settings, said):
    path = tmp_path / "mlmon.yaml"
    path.write_text(settings)
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_config(path)


def test_a_feature_is_muted_until_a_date_or_a_time(tmp_path):
    path = tmp_path / "mlmon.yaml"
    path.write_text("alarms: {models: {m: {muted: {x: 2026-12-31, y: 2026-12-31T12:00:00+02:00}}}}")
    muted = read_config(path).alarms.models["m"].muted
    assert [until.isoformat() for until in muted.values()] == ["2026-12-31T00:00:00+00:00", "2026-12-31T12:00:00+02:00"]
