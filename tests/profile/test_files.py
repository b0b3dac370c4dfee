"""Files: kinds, folders, globs, csv types that change half-way, and what is refused."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from otel_mlmon.profile import Profile, files
from otel_mlmon.profile.sources import SourceError


def build(data, **options):
    return Profile.build(data, model="m", created="2026-11-23", **options)


def kinds(profile):
    return {r.variable.name: r.variable.dtype for r in profile.references}


@pytest.fixture
def small_blocks(monkeypatch):
    """Types are guessed from the first kilobyte."""
    monkeypatch.setattr(files, "CSV_BLOCK", 1_000)


def write_csv(path, columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("first", "later", "dtype"),
    [
        ("7", "1.5", "float"),
        ("7", "seven", "string"),
        ("1.5", "high", "string"),
        ("", "8", "integer"),
        ("", "2.5", "float"),
        ("", "text", "string"),
        ("true", "perhaps", "string"),
        ("2020-01-01", "never", "string"),
    ],
)
def test_csv_columns_whose_type_shows_late(first, later, dtype, tmp_path, small_blocks):
    n = 1_000
    path = write_csv(tmp_path / "a.csv", {"id": range(n), "x": [first] * (n - 1) + [later]})
    profile = build(path)
    assert kinds(profile) == {"id": "integer", "x": dtype}
    x = next(r for r in profile.references if r.variable.name == "x")
    assert x.histogram.valid == (1 if first == "" else n)


def test_csv_with_quotes_and_line_breaks(tmp_path):
    (tmp_path / "a.csv").write_text('name,note\n"A, B","one\ntwo"\nC,three\n')
    profile = build(tmp_path / "a.csv")
    assert [r.variable.axis.names for r in profile.references] == [("A, B", "C"), ("one\ntwo", "three")]


def test_a_folder_is_all_its_files_in_order(tmp_path):
    rng = np.random.default_rng(0)
    whole = pa.table({"x": rng.normal(size=3_000), "c": rng.choice(["a", "b"], 3_000)})
    (tmp_path / "day=1").mkdir()
    pa.parquet.write_table(whole.slice(0, 1_000), tmp_path / "day=1" / "0.parquet")
    pa.parquet.write_table(whole.slice(1_000, 1_000), tmp_path / "day=1" / "1.parquet")
    pa.parquet.write_table(whole.slice(2_000), tmp_path / "z.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".hidden.csv").write_text("a\n1\n")
    expected = build(whole)
    for data in (tmp_path, str(tmp_path), f"{tmp_path}/**/*.parquet", [tmp_path / "day=1", tmp_path / "z.parquet"]):
        profile = build(data)
        assert profile.rows == 3_000
        assert profile.plan == expected.plan
        for left, right in zip(profile.references, expected.references, strict=True):
            assert left.histogram.counts.tolist() == right.histogram.counts.tolist()
            assert left.m2 == pytest.approx(right.m2)


def test_files_may_differ_in_columns_and_numeric_types(tmp_path):
    pa.parquet.write_table(pa.table({"x": np.arange(100), "y": np.arange(100.0)}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"x": np.arange(50) / 2, "z": ["a"] * 50}), tmp_path / "b.parquet")
    profile = build(tmp_path)
    assert kinds(profile) == {"x": "float", "y": "float", "z": "string"}
    missing = {r.variable.name: r.histogram.invalid.missing for r in profile.references}
    assert missing == {"x": 0, "y": 50, "z": 100}


def test_an_empty_parquet_file(tmp_path):
    pa.parquet.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "a.parquet")
    profile = build(tmp_path)
    assert (profile.rows, kinds(profile)) == (0, {"x": "empty"})


def test_what_is_not_there_or_not_known_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data file in the folder"):
        build(tmp_path)
    for path in (tmp_path / "no.parquet", f"{tmp_path}/*.csv"):
        with pytest.raises(FileNotFoundError, match="no such data file or folder"):
            build(path)
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(SourceError, match=r"a\.xlsx: not a kind of file"):
        build(tmp_path / "a.xlsx")


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.csv", "a.csv.gz"])
def test_a_broken_file_is_named(name, tmp_path):
    path = tmp_path / name
    broken = b"a,b\n1,2\n1,2,3\n"
    path.write_bytes(gzip.compress(broken)[:-12] if name.endswith("gz") else broken)
    with pytest.raises((SourceError, OSError), match=name.replace(".", r"\.")):
        build(path)


def test_the_labels_of_pandas_rows_are_no_column(tmp_path):
    pd.DataFrame({"x": [1.5, 2.5, 3.5]}, index=[7, 3, 5]).to_parquet(tmp_path / "a.parquet")
    assert "__index_level_0__" in pyarrow.parquet.read_schema(tmp_path / "a.parquet").names
    profile = Profile.build(tmp_path / "a.parquet", model="m")
    assert [reference.variable.name for reference in profile.references] == ["x"]
