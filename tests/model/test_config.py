"""What the environment says, and what is made of it where it cannot be understood."""

from __future__ import annotations

import logging

import pytest

from otel_mlmon.config import Settings, read_settings


def test_an_empty_environment_gives_the_defaults_of_opentelemetry():
    assert read_settings({}) == Settings(
        exporters=("otlp",), protocol="grpc", interval=60.0, timeout=30.0, temporality="cumulative"
    )


def test_empty_variables_are_as_good_as_absent():
    names = [
        *("OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_METRIC_EXPORT_INTERVAL"),
        *("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_MLMON_CAPTURE_FEATURES"),
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    ]
    assert read_settings(dict.fromkeys(names, "")) == Settings()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_MLMON_PROFILE": "m.json"}, {"profile": "m.json"}),
        ({"OTEL_MLMON_MODEL_NAME": "m", "OTEL_MLMON_MODEL_VERSION": "2"}, {"model_name": "m", "model_version": "2"}),
        ({"OTEL_MLMON_CAPTURE_FEATURES": " True "}, {"capture_features": True}),
        ({"OTEL_MLMON_CAPTURE_FEATURES": "1"}, {"capture_features": False}),
        ({"OTEL_SDK_DISABLED": "true"}, {"disabled": True}),
        ({"OTEL_SDK_DISABLED": "yes"}, {"disabled": False}),
        ({"OTEL_METRICS_EXPORTER": "none"}, {"exporters": ()}),
        ({"OTEL_METRICS_EXPORTER": "console"}, {"exporters": ("console",)}),
        ({"OTEL_METRICS_EXPORTER": " OTLP , console "}, {"exporters": ("otlp", "console")}),
        ({"OTEL_METRICS_EXPORTER": "otlp_proto_http"}, {"exporters": ("otlp",), "protocol": "http/protobuf"}),
        (
            {"OTEL_METRICS_EXPORTER": "otlp_proto_grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            {"exporters": ("otlp",), "protocol": "grpc"},
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"protocol": "http/protobuf"}),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"},
            {"protocol": "http/protobuf"},
        ),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "500"}, {"interval": 0.5}),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "1500"}, {"timeout": 1.5}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta"}, {"temporality": "delta"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "LOWMEMORY"}, {"temporality": "delta"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative"}, {"temporality": "cumulative"}),
    ],
)  # fmt: skip
def test_variables_are_obeyed(variables, expected, caplog):
    settings = read_settings(variables)
    assert {name: getattr(settings, name) for name in expected} == expected
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "protocol"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5", "interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "inf", "interval"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1e300", "interval"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "1 s", "timeout"),
    ],
)
def test_what_cannot_be_understood_is_logged_and_left_at_its_default(name, value, field, caplog):
    with caplog.at_level(logging.WARNING):
        assert getattr(read_settings({name: value}), field) == getattr(Settings(), field)
    (record,) = caplog.records
    assert name in record.getMessage()
    assert value in record.getMessage()


def test_an_exporter_that_is_not_known_is_logged_and_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        assert read_settings({"OTEL_METRICS_EXPORTER": "prometheus,otlp"}).exporters == ("otlp",)
    assert "prometheus" in caplog.text
