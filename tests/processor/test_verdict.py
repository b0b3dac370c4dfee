"""Which change is named first, and in which words."""

from __future__ import annotations

import itertools

import pytest
from otel_mlmon_processor.core.verdict import Finding, ReplicaEffect, find_quality, find_replicas, rank, say_model

from otel_mlmon.numerics.drift import Shift
from otel_mlmon.numerics.rates import make_rate
from otel_mlmon.semconv import QualityMeasure
from otel_mlmon.wording import printable, say_rate, say_share, say_shift


def found(name: str, kind: str, size: float, role: str = "feature") -> Finding:
    return Finding(role, name, kind, size, f"{kind} {size}")


def test_faults_come_first_then_the_larger():
    findings = [
        found("a", "drift", 9.0),
        found("b", "missing", 0.1),
        found("c", "unseen", 2.0),
        found("d", "replica", 0.2),
        found("e", "invalid", 0.3),
        found("f", "out_of_range", 1.0),
    ]
    for order in itertools.permutations(findings):
        assert [finding.name for finding in rank(order)] == ["e", "d", "b", "a", "c", "f"]


def test_a_variable_is_named_once_in_each_tier_by_its_largest():
    findings = [
        found("x", "missing", 0.1),
        found("x", "replica", 0.4),
        found("x", "drift", 5.0),
        found("x", "out_of_range", 6.0),
        found("x", "unseen", 0.5),
        found("", "drift", 1.0, role="score"),
        found("", "drift", 2.0, role="class"),
    ]
    assert [(f.label, f.kind) for f in rank(findings)] == [
        ("x", "replica"),
        ("x", "out_of_range"),
        ("prediction class", "drift"),
        ("prediction score", "drift"),
    ]


def test_equal_sizes_are_ordered_by_name_in_whatever_order_they_come():
    findings = [found(name, "drift", 1.0) for name in "cab"]
    for order in itertools.permutations(findings):
        assert [finding.name for finding in rank(order)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.104, "10 %"), (0.0999, "10.0 %"), (0.041, "4.1 %"), (0.002, "0.2 %"),
     (0.00034, "0.034 %"), (1e-6, "0.0001 %")],
)  # fmt: skip
def test_shares_are_said_in_per_cent(share, said):
    assert say_share(share) == said


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (Shift(mean=1.234), "mean up 1.2 sd"),
        (Shift(mean=-0.3), "mean down 0.3 sd"),
        (Shift(mean=0.01), "shape changed, mean about the same"),
        (Shift(mean=-0.049), "shape changed, mean about the same"),
        (Shift(), "distribution changed"),
        (Shift(category="UA", before=0.12, after=0.5), "'UA' 12 % -> 50 %"),
    ],
)
def test_shifts_are_said_with_their_direction(shift, said):
    assert say_shift(shift) == said


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (QualityMeasure.MISSING, "missing 0.2 % -> 4.1 %"),
        (QualityMeasure.INVALID, "invalid 0.2 % -> 4.1 %"),
        (QualityMeasure.UNSEEN, "never seen before 0.2 % -> 4.1 %"),
        (QualityMeasure.OUT_OF_RANGE, "out of the reference's range 0.2 % -> 4.1 %"),
    ],
)
def test_rates_are_said_before_and_after(measure, said):
    assert say_rate(measure, 0.002, 0.041) == said
    rate = make_rate(41_000, 1_000_000, (2_000, 1_000_000))
    (finding,) = find_quality("feature", "wind", {measure: rate}, 0.005)
    assert str(finding) == f"wind: {said}"


def test_a_rate_within_the_tolerance_is_not_named():
    rate = make_rate(41_000, 1_000_000, (2_000, 1_000_000))
    assert find_quality("feature", "x", {QualityMeasure.MISSING: rate}, rate.effect) == []
    assert find_quality("feature", "x", {QualityMeasure.MISSING: rate}, rate.effect * 0.99)


def test_the_first_replica_beyond_the_tolerance_is_named():
    replicas = [
        ReplicaEffect("quiet", 0.001, "mean up 1 sd"),
        ReplicaEffect("b", 0.02, "missing 0 % -> 50 %"),
        ReplicaEffect("c", 0.9, ""),
    ]
    (finding,) = find_replicas("feature", "x", replicas, 0.005)
    assert (finding.kind, finding.size) == ("replica", 0.02)
    assert str(finding) == "x: b differs from the other replicas, missing 0 % -> 50 %"
    (finding,) = find_replicas("feature", "x", replicas[2:], 0.005)
    assert finding.text == "c differs from the other replicas"
    assert find_replicas("feature", "x", replicas[:1], 0.005) == []


def test_a_sentence_names_two_and_counts_the_other_variables():
    a, b, c = (found(name, "drift", 1.0) for name in "abc")
    assert say_model([], decided=False) == "not enough data to say"
    assert say_model([], decided=True) == "nothing has changed"
    assert say_model([a], decided=True) == "a: drift 1.0"
    assert say_model([a, b], decided=True) == "a: drift 1.0; b: drift 1.0"
    assert say_model([a, b, c], decided=True) == "a: drift 1.0; b: drift 1.0; and 1 more"
    # The same variable in the other tier is no further one.
    assert say_model([a, b, found("a", "missing", 1.0)], decided=True) == "a: drift 1.0; b: drift 1.0"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("wind speed", "wind speed"),
        ("größe 風", "größe 風"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u2028", "\\u2028"),
    ],
)
def test_names_are_shown_in_one_line_without_control_characters(name, shown):
    assert printable(name) == shown
