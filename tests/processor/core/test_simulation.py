"""The simulation of benchmarks/alarms.py with streams of others, in the small."""

import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
BROKEN = """
import numpy as np

CALLS = []

def still(kind, rows, windows, cells, rng):
    CALLS.append((kind, rows, windows, cells))
    return rng.multinomial(rows, np.full(cells, 1 / cells), windows)

def moved(kind, rows, windows, cells, rng):
    counts = still(kind, rows, windows, cells, rng)
    counts[2000:, 0] += counts[2000:, 1]
    counts[2000:, 1] = 0
    return counts
"""


@pytest.fixture
def alarms(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(HERE.parents[2] / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others.py").write_text(BROKEN)
    import alarms

    yield alarms
    for name in ("alarms", "alarms_page", "alarms_curve", "alarms_model", "alarm_streams", "recorder", "others"):
        sys.modules.pop(name, None)


def test_streams_of_others_are_scanned(alarms):
    """A day of reference and one of production; of what moves at minute 560 of the latter, an alarm soon after it."""
    unit = {"what": "null", "kind": "one day", "rows": 200, "seed": 0}
    still = alarms.run(unit, alarms.load_streams("others:still"), days=1)
    assert still["alarms"] == {"1": []}
    assert sys.modules["others"].CALLS == [("one day", 200, 2 * 1_440, 20)] * 30
    moved = alarms.run(unit, alarms.load_streams("others:moved"), days=1)
    (alarm,) = moved["alarms"]["1"]
    assert 560 <= alarm["minute"] < 570


def test_a_change_begins_at_a_minute_of_its_own(alarms):
    import alarms_model

    rng = np.random.default_rng(1)
    model = alarms_model.make_model("one day", 200, 2, rng)
    before = model.counts.copy()
    alarms_model.change(model, "mean + 0.5 sd", 2_345, np.random.default_rng(2))
    assert (model.counts[..., :2_345] == before[..., :2_345]).all()
    assert (model.counts[:, 1:] == before[:, 1:]).all()
    half = model.counts[10:, 0, 2_345:].sum() / model.counts[:, 0, 2_345:].sum()
    assert half == pytest.approx(0.69, abs=0.05)  # of normal values half a standard deviation up, above 0


def test_psi_is_the_sum_over_the_cells(alarms):
    import alarms_model

    model = alarms_model.make_model("one day", 200, 1, np.random.default_rng(1))
    called = alarms_model.call_psi(model, (0.1,))["PSI > 0.1"]
    q = model.counts[:, 3, :1_440].sum(axis=1) / model.counts[:, 3, :1_440].sum()
    p = np.maximum(model.counts[:, 3, 1_440 + 77] / model.counts[:, 3, 1_440 + 77].sum(), 1e-4)
    assert called.shape == (30, 1_440)
    assert called[3, 77] == (((p - q) * np.log(p / q)).sum() > 0.1)
