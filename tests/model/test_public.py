"""The package as it is imported, and what it touches of the SDK."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

import otel_mlmon

SOURCES = sorted(Path(otel_mlmon.__file__).parent.rglob("*.py"))
# The names that OpenTelemetry gives the signal of logs, and a method of named tuples.
DOCUMENTED = {"_logs", "_log_exporter", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in DOCUMENTED


def root_of(node: ast.expr) -> str | None:
    """Name that an expression of attributes, calls and items starts from; "self.x" for what an object holds."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            return f"self.{node.attr}"
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return None
    return node.id


def touched_in(tree: ast.Module) -> list[str]:
    """Private names of OpenTelemetry in a module: imported, read of what was imported, or of anything but `self`."""
    imported, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentelemetry"):
            imported |= {alias.asname or alias.name for alias in node.names}
            found += [part for part in (node.module or "").split(".") if is_private(part)]
            found += [alias.name for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.startswith("opentelemetry")]
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in names}
            found += [part for alias in names for part in alias.name.split(".") if is_private(part)]
    if not imported:
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = root_of(node.value)
            if root not in ("self", "cls"):  # an object of the SDK may be held under any name
                found.append(f"{root}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found += [name for name in names if is_private(name)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_private_name_of_opentelemetry_is_touched(path):
    assert touched_in(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        "from opentelemetry.sdk.metrics._internal import x",
        "from opentelemetry.sdk.metrics import _Counter",
        "import opentelemetry.sdk._shared_internal",
        "from opentelemetry import trace\ntrace._TRACER_PROVIDER",
        "from opentelemetry import trace\nself._exporter._preferred_temporality",
        "from opentelemetry import trace\nexporter._client.close()",
        "from opentelemetry import trace\ngetattr(exporter, '_client')",
    ],
)
def test_the_test_above_sees_private_names(code):
    assert touched_in(ast.parse(code))


def test_the_names_of_logs_are_no_private_ones():
    assert touched_in(ast.parse("from opentelemetry.sdk._logs.export import LogRecordExporter\nself._x = 1")) == []


def test_importing_the_package_imports_neither_the_sdk_nor_numpy(run_script):
    done = run_script("""
        import sys, otel_mlmon
        heavy = {"numpy", "opentelemetry.sdk", "grpc", "requests", "pandas", "pyarrow"} & set(sys.modules)
        assert not heavy, heavy
        from otel_mlmon import Monitor
        heavy = {"grpc", "requests", "pandas", "pyarrow", "polars", "scipy", "sklearn", "rich"} & set(sys.modules)
        assert not heavy, heavy
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names_are_there():
    from otel_mlmon.monitor import Monitor
    from otel_mlmon.profile.document import Profile

    assert (otel_mlmon.Monitor, otel_mlmon.Profile) == (Monitor, Profile)
    assert {name: getattr(otel_mlmon, name).__name__ for name in otel_mlmon.__all__} == {
        name: name for name in ("Monitor", "Profile", "compare")
    }
    assert otel_mlmon.__version__ == version("otel-mlmon")
    with pytest.raises(AttributeError, match="nothing"):
        otel_mlmon.nothing  # noqa: B018
