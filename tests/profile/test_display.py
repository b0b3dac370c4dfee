"""What is drawn says what was counted."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm

from otel_mlmon.profile import Profile
from otel_mlmon.profile.display import show_feature, show_profile
from otel_mlmon.profile.shape import BLOCKS, SPARK, format_number, format_share, quantiles, shares_below, shorten, spark

rng = np.random.default_rng(5)
NORMAL = rng.normal(10, 2, 20_000)


def build(data, **options):
    return Profile.build(data, model="m", created="2026-11-23", **options)


def shown(draw, *arguments, **options):
    console = Console(file=io.StringIO(), width=150)
    draw(*arguments, console=console, **options)
    return console.file.getvalue()


def test_quantiles_and_shares_are_those_of_the_data():
    reference = build({"x": NORMAL}).references[0]
    levels = np.array([0.001, 0.01, 0.25, 0.5, 0.9, 0.999])
    found = norm.cdf(quantiles(reference, levels), *norm.fit(NORMAL))
    assert found == pytest.approx(levels, abs=0.01)
    points = np.linspace(4, 16, 50)
    exact = np.searchsorted(np.sort(NORMAL), points, side="right") / NORMAL.size
    assert np.abs(shares_below(reference, points) - exact).max() < 0.003
    assert quantiles(reference, np.array([0.0, 1.0])) == pytest.approx([NORMAL.min(), NORMAL.max()])


def test_a_small_histogram_has_its_peak_where_the_data_has():
    drawing = spark(build({"x": NORMAL}).references[0])
    assert len(drawing) == SPARK
    assert set(drawing) <= set(BLOCKS)
    assert abs(drawing.index("█") - SPARK / 2) < 3
    assert spark(build({"x": np.full(9, 2.5)}).references[0]) == "█"


def test_every_kind_of_variable_can_be_shown():
    data = {
        "number": NORMAL[:300],
        "constant": [1.0] * 300,
        "word": ["a", "b", "c"] * 100,
        "flag": [True, False, False] * 100,
        "when": np.datetime64("2020-01-01T05:00:00") + np.arange(300) * np.timedelta64(60, "m"),
        "nothing": [None] * 300,
        "essay": [f"{i} {'lorem ipsum ' * 5}" for i in range(300)],
    }
    profile = build(data, predictions=np.linspace(0, 1, 300), importance={"number": 2.0}, framework="sklearn")
    text = shown(show_profile, profile)
    for reference in profile.references:
        assert reference.variable.name in text
        for boundaries in (False, True):
            detail = shown(show_feature, reference, boundaries=boundaries)
            assert detail.startswith(reference.variable.name)
            assert "seen 300" in detail
            if boundaries:
                assert f"{reference.histogram.counts.max():,}" in detail
    assert "framework sklearn" in text
    assert "importance 2" in shown(show_feature, profile.references[0])


def test_figures():
    assert [format_number(x) for x in (0.0, 1.5, 123456.7, 1e-9, -1e20)] == ["0", "1.5", "123,457", "1e-09", "-1e+20"]
    assert [format_share(x) for x in (0.0, 0.0001, 0.0312, 1.0)] == ["0", "<0.1%", "3.1%", "100.0%"]
    assert [shorten(x) for x in ("short", "x" * 20, "a\nb")] == ["short", "x" * 15 + "…", "a\\nb"]
