"""Which profile a model is compared with."""

from __future__ import annotations

import dataclasses
import logging
import os

import numpy as np
import pytest
from otel_mlmon_processor.references import References
from otel_mlmon_processor.windows import ModelKey

from otel_mlmon.profile.document import Profile

KEY = ModelKey("", "svc", "", "m", "1")
DAYS = [f"2025-01-0{day}T00:00:00Z" for day in range(1, 6)]


@pytest.fixture(scope="module")
def base():
    return Profile.build({"x": np.arange(100.0)}, model="m", version="1", created=DAYS[0])


@pytest.fixture
def dated(base):
    return [dataclasses.replace(base, created=day, trained=day) for day in DAYS]


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def references(folder):
    return References(folder)


def test_the_folder_goes_before_events_even_newer_ones(references, folder, dated):
    sent = {KEY: (dated[4], dated[3])}
    references.refresh()
    assert references.choose(KEY, "", sent) == dated[4]
    dated[0].save(folder / "a.json")
    references.refresh()
    assert references.choose(KEY, "", sent) == dated[0]


def test_the_newest_of_the_folder_goes_first_whatever_its_file_is_called(references, folder, dated):
    for name, day in (("z", 1), ("a", 2), ("m", 0)):
        dated[day].save(folder / f"{name}.json")
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[2]


def test_points_are_compared_with_the_profile_they_were_counted_with(references, folder, dated):
    """Another profile has other cells, so its place in the order does not matter."""
    dated[4].save(folder / "a.json")
    references.refresh()
    sent = {KEY: (dated[3], dated[1])}
    for profile in (dated[4], dated[3], dated[1]):
        assert references.choose(KEY, profile.hash, sent) == profile
    assert references.choose(KEY, "0123456789abcdef", sent) is None


def test_a_profile_is_for_its_model_and_version_alone(references, folder, dated):
    dated[0].save(folder / "a.json")
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[0]
    assert references.choose(KEY._replace(service="another", environment="prod"), "", {}) == dated[0]
    for key in (KEY._replace(version="2"), KEY._replace(model="n")):
        assert references.choose(key, "", {}) is None
        assert references.choose(key, dated[0].hash, {}) is None


def test_without_a_folder_there_are_events_only(dated):
    references = References(None)
    references.refresh()
    assert references.choose(KEY, "", {}) is None
    assert references.choose(KEY, "", {KEY: (dated[1], dated[0])}) == dated[1]
    assert references.conflicts == 0


def test_changed_new_and_deleted_files_are_noticed(references, folder, dated):
    path = folder / "a.json"
    dated[0].save(path)
    references.refresh()
    dated[1].save(path)  # as long as before: only its time says that it has changed
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[1]
    dated[2].save(folder / "b.json")
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[2]
    (folder / "b.json").unlink()
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[1]
    path.unlink()
    references.refresh()
    assert references.choose(KEY, "", {}) is None


def test_a_file_is_read_once_while_it_stays_as_it_is(references, folder, dated, caplog):
    dated[0].save(folder / "a.json")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            references.refresh()
    assert [record.message.count(dated[0].hash) for record in caplog.records] == [1]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"format": "something else"}', "\udcff\udcfe"])
def test_what_is_broken_is_said_once_and_left_out(references, folder, dated, caplog, broken):
    (folder / "bad.json").write_bytes(os.fsencode(broken))
    dated[0].save(folder / "good.json")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            references.refresh()
    (record,) = caplog.records
    assert "bad.json" in record.message
    assert "\n" not in record.message
    assert references.choose(KEY, "", {}) == dated[0]
    caplog.clear()
    dated[1].save(folder / "bad.json")  # mended
    references.refresh()
    assert references.choose(KEY, "", {}) == dated[1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_named_like_a_profile_and_other_files_are_no_profiles(references, folder, dated, caplog):
    (folder / "folder.json").mkdir()
    (folder / "notes.txt").write_text("not a profile")
    dated[0].save(folder / "a.json")
    with caplog.at_level(logging.WARNING):
        references.refresh()
        references.refresh()
    assert len(caplog.records) == 1
    assert "folder.json" in caplog.records[0].message
    assert references.choose(KEY, "", {}) == dated[0]


def test_profiles_that_another_goes_before_are_counted_once(references, folder, dated):
    dated[0].save(folder / "a.json")
    dated[0].save(folder / "copy.json")  # the same profile is no conflict
    references.refresh()
    for _ in range(3):
        references.choose(KEY, "", {KEY: (dated[0],)})
    assert references.conflicts == 0
    references.choose(KEY, "", {KEY: (dated[3],)})  # an event that differs from the folder
    assert references.conflicts == 1
    dated[1].save(folder / "b.json")  # and another in the folder, which goes before a.json
    references.refresh()
    for _ in range(3):
        references.choose(KEY, "", {KEY: (dated[3],)})
    assert references.conflicts == 2
    (folder / "b.json").unlink()  # what is counted stays counted
    references.refresh()
    references.choose(KEY, "", {})
    assert references.conflicts == 2
