"""The command `otel-mlmon profile`. Light to import: what draws and reads is imported when it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final, get_args

from otel_mlmon.cli import SUMMARIES, Command, CommandError
from otel_mlmon.profile.document import Profile, ProfileError, Role

TYPES: Final = ("numeric", "category", "boolean", "datetime", "text")

BUILD = """examples:
  otel-mlmon profile build train.parquet --model flights --version 3 -o flights.profile.json
  otel-mlmon profile build data/2026-*.csv --model churn --prediction score=p_churn --prediction class=label \\
      --types zip=category --exclude id target
Parts that are built apart merge exactly where they share a plan:
  otel-mlmon profile build part2/ --model flights --plan flights.profile.json -o part2.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the four subcommands and their arguments."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    build = commands.add_parser("build", help="make a profile from data files", epilog=BUILD, formatter_class=raw)
    _configure_build(build)
    show = commands.add_parser("show", help="draw a profile in the terminal")
    show.add_argument("profile", metavar="PROFILE", help="file made by build or merge")
    show.add_argument("--feature", metavar="NAME", help="show this one in detail")
    show.add_argument("--boundaries", action="store_true", help="list the cells with their bounds and counts")
    show.add_argument("--json", action="store_true", help="bounds and labels for a program in another language to read")
    merge = commands.add_parser("merge", help="make one profile of several parts")
    merge.add_argument("parts", metavar="PART", nargs="+", help="profiles of one model and version")
    merge.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write the profile")
    diff = commands.add_parser(
        "diff", help="tell what differs between two profiles", description="Exit status 0, whether they differ or not."
    )
    diff.add_argument("a", metavar="A", help="the reference")
    diff.add_argument("b", metavar="B", help="what is compared with it")


def _configure_build(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="parquet, csv or feather files, folders of them, or quoted globs")
    add("-o", "--output", metavar="FILE", help="where to write the profile (default: MODEL.profile.json)")
    add("--model", metavar="NAME", required=True, help="name of the model")
    add("--version", metavar="VERSION", default="", help="version of the model")
    add("--types", metavar="COLUMN=TYPE", action="append", default=[], help=f"one of {', '.join(TYPES)}; repeatable")
    add(
        "--prediction",
        metavar="[ROLE=]COLUMN",
        action="append",
        default=[],
        help=f"what the model said; ROLE is {', '.join(get_args(Role)[1:])}, or found from the values; repeatable",
    )
    add(
        "--time-column", metavar="COLUMN", help="time of the rows; what is normal from minute to minute is learnt by it"
    )
    add("--timezone", metavar="ZONE", default="", help="IANA zone of times in it that name none (default: UTC)")
    add(
        "--columns",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        help="the features, in the model's order (default: all)",
    )
    add("--exclude", metavar="COLUMN", nargs="+", action="extend", default=[], help="columns that are no features")
    add("--categories", metavar="K", type=int, default=50, help="categories listed by name (default: 50)")
    add("--plan", metavar="PROFILE", help="count what this profile counts, so that the two merge exactly")
    add("--part", action="store_true", help="of a reference that is to be merged: keep the counts by minute")
    add("--trained", metavar="TIME", default="", help="when the model was trained, ISO 8601")
    add("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; gives the exit status."""
    steps = {"build": _build, "show": _show, "merge": _merge, "diff": _diff}
    try:
        steps[arguments.subcommand](arguments)
    except ProfileError as error:
        raise CommandError(str(error)) from None
    return 0


def _build(arguments: argparse.Namespace) -> None:
    from otel_mlmon.profile.sources import SourceError

    options: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("version", "columns", "exclude", "categories")
    }
    options |= {name: getattr(arguments, name) for name in ("time_column", "timezone", "trained", "part")}
    output = Path(arguments.output or f"{arguments.model}.profile.json")
    if not output.parent.is_dir():
        raise CommandError(f"no such folder: {output.parent}")
    if arguments.plan:
        if arguments.types:
            raise CommandError("--types has no effect with --plan, which says what is counted")
        options["plan"] = Profile.load(arguments.plan).plan
    try:
        profile = Profile.build(
            arguments.files,
            model=arguments.model,
            types=read_types(arguments.types),
            predictions=read_predictions(arguments.prediction),
            progress=not arguments.quiet,
            **options,
        )
    except SourceError as error:
        raise CommandError(str(error)) from None
    _save(profile, output)


def read_types(texts: list[str]) -> dict[str, str]:
    """Types by column, of COLUMN=TYPE."""
    pairs = {}
    for text in texts:
        column, equals, kind = text.rpartition("=")
        if not equals or not column or kind not in TYPES:
            raise CommandError(f"--types must be COLUMN=TYPE with one of {', '.join(TYPES)}, got {text!r}")
        pairs[column] = kind
    return pairs


def read_predictions(texts: list[str]) -> dict[str, str] | str | None:
    """Columns by role, of [ROLE=]COLUMN."""
    roles = get_args(Role)[1:]
    pairs = [text.split("=", 1) if text.split("=", 1)[0] in roles and "=" in text else ["", text] for text in texts]
    if len(pairs) == 1 and not pairs[0][0]:
        return pairs[0][1]
    found = {pair[0]: pair[1] for pair in pairs}
    if "" in found or len(found) < len(pairs):
        raise CommandError(
            f"several --prediction need each its own role: one of {', '.join(roles)}, as in score=COLUMN"
        )
    return found or None


def _show(arguments: argparse.Namespace) -> None:
    from otel_mlmon.profile.boundaries import list_boundaries
    from otel_mlmon.profile.display import show_feature, show_profile

    profile = Profile.load(arguments.profile)
    if arguments.feature is None and not arguments.boundaries and not arguments.json:
        show_profile(profile)
        return
    chosen = [
        reference
        for reference in profile.references
        if arguments.feature in (None, reference.variable.name, reference.variable.column or reference.variable.role)
    ]
    if not chosen:
        names = ", ".join(reference.variable.name for reference in profile.references[:30])
        raise CommandError(f"no feature {arguments.feature!r}; there are {names}")
    if arguments.json:
        print(json.dumps(list_boundaries(profile, chosen), ensure_ascii=False))
        return
    for reference in chosen:
        show_feature(reference, boundaries=arguments.boundaries)


def _merge(arguments: argparse.Namespace) -> None:
    _save(Profile.merge([Profile.load(part) for part in arguments.parts]), Path(arguments.output))


def _diff(arguments: argparse.Namespace) -> None:
    from otel_mlmon.comparison.compare import compare
    from otel_mlmon.profile.display import make_console, show_identity_changes
    from otel_mlmon.report.terminal import show_comparison

    a, b, console = Profile.load(arguments.a), Profile.load(arguments.b), make_console()
    if show_identity_changes(a, b, console):
        show_comparison(compare(a, b), console, every=True)


def _save(profile: Profile, output: Path) -> None:
    replaced = ", replaced" if output.exists() else ""
    profile.save(output)
    outputs = sum(reference.variable.role != "feature" for reference in profile.references)
    features = len(profile.references) - outputs
    print(f"{output}: {profile.rows:,} rows, {features} features, {outputs} outputs, hash {profile.hash}{replaced}")
    for note in profile.notes:
        print(f"note: {note}")


COMMAND: Final = Command(SUMMARIES["profile"], configure, run)
