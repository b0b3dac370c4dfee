"""Profiles in the terminal: tables, small histograms, one variable in detail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon.profile.shape import draw_blocks, format_number, format_share, quantiles, shares_below, shorten, spark
from otel_mlmon.wording import printable

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
BARS: Final = 20  # rows of a large one
PIPED_WIDTH: Final = 150  # where the output is no terminal
QUANTILES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


def make_console() -> Console:
    """The terminal, or lines of a fixed width for a file or pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


# ---------------------------------------------------------------- all


def show_profile(profile: Profile, console: Console | None = None) -> None:
    """A line for each variable."""
    out = console or make_console()
    title = " ".join(part for part in (profile.model, profile.version) if part)
    out.print(f"[bold]{escape(title)}[/bold]  {profile.rows:,} rows, created {profile.created}, hash {profile.hash}")
    facts = {"framework": profile.framework, "model hash": profile.model_hash, "trained": profile.trained}
    said = [f"{name} {text}" for name, text in facts.items() if text]
    packages = ", ".join(f"{name} {version}" for name, version in profile.packages.items())
    for line in (", ".join(said), packages):
        if line:
            out.print(escape(line), style="dim")
    for note in profile.notes:
        out.print(f"note: {escape(note)}", style="yellow")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("feature", no_wrap=True)
    table.add_column("type", no_wrap=True)
    for name in ("count", "missing", "min", "median", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("distribution", no_wrap=True, overflow="ellipsis")
    for reference in profile.references:
        table.add_row(*_summarise(reference))
    out.print(table)


def _summarise(reference: Reference) -> tuple[Text, ...]:
    variable, histogram = reference.variable, reference.histogram
    output = variable.role != "feature"
    name = Text(f"-> {variable.name}" if output else variable.name, style="cyan" if output else "")
    kind = variable.dtype if variable.transform == "identity" else variable.transform
    missing = _tell_invalid(reference)
    if isinstance(variable.axis, CategoryAxis):
        numbers, drawing = ["", "", ""], _name_categories(reference, variable.axis)
    elif not histogram.valid:
        numbers, drawing = ["", "", ""], ""
    else:
        middle = float(quantiles(reference, np.array([0.5]))[0])
        numbers = [format_number(number) for number in (histogram.min, middle, histogram.max)]
        drawing = spark(reference)
    return (name, Text(kind), Text(f"{histogram.valid:,}"), missing, *map(Text, numbers), Text(drawing, style="green"))


def _tell_invalid(reference: Reference) -> Text:
    """Share of missing values (NaN among them), and of others that are in no cell where there are any."""
    invalid, seen = reference.histogram.invalid, max(1, reference.histogram.seen)
    gone, odd = reference.histogram.missing, (invalid.inf + invalid.type) / seen
    text = format_share(gone) + (f" +{format_share(odd)} invalid" if odd else "")
    return Text(text, style="red" if gone + odd > 0.05 else "")


def _name_categories(reference: Reference, axis: CategoryAxis) -> str:
    counts = reference.histogram.counts
    total = max(1, int(counts.sum()))
    if reference.variable.transform == "hour":
        by_hour = dict(zip(axis.names, counts.tolist(), strict=False))
        return draw_blocks(np.array([by_hour.get(str(hour), 0) for hour in range(24)], dtype=np.float64))
    first = [
        f"{shorten(name)} {format_share(count / total)}"
        for name, count in zip(axis.names[:3], counts.tolist(), strict=False)
    ]
    distinct = len(axis.names) + len(axis.others)
    more = f" of {distinct:,}{'' if axis.closed else ' or more'}" if distinct > 3 else ""
    return ", ".join(first) + more


# ---------------------------------------------------------------- one


def show_feature(reference: Reference, *, boundaries: bool = False, console: Console | None = None) -> None:
    """One variable: its figures, a large histogram, and its cells where wanted."""
    out = console or make_console()
    variable, histogram = reference.variable, reference.histogram
    out.print(f"[bold]{escape(variable.name)}[/bold]  {variable.role}, {variable.dtype}, {variable.transform}")
    reasons = {name: getattr(histogram.invalid, name) for name in ("missing", "nan", "inf", "type")}
    said = [f"{name} {count:,}" for name, count in reasons.items() if count]
    out.print(f"seen {histogram.seen:,}, counted {histogram.valid:,}{''.join(f', {text}' for text in said)}")
    if reference.importance is not None:
        out.print(f"importance {format_number(reference.importance)}")
    if isinstance(variable.axis, NumericAxis) and histogram.valid:
        out.print(
            f"mean {format_number(reference.mean)}, standard deviation {format_number(reference.std)}, "
            f"min {format_number(histogram.min)}, max {format_number(histogram.max)}"
        )
        levels = np.array(QUANTILES)
        pairs = zip(QUANTILES, quantiles(reference, levels).tolist(), strict=True)
        out.print("quantiles " + ", ".join(f"{level:g}: {format_number(value)}" for level, value in pairs), style="dim")
    if boundaries:
        out.print(_list_cells(reference))
    elif histogram.valid:
        out.print(_draw_bars(reference))
    out.print()


def _draw_bars(reference: Reference) -> Table:
    rows = list(_bars_of(reference))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    top = max(share for _, share in rows) or 1.0
    for label, share in rows:
        table.add_row(Text(label), Text(_bar(share / top, 50), style="green"), Text(format_share(share), style="dim"))
    return table


def _bars_of(reference: Reference) -> Iterator[tuple[str, float]]:
    axis, histogram = reference.variable.axis, reference.histogram
    if isinstance(axis, CategoryAxis):
        total = max(1, histogram.valid)
        rows = [(label, count / total) for label, count in zip(axis.labels, histogram.counts.tolist(), strict=True)]
        yield from (row for row in rows if row[1] or row[0] in axis.names)
        return
    low, high = quantiles(reference, np.array([0.001, 0.999])).tolist()
    if low >= high:
        low, high = histogram.min, histogram.max
    if low >= high:
        yield format_number(low), 1.0
        return
    points = np.linspace(low, high, BARS + 1)
    below = shares_below(reference, points)
    if histogram.min < low:
        yield f"<= {format_number(low)}", float(below[0])
    for i in range(BARS):
        yield f"{format_number(points[i])} .. {format_number(points[i + 1])}", float(below[i + 1] - below[i])
    if histogram.max > high:
        yield f"> {format_number(high)}", float(1 - below[-1])


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    return EIGHTHS[-1] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _list_cells(reference: Reference) -> Table:
    axis, histogram = reference.variable.axis, reference.histogram
    total = max(1, histogram.valid)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "above", "up to", "count", "share", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    if isinstance(axis, CategoryAxis):
        for i, (label, count) in enumerate(zip(axis.labels, histogram.counts.tolist(), strict=True)):
            table.add_row(str(i), "", Text(label), f"{count:,}", format_share(count / total), "")
        return table
    bounds = ["-inf", *(repr(edge) for edge in axis.edges.tolist()), "inf"]
    for i, count in enumerate(histogram.counts.tolist()):
        where = "below the range" if i <= axis.low else "above the range" if i > axis.high else ""
        table.add_row(str(i), bounds[i], bounds[i + 1], f"{count:,}", format_share(count / total), where)
    return table


# ---------------------------------------------------------------- two


def show_identity_changes(a: Profile, b: Profile, console: Console) -> bool:
    """Print in which model, version, packages and the like two profiles differ; False where they are the same."""
    if a.to_bytes() == b.to_bytes():
        console.print(f"the same profile, hash {a.hash}")
        return False
    for name in ("model", "version", "model_hash", "framework", "trained", "created", "rows", "hash"):
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            said = f"{name.replace('_', ' ')}: {str(left) or 'none'} -> {str(right) or 'none'}"
            console.print(escape(printable(said)))
    for name in sorted({*a.packages, *b.packages}):
        old, new = a.packages.get(name, "none"), b.packages.get(name, "none")
        if old != new:
            console.print(escape(printable(f"package {name}: {old} -> {new}")))
    return True
