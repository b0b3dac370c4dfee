"""The manifests: valid by the published schemas, whole in themselves, and their commands and settings run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml
from otel_mlmon_processor.config import read_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "collector-config" / "kubernetes"
OLDEST = "1.29"  # of Kubernetes; the newest is the validator's

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def manifests() -> list[dict]:
    return [manifest for path in sorted(FOLDER.glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())]


@pytest.fixture(scope="module")
def find(manifests):
    """The one manifest of a kind and name."""

    def of(kind: str, name: str) -> dict:
        (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
        return found

    return of


def close(schema):
    """A schema that refuses what it does not name, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return closed


@pytest.fixture(scope="module")
def custom(build) -> dict[tuple[str, str], dict]:
    """Schemas of custom resources by version and kind."""
    schemas = {}
    for path in build.download_schemas().glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = close(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def check(manifest: dict, custom) -> None:
    schema = custom.get((manifest["apiVersion"], manifest["kind"]))
    if schema is not None:
        jsonschema.validate(manifest, schema)
    else:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_manifest_is_valid_by_the_published_schemas(manifests, custom):
    kinds = {manifest["kind"] for manifest in manifests}
    assert kinds >= {"StatefulSet", "DaemonSet", "Service", "NetworkPolicy", "PodMonitor", "Instrumentation"}
    for manifest in manifests:
        check(manifest, custom)


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("StatefulSet", "otel-mlmon-processor", "spec.template.spec.containers.0.redinessProbe"),
        ("PodMonitor", "otel-mlmon", "spec.podMetricsEndpoints.0.prot"),
        ("Instrumentation", "otel-mlmon", "spec.python.enviroment"),
    ],
)
def test_a_misspelt_field_would_be_found(find, custom, kind, name, path):
    manifest = json.loads(json.dumps(find(kind, name)))
    *parents, last = path.split(".")
    at = manifest
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    at[last] = {}
    with pytest.raises(jsonschema.ValidationError, match=last):
        check(manifest, custom)


def test_what_a_manifest_names_is_there(manifests, find):
    pods = {
        m["metadata"]["name"]: m["spec"]["template"] for m in manifests if m["kind"] in ("StatefulSet", "DaemonSet")
    }
    named = {name: {port["name"] for port in _container(pod)["ports"]} for name, pod in pods.items()}
    for name, pod in pods.items():
        labels, container = pod["metadata"]["labels"], _container(pod)
        service, policy = find("Service", name)["spec"], find("NetworkPolicy", name)["spec"]
        for selector in (service["selector"], policy["podSelector"]["matchLabels"]):
            assert selector.items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= named[name]
        assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= named[name]
        probes = [container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")]
        assert len(probes) >= 2
        assert set(probes) <= named[name]
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | {"data"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    senders = find("NetworkPolicy", "otel-mlmon-processor")["spec"]["ingress"][0]["from"]
    assert senders[0]["podSelector"]["matchLabels"].items() <= pods["otel-mlmon-agent"]["metadata"]["labels"].items()
    monitor = find("PodMonitor", "otel-mlmon")["spec"]
    processor = pods["otel-mlmon-processor"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= processor.items()
    assert processor[monitor["jobLabel"]] == "otel-mlmon"
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= named["otel-mlmon-processor"]
    service = find("Service", "otel-mlmon-agent")
    address = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}:4318"
    assert find("Instrumentation", "otel-mlmon")["spec"]["exporter"]["endpoint"] == address


def _container(pod: dict) -> dict:
    (container,) = pod["spec"]["containers"]
    return container


def test_the_agents_configuration_is_right_with_its_environment(build, find, tmp_path):
    container = _container(find("DaemonSet", "otel-mlmon-agent")["spec"]["template"])
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    text = (FOLDER.parent / "agent.yaml").read_text()
    assert environment.keys() - {"GOMEMLIMIT"} <= set(re.findall(r"\$\{env:(\w+)", text))
    ports = {str(port["containerPort"]) for port in container["ports"]}
    assert ports == {environment[name].rpartition(":")[2] for name in ("AGENT_GRPC", "AGENT_HTTP", "AGENT_HEALTH")}
    environment["AGENT_QUEUE"] = str(tmp_path)
    command = [build.build_collector(), "validate", "--config", FOLDER.parent / "agent.yaml"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def image(tmp_path):
    """What the Dockerfile's commands make, under another root: its entry point."""
    entry = ""
    for line in (FOLDER / "Dockerfile").read_text().splitlines():
        instruction, _, rest = line.partition(" ")
        moved = rest.replace("/opt/", f"{tmp_path}/opt/").replace("/source", f"{tmp_path}/source")
        if instruction == "COPY" and not rest.startswith("--from"):
            *sources, to = moved.split()
            Path(to.rstrip("/")).mkdir(parents=True, exist_ok=True)
            for source in (ROOT / name for name in sources):
                if source.is_dir():
                    shutil.copytree(source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, to)
        elif instruction == "RUN":
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(moved, shell=True, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        elif instruction == "ENTRYPOINT":
            entry = json.loads(moved)
    return entry


def test_the_processor_runs_as_its_manifest_says(image, real, find, tmp_path):
    """The image's entry point, the StatefulSet's arguments, the ConfigMap's settings; the probes are answered."""
    text = find("ConfigMap", "otel-mlmon-processor")["data"]["mlmon.yaml"]
    container = _container(find("StatefulSet", "otel-mlmon-processor")["spec"]["template"])
    (tmp_path / "config").mkdir()
    (tmp_path / "profiles").mkdir()
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/config", "/data", "/profiles"} <= mounts
    config = tmp_path / "config" / "mlmon.yaml"
    config.write_text(text.replace(" /data", f" {tmp_path}/data").replace(" /profiles", f" {tmp_path}/profiles"))
    settings = read_config(config)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listened = {"otlp-grpc": settings.listen, "otlp-http": settings.listen_http, "metrics": settings.http}
    assert {name: f"0.0.0.0:{port}" for name, port in ports.items()} == listened
    arguments = [argument.replace("/config", f"{tmp_path}/config") for argument in container["args"]]
    port = real.free_port()
    free = ["--listen", f"127.0.0.1:{real.free_port()}", "--listen-http", f"127.0.0.1:{real.free_port()}"]
    command = [*image, *arguments, *free, "--http", f"127.0.0.1:{port}"]
    server = real.Server(command, port, "/readyz", tmp_path / "log")
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert httpx.get(server.url + container[probe]["httpGet"]["path"]).status_code == 200
        assert (tmp_path / "data").is_dir()
    finally:
        server.stop()
