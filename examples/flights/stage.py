"""The processes of the demo: a processor and replicas. Whatever happens, they are ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from otel_mlmon_processor.status import Seen, read_models

HERE = Path(__file__).parent
CONFIG = """\
# An hour of flights has at most 94 rows, so days are the windows, and seven of them are looked at together.
window: {size: 1d, display: 7d, idle: 1h}
evaluate: {interval: 100ms, tolerance: 0.005}
retire: 30d
"""


class StageError(RuntimeError):
    """A process of the demo did not do what it should."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Stage:
    """A processor and replicas of a model over real OTLP.

    Args:
        folder: for logs, settings and data.
        model: file of the model.
        shares: file of each replica's flights.
    """

    def __init__(self, folder: Path, model: Path, shares: list[Path]) -> None:
        self._folder, self._model, self._shares = folder, model, shares
        self._otlp, self._http = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._http}/metrics"
        self._processor: subprocess.Popen[str] | None = None
        self._replicas: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Stage:
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        processes = [*self._replicas, *([self._processor] if self._processor else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if isinstance(error, StageError):
            for log in sorted(self._folder.glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()[-3000:]}\n")

    def replay(self, day: str, faults: list[list[str]]) -> int:
        """Let every replica replay a day, with its faults; the number of flights, once all are acknowledged."""
        for replica, own in zip(self._replicas, faults, strict=True):
            assert replica.stdin is not None
            replica.stdin.write(" ".join([day, *own]) + "\n")
            replica.stdin.flush()
        return sum(int(self._answer(replica)) for replica in self._replicas)

    def look(self, until: float) -> tuple[Seen, str]:
        """What /metrics says of the model, once its window reaches `until`; and the text itself."""
        found: list[tuple[Seen, str]] = []

        def reached() -> bool:
            text = urllib.request.urlopen(self.url, timeout=10).read().decode()
            found.extend((seen, text) for seen in read_models(text).values() if seen.window_end >= until)
            return bool(found)

        self._wait(reached, f"the window to reach {until}")
        return found[-1]

    def _begin(self) -> None:
        (self._folder / "mlmon.yaml").write_text(CONFIG)
        command = [Path(sys.executable).with_name("otel-mlmon"), "processor", "--config", self._folder / "mlmon.yaml"]
        command += ["--data", self._folder / "data", "--listen", f"127.0.0.1:{self._otlp}", "--listen-http", "off"]
        self._processor = self._start("processor", [*command, "--http", f"127.0.0.1:{self._http}"])
        self._wait(self._is_ready, "the processor to be ready")
        for number, share in enumerate(self._shares, 1):
            self._replicas.append(self._start_replica(number, share))
        for replica in self._replicas:
            self._answer(replica)

    def _start_replica(self, number: int, share: Path) -> subprocess.Popen[str]:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._otlp}",
            "OTEL_SERVICE_NAME": "flights",
            "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id=flights-{number}",
            "OMP_NUM_THREADS": "1",  # replicas share the cores
        }
        command = [sys.executable, HERE / "replica.py", self._model, share]
        return self._start(f"replica-{number}", command, environment)

    def _start(
        self, name: str, command: list[object], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        with (self._folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def _answer(self, replica: subprocess.Popen[str]) -> str:
        assert replica.stdout is not None
        answer = replica.stdout.readline().split()
        if not answer or answer[-1] == "False":
            raise StageError("a replica ended or could not send" if not answer else "a replica could not send")
        return answer[0]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url.replace("/metrics", "/readyz"), timeout=5) as response:
                ready: bool = response.status == 200
                return ready
        except (urllib.error.URLError, OSError):
            return False

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._processor is None or self._processor.poll() is not None:
                raise StageError("the processor has ended")
            if time.monotonic() > deadline:
                raise StageError(f"waited {seconds:g} s for {what}")
            time.sleep(0.02)
