"""The page and the plot of the benchmark of comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = {"otel-mlmon, profile": "otel-mlmon, reference a profile", "pyarrow": "pyarrow, reading alone"}
COLORS = {"otel-mlmon": "#0b6e4f", "otel-mlmon, profile": "#4caf85", "pyarrow": "#9aa0a6"}
NOTES = """
What each does: `otel_mlmon.compare` with everything it has (effect with its lower bound, PSI, JS, KS, W1, missing
values, schema, codes, repeated rows); Evidently's `DataDriftPreset`; NannyML's `UnivariateDriftCalculator` (ten
chunks); whylogs' profiles and drift scores; alibi-detect's `TabularDrift`; scipy's `ks_2samp` and `chi2_contingency`
for each column; all at their defaults, on pandas frames. The reference has 100,000 rows. Times are of the call alone:
the imports are done, and of what is compared from memory the reading too; from parquet both files are read. Memory is
what the process needed beyond that, at its greatest.
"""


def render(kept: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows = list(dict.fromkeys(one["rows"] for one in kept["sizes"]))
    lines = [
        "# Comparing two data sets",
        "",
        "Written by `make bench-compare`. 30 numeric and 5 categorical columns against a reference of 100,000 rows;",
        f"medians of {kept['rounds']} processes, all in turn on one machine ({kept['machine']}).",
        "In brackets: how many times as long as otel-mlmon.",
        "",
        "![time by rows](compare.png)",
    ]
    for mode in ("memory", "parquet"):
        lines += ["", f"## From {mode}", "", "| | " + " | ".join(f"{n:,} rows" for n in rows) + " | memory |"]
        lines.append("|---|" + "---:|" * (len(rows) + 1))
        for tool in dict.fromkeys(one["tool"] for one in kept["sizes"] if one["mode"] == mode):
            cells = [_cell(_find(kept, tool, n, mode), _find(kept, "otel-mlmon", n, mode)) for n in rows]
            memory = " / ".join(_say_bytes(_find(kept, tool, n, mode)["memory"]) for n in rows)
            lines.append(f"| {_label(kept, tool)} | " + " | ".join(cells) + f" | {memory} |")
    lines += ["", "## Growth of otel-mlmon", "", "| rows | columns | from | cores | time | memory |"]
    lines.append("|---:|---:|---|---:|---:|---:|")
    for one in kept["growth"]:
        cores, reference = one["cores"] or "all", ", reference a profile" if "profile" in one["tool"] else ""
        lines.append(
            f"| {one['rows']:,} | {one['columns']:,} | {one['mode']}{reference} | {cores} | {_say_time(one)} "
            f"| {_say_bytes(one['memory'])} |"
        )
    lines += ["", "| wanted, at 1 million rows | limit | measured | |", "|---|---:|---:|---|"]
    lines += [
        f"| {what} | {limit} | {measured} | {'reached' if reached else '**not reached**'} |"
        for what, limit, measured, reached in check(kept)
    ]
    return "\n".join(lines) + "\n" + NOTES


def check(kept: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is promised: what, limit, measured, whether reached."""
    rows = sorted({one["rows"] for one in kept["sizes"]})[1]

    def seconds(tool: str, mode: str) -> float:
        return _find(kept, tool, rows, mode)["seconds"] or float("nan")

    ours, read = seconds("otel-mlmon", "memory"), seconds("pyarrow", "parquet")
    found = [("from memory", "0.5 s", f"{ours:.2f} s", ours <= 0.5)]
    found += [
        (f"faster than {tool}", f"{least} times", f"{seconds(tool, 'memory') / ours:.0f} times",
         seconds(tool, "memory") >= least * ours)
        for tool, least in (("nannyml", 10), ("evidently", 150))
    ]  # fmt: skip
    for tool, what in (("otel-mlmon", "from parquet"), ("otel-mlmon, profile", "from parquet, reference a profile")):
        times = seconds(tool, "parquet") / read
        found.append((f"{what}, as against pyarrow's reading", "2 times", f"{times:.1f} times", times <= 2))
    memory = [_find(kept, "otel-mlmon", n, "memory")["memory"] for n in sorted({o["rows"] for o in kept["sizes"]})[1:]]
    grown = memory[1] - memory[0]
    found.append(("more memory for ten times the rows", "32 MiB", _say_bytes(grown), grown < 32 << 20))
    return found


def draw(kept: dict[str, Any], path: Path) -> None:
    """Time against rows, from memory and from parquet."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for axis, mode in zip(axes, ("memory", "parquet"), strict=True):
        for tool in dict.fromkeys(one["tool"] for one in kept["sizes"] if one["mode"] == mode):
            some = [o for o in kept["sizes"] if (o["tool"], o["mode"]) == (tool, mode) and o["seconds"] is not None]
            ours = tool.startswith("otel")
            axis.plot(
                [one["rows"] for one in some], [one["seconds"] for one in some], marker="o", color=COLORS.get(tool),
                linewidth=3 if ours else 1.6, linestyle=":" if tool == "pyarrow" else "-", label=LABELS.get(tool, tool),
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="rows of 35 columns", title=f"from {mode}")
        axis.grid(visible=True, which="major", color="#e4e4e4")
    axes[0].set_ylabel("seconds")
    handles = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    figure.suptitle("Comparing two data sets, against a reference of 100,000 rows", x=0.02, ha="left")
    figure.subplots_adjust(left=0.07, right=0.76, bottom=0.13, top=0.86, wspace=0.08)
    figure.savefig(path, dpi=110)


def _find(kept: dict[str, Any], tool: str, rows: int, mode: str) -> dict[str, Any]:
    return next(o for o in kept["sizes"] if (o["tool"], o["rows"], o["mode"]) == (tool, rows, mode))


def _label(kept: dict[str, Any], tool: str) -> str:
    pins = kept["pins"].get(tool)
    return f"{tool} {pins[0].partition('==')[2]}" if pins else LABELS.get(tool, tool)


def _cell(one: dict[str, Any], ours: dict[str, Any]) -> str:
    if one["seconds"] is None or one["tool"].startswith("otel") or ours["seconds"] is None:
        return _say_time(one)
    return f"{_say_time(one)} ({one['seconds'] / ours['seconds']:,.1f})"


def _say_time(one: dict[str, Any]) -> str:
    seconds = one["seconds"]
    return one["note"] if seconds is None else f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _say_bytes(size: float | None) -> str:
    return "" if size is None else f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
