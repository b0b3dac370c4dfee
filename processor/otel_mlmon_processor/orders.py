"""What `otel-mlmon reference` asks of the processor: small files in the data directory, taken up at an evaluation.

`requests/NAME.json` is an order, written whole and renamed. The processor does it, saves its state, then deletes the
file: after a crash between the two it is done again, which makes no difference. An order that cannot be followed
becomes `NAME.refused`, which says why. Whoever can write the data directory can give orders, and nobody else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from otel_mlmon_processor.database import sync
from otel_mlmon_processor.windows import ModelKey

_LOG = logging.getLogger(__name__)
FOLDER: Final = "requests"
LONGEST: Final = 65_536  # bytes of an order
Verb = Literal["freeze", "reset", "roll"]
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
LEAST_ROLL, MOST_ROLL = 7, 56  # days


class Order(NamedTuple):
    """What to do with the learnt reference of a model; `days` of "roll", else 0."""

    verb: Verb
    model: ModelKey
    days: int = 0


class Orders:
    """The folder of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER

    def give(self, order: Order) -> str:
        """Write an order, synced; its name.

        Raises:
            OSError: the directory cannot be written.
        """
        if not self._folder.exists():
            self._folder.mkdir()
            sync(self._folder.parent)
        name = f"{time.time_ns():020}-{os.getpid()}"
        part = self._folder / f"{name}.part"
        with part.open("w") as file:
            json.dump({"verb": order.verb, "model": list(order.model), "days": order.days}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / f"{name}.json")
        sync(self._folder)
        return name

    def answer(self, name: str) -> str | None:
        """Of an order: "" where it was followed, why it was not; None where nobody has taken it up yet."""
        refused = self._folder / f"{name}.refused"
        if refused.exists():
            reason = refused.read_text()
            refused.unlink()
            return reason
        return None if (self._folder / f"{name}.json").exists() else ""

    def read(self) -> Iterator[tuple[str, Order]]:
        """The orders that wait, in the order of time; what is none is refused."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                order = _read(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _LOG.warning("%s is no order: %s", path, error)
                self.refuse(path.stem, f"it is no order: {error}")
                continue
            yield path.stem, order

    def finish(self, name: str) -> None:
        """It has been followed."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)

    def refuse(self, name: str, reason: str) -> None:
        """It cannot be followed."""
        try:
            part = self._folder / f"{name}.part"
            part.write_text(reason)
            part.replace(self._folder / f"{name}.refused")
            self.finish(name)
        except OSError as error:
            _LOG.error("%s cannot be answered: %s", self._folder / name, error)


def _read(path: Path) -> Order:
    if path.stat().st_size > LONGEST:
        raise ValueError(f"it is larger than {LONGEST} bytes")
    plain = json.loads(path.read_text())
    model, days = ModelKey(*map(str, plain["model"])), int(plain["days"])
    if plain["verb"] not in VERBS:
        raise ValueError(f"{plain['verb']!r} is none of {', '.join(VERBS)}")
    if plain["verb"] == "roll" and not LEAST_ROLL <= days <= MOST_ROLL:
        raise ValueError(f"days must be {LEAST_ROLL} to {MOST_ROLL}, got {days}")
    return Order(plain["verb"], model, days)
