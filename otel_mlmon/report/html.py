"""The page of a comparison: one file of HTML that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from otel_mlmon.comparison.finding import LEVELS

THEME: Final = "theme.js"  # before the first paint
SCRIPTS: Final = ("figures.js", "charts.js", "heatmaps.js", "detail.js", "table.js", "main.js")
LIBRARIES: Final = ("d3.min.js", "plot.umd.min.js")  # the second needs the first
HEADINGS: Final = {"fault": "Faults", "drift": "Drift", "note": "Notes"}
STRATEGIES: Final = (zlib.Z_FILTERED, zlib.Z_DEFAULT_STRATEGY)  # the first is 6 % smaller where there are many digits
GZIP: Final = 31  # window bits that ask for gzip
SPACE: Final = "\N{NO-BREAK SPACE}"
FIRST: Final = {"fault": 8, "drift": 8, "note": 3}  # findings of a level that are not folded away


class Row(NamedTuple):
    """A feature in the table.

    Attributes:
        feature: its part of the document.
        level: of its strongest finding; "drift" where it is changed without one, empty where nothing is said of it.
    """

    feature: Mapping[str, Any]
    level: str


class Said(NamedTuple):
    """A finding in the list.

    Attributes:
        finding: its part of the document.
        row: of the feature it is about, from 0; None where there is none.
    """

    finding: Mapping[str, Any]
    row: int | None


def render_page(document: Mapping[str, Any]) -> str:
    """A comparison as one file of HTML.

    Args:
        document: of docs/compare.schema.json. Equal documents give equal pages.

    Returns:
        The page, about 0.3 MB and 1 kB for each feature. It asks for nothing from elsewhere, and holds the document.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
        KeyError, jinja2.UndefinedError: the document is not of this form.
    """
    data = json.dumps(document, allow_nan=False, separators=(",", ":"), sort_keys=True)
    features = document["features"]
    said = [Said(finding, row) for finding, row in _find_rows(document["findings"], features)]
    page = (
        _environment()
        .get_template("page.html")
        .render(
            document=document,
            rows=_tell_levels(features, said),
            groups=[(level, HEADINGS[level], [s for s in said if s.finding["level"] == level]) for level in LEVELS],
            first=FIRST,
            data=pack(data),
            **_assets(),
        )
    )
    # A lone surrogate in a name could not be written to a file.
    return page.encode("utf-8", "replace").decode("utf-8")


def pack(text: str) -> str:
    """Gzip and base64, the same for the same text: its header holds no time."""
    return base64.b64encode(min((_compress(text, how) for how in STRATEGIES), key=len)).decode("ascii")


def _compress(text: str, strategy: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, GZIP, 9, strategy)
    return stream.compress(text.encode()) + stream.flush()


def _find_rows(findings: Iterable[Mapping[str, Any]], features: Iterable[Mapping[str, Any]]) -> Any:
    """Each finding with the row of its feature: the one of its role and name, else the first of its column."""
    exact: dict[tuple[str, str], int] = {}
    loose: dict[str, int] = {}
    for i, feature in enumerate(features):
        exact.setdefault((feature["role"], feature["name"]), i)
        loose.setdefault(feature["name"], i)
    for i, feature in enumerate(features):
        loose.setdefault(feature["column"], i)
    for finding in findings:
        about_all = finding["role"] == "data" and not finding["name"]
        found = exact.get((finding["role"], finding["name"]), loose.get(finding["name"]))
        yield finding, None if about_all else found


def _tell_levels(features: Iterable[Mapping[str, Any]], said: Iterable[Said]) -> list[Row]:
    strongest: dict[int, str] = {}
    for finding, row in said:
        if row is not None:
            strongest[row] = min(strongest.get(row, "note"), finding["level"], key=LEVELS.index)
    found = [(strongest.get(i, ""), feature) for i, feature in enumerate(features)]
    return [Row(feature, level or ("drift" if feature["changed"] else "")) for level, feature in found]


# ---------------------------------------------------------------- parts of the page


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("otel_mlmon.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(measure=format_measure, share=format_share, count=format_count, day=format_days)
    return environment


@cache
def _assets() -> Mapping[str, Any]:
    """Style and scripts, with a policy that lets exactly these scripts run."""
    ours, libraries = files("otel_mlmon.report") / "page", files("otel_mlmon.report") / "static"
    style, theme = (ours / "page.css").read_text("utf-8"), (ours / THEME).read_text("utf-8")
    script = "".join((ours / name).read_text("utf-8") for name in SCRIPTS)
    vendored = [(libraries / name).read_text("utf-8") for name in LIBRARIES]
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in (theme, script, *vendored))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return {
        "policy": policy,
        "style": Markup(style),  # noqa: S704 (ours)
        "theme": Markup(theme),  # noqa: S704 (ours)
        "script": Markup(script),  # noqa: S704 (ours)
        "libraries": [pack(text) for text in vendored],
    }


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


# ---------------------------------------------------------------- figures (as in page/figures.js)


def format_measure(number: float | None) -> str:
    """A drift measure: decimals that line up, no sign on what rounds to zero; empty for None."""
    if number is None:
        return ""
    size = abs(number)
    text = f"{size:.4f}" if size < 1 else f"{size:.2f}" if size < 100 else f"{size:,.0f}"
    return f"\N{MINUS SIGN}{text}" if number < 0 and text.strip("0.") else text


def format_share(share: float | None) -> str:
    """Percent; 0 only where there is nothing; empty for None."""
    if share is None:
        return ""
    return "0" if share == 0 else f"<0.1{SPACE}%" if share < 0.0005 else f"{share * 100:.1f}{SPACE}%"


def format_count(number: int) -> str:
    """A count with commas between thousands."""
    return f"{number:,}"


def format_days(time: Mapping[str, Any] | None) -> str:
    """From the first to the last day, or moment where it is the same day; a dash where there is no time."""
    if time is None:
        return "\N{EN DASH}"
    first, last = time["first"], time["last"]
    same = first[:10] == last[:10]
    ends = [moment[:16].replace("T", " ") if same else moment[:10] for moment in (first, last)]
    return f"{ends[0]} \N{EN DASH} {ends[1]}"
