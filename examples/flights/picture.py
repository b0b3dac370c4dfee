"""The picture of the demo: what was said of each feature on each day, and what moved."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from data import UNITS
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from otel_mlmon_processor.core.verdict import FAULTS, Finding
from otel_mlmon_processor.exporters.prometheus import label, prometheus_name
from prometheus_client.parser import text_string_to_metric_families

from otel_mlmon import Profile, semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen
from otel_mlmon.wording import say_share

if TYPE_CHECKING:
    from demo import Part, Run

    from otel_mlmon.profile.document import Reference

    Variable = tuple[str, str]

# Told apart by the colour-blind, and in grey by their lightness (Okabe and Ito's vermilion and blue).
INK, SOFT, GREY, QUIET = "#22272e", "#5f6873", "#c3c9d0", "#edf0f3"
DRIFT, FAULT = ["#b5d6ea", "#5ba3cf", "#0b5a94"], "#d55e00"
SHADES = [0.1, 1.0]  # of D: from where a change is drawn darker
BROKEN = 0.5  # of D: from where what is broken comes first
PANELS, BARS = 4, 14
DAYS = 7


def draw(run: Run, profile: Profile, path: Path) -> None:
    """Write the picture."""
    style = {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
    style |= {"axes.edgecolor": GREY, "xtick.color": SOFT, "ytick.color": INK, "axes.labelcolor": SOFT}
    with mpl.rc_context(style):
        figure = plt.figure(figsize=(10, 8.2), dpi=160)
        top, bottom = figure.subfigures(2, 1, height_ratios=[1.75, 1])
        draw_timeline(top, run, profile)
        draw_panels(bottom, run, profile)
        figure.savefig(path)
        plt.close(figure)


def draw_timeline(figure: Any, run: Run, profile: Profile) -> None:
    """A row for each feature, a column for each day: what the processor said of it."""
    figure.text(0.02, 0.965, "Is what the model sees still what it was trained on?", size=15, weight="bold", va="top")
    subtitle = f"Every input of a model of late arrivals, by day of 2013: {run.rows:,} flights through three replicas."
    figure.text(0.02, 0.903, subtitle, size=10, color=SOFT, va="top")
    rows = order_rows(run, profile)
    levels = np.array([[find_level(found, row) for found in run.findings] for row in rows])
    axis = figure.add_axes((0.135, 0.125, 0.845, 0.645))
    begin, end = (mdates.date2num(pd.Timestamp(day)) for day in (run.days[0], run.days[-1]))
    axis.imshow(
        levels,
        aspect="auto",
        cmap=ListedColormap([QUIET, *DRIFT, FAULT]),
        norm=BoundaryNorm(range(6), 5),
        extent=(begin, end + 1, len(rows) - 0.5, -0.5),
        interpolation="none",
    )
    axis.set_yticks(range(len(rows)), [say_variable(row) for row in rows])
    for at in range(1, len(rows)):
        axis.axhline(at - 0.5, color="white", lw=2.5)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.xaxis_date()
    axis.xaxis.set_major_locator(mdates.MonthLocator() if end - begin > 60 else mdates.WeekdayLocator(mdates.MO))
    axis.xaxis.set_major_formatter(mdates.DateFormatter("%-d %b"))
    for number, part in enumerate(run.parts, 1):
        draw_part(axis, number, part)
    names = ["as in training", "changed", "much", "very much", "broken: values missing, or one replica is different"]
    figure.legend(
        handles=[Patch(color=c, label=name) for c, name in zip([QUIET, *DRIFT, FAULT], names, strict=True)],
        loc="lower left",
        bbox_to_anchor=(0.128, 0.0),
        ncols=5,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.6,
    )


def draw_part(axis: Any, number: int, part: Part) -> None:
    """Mark where a part begins, and say above what it is."""
    since = mdates.date2num(pd.Timestamp(part.days[0]))
    until = mdates.date2num(pd.Timestamp(part.days[-1])) + 1
    faulty = any(part.faults)
    colour = FAULT if faulty else INK
    if number > 1:
        axis.axvline(since, color=colour, lw=1.6, ymax=1.15, clip_on=False)
    low, high = axis.get_xlim()
    said = textwrap.wrap(f"{number}. {part.title}", max(int((until - since) / (high - low) * 110) - 1, 13))
    axis.annotate(
        "\n".join(said), (since, 1), xycoords=("data", "axes fraction"), xytext=(0 if number == 1 else 5, 4),
        textcoords="offset points", size=9, va="bottom", weight="bold", color=colour, linespacing=1.15,
    )  # fmt: skip


def order_rows(run: Run, profile: Profile) -> list[Variable]:
    """All variables: those broken at the end first, then as much as they moved, the quiet ones last."""
    size: dict[Variable, float] = {}
    broken: dict[Variable, float] = {}
    for found in run.findings:
        for finding in found:
            key = (finding.role, finding.name)
            size[key] = size.get(key, 0.0) + find_level(found, key) + (finding.kind == "drift") * min(finding.size, 1)
    for finding in run.findings[-1]:
        if finding.kind in FAULTS and finding.size > BROKEN:
            broken[finding.role, finding.name] = finding.size
    keys = [key_of(reference) for reference in profile.references]
    return sorted(keys, key=lambda key: (-broken.get(key, 0.0), -size.get(key, 0.0)))


def find_level(found: tuple[Finding, ...], variable: Variable) -> int:
    """0 quiet, 1 to 3 changed (by D), 4 broken."""
    own = [finding for finding in found if (finding.role, finding.name) == variable]
    if any(finding.kind in FAULTS for finding in own):
        return 4
    return max((1 + int(np.searchsorted(SHADES, finding.size)) for finding in own), default=0)


def draw_panels(figure: Any, run: Run, profile: Profile) -> None:
    """The variables that are broken or moved most: their values in training and in the last days."""
    text = f"What moved: training (grey) and the {DAYS} days to {pd.Timestamp(run.days[-1]):%-d %B} (colour)"
    figure.text(0.02, 0.955, text, size=11, weight="bold", va="top")
    references = {key_of(reference): reference for reference in profile.references}
    current = read_distributions(run.text)
    for at, finding in enumerate(choose(run.findings[-1], set(current))):
        axis = figure.add_axes((0.055 + at * 0.243, 0.14, 0.19, 0.465))
        variable = (finding.role, finding.name)
        colour = FAULT if finding.kind in FAULTS else DRIFT[2]
        figure.text(0.02 + at * 0.243, 0.815, say_variable(variable), size=10.5, weight="bold", color=colour, va="top")
        said = "\n".join(textwrap.wrap(finding.text.replace("->", "→").replace(" %", "\N{NO-BREAK SPACE}%"), 31))
        figure.text(0.02 + at * 0.243, 0.745, said, size=9, va="top")
        axis.yaxis.set_major_locator(plt.MaxNLocator(3))
        if finding.kind == "replica":
            draw_replicas(axis, run, variable, colour)
        else:
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
            if finding.kind in FAULTS:
                draw_missing(axis, references[variable], run, variable, colour)
            else:
                draw_shares(axis, references[variable], *current[variable], colour)
        axis.tick_params(length=0, labelsize=8.5)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="y", color=QUIET, lw=1)
        axis.set_axisbelow(True)


def choose(found: tuple[Finding, ...], numbers: set[Variable]) -> list[Finding]:
    """One finding for each panel: what is broken most, then the numbers that moved most, an output among them."""
    broken = [finding for finding in found if finding.kind in FAULTS and finding.size > BROKEN][:2]
    names = {finding.label for finding in broken}
    moved = [f for f in found if f.kind not in FAULTS and f.label not in names and (f.role, f.name) in numbers]
    outputs = [finding for finding in moved if finding.role != "feature"][:1]
    inputs = [finding for finding in moved if finding.role == "feature"]
    return [*broken, *inputs[: PANELS - len(broken) - len(outputs)], *outputs]


def draw_shares(axis: Any, reference: Reference, bounds: np.ndarray, after: np.ndarray, colour: str) -> None:
    """Shares of the values in bars of equal width, from the coarse cells that the processor shows."""
    cells = reference.variable.axis
    assert isinstance(cells, NumericAxis)
    before = coarsen(reference.histogram.counts, coarse_starts(reference.histogram.counts, cells))
    low, high = float(bounds[0]), float(bounds[-2])
    grid = np.linspace(low, high, BARS + 1)
    inner = np.append(low, bounds[1:-1])
    old, new = (
        np.diff(np.interp(grid, inner, np.append(0, np.cumsum(shares[1:-1]))))
        for shares in (before / before.sum(), after)
    )
    width = grid[1] - grid[0]
    middle = grid[:-1] + width / 2
    axis.bar(middle, 100 * old, width * 0.94, color=GREY)
    axis.stairs(100 * new, grid, color=colour, lw=2)
    ticks = [tick for tick in plt.MaxNLocator(3).tick_values(low, high) if low <= tick <= high]
    names = [f"{tick:,.4g}" if high < 10_000 else f"{tick:,.0f}" for tick in ticks]
    if after[-1] > 0.005:  # beyond what training has seen: a bar of its own
        at = high + 1.6 * width
        axis.bar(at, 100 * after[-1], width * 1.2, color=colour)
        ticks, names = [t for t in ticks if t < high - 2 * width], names[: sum(t < high - 2 * width for t in ticks)]
        ticks.append(at)
        names.append(f"> {high:.3g}")
    axis.set_xticks(ticks, names)
    axis.set_xlabel(UNITS.get(reference.variable.name, "probability to be late"))


def draw_replicas(axis: Any, run: Run, variable: Variable, colour: str) -> None:
    """How far each replica is from the others."""
    assert run.seen is not None
    effects = dict(sorted(run.seen.replicas[variable].items()))
    worst = max(effects, key=effects.__getitem__)
    bars = axis.bar(list(effects), list(effects.values()), 0.6, color=[colour if r == worst else GREY for r in effects])
    axis.bar_label(bars, fmt="%.2f", padding=2, size=9)
    axis.margins(y=0.19)
    axis.set_xlabel("effect D against the others")


def draw_missing(axis: Any, reference: Reference, run: Run, variable: Variable, colour: str) -> None:
    """How much of a variable is missing."""
    assert run.seen is not None
    invalid = reference.histogram.invalid
    before = (invalid.missing + invalid.nan) / max(reference.histogram.seen, 1)
    after = run.seen.quality.get(variable, {}).get(semconv.QualityMeasure.MISSING, 0.0)
    axis.bar(["training", f"last {DAYS} days"], [100 * before, 100 * after], color=[GREY, colour], width=0.6)
    for at, share in enumerate([before, after]):
        axis.text(at, 100 * share + 2, say_share(share), ha="center", va="bottom", size=9)
    axis.set_xlabel("values missing")
    axis.set_ylim(0, 119)
    axis.set_yticks([0, 50, 100])


def read_distributions(text: str) -> dict[Variable, tuple[np.ndarray, np.ndarray]]:
    """Upper bounds and shares of the coarse cells, from /metrics."""
    names = {
        prometheus_name(m) for m in (semconv.METRIC_ML_FEATURE_DISTRIBUTION, semconv.METRIC_ML_PREDICTION_DISTRIBUTION)
    }
    found: dict[Variable, list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name in names else ():
            feature = sample.labels.get(label(semconv.ML_FEATURE_NAME), "")
            role = "feature" if feature else sample.labels[label(semconv.ML_PREDICTION_SIGNAL)]
            found.setdefault((role, feature), []).append((float(sample.labels["ml_cell_upper_bound"]), sample.value))
    return {
        key: (np.array([b for b, _ in pairs]), np.diff([s for _, s in pairs], prepend=0.0))
        for key, pairs in found.items()
    }


def key_of(reference: Reference) -> Variable:
    """Role and name of a feature; an output has its role alone."""
    role = reference.variable.role
    return (role, reference.variable.name if role == "feature" else "")


def say_variable(variable: Variable) -> str:
    """A name in plain words."""
    role, name = variable
    return name.replace("_", " ") if role == "feature" else f"prediction: {role}"
