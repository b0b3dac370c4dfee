"""The document: exact, canonical, and refused with the field's name where it is broken. The peer is the JSON Schema."""

import base64
import copy
import errno
import json
import os
import re
import resource
import stat
import zlib
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.numerics.calibration import fit_calibration
from otel_mlmon.numerics.histogram import Histogram, Invalid
from otel_mlmon.numerics.windows import RATES
from otel_mlmon.profile import Profile, ProfileError, Reference, Variable
from otel_mlmon.profile.windows import Windows

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "profile.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.filter(lambda text: text not in ("", "_OTHER_", "_UNSEEN_"))
invalids = st.builds(Invalid, counts, counts, counts, counts)


@st.composite
def numeric_references(draw, name):
    edges = np.array(sorted(draw(st.sets(finite, min_size=1, max_size=8))))
    low = draw(st.integers(0, edges.size - 1))
    axis = NumericAxis(edges, low, draw(st.integers(low, edges.size - 1)))
    cells = np.array(draw(st.lists(counts, min_size=axis.cells, max_size=axis.cells)))
    least, most = sorted(draw(st.tuples(finite, finite)))
    bounds = (least, most) if cells.any() else (np.inf, -np.inf)
    histogram = Histogram(axis, cells, draw(invalids), draw(finite), *bounds)
    variable = Variable(name, draw(texts), "feature", "float", "identity", axis, (0,), draw(st.none() | finite))
    weight = draw(st.none() | st.floats(0, 1e300))
    return Reference(variable, histogram, draw(st.floats(0, 1e300)), weight)


@st.composite
def category_references(draw, name):
    every = draw(st.lists(names, unique=True, max_size=8))
    cut = draw(st.integers(0, len(every)))
    axis = CategoryAxis(tuple(every[:cut]), tuple(every[cut:]), draw(st.booleans()))
    cells = np.array(draw(st.lists(counts, min_size=axis.cells, max_size=axis.cells)))
    variable = Variable(name, name, "feature", "string", "identity", axis, (0,))
    return Reference(variable, Histogram(axis, cells, draw(invalids)))


@st.composite
def profiles(draw):
    columns = draw(st.lists(names, unique=True, max_size=4))
    references = [draw(numeric_references(name) | category_references(name)) for name in columns]
    return Profile(
        model=draw(names),
        version=draw(texts),
        references=tuple(references),
        rows=draw(counts),
        created="2026-11-23T20:00:00Z",
        model_hash=draw(texts),
        framework=draw(texts),
        trained=draw(texts),
        packages=draw(st.dictionaries(texts, texts, max_size=3)),
        notes=tuple(draw(st.lists(texts, max_size=3))),
    )


@given(profiles())
@settings(max_examples=60, deadline=None)
def test_a_document_gives_back_exactly_what_was_written_and_is_valid(profile):
    data = profile.to_bytes()
    again = Profile.from_bytes(data)
    assert again == profile
    assert again.to_bytes() == data
    assert again.hash == profile.hash
    VALIDATOR.validate(json.loads(data))


@given(profiles())
@settings(max_examples=20, deadline=None)
def test_the_layout_does_not_matter(profile):
    squeezed = json.dumps(json.loads(profile.to_bytes()), separators=(",", ":"), sort_keys=True).encode()
    assert Profile.from_bytes(squeezed).to_bytes() == profile.to_bytes()


def test_whole_numbers_may_be_written_without_a_point():
    document = example()
    document["references"][0]["histogram"]["sum"] = 6
    left = Profile.from_bytes(json.dumps(document).encode())
    document["references"][0]["histogram"]["sum"] = 6.0
    assert left.hash == Profile.from_bytes(json.dumps(document).encode()).hash


def test_the_document_can_be_read_and_compared_line_by_line():
    lines = Profile.from_bytes(json.dumps(example()).encode()).to_bytes().decode().splitlines()
    assert lines[:4] == ["{", ' "format": "otel-mlmon/profile",', ' "format_version": 1,', ' "model": "flights",']
    assert '    "edges": [0.0, 1.0, 2.0, 3.0]' in lines
    assert max(map(len, lines)) <= 130


def some_windows():
    rng = np.random.default_rng(0)
    counts = rng.poisson(20, (200, 2))
    rates = np.zeros((200, len(RATES)), dtype=np.int64)
    return np.arange(200), counts, rates, counts.sum(axis=1)


CALIBRATION = fit_calibration(*some_windows())


def example():
    """A small valid document as plain JSON values."""
    number = NumericAxis(np.array([0.0, 1.0, 2.0, 3.0]), 1, 2)
    word = CategoryAxis(("UA", "AA"), ("DL",))
    references = (
        Reference(
            Variable("x", "x", "feature", "float", "identity", number, (0, 2)),
            Histogram(number, np.array([0, 1, 2, 0, 0]), Invalid(missing=1), 4.5, 0.5, 2.0),
            1.5,
            0.25,
            CALIBRATION,
        ),
        Reference(
            Variable("c", "c", "feature", "string", "identity", word, (0,)), Histogram(word, np.array([2, 1, 0, 1]))
        ),
    )
    windows = Windows(np.array([5, 7]), (np.ones((2, 9), np.int32), np.ones((2, 8), np.int32)))
    return json.loads(Profile("flights", "3", references, 4, "2026-11-23T20:00:00Z", windows=windows).to_bytes())


BROKEN = [  # what is put where; None removes. The schema refuses these too.
    ("format", "otel-mlmon/other"),
    ("format", None),
    ("format_version", 2),
    ("format_version", "1"),
    ("format_version", True),
    ("format_version", None),
    ("model", ""),
    ("model", 3),
    ("model", None),
    ("version", None),
    ("version", "v" * 1001),
    ("rows", -1),
    ("rows", 1.5),
    ("rows", True),
    ("rows", 2**53 + 1),
    ("packages", []),
    ("packages.numpy", 2),
    ("notes", "none"),
    ("notes[0]", 7),
    ("surprise", 1),
    ("references", {}),
    ("references[0]", 1),
    ("references[0].name", ""),
    ("references[0].name", None),
    ("references[0].role", "label"),
    ("references[0].dtype", "complex"),
    ("references[0].transform", ["age"]),
    ("references[0].origin", "now"),
    ("references[0].importance", -1.0),
    ("references[0].extra", 0),
    ("references[0].axis", None),
    ("references[0].axis.kind", "circular"),
    ("references[0].axis.edges", []),
    ("references[0].axis.edges[1]", "1"),
    ("references[0].axis.edges[1]", 10**400),
    ("references[0].axis.low", -1),
    ("references[0].axis.bins", 4),
    ("references[0].decision", None),
    ("references[0].decision", []),
    ("references[0].decision[0]", -1),
    ("references[0].calibration", 1),
    ("references[0].calibration.shares", None),
    ("references[0].calibration.shares[0][0]", -0.5),
    ("references[0].calibration.typical", []),
    ("references[0].calibration.peaks[0][0]", "high"),
    ("references[0].calibration.windows", 1.5),
    ("references[0].calibration.odd", 0),
    ("windows", []),
    ("windows.rows", -1),
    ("windows.packed", 1),
    ("references[0].histogram", []),
    ("references[0].histogram.counts", {}),
    ("references[0].histogram.counts[1]", -1),
    ("references[0].histogram.counts[1]", 1.5),
    ("references[0].histogram.invalid", None),
    ("references[0].histogram.invalid.inf", None),
    ("references[0].histogram.invalid.odd", 0),
    ("references[0].histogram.sum", True),
    ("references[0].histogram.sum", None),
    ("references[0].histogram.m2", -0.5),
    ("references[0].histogram.min", "low"),
    ("references[1].axis.closed", 1),
    ("references[1].axis.names", "UA"),
    ("references[1].axis.names[0]", 1),
    ("references[1].axis.names[0]", "_OTHER_"),
    ("references[1].axis.names[1]", "UA"),
]

INCONSISTENT = [  # what a JSON Schema cannot say
    ("references[0].axis.edges[1]", 0.0),
    ("references[0].axis.low", 3),
    ("references[0].axis.high", 4),
    ("references[0].decision", [1, 2]),
    ("references[0].decision", [0, 2, 1]),
    ("references[0].decision", [0, 1_000]),
    ("references[0].calibration.rows", [1.0, 2.0]),
    ("references[0].calibration.shares", [[1.0]]),
    ("references[0].calibration.cells", [[0.0, 0.0]]),
    ("references[0].histogram.counts", [1, 2]),
    ("references[0].histogram.counts[1]", 2**53),
    ("references[0].histogram.min", 3.0),
    ("references[0].histogram.max", "null"),
    ("references[1].histogram.min", 1.0),
    ("references[1].axis.others[0]", "UA"),
    ("references[1].name", "x"),
]


def put(document, path, value):
    """Set, add or (None) remove the field at a path like a.b[0]."""
    *steps, last = path.replace("[", ".[").removeprefix(".").split(".")
    place = document
    for step in steps:
        place = place[int(step[1:-1])] if step.startswith("[") else place[step]
    key = int(last[1:-1]) if last.startswith("[") else last
    if isinstance(key, int) and key == len(place):
        place.append(value)
    elif value is None:
        del place[key]
    else:
        place[key] = None if value == "null" else value


@pytest.mark.parametrize(("path", "value"), BROKEN, ids=lambda part: str(part)[:40])
def test_a_broken_document_is_refused_by_us_and_by_the_schema(path, value):
    document = copy.deepcopy(example())
    VALIDATOR.validate(document)
    put(document, path, value)
    with pytest.raises(ProfileError) as refused:
        Profile.from_bytes(json.dumps(document).encode())
    named = re.sub(r"((calibration|axis)\.(?!edges)\w+)\[.*", r"\1", path)
    assert named in str(refused.value)
    if "10000000" not in str(value):  # schema libraries compare huge integers as they are
        assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(("path", "value"), INCONSISTENT, ids=lambda part: str(part)[:40])
def test_an_inconsistent_document_is_refused(path, value):
    document = copy.deepcopy(example())
    put(document, path, value)
    with pytest.raises(ProfileError, match=r"references\[\d\]\.(axis|calibration|decision|histogram|name)"):
        Profile.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"PAR1", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", '"format"'),
        (b"null", '"format"'),
        (b'{"format": "otel-mlmon/profile", "format": 1}', "'format' occurs twice"),
        (
            b'{"format": "otel-mlmon/profile",' + b",".join(b'"%d": 0' % i for i in range(100_000)) + b',"0": 0}',
            "'0' occ",
        ),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": "otel-mlmon/profile", "format_version": 1, "x": ' + b'{"a":' * 100_000, "not JSON"),
        (b'{"format": "otel-mlmon/profile", "rows": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'\xef\xbb\xbf{"format": "otel-mlmon/profile"}', "not JSON"),
        ('{"format": "Z\xfcrich"}'.encode("latin-1"), "not JSON: 'utf-8' codec can't decode"),
        (b" " * ((64 << 20) + 1), "more than"),
    ],
)
def test_foreign_bytes_are_refused(data, message):
    with pytest.raises(ProfileError, match=message):
        Profile.from_bytes(data)


def test_a_truncated_document_is_refused_wherever_it_ends():
    data = Profile.from_bytes(json.dumps(example()).encode()).to_bytes()
    for end in range(len(data) - 2):  # without the brace at the end, and the newline
        with pytest.raises(ProfileError):
            Profile.from_bytes(data[:end])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("field", "path"),
    [
        ('"edges": [0.0', "references[0].axis.edges[0]"),
        ('"sum": 4.5', "references[0].histogram.sum"),
        ('"rows": 4', "rows"),
        ('"counts": [0', "references[0].histogram.counts[0]"),
        ('"notes": [', "notes[0]"),
    ],
)
def test_what_is_no_number_is_refused_where_it_stands(number, field, path):
    text = json.dumps(example())
    assert field in text
    begin = field.rstrip("0123456789.")
    with pytest.raises(ProfileError, match=re.escape(f"{path}: must be ") + ".*, got -?(nan|inf)"):
        Profile.from_bytes(text.replace(field, begin + number, 1).encode())


@pytest.mark.parametrize(("feature", "number"), [({}, 1_000_000), (example()["references"][1], 20_001)])
def test_too_many_features_are_refused(feature, number):
    document = example()
    features = ",".join([json.dumps(feature)] * number)
    del document["references"]
    data = f'{json.dumps(document)[:-1]}, "references": [{features}]}}'.encode()
    with pytest.raises(ProfileError, match=f"^references: must be a list of at most 20000, got 'a list of {number}'$"):
        Profile.from_bytes(data)


def leaves(value, path=()):
    """Paths of all fields."""
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*path, key))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(sorted(leaves(example()), key=str)), ANYTHING)
@settings(max_examples=300)
def test_whatever_stands_in_a_field_it_is_read_or_refused_and_never_fails_otherwise(path, value):
    document = example()
    *steps, last = path
    place = document
    for step in steps:
        place = place[step]
    place[last] = value
    data = json.dumps(document).encode().replace(b"Infinity", b"1e400")
    try:
        profile = Profile.from_bytes(data)
    except ProfileError:
        return
    assert Profile.from_bytes(profile.to_bytes()) == profile


@pytest.mark.parametrize(
    ("rows", "packed", "message"),
    [
        (2, "no base64!", "packed: "),
        (2, base64.b64encode(b"no zlib").decode(), "packed: "),
        (3, None, "must hold 3 rows of 18 integers"),
        (1, None, "must hold 1 rows of 18 integers"),
        (2**50, None, "at most"),
        (2, base64.b64encode(zlib.compress(bytes(144))).decode(), "by ascending minutes"),
        (2, base64.b64encode(zlib.compress(bytes(10**6))).decode(), "must hold 2 rows"),
    ],
)
def test_broken_windows_are_refused(rows, packed, message):
    document = example()
    document["windows"]["rows"] = rows
    document["windows"]["packed"] = document["windows"]["packed"] if packed is None else packed
    with pytest.raises(ProfileError, match=rf"^windows\.(rows|packed): .*{message.removeprefix('packed: ')}"):
        Profile.from_bytes(json.dumps(document).encode())


def test_a_newer_version_says_so():
    document = {**example(), "format_version": 2}
    with pytest.raises(ProfileError, match=r"format_version: must be 1, got 2; it was written by a newer otel-mlmon"):
        Profile.from_bytes(json.dumps(document).encode())


def test_lone_surrogates_are_refused():
    document = example()
    document["references"][1]["axis"]["names"][0] = "\ud800"
    with pytest.raises(ProfileError, match=r"names\[0\]: must be valid Unicode"):
        Profile.from_bytes(json.dumps(document).encode())


def test_saving_replaces_the_file_whole_and_honours_the_umask(tmp_path):
    profile = Profile.from_bytes(json.dumps(example()).encode())
    path = tmp_path / "m.profile.json"
    path.write_text("old")
    mask = os.umask(0o027)
    try:
        profile.save(path)
    finally:
        os.umask(mask)
    assert Profile.load(str(path)) == profile
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["m.profile.json"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "m.profile.json"
    path.write_text("old")
    profile = Profile.from_bytes(json.dumps(example()).encode())
    with pytest.raises(UnicodeEncodeError):
        replace(profile, model="\ud800").save(path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_save_that_runs_out_of_room_names_the_file_and_leaves_the_old_one(tmp_path):
    """A limit of the size of files stands in for a full disk: the kernel refuses the write in the middle alike."""
    path = tmp_path / "m.profile.json"
    profile = Profile.from_bytes(json.dumps(example()).encode())
    profile.save(path)
    old = path.read_bytes()
    larger = replace(profile, notes=tuple("n" * 1000 for _ in range(1000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(old), limits[1]))
    try:
        with pytest.raises(OSError, match=r"m\.profile\.json") as failed:
            larger.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.errno == errno.EFBIG
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    larger.save(path)
    assert Profile.load(path) == larger


@pytest.mark.parametrize("kind", ["sparse", "endless"])
def test_of_a_file_without_end_no_more_is_read_than_shows_it(kind, tmp_path):
    path = Path("/dev/zero")
    if kind == "sparse":
        path = tmp_path / "m.json"
        with path.open("wb") as file:
            file.truncate(1 << 42)
    with pytest.raises(ProfileError, match=f"^{path}: not a profile: more than {64 << 20} bytes$"):
        Profile.load(path)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ProfileError, match=r"broken\.json: not a profile"):
        Profile.load(path)


def test_the_hash_is_of_the_content():
    profile = Profile.from_bytes(json.dumps(example()).encode())
    assert len(profile.hash) == 16
    assert int(profile.hash, 16) >= 0
    assert replace(profile, version="4").hash != profile.hash
    assert replace(profile, created="2031-01-01T00:00:00Z").hash == profile.hash  # built anew, of the same data
    assert replace(profile, packages={"pandas": "1"}).hash == profile.hash  # with other things imported
