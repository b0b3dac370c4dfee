"""`otel-mlmon status`: what it shows of a real processor, and of one that hostile names have reached."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.resources import Resource
from otel_mlmon_processor.evaluate import evaluate_model
from otel_mlmon_processor.exporters.families import list_families
from otel_mlmon_processor.exporters.prometheus import expose
from otel_mlmon_processor.intake import NO_COUNTERS
from otel_mlmon_processor.snapshot import Snapshot
from otel_mlmon_processor.status import read_losses, read_models, render
from rich.console import Console

from otel_mlmon import Monitor, Profile, semconv
from otel_mlmon.cli import main

DAY = 1_735_689_600.0  # 1 January 2025, UTC


@pytest.fixture(scope="module")
def running(real, tmp_path_factory):
    server = real.Processor(tmp_path_factory.mktemp("running"))
    yield server
    server.stop()


@pytest.fixture
def status(real):
    def run(url: str):
        command = [real.BIN / "otel-mlmon", "status", "--url", url]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    return run


@pytest.mark.server
def test_it_shows_models_verdicts_and_how_much(running, status, wait, monkeypatch):
    """From no model to one that is as before, one that has changed, and one without a profile."""
    url = running.url + "/metrics"
    done = status(url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no model has sent anything yet\n", "")

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{running.otlp}")
    rng = np.random.default_rng(50)
    train = {"km": rng.normal(100, 30, 5_000), "wind": rng.normal(size=5_000)}
    profile = Profile.build(train, model="flights", version="3")
    quiet = {"km": rng.normal(100, 30, 1_000), "wind": rng.normal(size=1_000)}
    bad = {"km": quiet["km"] + 30, "wind": np.where(np.arange(1_000) < 250, np.nan, quiet["wind"])}
    monitors = []

    def send(model, service, rows):
        monitors.append(Monitor(model, resource=Resource({"service.name": service})))
        monitors[-1].observe(rows, time=DAY)
        assert monitors[-1].flush()

    send(profile, "quiet", quiet)
    send("plain", "none", quiet)
    wait(lambda: len(running.samples("ml_drift_alarm")) == 2, "the first verdict")
    done = status(url)
    assert done.returncode == 0  # nothing has changed
    (line,) = [line for line in done.stdout.splitlines() if "of quiet " in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "flights 3 of quiet", "1", "1000", "2025-01-01 00:00", "sliding window", "nothing has changed",
    ]  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if "of none " in line]
    assert "no reference: counts only" in line

    send(profile, "bad", bad)
    wait(lambda: len(running.samples("ml_drift_alarm")) == 4, "the second verdict")
    done = status(url)
    assert done.returncode == 1  # something has
    (line,) = [line for line in done.stdout.splitlines() if "of bad " in line and "│" in line]
    said = line.strip("│").split("│")[-1].strip()
    assert said == "wind: missing 0 % -> 25 %; km: mean up 1 sd"
    details = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line
    ]
    assert ["wind", "missing 0 % -> 25 %", "sliding window"] in [cells[:3] for cells in details]
    assert ["km", "mean up 1 sd", "sliding window"] in [cells[:3] for cells in details]
    assert "WARNING changed: flights 3: wind: missing" in running.log.read_text()
    assert "flights 3 of bad" in done.stdout
    for monitor in monitors:
        monitor.close()


@pytest.mark.server
def test_it_shows_what_was_refused_and_what_was_not_used(real, tmp_path, status, otlp):
    server = real.Processor(tmp_path)
    try:
        sender = otlp.Sender()
        nameless = sender.request(sender.count(1, 0, 1, labels={semconv.ML_FEATURE_NAME: ""}))
        with grpc.insecure_channel(f"127.0.0.1:{server.otlp}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
            export(nameless, timeout=20)
            for _ in range(2):
                with pytest.raises(grpc.RpcError):
                    export(b"\xff\xff", timeout=20)
        lines = status(server.url + "/metrics").stdout.splitlines()
        assert "requests refused: malformed 2" in lines
        assert "items of accepted requests not used: no_feature 1" in lines
        assert any("docs/operations.md" in line for line in lines)
    finally:
        server.stop()


def test_losses_are_summed_over_signals_the_most_first_and_what_is_none_of_ours_is_left_out():
    text = """
mlmon_processor_refused_total{mlmon_signal="logs",mlmon_reason="overload"} 2.0
mlmon_processor_refused_total{mlmon_signal="metrics",mlmon_reason="overload"} 1200.0
mlmon_processor_refused_total{mlmon_signal="metrics",mlmon_reason="too_large"} 1500.0
mlmon_processor_refused_created{mlmon_signal="metrics",mlmon_reason="too_large"} 1.7e9
mlmon_processor_dropped_total{mlmon_reason="unused"} 5.0
mlmon_processor_send_dropped_total{mlmon_purpose="forward",mlmon_endpoint="http://x",mlmon_reason="age"} 3.0
mlmon_processor_send_dropped_total{mlmon_purpose="forward",mlmon_endpoint="http://x",mlmon_reason="full"} 0.0
"""
    assert read_losses(text) == {
        "requests refused": {"overload": 1202, "too_large": 1500},
        "requests not passed on, or exports given up": {"age": 3},
    }
    shown = show(text, 200)
    assert "requests refused: too_large 1,500, overload 1,202\n" in shown
    assert "not used" not in shown
    assert show("", 200) == "no model has sent anything yet\n"


def test_it_says_what_the_processor_says(views):
    """Of every kind of change: the same variables in the same order, for the same reasons."""
    rng = np.random.default_rng(51)
    held = {name: rng.normal(size=5_000) for name in ("shift", "hole", "odd", "far", "one", "still")}
    held["kind"] = rng.choice(["a", "b"], 5_000)
    profile = Profile.build(held, model="m", version="1")
    parts = {r: {name: rng.normal(size=1_000) for name in held if name != "kind"} for r in "abcd"}
    for replica, part in parts.items():
        part["kind"] = rng.choice(["a", "b", "new"], 1_000, p=[0.45, 0.45, 0.1])
        part["shift"] += 0.6
        part["hole"][:200] = np.nan
        part["odd"][:300] = np.inf
        part["far"][:50] = 1e6
        if replica == "c":
            part["one"] += 3
    rows = {name: np.concatenate([part[name] for part in parts.values()]) for name in held}
    state = evaluate_model(views.view(profile, rows, replicas=parts), profile, tolerance=0.005)
    assert {finding.kind for finding in state.findings} >= {
        "missing",
        "invalid",
        "replica",
        "unseen",
        "out_of_range",
        "drift",
    }
    (seen,) = read_models("".join(expose(list_families(Snapshot((state,)), NO_COUNTERS, (), 0.0)))).values()
    assert [(f.label, f.kind) for f in seen.findings()] == [(f.label, f.kind) for f in state.findings]


def test_hostile_names_reach_no_terminal_and_are_no_markup():
    name = "[red]x[/red]\\n\x1b[2J\u202e"
    model = f'ml_model_name="{name}",ml_model_version="1",service_name="{name}"'
    text = (
        f"ml_drift_tolerance{{{model}}} 0.005\n"
        f'ml_drift_alarm{{{model},ml_feature_name="{name}"}} 1\n'
        f'ml_feature_drift{{{model},ml_feature_name="{name}",'
        'ml_drift_measure="effect_lower"} 0.5\n'
    )
    out = io.StringIO()
    Console(file=out, width=300, force_terminal=False).print(render(read_models(text), read_losses(text)))
    shown = out.getvalue()
    assert "[red]x[/red]\\n\\x1b[2J\\u202e" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "distribution changed" in shown


def show(text: str, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(render(read_models(text), read_losses(text)))
    return out.getvalue()


ABOUT = 'ml_model_name="flights_of_the_year_2013",ml_model_version="2013-04",service_name="unknown_service:python"'
ALARM = f"""
ml_alarm_budget{{{ABOUT}}} 1
ml_alarm_raised{{{ABOUT}}} 1
ml_alarm_learning{{{ABOUT}}} LEARNING
ml_alarm_learnt{{{ABOUT}}} DAYS
ml_drift_tolerance{{{ABOUT}}} 0.005
ml_drift_alarm{{{ABOUT},ml_feature_name="wind_speed"}} 1
ml_drift_evidence{{{ABOUT},ml_feature_name="wind_speed"}} 4.24
ml_alarm_start_seconds{{{ABOUT},ml_feature_name="wind_speed",ml_alarm_text="missing 0.2 % -> 4.1 %"}} {DAY}
ml_drift_alarm{{{ABOUT},ml_prediction_signal="score"}} 1
ml_drift_evidence{{{ABOUT},ml_prediction_signal="score"}} 1.5
ml_alarm_start_seconds{{{ABOUT},ml_prediction_signal="score",ml_alarm_text="mean up 0.31 sd"}} {DAY + 3600}
"""


@pytest.mark.parametrize(
    ("learning", "days", "said"),
    [
        (1, 3, "learning, 3 of 7 days"),
        (1, 8, "provisional, from 8 days"),
        (0, 14, "learnt from 14 days"),
        (0, 0, "calibrated"),
    ],
)
def test_an_alarm_is_said_in_its_own_words_with_since_when_and_what_is_left_of_the_budget(learning, days, said):
    shown = show(ALARM.replace("LEARNING", str(learning)).replace("DAYS", str(days)), 300)
    assert f"budget: 1 of 1 spent in 30 days; {said}" in shown
    assert (
        "ALARM since 2025-01-01 00:00: wind_speed: missing 0.2 % -> 4.1 %; prediction score: mean up 0.31 sd" in shown
    )
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if "│" in line]
    assert ["wind_speed", "missing 0.2 % -> 4.1 %", "alarm since 2025-01-01 00:00, evidence 4.2", ""] in rows
    assert ["prediction score", "mean up 0.31 sd", "alarm since 2025-01-01 01:00, evidence 1.5", ""] in rows


@pytest.mark.parametrize("width", [60, 80])
def test_in_a_narrow_terminal_words_wrap_and_none_is_cut(width):
    shown = show(ALARM.replace("LEARNING", "1").replace("DAYS", "3"), width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    columns = [line.strip("│").split("│") for line in shown.splitlines() if line.count("│") == 7]
    words = ["".join(cells[place].strip() for cells in columns) for place in (0, 5)]
    assert words[0].replace(" ", "") == "flights_of_the_year_20132013-04ofunknown_service:python"
    wanted = "ALARM since 2025-01-01 00:00: wind_speed: missing 0.2 % -> 4.1 %; prediction score: mean up 0.31 sd"
    assert words[1].replace(" ", "") == wanted.replace(" ", "")


# ---------------------------------------------------------------- what it cannot reach


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    done = main(["status", *arguments])
    return done, *capsys.readouterr()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "no http:// address"),
        ("localhost:9464", "no http:// address"),
        ("http://", "does not answer"),
        ("http://127.0.0.1:port/metrics", "does not answer"),
        ("http://[::1/metrics", "does not answer"),
        ("http://no.such.host.invalid/metrics", "does not answer"),
    ],
)
def test_an_address_that_is_none_ends_with_2_and_one_line(capsys, url, said):
    status, out, err = run(capsys, "--url", url)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"otel-mlmon status: {url} ")
    assert said in err


def test_an_address_where_nobody_listens_ends_with_2_and_one_line(capsys, real):
    url = f"http://127.0.0.1:{real.free_port()}/metrics"
    status, out, err = run(capsys, "--url", url)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert url in err
    assert "refused" in err
    assert "is the processor running there?" in err


@contextmanager
def answering(body: bytes, status: int = 200, raw: bool = False):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if raw:
                self.wfile.write(body)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "options", "said"),
    [
        (b"<!doctype html><html>x</html>", {}, "something else than metrics"),
        (b"not found", {"status": 404}, "404"),
        (b"starting", {"status": 503}, "503"),
        (b"\xff\xfe\x00", {}, "does not answer"),
        (b"\x00\x00\x12\x04 a preface of HTTP/2\r\n", {"raw": True}, "does not answer"),
    ],
)
def test_something_else_that_answers_ends_with_2_and_one_line(capsys, body, options, said):
    with answering(body, **options) as url:
        status, out, err = run(capsys, "--url", url)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert url in err
    assert said in err


def test_metrics_of_others_hold_no_model(capsys):
    with answering(b'# TYPE up gauge\nup{job="x"} 1\n') as url:
        assert run(capsys, "--url", url) == (0, "no model has sent anything yet\n", "")


def test_help_names_each_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--url" in out
    assert "--watch" in out
