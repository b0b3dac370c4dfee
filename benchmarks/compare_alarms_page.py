"""Tables, words and picture of compare_alarms.py, from its cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_alarms_worker import CHANGES, SEED

OURS = "otel-mlmon"
BUDGET = 0.01
VARIANTS = ("default", "tolerance 0")
EQUAL = ((1_000, 1_000), (10_000, 10_000))
POWER = ((1_000, 1_000), (10_000, 10_000), (100_000, 10_000))
SHOWN = "mean + 0.25 sd"
PEER_CHANGES = (SHOWN, "mean + 0.1 sd", "missing 1 % -> 3 %")
Cell = dict[str, Any]


def wilson(k: int, n: int) -> tuple[float, float]:
    """Two-sided 95 % interval of the share k / n (E. B. Wilson, 1927, doi:10.1080/01621459.1927.10502953)."""
    z2 = 1.96**2
    middle = (k + z2 / 2) / (n + z2)
    half = 1.96 * math.sqrt(k * (n - k) / n + z2 / 4) / (n + z2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def say(k: int, n: int) -> str:
    """`3 % (1 - 5 %)`: a share and its interval."""
    low, high = wilson(k, n)
    return f"{percent(k / n)} ({percent(low).removesuffix(' %')} - {percent(high)})"


def is_broken(k: int, n: int) -> bool:
    """Whether the interval lies above the budget."""
    return wilson(k, n)[0] > BUDGET


def judge(k: int, n: int) -> str:
    """A share, its interval, and whether they show that the budget is kept, or broken, or neither."""
    return f"{say(k, n)} {'**broken**' if is_broken(k, n) else 'kept' if wilson(k, n)[1] <= BUDGET else 'open'}"


def unchanged(cells: Sequence[Cell]) -> list[Cell]:
    """Ours of unchanged data, frame by frame."""
    of = [cell for cell in cells if cell["tool"] == OURS and cell["change"] == "none"]
    frames = list(dict.fromkeys(cell["frame"] for cell in of))
    return sorted(of, key=lambda cell: frames.index(cell["frame"]))


def broken(cells: Sequence[Cell]) -> list[Cell]:
    """Those where more failed than the budget allows."""
    return [
        c for c in unchanged(cells) if any(is_broken(c["variants"][v]["failed"], c["repetitions"]) for v in VARIANTS)
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown; the first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def sizes_of(cell: Cell) -> str:
    return f"{cell['reference']:,} / {cell['current']:,}"


def null_table(cells: Sequence[Cell]) -> str:
    """A row for each cell, then for each kind of frame and for all."""
    rows: list[list[Any]] = []
    sums: dict[str, list[int]] = {}
    for cell in unchanged(cells):
        n, failed = cell["repetitions"], [cell["variants"][name]["failed"] for name in VARIANTS]
        rows.append([cell["frame"], sizes_of(cell), n, *(judge(k, n) for k in failed), cell["ms"]])
        for group in (cell["frame"], "5, 35 and 500" if cell["frame"].isdigit() else "rare and discrete"):
            sums[group] = [a + b for a, b in zip(sums.get(group, [0] * 3), [n, *failed], strict=True)]
    rows += [[f"**{group}**", "all", n, *(judge(k, n) for k in failed), ""] for group, (n, *failed) in sums.items()]
    return table(
        ["features", "rows, reference / current", "comparisons", *(f"failed: {v}" for v in VARIANTS), "ms"], rows
    )


def leak_table(cells: Sequence[Cell]) -> str:
    """What fails: kind of finding and of column, how many comparisons, and one of them."""
    rows = []
    for frame in dict.fromkeys(cell["frame"] for cell in unchanged(cells)):
        of = [cell for cell in unchanged(cells) if cell["frame"] == frame]
        sums = [sum((Counter(c["variants"][v]["why"]) for c in of), Counter[str]()) for v in VARIANTS[:2]]
        first: dict[str, str] = {}
        for cell in of:
            for why, text in cell["variants"]["tolerance 0"]["example"].items():
                first.setdefault(why, f"{sizes_of(cell)}, {text}")
        total = sum(cell["repetitions"] for cell in of)
        for why, text in sorted(first.items(), key=lambda item: -sums[1][item[0]]):
            where = ", ".join(f"{sizes_of(c)}: {k}" for c in of if (k := c["variants"]["tolerance 0"]["why"].get(why)))
            rows.append([frame, why, *(f"{found[why]} of {total}" for found in sums), where, text])
    return table(["features", "what failed", *VARIANTS[:2], "where", "for example"], rows)


def power_table(cells: Sequence[Cell]) -> str:
    """Share that fails and names the changed column first."""
    found = {(c["change"], c["reference"], c["current"]): c for c in cells if c["tool"] == OURS and c["frame"] == "35"}

    def cell_of(change: str, sizes: tuple[int, int]) -> str:
        cell = found[(change, *sizes)]
        shares = [cell["variants"][v][what] / cell["repetitions"] for v in VARIANTS[:2] for what in ("first", "found")]
        return " / ".join(map(percent, shares))

    rows = [[change, *(cell_of(change, sizes) for sizes in POWER)] for change in CHANGES]
    return table(["change", *(f"{m:,} / {n:,}" for m, n in POWER)], rows)


def peer_points(cells: Sequence[Cell], sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """For each tool and variant: false alarms, and by change the share in which the changed column is called."""
    points: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if (cell["reference"], cell["current"]) != sizes or cell["frame"] != "35":
            continue
        for variant, counts in cell["variants"].items():
            point = points.setdefault(f"{cell['tool']}, {variant}", {"name": f"{cell['tool']}, {variant}", "found": {}})
            if cell["change"] == "none":
                point |= {"failed": counts["failed"], "n": cell["repetitions"], "ms": cell["ms"]}
            else:  # the drift of a dataset names no column
                hits = counts["failed" if variant == "dataset" else "found"]
                point["found"][cell["change"]] = (hits, cell["repetitions"])
    return list(points.values())


def peer_table(cells: Sequence[Cell]) -> str:
    rows = []
    for sizes in EQUAL:
        for p in peer_points(cells, sizes):
            found = [percent(p["found"][c][0] / p["found"][c][1]) if c in p["found"] else "" for c in PEER_CHANGES]
            rows.append([p["name"], f"{sizes[0]:,}", p["n"], say(p["failed"], p["n"]), *found, p["ms"]])
    head = ["tool", "rows on each side", "comparisons", "false alarms", *(f"found: {c}" for c in PEER_CHANGES), "ms"]
    return table(head, rows)


def draw_picture(cells: Sequence[Cell], path: Path) -> None:
    """False alarms and power of all tools, and false alarms of ours by cell."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 6.5), layout="constrained", width_ratios=(1.25, 1, 1))
    of = unchanged(cells)[::-1]
    for variant, colour, shift in ((VARIANTS[0], "tab:red", 0.15), (VARIANTS[1], "tab:gray", -0.15)):
        counts = [(c["variants"][variant]["failed"], c["repetitions"]) for c in of]
        _draw_shares(axes[0], counts, shift, colour, variant)
    axes[0].set_yticks(range(len(of)), [f"{c['frame']}: {sizes_of(c)}" for c in of])
    axes[0].set_title("otel_mlmon.compare on unchanged data\nfeatures: rows of reference / current", fontsize=10)
    for axis, sizes in zip(axes[1:], EQUAL, strict=True):
        points = peer_points(cells, sizes)[::-1]
        _draw_shares(axis, [(p["failed"], p["n"]) for p in points], 0.12, "tab:red", "false alarms")
        _draw_shares(axis, [p["found"][SHOWN] for p in points], -0.12, "tab:blue", f"found: {SHOWN}")
        axis.set_yticks(range(len(points)), [p["name"].replace(", ", "\n", 1) for p in points], fontsize=8)
        axis.set_title(f"35 features, {sizes[0]:,} rows on each side", fontsize=10)
    for axis in axes:
        axis.axvline(BUDGET, color="black", linewidth=0.8, linestyle=":")
        axis.set(xlim=(-0.02, 1.02), xlabel="share of comparisons, 95 % interval; dotted: 1 %")
        axis.grid(axis="x", alpha=0.3)
    for axis in axes[:2]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def _draw_shares(axis: Any, counts: Sequence[tuple[int, int]], shift: float, colour: str, label: str) -> None:
    """Points with their intervals, one a row."""
    shares = [k / n for k, n in counts]
    ends = [wilson(k, n) for k, n in counts]
    reach = [
        [s - low for s, (low, _) in zip(shares, ends, strict=True)],
        [h - s for s, (_, h) in zip(shares, ends, strict=True)],
    ]
    reach = [[max(r, 0.0) for r in side] for side in reach]
    rows = [i + shift for i in range(len(counts))]
    axis.errorbar(shares, rows, xerr=reach, fmt="o", color=colour, markersize=5, label=label)


def render(cells: Sequence[Cell], machine: str) -> str:
    """The page."""
    bad = broken(cells)
    verdict = f"It is broken in {len(bad)} of {len(unchanged(cells))} cells." if bad else "It is broken in no cell."
    return TEXT.format(
        seed=SEED,
        machine=machine,
        verdict=verdict,
        null=null_table(cells),
        leaks=leak_table(cells),
        power=power_table(cells),
        peers=peer_table(cells),
    )


TEXT = """# False alarms of compare, and what it finds

Written by `make bench-compare-alarms`. `otel_mlmon.compare` states a budget: of comparisons of unchanged data at
most 1 % fail, all features and tests together. {verdict}

Reference and current are drawn independently of each other (seed {seed}, frame, sizes, number of the repetition).
Shares have two-sided 95 % Wilson intervals. *kept*: the interval lies within the budget; **broken**: above it; *open*:
1 % is in it. Machine: {machine}; times are of one comparison, those of otel-mlmon of two that share the reading.

- **5, 35 and 500** features: numbers (normal, lognormal, Student's t with 3 degrees of freedom, integers from 0 to
  999, normal rounded to halves, 70 % zeros) and categories (3, 10, 30, 80 and 200 names, Zipf); 1 % missing in every
  third column.
- **rare**: six columns with what is natural and seldom: a flag of 1 %, Poisson numbers, -1 and 'unknown' in 0.3 %, a
  second spelling in 0.3 %.
- **discrete**: five columns of few values, whose rows repeat by chance.

*default* is `compare(reference, current)`. *tolerance 0* is without the smallest effect worth hearing of, so that the
budget alone decides.

## Unchanged data

![False alarms and power](compare_alarms.png)

{null}

What failed, in comparisons; "repetition" is the number to give `make_sides` in compare_alarms_worker.py:

{leaks}

## Changed data

One of 35 columns changes. Share of 50 comparisons that fail and name it first / that name it at all, at the default
tolerance; then the same two with none. By rows of reference / current:

{power}

The tolerance of 0.005 is about 0.07 standard deviations, and the lower bound must exceed it: what is only a little
larger is found in large data alone.

## Others, on the same frames

35 features. *False alarms*: share of comparisons of unchanged data in which any column is called changed; *found*:
share in which the column that has changed is called (of evidently's dataset: in which the data set is).

{peers}

Each at its defaults: scipy's two-sample Kolmogorov-Smirnov and chi-square test of each column at 0.05, not corrected;
alibi-detect's TabularDrift (0.05 with Bonferroni; missing values filled with the median, as it takes none); whylogs'
calculate_drift_scores, category DRIFT; NannyML's UnivariateDriftCalculator, any alert in ten chunks; evidently's
DataDriftPreset, any column, and the data set (half of the columns). Their promises differ: a level of 0.05 for each
column is no promise for a table, and thresholds of distances are none of error.
"""
