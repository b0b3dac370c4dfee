"""The progress bar of a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar on standard error where that is a terminal; gives the function that is told how far it is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def notify(what: str, done: int, rows: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=rows)
            progress.update(tasks[what], completed=done)

        yield notify
