"""Known vulnerabilities of what the distribution depends on, extras included, as installed here: `make check`.

Fails where there is one. A service that cannot be reached, or does not know a package, audits nothing: that is said,
with numbers, and does not fail, as machines that check may have no way out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PATIENCE = 12  # s for a service
SERVICES = ("pypi", "osv")


def list_installed(root: str) -> dict[str, str]:
    """Versions by name of what a requirement needs, without itself."""
    found: dict[str, str] = {}
    seen, waiting = set(), [Requirement(root)]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        for extra in ("", *needed.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                installed = distribution(name)
            except PackageNotFoundError:  # of an extra that is not installed
                continue
            found[name] = installed.version
            for text in installed.requires or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    found.pop(canonicalize_name(Requirement(root).name))
    return found


def ask(service: str, pins: dict[str, str], osv: str | None) -> dict[str, list[dict[str, Any]]]:
    """Vulnerabilities by name, of those that the service knows; of none where it cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--requirement", str(path)]
        command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"]
        command += ["--osv-url", osv] if osv else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            print(f"{service}: no answer within {PATIENCE} s", file=sys.stderr)
            return {}
        if not done.stdout:
            print(f"{service}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        answers = json.loads(done.stdout)["dependencies"]
    return {canonicalize_name(answer["name"]): answer["vulns"] for answer in answers if "vulns" in answer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", nargs="+", choices=SERVICES, default=SERVICES)
    parser.add_argument("--osv-url")
    options = parser.parse_args()
    pins = list_installed("otel-mlmon[all]")
    audited: dict[str, list[dict[str, Any]]] = {}
    for service in options.services:
        left = {name: version for name, version in pins.items() if name not in audited}
        if left:
            audited |= ask(service, left, options.osv_url)
    skipped = sorted(set(pins) - set(audited))
    print(f"dependencies: {len(audited)} audited for known vulnerabilities, {len(skipped)} skipped")
    if not audited:
        print("WARNING: NOTHING WAS AUDITED; that this passes says nothing of vulnerabilities", file=sys.stderr)
    if skipped:
        print(f"WARNING: NOT AUDITED, as no service knows or answers for them: {', '.join(skipped)}", file=sys.stderr)
    for name, found in sorted(audited.items()):
        for one in found:
            mended = ", ".join(one["fix_versions"]) or "no version"
            print(f"{name} {pins[name]}: {one['id']}, mended in {mended}", file=sys.stderr)
    return int(any(audited.values()))


if __name__ == "__main__":
    sys.exit(main())
