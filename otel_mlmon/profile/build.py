"""Build a profile: one pass over the data to decide what to count, one to count it, in bounded memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from otel_mlmon.profile.counting import Tally
from otel_mlmon.profile.document import Plan, Profile, Variable
from otel_mlmon.profile.packages import list_packages
from otel_mlmon.profile.parallel import Task, side_by_side
from otel_mlmon.profile.physical import Physical, absent, read_physical
from otel_mlmon.profile.planning import KEPT, TYPES, Column, Output, Scan, Type, plan_column
from otel_mlmon.profile.roles import Block, Selection, sort_predictions
from otel_mlmon.profile.sampling import SEED, Sample
from otel_mlmon.profile.sources import Source, SourceError, open_source
from otel_mlmon.profile.window_tally import WindowTally, find_minutes, join_windows
from otel_mlmon.profile.windows import calibrate, kept_days

CATEGORIES: Final = 50
MOST_CATEGORIES: Final = 1_000

Importance = Mapping[str, float] | Sequence[float] | np.ndarray[Any, Any]
Notify = Callable[[str, int, "int | None"], None]


def build_profile(
    data: Any,
    *,
    model: str,
    version: str = "",
    predictions: Any = None,
    classes: Sequence[Any] | None = None,
    types: Mapping[str, Type] | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    plan: Plan | Profile | None = None,
    time_column: str | None = None,
    timezone: str = "",
    importance: Importance | None = None,
    categories: int = CATEGORIES,
    seed: int = SEED,
    model_hash: str = "",
    framework: str = "",
    trained: str | dt.datetime = "",
    created: str | dt.datetime | None = None,
    part: bool = False,
    progress: bool | Notify = False,
) -> Profile:
    """Count a data set.

    Args:
        data: a pandas or polars DataFrame, a pyarrow Table, RecordBatch, RecordBatchReader or Dataset, a numpy array
            (also structured; the columns of a plain one are x0, x1, ...), a dict of columns, files (parquet, csv,
            feather), folders or globs of them, or an iterable of such chunks. What can be read only once needs a plan.
        model: name of the model.
        version: of the model.
        predictions: what the model said for these rows, see `roles.sort_predictions`; or the name of a column.
        classes: labels of the columns of predictions, where these are probabilities of classes (`model.classes_`).
        types: of columns for which the type that is found is not wanted: "numeric", "category", "boolean", "datetime",
            "text".
        columns: names of the features; else all columns that are nothing else.
        exclude: columns that are no features.
        plan: what to count, from `Profile.plan` or another profile; else it is decided from the data.
        time_column: the time of each row (datetimes, or seconds since 1970), from which ages are counted and what is
            normal from minute to minute is learnt.
        timezone: IANA name of the zone of naive times in it; "" means UTC.
        importance: of the features to the model, by name, or in the order of the columns.
        categories: how many are listed by name.
        seed: of the sample that cells are chosen from.
        model_hash: of the serialised model.
        framework: that computes the predictions.
        trained: when.
        created: of the profile; None means now.
        part: of a reference that no machine holds, to be merged: then the counts by minute are kept, so that what is
            learnt from all parts is what would be learnt from all rows.
        progress: show a bar on standard error; or a function that is told (what, rows so far, rows in all or None).

    Raises:
        SourceError: the data cannot be read, or an option names a column that is not there.
    """
    if not model or not isinstance(model, str):
        raise SourceError(f"model: must be a name, got {model!r}")
    if not isinstance(version, str):
        raise SourceError(f"version: must be text, got {version!r}; {str(version)!r} is")
    source, selection = _select(
        data,
        sort_predictions(predictions, classes),
        columns=columns,
        exclude=exclude,
        time_column=time_column,
        timezone=timezone,
    )
    if isinstance(plan, Profile):
        plan = plan.plan
    if plan is None and source.once:
        raise SourceError(
            f"a {type(data).__name__} can be read only once, and a profile takes two passes: "
            "give plan=Profile.plan(sample) made from some rows, or data that can be read again (a file, a table)"
        )
    with notified(progress) as notify:
        if plan is None:
            plan = decide_plan(source, selection, types or {}, categories=categories, seed=seed, notify=notify)
        _check_outputs(plan, {*selection.named, *selection.given})
        days = kept_days(plan.variables)
        tallies = [Tally(v, WindowTally(v, days) if time_column is not None else None) for v in plan.variables]
        rows = _count(source, selection, tallies, notify)
        weights = _read_importance(importance, plan)
        references = [tally.finish(weights.get(tally.variable.column)) for tally in tallies]
        counted = [tally.windows for tally in tallies if tally.windows is not None]
        windows = join_windows(counted) if counted else None
        if windows is not None:
            references = calibrate(windows, references)
    return Profile(
        model=model,
        version=version,
        references=tuple(references),
        rows=rows,
        windows=windows if part else None,
        created=_moment(created if created is not None else dt.datetime.now(dt.timezone.utc)),
        model_hash=model_hash,
        framework=framework,
        trained=_moment(trained),
        packages=list_packages(),
    )


def make_plan(
    sample: Any,
    *,
    predictions: Any = None,
    classes: Sequence[Any] | None = None,
    types: Mapping[str, Type] | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    time_column: str | None = None,
    timezone: str = "",
    categories: int = CATEGORIES,
    seed: int = SEED,
) -> Plan:
    """Decide from some rows what to count; the arguments are those of `build_profile`.

    Categories and ranges are those of the sample: in a part, others are counted as unseen or out of range.
    """
    source, selection = _select(
        sample,
        sort_predictions(predictions, classes),
        columns=columns,
        exclude=exclude,
        time_column=time_column,
        timezone=timezone,
    )
    return decide_plan(source, selection, types or {}, categories=categories, seed=seed, notify=_ignore)


def _select(
    data: Any,
    predictions: tuple[Mapping[Output, str], Mapping[Output, Any]],
    *,
    columns: Sequence[str] | None,
    exclude: Sequence[str],
    time_column: str | None,
    timezone: str,
) -> tuple[Source, Selection]:
    named, given = predictions
    chosen = None if columns is None else tuple(columns)
    return open_source(data), Selection(chosen, tuple(exclude), time_column, timezone, named, given)


# ---------------------------------------------------------------- first pass


def decide_plan(
    source: Source,
    selection: Selection,
    types: Mapping[str, Type],
    *,
    categories: int = CATEGORIES,
    seed: int = SEED,
    notify: Notify,
) -> Plan:
    """Sample and scan the data, and plan every column."""
    if not 1 <= categories <= MOST_CATEGORIES:
        raise SourceError(f"categories: must be from 1 to {MOST_CATEGORIES}, got {categories!r}")
    for name, wanted in types.items():
        if wanted not in TYPES:
            raise SourceError(f"types: of {name!r} must be one of {', '.join(TYPES)}, got {wanted!r}")
    scans: dict[tuple[Output | None, str], Scan] = {}
    sample = Sample(np.random.default_rng(seed), expected=source.rows)
    done = 0
    with side_by_side() as run:
        for block in selection.read(source):
            chosen = sample.choose(block.rows)
            columns = dict(_columns_of(block))
            parts: dict[Any, Physical] = dict.fromkeys(columns, absent(0))
            for key in columns:
                scans.setdefault(key, Scan(categories + KEPT))

            def look(key: tuple[Output | None, str], block: Block = block, columns: Any = columns) -> None:
                physical = read_physical(columns[key])
                listed = types.get(key[1]) == "category" or key[0] is not None
                scans[key].update(physical, block.time, categories=listed)
                parts[key] = physical.select(chosen)  # noqa: B023 -- done before the next block

            run([partial(look, key) for key in columns])
            if block.time is not None:
                parts["time"] = Physical("datetime", block.time[chosen], np.isfinite(block.time[chosen]))
            sample.add(parts)
            done += block.rows
            notify("looking", done, source.rows)
    samples: dict[Any, Physical] = sample.finish()
    unknown = types.keys() - {name for output, name in scans if output is None}
    if unknown:
        raise SourceError(f"types: no column {', '.join(map(repr, sorted(unknown)))} in the data")
    if not scans:
        raise SourceError("the data has no columns")
    times = samples.pop("time").values if "time" in samples else None
    planned: dict[Any, list[Variable]] = {key: [] for key in scans}

    def decide(key: tuple[Output | None, str]) -> None:
        output, name = key
        column = Column(name, output, samples.get(key, absent(0)), times, scans[key], types.get(name))
        planned[key] = plan_column(column, categories)

    with side_by_side() as run:
        run([partial(decide, key) for key in scans])
    variables = [variable for part in planned.values() for variable in part]
    _check_distinct(variables)
    return Plan(tuple(variables))


def _columns_of(block: Block) -> Iterator[tuple[tuple[Output | None, str], Any]]:
    for name, column in block.features.items():
        yield (None, name), column
    for output, column in block.outputs.items():
        yield (output, ""), column


def _check_distinct(variables: Iterable[Variable]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for variable in variables:
        key = (variable.role, variable.name)
        if key in seen:
            raise SourceError(
                f"columns {seen[key]!r} and {variable.column!r} both give a feature {variable.name!r}: "
                "exclude or rename one"
            )
        seen[key] = variable.column


# ---------------------------------------------------------------- second pass


def _count(source: Source, selection: Selection, tallies: list[Tally], notify: Notify) -> int:
    """Count all blocks; the number of rows."""
    done = 0
    with side_by_side() as run:
        for block in selection.read(source):
            run(count_block(block, tallies))
            done += block.rows
            notify("counting", done, source.rows)
    return done


def count_block(block: Block, tallies: Sequence[Tally]) -> list[Task]:
    """What counts a block, a task for each tally."""
    windowed = any(tally.windows is not None for tally in tallies)
    minutes = find_minutes(block.time) if windowed and block.time is not None else None
    return [
        partial(tally.add, _column_for(tally.variable, block), block.rows, block.time, minutes) for tally in tallies
    ]


def _check_outputs(plan: Plan, given: set[Output]) -> None:
    """Every output of the plan needs predictions."""
    wanted = [variable.role for variable in plan.variables if variable.role != "feature"]
    if "prediction" in given and len(wanted) > 1:
        raise SourceError(
            f"predictions: the plan has the roles {', '.join(wanted)}; say which, as in {{{wanted[0]!r}: ...}}"
        )
    for role in wanted:
        if role not in given and "prediction" not in given:
            raise SourceError(f"predictions: the plan has the role {role}, and none are given for it")


def _column_for(variable: Variable, block: Block) -> Any:
    """The column of a variable; None where the block has none. A single output goes where the plan wants it."""
    if variable.role == "feature":
        return block.features.get(variable.column)
    return block.outputs.get(variable.role, block.outputs.get("prediction"))


def _read_importance(importance: Importance | None, plan: Plan) -> dict[str, float]:
    columns = list(dict.fromkeys(variable.column for variable in plan.variables if variable.role == "feature"))
    if importance is None:
        return {}
    if isinstance(importance, Mapping):
        unknown = importance.keys() - set(columns)
        if unknown:
            raise SourceError(f"importance: no feature {', '.join(map(repr, sorted(unknown)))}")
        weights = {name: float(weight) for name, weight in importance.items()}
    elif len(importance) != len(columns):
        raise SourceError(f"importance: {len(importance)} numbers for {len(columns)} features")
    else:
        weights = {name: float(weight) for name, weight in zip(columns, importance, strict=True)}
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise SourceError(f"importance: of {name!r} must be a finite number >= 0, got {weight!r}")
    return weights


def _moment(value: str | dt.datetime) -> str:
    """ISO 8601, UTC, to the second; a naive time is UTC."""
    if isinstance(value, str):
        if not value:
            return ""
        try:
            value = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise SourceError(f"a time must be ISO 8601, got {value!r}") from None
    aware = value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)
    return aware.astimezone(dt.timezone.utc).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


# ---------------------------------------------------------------- progress


def _ignore(what: str, done: int, rows: int | None) -> None:
    pass


def notified(progress: bool | Notify) -> Any:
    """A context that gives the function to notify: a bar on standard error, the caller's own, or none."""
    import contextlib

    if callable(progress):
        return contextlib.nullcontext(progress)
    if not progress:
        return contextlib.nullcontext(_ignore)
    from otel_mlmon.profile.progress import show_progress

    return show_progress()
