"""Counting by buckets is counting by comparing each value with the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.numerics.binning import NumericAxis, fit_axis
from otel_mlmon.numerics.buckets import LEAST, Buckets

ROWS = 3 * LEAST
SHAPES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "far from zero": lambda rng, n: 1e9 + rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(1.2, size=n),
    "lognormal": lambda rng, n: rng.lognormal(sigma=3, size=n),
    "few integers": lambda rng, n: rng.integers(0, 5, size=n) * 1.0,
    "many integers": lambda rng, n: rng.integers(-500, 500, size=n) * 1.0,
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.45, 0.0, rng.gamma(2, size=n)),
    "one value": lambda rng, n: np.full(n, 7.25),
    "two values at the ends of the floats": lambda rng, n: np.where(rng.random(n) < 0.5, -1.7e308, 1.7e308),
    "subnormal": lambda rng, n: rng.integers(0, 100, size=n) * 5e-324,
}


def compare_each(axis: NumericAxis, values: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(axis.edges, values, side="left"), minlength=axis.cells)


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_for_values_on_between_and_outside_the_edges(shape):
    rng = np.random.default_rng(5)
    axis = fit_axis(np.sort(SHAPES[shape](rng, 10_000)))
    buckets = Buckets(axis)
    edges = np.concatenate([axis.edges, np.nextafter(axis.edges, -np.inf), np.nextafter(axis.edges, np.inf)])
    for values in (SHAPES[shape](rng, ROWS), np.tile(edges[np.isfinite(edges)], 200), SHAPES["normal"](rng, ROWS)):
        for _ in range(2):  # the first count may decide how the next ones are done
            assert buckets.count(values).tolist() == compare_each(axis, values).tolist()
    assert buckets.count(np.zeros(0)).sum() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40, unique=True),
    st.data(),
)
def test_exact_for_any_edges(edges, data):
    edges = np.unique(edges)
    low = data.draw(st.integers(0, edges.size - 1))
    axis = NumericAxis(edges, low, data.draw(st.integers(low, edges.size - 1)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    with np.errstate(over="ignore"):
        near = rng.choice(edges, ROWS) * rng.choice([1.0, 1 - 1e-16, 1 + 3e-16, 0.5, 3.0, -1.0], ROWS)
    values = near[np.isfinite(near)]
    assert Buckets(axis).count(values).tolist() == compare_each(axis, values).tolist()


def test_small_and_large_blocks_add_up():
    rng = np.random.default_rng(6)
    axis = fit_axis(np.sort(rng.normal(size=5_000)))
    values, buckets = rng.normal(1, 2, size=ROWS), Buckets(axis)
    total = sum(buckets.count(part) for part in np.split(values, [10, LEAST, LEAST + 11, 2 * LEAST + 40]))
    assert total.tolist() == compare_each(axis, values).tolist()
