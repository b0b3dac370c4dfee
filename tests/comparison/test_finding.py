"""The order of what differs, and what is said once of several variables."""

from otel_mlmon.comparison.finding import Finding, gather, rank


def make(kind, name, text, size=0.0, *, level="fault", role="feature"):
    return Finding(level, kind, role, name, text, size)


def test_a_large_drift_stands_before_a_small_rise_of_missing_values():
    drift = make("drift", "b", "mean up 2 sd", 1.5, level="drift")
    rise, storm = make("missing", "a", "missing 0.1 % -> 1 %", 0.01), make("missing", "c", "missing 0 % -> 90 %", 5.0)
    gone, note = make("gone", "d", "the column is gone", 1e6), make("unseen", "e", "new: 'x' 1 %", 0.0, level="note")
    segment = make("segment", "f", "in 'x': mean up 3 sd", 2.0, level="drift")
    assert rank([note, segment, rise, drift, storm, gone]) == (gone, storm, drift, rise, segment, note)


def test_columns_of_which_the_same_is_said_are_named_together():
    same = [make("missing", name, "missing 0 % -> 5 %", 0.05) for name in "abcde"]
    other = make("missing", "z", "missing 0 % -> 4 %", 0.04)
    assert gather([*same, other]) == [("a, b, c and 2 more", same[0]), ("z", other)]
    assert [label for label, _ in gather(same[:4])] == ["a, b, c and d"]
    assert [label for label, _ in gather(same[:1])] == ["a"]
    assert gather([]) == []


def test_what_is_said_at_another_level_is_told_apart():
    two = [make("unseen", "a", "new: 'x' 1 %", level=level) for level in ("drift", "note")]
    assert len(gather(two)) == 2


def test_labels():
    assert make("missing", "", "missing 0 % -> 5 %").label == "''"  # a column without a name
    assert make("duplicates", "", "duplicates 0 % -> 5 %", role="data").label == "rows"
    assert make("drift", "score", "mean up 1 sd", role="score").label == "prediction score"
