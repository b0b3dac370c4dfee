"""Conditions on rows: the rows that pandas gives, and nothing else is run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import otel_mlmon
from otel_mlmon.comparison.where import Condition
from otel_mlmon.profile.sources import SourceError, open_source

DATA = pd.DataFrame(
    {
        "n": [1, 2, 3, 4, 5, 6],
        "x": [0.5, np.nan, 1.5, 2.5, np.nan, 3.5],
        "c": ["a", "b", "a", None, "c", "a"],
        "t": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-02-01", "2026-02-02", "2026-03-01", "2026-03-02"]),
        "f": [True, False, True, False, True, False],
        "two words": [1, 1, 2, 2, 3, 3],
    }
)


@pytest.mark.parametrize("container", ["pandas", "parquet", "polars", "dict"])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n <= 2", [1, 2]),
        ("2 < n < 5", [3, 4]),
        ("3 >= n", [1, 2, 3]),
        ("n != 4 and n > 2", [3, 5, 6]),
        ("n == 1 or c == 'c'", [1, 5]),
        ("not (n == 1)", [2, 3, 4, 5, 6]),
        ('c in ("a", "c")', [1, 3, 5, 6]),
        ("c not in ['a']", [2, 5]),
        ("c is None", [4]),
        ("c is not None", [1, 2, 3, 5, 6]),
        ("x is None", [2, 5]),
        ("x < 2", [1, 3]),
        ("t >= '2026-02-02' and t < '2026-03-02'", [4, 5]),
        ("f", [1, 3, 5]),
        ("not f", [2, 4, 6]),
        ("f == True", [1, 3, 5]),
        ('col("two words") == 2', [3, 4]),
        ("n > x", [1, 3, 4, 6]),
        ("n == -1", []),
    ],
)
def test_the_rows_are_those_that_it_is_true_for(text, rows, container, tmp_path):
    data = DATA
    if container == "parquet":
        data = tmp_path / "x.parquet"
        pyarrow.parquet.write_table(pa.Table.from_pandas(DATA), data, row_group_size=2)
    elif container == "polars":
        import polars as pl

        data = pl.from_pandas(DATA)
    elif container == "dict":
        data = {name: DATA[name].to_numpy() for name in DATA}
    found = [
        n
        for chunk in Condition.parse(text).keep(open_source(data)).open()
        for n in list(np.asarray(chunk.columns["n"]))
    ]
    assert found == rows


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n ==",
        "n = 1",
        "__import__('os').system('true')",
        "n.real == 1",
        "n + 1 == 2",
        "1 == 1",
        "lambda: n",
        "[n for n in (1, 2)]",
        "col(n) == 1",
        "col('n', 'x') == 1",
        "f'{n}' == '1'",
        "n if f else x",
        "(" * 300 + "n" + ")" * 300,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(SourceError, match="where: "):
        Condition.parse(text)


def test_columns_and_types_that_do_not_fit_are_told():
    with pytest.raises(SourceError, match="where: no column 'nope' in the data"):
        otel_mlmon.compare(DATA, DATA, where="nope == 1")
    with pytest.raises(SourceError, match="where: "):
        otel_mlmon.compare(DATA, DATA, where="n == 'a'")
    with pytest.raises(SourceError, match="where: "):
        otel_mlmon.compare(DATA, DATA, where="t > 'yesterday'")


def test_each_side_may_have_its_own():
    result = otel_mlmon.compare(DATA, DATA, where="n > 1", reference_where="n < 5", current_where="n >= 5")
    assert (result.reference.rows, result.current.rows) == (3, 2)
