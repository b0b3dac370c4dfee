"""The picture of the demo: what moved, and when the processor said so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from otel_mlmon_processor.core.verdict import FAULTS, Finding
from otel_mlmon_processor.exporters.prometheus import label, prometheus_name
from prometheus_client.parser import text_string_to_metric_families

from otel_mlmon import Profile, semconv
from otel_mlmon.numerics.binning import NumericAxis
from otel_mlmon.numerics.coarse import coarse_starts, coarsen

if TYPE_CHECKING:
    from demo import Run

GREY, BLUE, ORANGE, RED = "#b8bec6", "#0072b2", "#e69f00", "#d55e00"  # told apart by the colour-blind
PANELS = 4
ROWS = 12


def draw(run: Run, profile: Profile, path: Path) -> None:
    """Write the picture."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(11, 7.4), dpi=120, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.35])
    figure.suptitle(
        "Flights out of New York, 2013: what the processor says about the model's inputs", weight="bold", size=12
    )
    found = run.findings[-1]
    draw_panels(top, run, profile, found)
    draw_timeline(bottom, run)
    figure.savefig(path)
    plt.close(figure)


def draw_panels(figure: Any, run: Run, profile: Profile, found: tuple[Finding, ...]) -> None:
    """The features that moved: what share of values lies in each of the reference's cells."""
    figure.suptitle(
        "Last 7 days against the training data, share of values in each cell of the profile", size=9, color="#444"
    )
    axes = figure.subplots(1, PANELS)
    faults = [finding for finding in found if finding.kind in FAULTS][: PANELS // 2]
    drifted = sorted((finding for finding in found if finding.kind == "drift"), key=lambda finding: -finding.size)
    chosen = {(finding.role, finding.name): finding for finding in reversed([*faults, *drifted])}
    references = {
        (r.variable.role, r.variable.name if r.variable.role == "feature" else ""): r for r in profile.references
    }
    current = read_distributions(run.text)
    for axis, (variable, finding) in zip(axes, reversed(chosen.items()), strict=False):
        reference = references[variable]
        colour = RED if finding.kind in FAULTS else ORANGE
        axis.set_title(f"{finding.label}\n{wrap(finding.text)}", size=9, color=colour, loc="left")
        cells = reference.variable.axis
        if variable not in current or not isinstance(cells, NumericAxis):
            draw_missing(axis, reference, run, variable, colour)
            continue
        starts = coarse_starts(reference.histogram.counts, cells)
        before = coarsen(reference.histogram.counts, starts) / reference.histogram.valid
        bounds, after = current[variable]
        at = np.arange(before.size)
        axis.bar(at, 100 * before, width=0.95, color=GREY, label="training")
        axis.step(
            np.append(at - 0.5, at[-1] + 0.5),
            100 * np.append(after, after[-1]),
            where="post",
            color=colour,
            lw=1.8,
            label="now",
        )
        ticks = np.linspace(0, before.size - 2, 4).round().astype(int)
        axis.set_xticks(ticks + 0.5, [say_number(bounds[i]) for i in ticks])
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
        axis.legend(frameon=False, fontsize=8, loc="upper right", ncols=2, borderaxespad=0)
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()


def draw_missing(axis: Any, reference: Any, run: Run, variable: tuple[str, str], colour: str) -> None:
    """A feature of which nothing is left to draw but how much is missing."""
    assert run.seen is not None
    before = (reference.histogram.invalid.missing + reference.histogram.invalid.nan) / max(reference.histogram.seen, 1)
    after = run.seen.quality.get(variable, {}).get(semconv.QualityMeasure.MISSING, 0.0)
    axis.bar(["training", "now"], [100 * before, 100 * after], color=[GREY, colour], width=0.6)
    axis.set_ylabel("missing")
    axis.set_ylim(0, 105)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")


def draw_timeline(figure: Any, run: Run) -> None:
    """A row a feature, a column a day: what was said of it."""
    days = pd.to_datetime(run.days)
    kinds = [{(f.label): (2 if f.kind in FAULTS else 1) for f in reversed(found)} for found in run.findings]
    names = sorted({name for day in kinds for name in day}, key=lambda n: (-sum(n in day for day in kinds), n))[:ROWS]
    faulty = [
        name for name in dict.fromkeys(f.label for f in run.findings[-1] if f.kind in FAULTS) if name not in names
    ]
    names = [*faulty, *names][:ROWS] or ["nothing"]
    grid = np.array([[day.get(name, 0) for day in kinds] for name in names])
    axis = figure.subplots()
    begin, end = mdates.date2num(days[0]), mdates.date2num(days[-1]) + 1
    colours = ListedColormap(["#eef1f4", ORANGE, RED])
    axis.imshow(
        grid,
        aspect="auto",
        cmap=colours,
        vmin=0,
        vmax=2,
        extent=(begin, end, len(names) - 0.5, -0.5),
        interpolation="none",
    )
    axis.set_yticks(range(len(names)), names)
    axis.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axis.grid(which="minor", axis="y", color="white", lw=2)
    axis.tick_params(which="both", length=0, axis="y")
    axis.xaxis_date()
    axis.xaxis.set_major_locator(mdates.MonthLocator())
    axis.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))
    for number, part in enumerate(run.parts, 1):
        since = mdates.date2num(pd.Timestamp(part.days[0]))
        until = mdates.date2num(pd.Timestamp(part.days[-1])) + 1
        if number > 1:
            axis.axvline(since, color="black", lw=1)
        axis.annotate(
            f"{number}. {part.title}", ((since + until) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", ha="center", va="bottom", size=9, color=BLUE,
        )  # fmt: skip
    axis.spines[:].set_visible(False)
    legend = [
        Patch(color=ORANGE, label="distribution has changed"),
        Patch(color=RED, label="a fault: missing, or one replica differs"),
    ]
    axis.legend(handles=legend, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)


def read_distributions(text: str) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Bounds and shares of the coarse cells, from /metrics."""
    names = {
        prometheus_name(m) for m in (semconv.METRIC_ML_FEATURE_DISTRIBUTION, semconv.METRIC_ML_PREDICTION_DISTRIBUTION)
    }
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name in names else ():
            feature = sample.labels.get(label(semconv.ML_FEATURE_NAME), "")
            role = "feature" if feature else sample.labels[label(semconv.ML_PREDICTION_SIGNAL)]
            found.setdefault((role, feature), []).append((float(sample.labels["le"]), sample.value))
    return {
        key: (np.array([b for b, _ in pairs]), np.diff([s for _, s in pairs], prepend=0.0))
        for key, pairs in found.items()
    }


def say_number(value: float) -> str:
    """A number of up to four digits, without the float32 step that the range is wider by."""
    return "0" if abs(value) < 1e-30 else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.1e}"


def wrap(text: str, width: int = 34) -> str:
    """Text in lines of about so many characters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
