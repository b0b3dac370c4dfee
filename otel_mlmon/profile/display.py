"""Profiles in the terminal: tables, small histograms, one variable in detail, differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from otel_mlmon.numerics.binning import CategoryAxis, Floats, NumericAxis
from otel_mlmon.profile.difference import Change, compare_profiles
from otel_mlmon.profile.document import Profile, Reference
from otel_mlmon.profile.rebinning import Piece

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
SPARK: Final = 24  # columns of a small histogram
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
    gone, odd = (invalid.missing + invalid.nan) / seen, (invalid.inf + invalid.type) / seen
    text = format_share(gone) + (f" +{format_share(odd)} invalid" if odd else "")
    return Text(text, style="red" if gone + odd > 0.05 else "")


def _name_categories(reference: Reference, axis: CategoryAxis) -> str:
    counts = reference.histogram.counts
    total = max(1, int(counts.sum()))
    if reference.variable.transform == "hour":
        by_hour = dict(zip(axis.names, counts.tolist(), strict=False))
        return _draw(np.array([by_hour.get(str(hour), 0) for hour in range(24)], dtype=np.float64))
    first = [
        f"{shorten(name)} {format_share(count / total)}"
        for name, count in zip(axis.names[:3], counts.tolist(), strict=False)
    ]
    distinct = len(axis.names) + len(axis.others)
    more = f" of {distinct:,}{'' if axis.closed else ' or more'}" if distinct > 3 else ""
    return ", ".join(first) + more


def spark(reference: Reference) -> str:
    """Small histogram between the 0.5 % and the 99.5 % quantile, in cells of equal width."""
    low, high = quantiles(reference, np.array([0.005, 0.995])).tolist()
    if low >= high:
        low, high = reference.histogram.min, reference.histogram.max
    if low >= high:
        return BLOCKS[-1]
    return _draw(np.diff(shares_below(reference, np.linspace(low, high, SPARK + 1))))


def _draw(heights: Floats) -> str:
    top = float(heights.max()) or 1.0
    return "".join(BLOCKS[int(np.ceil(height / top * 8 - 1e-9))] for height in heights.tolist())


# ---------------------------------------------------------------- shape of a distribution


def shares_below(reference: Reference, points: Floats) -> Floats:
    """Share of the values that are at most each point; values are spread evenly over their cells."""
    piece = Piece.of(reference, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.clip((points[:, np.newaxis] - piece.lower) / (piece.upper - piece.lower), 0.0, 1.0)
    inside = np.where(piece.upper > piece.lower, inside, points[:, np.newaxis] >= piece.lower)
    shares: Floats = inside @ piece.counts / max(1, piece.count)
    return shares


def quantiles(reference: Reference, levels: Floats) -> Floats:
    """Quantiles of a numeric reference with values, as exact as its cells."""
    piece = Piece.of(reference, 0.0)
    ends = np.cumsum(piece.counts) / piece.count
    starts = ends - piece.counts / piece.count
    at = np.minimum(np.searchsorted(ends, levels, side="left"), ends.size - 1)
    within = np.clip((levels - starts[at]) / (ends[at] - starts[at]), 0.0, 1.0)
    values: Floats = piece.lower[at] + (piece.upper[at] - piece.lower[at]) * within
    return values


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


def show_difference(a: Profile, b: Profile, console: Console | None = None) -> None:
    """What differs between two profiles."""
    out = console or make_console()
    if a.to_bytes() == b.to_bytes():
        out.print(f"the same profile, hash {a.hash}")
        return
    for name in ("model", "version", "model_hash", "framework", "trained", "created", "rows", "hash"):
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            out.print(f"{name.replace('_', ' ')}: {escape(str(left) or 'none')} -> {escape(str(right) or 'none')}")
    for name in sorted({*a.packages, *b.packages}):
        old, new = a.packages.get(name, "none"), b.packages.get(name, "none")
        if old != new:
            out.print(f"package {escape(name)}: {escape(old)} -> {escape(new)}")
    changes = compare_profiles(a, b)
    for change in changes:
        for text in _tell_schema(change):
            out.print(f"{escape(change.name)}: {escape(text)}", style="yellow")
    out.print(_table_of(changes))
    moved = [change.name for change in changes if change.moved]
    out.print(f"moved: {escape(', '.join(moved)) or 'nothing'} (effect surely above 0.005)")


def _tell_schema(change: Change) -> Iterator[str]:
    if change.a is None or change.b is None:
        yield "only in the second" if change.a is None else "only in the first"
        return
    old, new = change.a.variable, change.b.variable
    if old.dtype != new.dtype:
        yield f"type {old.dtype} -> {new.dtype}"
    if isinstance(old.axis, CategoryAxis) and isinstance(new.axis, CategoryAxis):
        known, found = {*old.axis.names, *old.axis.others}, {*new.axis.names, *new.axis.others}
        for text, names in (("new", found - known), ("gone", known - found)):
            if names and old.axis.closed and new.axis.closed:
                listed = ", ".join(sorted(names)[:10])
                yield f"{text} categories: {listed}{f' and {len(names) - 10} more' if len(names) > 10 else ''}"


def _table_of(changes: list[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("feature", overflow="fold")
    for name in ("mean", "missing", "psi", "js", "ks", "wasserstein", "effect", "at least", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for change in changes:
        if change.a is None or change.b is None:
            continue
        a, b = change.a, change.b
        numeric = isinstance(a.variable.axis, NumericAxis) and isinstance(b.variable.axis, NumericAxis)
        means = f"{format_number(a.mean)} -> {format_number(b.mean)}" if numeric else ""
        rates = [r.histogram.invalid.total / max(1, r.histogram.seen) for r in (a, b)]
        missing = " -> ".join(format_share(rate) for rate in rates) if any(rates) else ""
        measures = (change.psi, change.js, change.ks, change.wasserstein, change.effect, change.lower)
        cells = ["" if np.isnan(number) else f"{number:.4f}" for number in measures]
        verdict = "moved" if change.moved else "" if change.enough else "too few values"
        table.add_row(Text(change.name), means, missing, *cells, verdict, style="red" if change.moved else "")
    return table


# ---------------------------------------------------------------- figures


def shorten(name: str) -> str:
    """A name that fits into a line of a table, without what would break the line."""
    plain = name if name.isprintable() else repr(name)[1:-1]
    return plain if len(plain) <= 16 else plain[:15] + "…"


def format_number(number: float) -> str:
    """Five significant digits."""
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.5g}"


def format_share(share: float) -> str:
    """Percent; 0 only where there is nothing."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return "0" if share == 0 else f"{share:.1%}"
