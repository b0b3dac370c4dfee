"""The two sides of a comparison, read: counts over the reference's cells, and what else a pass over data tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from otel_mlmon.comparison.groups import MOST_SEGMENTS, Group, Periods, Segments
from otel_mlmon.comparison.survey import Facts, Survey
from otel_mlmon.comparison.where import Condition
from otel_mlmon.numerics.binning import CategoryAxis
from otel_mlmon.profile.build import Notify, count_block, decide_plan
from otel_mlmon.profile.counting import Tally
from otel_mlmon.profile.document import Profile, Reference, Variable
from otel_mlmon.profile.parallel import side_by_side
from otel_mlmon.profile.roles import Selection, sort_predictions
from otel_mlmon.profile.sources import Source, SourceError, open_source

PROFILE: Final = ".json"


@dataclass(frozen=True, slots=True)
class Choice:
    """What of the data is compared; see `otel_mlmon.comparison.compare.compare` for each."""

    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    prediction: Any = None
    target: str | None = None
    time_column: str | None = None
    timezone: str = ""
    period: str | None = None
    by: str | None = None
    types: Mapping[str, Any] = field(default_factory=dict)

    @property
    def selection(self) -> Selection:
        """What to take of a data set."""
        named, given = sort_predictions(self.prediction)
        if given:
            raise SourceError("prediction: must be the name of a column, or a dict of roles to such names")
        columns = self.columns
        if columns is not None:
            extra = [name for name in (self.target, self.by) if name is not None and name not in columns]
            columns = (*columns, *extra)
        return Selection(columns, self.exclude, self.time_column, self.timezone, named, {})


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side.

    Args:
        name: for people.
        rows: how many.
        references: counts of each variable.
        facts: None for a profile, which has no rows to look at.
        unit: of the periods.
        periods: by the day since 1970 they start with; empty without times.
        segments: by name; empty where none are asked for.
    """

    name: str
    rows: int
    references: tuple[Reference, ...]
    facts: Facts | None = None
    unit: str = "day"
    periods: Mapping[int, Group] = field(default_factory=dict)
    segments: Mapping[str, Group] = field(default_factory=dict)


def name_data(data: Any, otherwise: str) -> str:
    """How a data set is called: by its file, else `otherwise`."""
    if isinstance(data, (str, Path)):
        return Path(data).name or str(data)
    if isinstance(data, Profile):
        return " ".join(part for part in (data.model, data.version) if part)
    if isinstance(data, (list, tuple)) and data and all(isinstance(item, (str, Path)) for item in data):
        return f"{name_data(data[0], otherwise)} and {len(data) - 1} more" if len(data) > 1 else name_data(data[0], "")
    return otherwise


def as_profile(data: Any) -> Profile | None:
    """The profile that the data is, or that its file holds; None where it is data."""
    if isinstance(data, (list, tuple)) and len(data) == 1:
        data = data[0]
    if isinstance(data, (str, Path)) and str(data).lower().endswith(PROFILE):
        return Profile.load(data)
    return data if isinstance(data, Profile) else None


def read_reference(
    data: Any, current: Any, choice: Choice, *, where: Condition | None, name: str, notify: Notify
) -> Side:
    """Decide what to count from the reference, and count it.

    `current` is what it will be compared with: of two profiles everything can be.

    Raises:
        SourceError: the data cannot be read or have no rows, or an option names a column that is not there.
    """
    profile = as_profile(data)
    if profile is not None:
        if where is not None:
            raise SourceError("where: a profile has no rows to choose from; give the data it was built from")
        if choice.by is not None:
            raise SourceError("by: a profile knows its rows as a whole only; give the data it was built from")
        every = as_profile(current) is not None and choice.columns is None and not choice.exclude
        return Side(name, profile.rows, profile.references if every else _wanted(profile.references, choice))
    source = _open(data, where)
    if source.once:
        raise SourceError(
            f"a {type(data).__name__} can be read only once, and the reference is read twice: "
            "give a profile of it, or data that can be read again (a file, a table)"
        )
    plan = decide_plan(source, choice.selection, choice.types, notify=lambda _, *n: notify("reference: looking", *n))
    variables = _countable(plan.variables, choice)
    if not variables:
        raise SourceError("the reference has nothing that can be compared")
    segments = Segments(variables, choice.by, _segments_of(variables, choice.by)) if choice.by is not None else None
    side = _count(source, choice, variables, name=name, notify=notify, what="reference: counting", segments=segments)
    return _with_rows(side, "reference", where)


def read_current(
    data: Any, reference: Side, choice: Choice, *, where: Condition | None, name: str, notify: Notify
) -> Side:
    """Count the current data over the reference's cells.

    Raises:
        SourceError: the data cannot be read or have no rows, or an option names a column that is not there.
    """
    profile = as_profile(data)
    if profile is not None:
        if where is not None or choice.by is not None:
            raise SourceError("where and by: a profile has no rows to choose from; give data")
        return Side(name, profile.rows, profile.references)
    variables = [r.variable for r in reference.references]
    periods = Periods(variables, choice.period) if choice.time_column is not None else None
    segments = None
    if choice.by is not None:
        segments = Segments(variables, choice.by, list(reference.segments))
    source = _open(data, where)
    side = _count(
        source, choice, variables, name=name, notify=notify, what="counting", segments=segments, periods=periods
    )
    return _with_rows(side, "current", where)


def _with_rows(side: Side, which: str, where: Condition | None) -> Side:
    """The side; an export that came out empty must not pass."""
    if not side.rows:
        raise SourceError(f"the {which} data have no rows{' that fulfil the condition' if where is not None else ''}")
    return side


def _open(data: Any, where: Condition | None) -> Source:
    source = open_source(data)
    return where.keep(source) if where is not None else source


def _count(
    source: Source,
    choice: Choice,
    variables: Sequence[Variable],
    *,
    name: str,
    notify: Notify,
    what: str,
    segments: Segments | None = None,
    periods: Periods | None = None,
) -> Side:
    """One pass."""
    tallies, survey = [Tally(variable) for variable in variables], Survey(source.rows)
    rows = 0
    with side_by_side() as run:
        for block in choice.selection.read(source):
            run([partial(survey.add, block), *count_block(block, tallies)])
            for groups in (segments, periods):
                if groups is not None:
                    groups.add(block, run)
            rows += block.rows
            notify(what, rows, source.rows)
    return Side(
        name,
        rows,
        tuple(tally.finish(None) for tally in tallies),
        survey.finish(),
        periods.unit if periods is not None else "day",
        periods.finish() if periods is not None else {},
        segments.finish() if segments is not None else {},
    )


def _countable(variables: Sequence[Variable], choice: Choice) -> list[Variable]:
    """Variables that two data sets can be compared by: ages need the times of the rows."""
    return [v for v in variables if v.transform != "age" or (v.origin is None and choice.time_column is not None)]


def _wanted(references: Sequence[Reference], choice: Choice) -> tuple[Reference, ...]:
    """What of a profile can be compared: outputs need the column of predictions, ages the times of the rows."""
    named, _ = sort_predictions(choice.prediction)
    countable = set(_countable([reference.variable for reference in references], choice))
    outputs = [reference.variable.role for reference in references if reference.variable.role != "feature"]
    given = set(outputs) if "prediction" in named and len(outputs) == 1 else set(named)
    chosen = [
        reference
        for reference in references
        if reference.variable in countable
        and (reference.variable.role in given or reference.variable.role == "feature")
        and reference.variable.column not in choice.exclude
    ]
    if choice.columns is not None:
        wanted = {*choice.columns, choice.target, choice.by}
        missing = set(choice.columns) - {reference.variable.column for reference in references}
        if missing:
            raise SourceError(f"no column {', '.join(map(repr, sorted(missing)))} in the profile")
        chosen = [r for r in chosen if r.variable.role != "feature" or r.variable.column in wanted]
    return tuple(chosen)


def _segments_of(variables: Sequence[Variable], by: str) -> list[str]:
    """The most frequent values of the column in the reference."""
    for variable in variables:
        if variable.column == by and isinstance(variable.axis, CategoryAxis) and variable.transform == "identity":
            return list(variable.axis.names[:MOST_SEGMENTS])
    names = [v.column for v in variables if isinstance(v.axis, CategoryAxis) and v.transform == "identity"]
    there = f"it has {', '.join(map(repr, names[:10]))}" if names else "it has none"
    raise SourceError(f"by: the reference has no column of categories {by!r}; {there}")
