"""What a model says is counted as value, class or score."""

from __future__ import annotations

import array
import math
import time
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otel_mlmon.numerics.binning import CategoryAxis, NumericAxis
from otel_mlmon.outputs import read_outputs
from otel_mlmon.profile.document import Plan, Variable
from otel_mlmon.recorder import Recorder
from otel_mlmon.tallies import LABEL_LENGTH, LABELS, VariableKey

AXIS = NumericAxis(np.array([0.0, 0.5, 1.0]), 0, 2)
PLAN = Plan(
    (
        Variable("class", "", "class", "string", "identity", CategoryAxis(("no", "yes")), (0,)),
        Variable("score", "", "score", "float", "identity", AXIS, (0,)),
    )
)


def plain(outputs):
    return {role: sorted(np.asarray(values).tolist()) for role, values in outputs.items()}


def recorder(plan):
    return Recorder(plan, time.time, lambda: None, pytest.fail)


@pytest.mark.parametrize(
    ("y", "roles", "expected"),
    [
        (np.array([0.5, 1.5]), "", {"value": [0.5, 1.5]}),
        (np.array([1, 0]), "", {"class": [1, 0]}),
        (np.array(["a", "b"]), "", {"class": ["a", "b"]}),
        (np.array([True, False]), "", {"class": [True, False]}),
        ([0.5, 1.5], "", {"value": [0.5, 1.5]}),
        ([1, 0], "", {"class": [1, 0]}),
        (0.5, "", {"value": [0.5]}),
        (np.float32(0.5), "", {"value": [0.5]}),
        (3, "", {"class": [3]}),
        ("yes", "", {"class": ["yes"]}),
        (np.array(0.5), "", {"value": [0.5]}),
        (pd.Series([0.5, 1.5]), "", {"value": [0.5, 1.5]}),
        (pd.Series(["a", "b"]), "", {"class": ["a", "b"]}),
        (pl.Series([0.5, 1.5]), "", {"value": [0.5, 1.5]}),
        (pa.array([0.5, 1.5]), "", {"value": [0.5, 1.5]}),
        (pl.Series([1, 0]), "", {"class": [1, 0]}),
        (pa.array([1, 0]), "", {"class": [1, 0]}),
        (array.array("d", [0.5]), "", {"value": [0.5]}),
        ((0.5, 1.5), "", {"value": [0.5, 1.5]}),
        ([[0.5], [1.5]], "", {"value": [0.5, 1.5]}),
        (np.array([[0.5], [1.5]]), "", {"value": [0.5, 1.5]}),
        # A profile says what one dimension is.
        (np.array([0.5]), "score", {"score": [0.5]}),
        (np.array([0.5]), "class score", {"score": [0.5]}),
        (np.array([0.5]), "class", {"class": [0.5]}),
        (np.array([1, 0]), "value", {"value": [1, 0]}),
        (np.array([1, 0]), "class value", {"class": [1, 0]}),
        (np.array([1, 0]), "score", {"score": [1, 0]}),
        # Two dimensions are scores by class.
        (np.array([[0.2, 0.8], [0.9, 0.1]]), "", {"score": [0.8, 0.1]}),
        (np.array([[0.2, 0.8], [0.9, 0.1]]), "score class", {"score": [0.8, 0.1], "class": [1, 0]}),
        (np.array([[0.2, 0.7, 0.1]]), "", {"score": [0.7]}),
        ([[0.2, 0.7, 0.1]], "class", {"score": [0.7], "class": [1]}),
        (pd.DataFrame([[0.2, 0.8]]), "", {"score": [0.8]}),
        (pl.DataFrame({"a": [0.2], "b": [0.8]}), "", {"score": [0.8]}),
        (pa.table({"a": [0.2], "b": [0.8]}), "", {"score": [0.8]}),
        # A mapping names them.
        ({"value": [1, 2]}, "", {"value": [1, 2]}),
        ({"score": 0.5, "class": "yes"}, "", {"score": [0.5], "class": ["yes"]}),
        ({}, "", {}),
    ],
)  # fmt: skip
def test_an_output_has_the_role_that_its_shape_and_the_profile_say(y, roles, expected):
    assert plain(read_outputs(y, roles.split())) == plain(expected)


def test_classes_have_the_labels_of_the_model():
    scores = np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]])
    found = plain(read_outputs(scores, ["class", "score"], classes=["low", "middle", "high"]))
    assert found == {"score": [0.5, 0.7], "class": ["low", "middle"]}


@pytest.mark.parametrize(
    "y", [{"label": [1]}, np.zeros((2, 2, 2)), {"value": [1], 3: [2]}], ids=["key", "3-D", "number"]
)
def test_what_is_no_output_says_so(y):
    with pytest.raises(TypeError):
        read_outputs(y, [])


def test_an_output_that_the_caller_overwrites_later_is_counted_as_it_was():
    held = recorder(PLAN)
    values, scores, listed = np.array([0.25]), np.array([[0.75, 0.25]]), [0.25]
    table = pa.array(values)
    for y in (values, scores, listed, {"score": values}, pd.Series(values, copy=False), pl.Series(values), table):
        held.observe(None, y)
    values[:] = scores[:] = listed[0] = 0.75
    score = held.collect()[None][VariableKey("score", "score")]
    assert score.counts.tolist() == [0, 7, 0, 0]


@given(arrays(np.float64, st.tuples(st.integers(0, 20), st.integers(2, 4)), elements=st.floats(0, 1)))
def test_scores_and_classes_count_as_a_naive_loop_does(scores):
    held = recorder(PLAN)
    held.observe(None, scores, classes=["no", "yes", "perhaps", "never"][: scores.shape[1]])
    tallies = held.collect().get(None, {})
    cells, labels = [0] * 4, Counter()
    for row in scores.tolist():
        score = row[1] if len(row) == 2 else max(row)
        cells[sum(score > edge for edge in (0.0, 0.5, 1.0))] += 1
        labels[("no", "yes", "_UNSEEN_", "_UNSEEN_")[row.index(max(row))]] += 1
    if len(scores):
        assert tallies[VariableKey("score", "score")].counts.tolist() == cells
        assert tallies[VariableKey("class", "class")].labels == labels


@pytest.mark.parametrize(
    "kind", [list, np.array, lambda v: pd.Series(v, dtype=object), lambda v: np.array(v, dtype=object)]
)
def test_classes_without_a_profile_are_counted_by_label(kind):
    held = recorder(None)
    held.observe(None, kind(["a", "b", "a"]))
    held.observe(None, {"class": kind([True, False])})
    held.observe(None, {"class": kind([1, 2])})
    found = held.collect()[None][VariableKey("class", "class")]
    assert found.labels == {"a": 2, "b": 1, "true": 1, "false": 1, "1": 1, "2": 1}


def test_classes_that_are_no_classes_are_counted_by_reason():
    held = recorder(None)
    held.observe(None, {"class": [None, pd.NA, math.nan, math.inf, -math.inf, object(), [1], "a", np.float64(2)]})
    found = held.collect()[None][VariableKey("class", "class")]
    assert (found.labels, found.missing, found.inf, found.wrong_type, found.seen) == ({"a": 1, "2": 1}, 3, 2, 2, 9)


def test_labels_without_a_profile_are_bounded_in_number_and_length():
    held = recorder(None)
    many = [f"label {i}" for i in range(3 * LABELS)]
    held.observe(None, {"class": ["x" * (LABEL_LENGTH + 1), "y" * LABEL_LENGTH, *many]})
    held.observe(None, {"class": many[:2]})
    held.observe({"essay": ["lorem " * 1000, "short"]}, None)
    tallies = held.collect()[None]
    labels = tallies[VariableKey("class", "class")].labels
    assert len(labels) <= LABELS + 1
    assert sum(labels.values()) == 3 * LABELS + 4
    assert labels["y" * LABEL_LENGTH] == 1
    assert labels[many[0]] == 2
    assert max(map(len, labels)) <= LABEL_LENGTH
    assert tallies[VariableKey("feature", "essay")].labels == {"_OTHER_": 1, "short": 1}


def test_outputs_are_counted_although_the_rows_cannot_be_read():
    from otel_mlmon.columns import UnreadableError

    held = recorder(PLAN)
    with pytest.raises(UnreadableError):
        held.observe(iter([]), ["yes"])
    assert held.collect()[None][VariableKey("class", "class")].labels == {"yes": 1}


@pytest.mark.parametrize(
    "y",
    [
        [0.25, None],
        np.array([0.25, None], dtype=object),
        pd.Series([0.25, None], dtype="Float64"),
        pd.Series([0.25, None], dtype=pd.ArrowDtype(pa.float64())),
        pl.Series([0.25, None]),
        pa.array([0.25, None]),
        pa.chunked_array([[0.25], [None]]),
    ],
    ids=["list", "objects", "nullable", "pandas on Arrow", "polars", "Arrow", "chunks"],
)
def test_numbers_of_which_some_are_missing_are_numbers(y):
    held = recorder(PLAN)
    held.observe(None, y)
    score = held.collect()[None][VariableKey("score", "score")]
    assert (score.counts.tolist(), score.missing, score.seen) == ([0, 1, 0, 0], 1, 2)
