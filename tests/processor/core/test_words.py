"""What an alarm says."""

import numpy as np
import pytest
from otel_mlmon_processor.core.alarm import Alarm, AlarmEvent, say_minutes
from otel_mlmon_processor.core.alarm import Suspect as Told
from otel_mlmon_processor.core.budget import CELLS, ORDER, RATES
from otel_mlmon_processor.core.episodes import Episode, Suspect
from otel_mlmon_processor.core.scanner import Hit
from otel_mlmon_processor.core.words import Naming, say_episode, say_hit
from otel_mlmon_processor.windows import VariableKey
from scipy.special import ndtr, ndtri

from otel_mlmon.numerics.windows import RATES as RATE_NAMES

EDGES = ndtri(np.arange(1, 20) / 20)
MIDDLES = ndtri((np.arange(20) + 0.5) / 20)
NUMBER = Naming("distance", positions=MIDDLES)


def hit(counts, expected, test=ORDER, part=0, lower=0.1):
    return Hit(100, 5, 0, test, part, 2.0, lower, tuple(counts), tuple(expected))


def shares(mean=0.0, sd=1.0):
    return np.diff(ndtr((EDGES - mean) / sd), prepend=0, append=1)


def test_a_moved_mean_is_said_in_standard_deviations():
    assert say_hit(hit(1_000 * shares(0.3), 1_000 * shares()), NUMBER) == "mean up 0.29 sd"
    assert say_hit(hit(1_000 * shares(-0.5), 1_000 * shares()), NUMBER).startswith("mean down 0.4")  # ends are open


def test_a_spread_is_said_as_a_factor():
    said = say_hit(hit(1_000 * shares(0, 1.3), 1_000 * shares()), NUMBER)
    assert said.startswith("mean about the same, spread x 1.2")


def test_a_category_is_said_by_its_shares():
    naming = Naming("fuel", cells=("petrol", "EV", "_OTHER_"))
    assert say_hit(hit([800, 30, 170], [760, 140, 100], CELLS, 1), naming) == "'EV' 14 % -> 3.0 %"
    assert say_hit(hit([750, 30, 220], [760, 140, 100], CELLS, 2), naming) == "all other categories 10 % -> 22 %"


def test_a_rate_is_said_with_that_of_the_reference():
    naming = Naming("age", rates=(0.002, *[0.0] * 6))
    assert say_hit(hit([41, 1_000], [2.3, 1_000], RATES, 0), naming) == "missing 0.2 % -> 4.1 %"
    at = RATE_NAMES.index("above")
    assert say_hit(hit([41, 1_000], [2.3, 1_000], RATES, at), naming) == "above the reference's range 0 % -> 4.1 %"


def test_an_episode_names_the_three_that_moved_most():
    suspects = tuple(
        Suspect(v, hit(1_000 * shares(0.3), 1_000 * shares(), lower=lower), 96, 100, 5)
        for v, lower in ((2, 0.5), (0, 0.3), (1, 0.1), (3, 0.1))
    )
    namings = [Naming(f"f{v}", positions=MIDDLES) for v in range(4)]
    assert say_episode(Episode(100, 96, suspects), namings) == (
        "f2: mean up 0.29 sd (50% of the change); f0: mean up 0.29 sd (30% of the change); "
        "f1: mean up 0.29 sd (10% of the change); and 1 more"
    )
    assert say_episode(Episode(100, 96, suspects[:1]), namings) == "f2: mean up 0.29 sd"


def test_an_alarm_says_since_when_and_how_sure_it_is():
    x = Told(VariableKey("feature", "x"), "mean up 0.31 sd", 0.7, 3.24, 0.1, 5, 1_735_693_200.0)
    score = Told(VariableKey("score", ""), "mean down 0.1 sd", 0.3, 1.1, 0.02, 240, 1_735_693_200.0)
    alone = Alarm(1_735_693_500.0, 1_735_693_200.0, "x: mean up 0.31 sd", (x,))
    assert AlarmEvent("raise", 1_735_693_500.0, alone).say() == (
        "alarm: x: mean up 0.31 sd; since 2025-01-01 01:00 UTC; evidence 3.2 in 5 min"
    )
    both = Alarm(1_735_693_500.0, 1_735_693_200.0, "both", (x, score))
    assert both.say() == "both; since 2025-01-01 01:00 UTC; evidence x 3.2 in 5 min, prediction score 1.1 in 4 h"


@pytest.mark.parametrize(
    ("minutes", "said"), [(1, "1 min"), (15, "15 min"), (60, "1 h"), (90, "90 min"), (240, "4 h"), (4_320, "3 d")]
)
def test_a_time_is_said_in_the_largest_unit_that_holds_it_whole(minutes, said):
    assert say_minutes(minutes) == said
