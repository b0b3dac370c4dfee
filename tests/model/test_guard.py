"""Nesting follows threads and tasks; errors of ours are counted and logged once."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_mlmon.columns import UnreadableError
from otel_mlmon.guard import Errors, enter, inside, is_outermost, leave


def test_a_call_within_another_is_not_outermost():
    assert is_outermost()
    with inside():
        assert not is_outermost()
        token = enter()
        with inside():
            assert not is_outermost()
        leave(token)
        assert not is_outermost()
    assert is_outermost()


def test_an_exception_leaves_too():
    with pytest.raises(KeyError), inside():
        raise KeyError
    assert is_outermost()


def test_threads_have_their_own_nesting():
    found = []
    with inside():
        thread = threading.Thread(target=contextvars.Context().run, args=(lambda: found.append(is_outermost()),))
        thread.start()
        thread.join()
    assert found == [True]


def test_tasks_have_their_own_nesting_and_what_they_call_in_threads_belongs_to_them():
    async def call(entered, others):
        assert is_outermost()
        with inside():
            entered.set()
            await others.wait()
            return is_outermost(), await asyncio.to_thread(is_outermost)

    async def main():
        first, second = asyncio.Event(), asyncio.Event()
        found = await asyncio.gather(call(first, second), call(second, first))
        return found, is_outermost()

    assert asyncio.run(main()) == ([(False, False), (False, False)], True)


def test_errors_are_counted_by_type_and_the_first_of_each_is_logged(caplog):
    errors = Errors()
    with caplog.at_level(logging.WARNING):
        for error in (ValueError("one"), ValueError("two"), KeyError("three")):
            errors.note(error, "doing something")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "one" in caplog.text
    assert "two" not in caplog.text
    assert "doing something" in caplog.text
    assert errors.collect() == Counter(ValueError=2, KeyError=1)
    assert errors.collect() == Counter()
    with caplog.at_level(logging.WARNING):
        errors.note(ValueError("four"), "doing something")
    assert len(caplog.records) == 2
    assert errors.collect() == Counter(ValueError=1)


def test_input_that_cannot_be_read_is_logged_once_for_each_cause_and_no_more_than_eight_times(caplog):
    errors = Errors()
    for number in [1, 2, 2, 1, *range(100)]:
        errors.note(UnreadableError(f"{number} columns"), "reading")
    assert [record.args[-1].args[0] for record in caplog.records] == [f"{n} columns" for n in (1, 2, 0, 3, 4, 5, 6, 7)]
    assert errors.collect() == Counter(UnreadableError=104)


def test_errors_of_threads_are_counted_exactly(caplog):
    errors, found = Errors(), Counter()
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda i: errors.note(ValueError(i), "counting"), range(2000)):
            found.update(errors.collect())
    found.update(errors.collect())
    assert found == Counter(ValueError=2000)
    assert len(caplog.records) == 1
