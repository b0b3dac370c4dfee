"""Python as the OpenTelemetry Operator instruments it: its packages go before those of the image, by PYTHONPATH."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
from sklearn.datasets import load_breast_cancer

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app"


def test_a_model_is_recorded_where_the_image_has_otel_mlmon(start, real, build, wait, tmp_path):
    """Over http/protobuf, with the environment and the search path that the operator puts into the container."""
    model = tmp_path / "model.joblib"
    subprocess.run([sys.executable, EXAMPLE / "train.py", model], check=True)
    packages, processor, port = build.install_operator_packages(), start.processor(), real.free_port()
    environment = {
        "PYTHONPATH": f"{packages}/opentelemetry/instrumentation/auto_instrumentation:{EXAMPLE}:{packages}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{processor.otlp_http}",
        "OTEL_SERVICE_NAME": "tumours-api",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=p,service.instance.id=models.p.api,service.namespace=models",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "MODEL": str(model),
    }
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", port]
    server = start.add(real.Server(command, port, "/docs", tmp_path / "app.log", **environment))
    rows = load_breast_cancer(as_frame=True).data.iloc[:300, :10]
    answer = httpx.post(f"{server.url}/predict", json=rows.to_dict("records"), timeout=30)
    assert len(answer.json()["scores"]) == len(rows)
    wait(lambda: processor.feature_counts() == dict.fromkeys(rows, len(rows)), processor.feature_counts)
    wait(lambda: processor.samples("ml_reference_rows"), "the profile, which the model carries")
    (labels, _), *_ = processor.samples("ml_feature_count_total")
    assert (labels["service_namespace"], labels["service_name"]) == ("models", "tumours-api")
    wait(lambda: signals(processor) == {"metrics", "logs", "traces"}, lambda: signals(processor))


def signals(processor) -> set[str]:
    return {labels["mlmon_signal"] for labels, value in processor.samples("mlmon_processor_received_total") if value}
