"""Files for the benchmark of comparisons: 30 numeric and 5 categorical columns, or more of the numeric ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP = 100_000  # rows of a row group
NUMERIC = 30
CATEGORIES = (3, 8, 20, 50, 200)


def make_file(path: Path, rows: int, seed: int, numeric: int = NUMERIC) -> Path:
    """Write the file, unless it is there."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    part = path.with_suffix(".part")
    first = make_table(rng, min(rows, GROUP), numeric)
    with pq.ParquetWriter(part, first.schema) as writer:
        writer.write_table(first)
        for start in range(GROUP, rows, GROUP):
            writer.write_table(make_table(rng, min(GROUP, rows - start), numeric))
    return part.rename(path)


def make_table(rng: np.random.Generator, rows: int, numeric: int) -> pa.Table:
    """Six kinds of numbers in turn, the last with 2 % missing; categories by Zipf's law."""
    makers: list[Any] = [
        lambda: rng.normal(size=rows),
        lambda: rng.lognormal(size=rows),
        lambda: rng.standard_t(4, size=rows),
        lambda: rng.integers(0, 1_000, rows),
        lambda: rng.exponential(size=rows),
        lambda: np.where(rng.random(rows) < 0.02, np.nan, rng.gamma(2, size=rows)),
    ]
    columns = {f"n{i}": pa.array(makers[i % 6](), from_pandas=True) for i in range(numeric)}
    for i, size in enumerate(CATEGORIES):
        shares = 1 / np.arange(1, size + 1)
        names = np.array([f"category-{j}" for j in range(size)])
        columns[f"c{i}"] = pa.array(names[rng.choice(size, size=rows, p=shares / shares.sum())])
    return pa.table(columns)
