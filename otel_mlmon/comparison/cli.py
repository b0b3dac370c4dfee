"""The command `otel-mlmon compare`. Light to import: what reads and draws is imported when it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from otel_mlmon.cli import SUMMARIES, Command, CommandError
from otel_mlmon.profile.cli import TYPES, read_predictions, read_types

EXAMPLES = """examples:
  otel-mlmon compare train.parquet today.parquet
  otel-mlmon compare churn.profile.json 'today/*.csv' --prediction score=p_churn --html report.html
  otel-mlmon compare 2025/ 2026/ --time-column booked_at --by country
  otel-mlmon compare flights.parquet flights.parquet --reference-where 'month <= 4' --current-where 'month == 5'

exit status: 0 nothing has changed, 1 something has, 2 the comparison could not be made"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    kinds = "a profile (.json), or parquet, csv, arrow or feather files, a folder of them, or a quoted glob"
    add("reference", metavar="REFERENCE", help=kinds)
    add("current", metavar="CURRENT", help="the same")
    add("--columns", metavar="COLUMN", nargs="+", action="extend", help="compare these (default: all); after the files")
    add("--exclude", metavar="COLUMN", nargs="+", action="extend", default=[], help="leave these out; after the files")
    add(
        "--prediction",
        metavar="[ROLE=]COLUMN",
        action="append",
        default=[],
        help="what the model said; ROLE is value, class or score, or found from the values; repeatable",
    )
    add("--target", metavar="COLUMN", help="what was to be predicted")
    add("--time-column", metavar="COLUMN", help="time of the rows; then there is drift by period, too")
    add("--timezone", metavar="ZONE", default="", help="IANA zone of times that name none (default: UTC)")
    add("--period", choices=("day", "week", "month"), help="default: by day, from 100 on by week, then by month")
    add("--by", metavar="COLUMN", help="compare the 20 most frequent values of this column apart, too")
    add("--types", metavar="COLUMN=TYPE", action="append", default=[], help=f"one of {', '.join(TYPES)}; repeatable")
    add("--where", metavar="CONDITION", help='rows of both, such as \'month <= 4 and carrier in ("UA", "AA")\'')
    add("--reference-where", metavar="CONDITION", help="rows of the reference")
    add("--current-where", metavar="CONDITION", help="rows of the current data")
    add("--tolerance", metavar="D", type=float, default=0.005, help="smallest effect worth hearing of (default: 0.005)")
    add(
        "--false-alarms",
        metavar="SHARE",
        type=float,
        default=0.01,
        help="of comparisons of unchanged data that may fail, all tests together (default: 0.01)",
    )
    add("--html", metavar="FILE", help="write the page")
    add("--json", metavar="FILE", help="write the result as JSON; - is standard output, and nothing else is printed")
    add("--junit", metavar="FILE", help="write a JUnit report")
    add("--all", action="store_true", help="list all variables, not the 40 that moved most")
    add("--quiet", action="store_true", help="print the verdict alone, no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Compare; gives the exit status."""
    from otel_mlmon.comparison.compare import compare
    from otel_mlmon.profile.document import ProfileError
    from otel_mlmon.profile.sources import SourceError

    for path in (arguments.html, arguments.json, arguments.junit):
        if path not in (None, "-") and not Path(path).absolute().parent.is_dir():
            raise CommandError(f"no such folder: {Path(path).parent}")
    names = ("columns", "exclude", "target", "time_column", "timezone", "period", "by", "tolerance", "false_alarms")
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    options |= {name: getattr(arguments, name) for name in ("where", "reference_where", "current_where")}
    try:
        result = compare(
            arguments.reference,
            arguments.current,
            prediction=read_predictions(arguments.prediction),
            types=read_types(arguments.types),
            progress=not arguments.quiet,
            **options,
        )
    except (ProfileError, SourceError) as error:
        raise CommandError(str(error)) from None
    _write(result, arguments)
    return 0 if result.passed else 1


def _write(result: Any, arguments: argparse.Namespace) -> None:
    if arguments.html:
        result.save_html(arguments.html)
    if arguments.junit:
        result.save_junit(arguments.junit)
    if arguments.json == "-":
        json.dump(result.to_dict(), sys.stdout, ensure_ascii=False, indent=1)
        print()
        return
    if arguments.json:
        result.save_json(arguments.json)
    if arguments.quiet:
        print(result)
        return
    from otel_mlmon.profile.display import make_console
    from otel_mlmon.report.terminal import show_comparison

    show_comparison(result, make_console(), every=arguments.all)


COMMAND: Final = Command(SUMMARIES["compare"], configure, run)
