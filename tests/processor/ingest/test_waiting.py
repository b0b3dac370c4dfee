"""Whose turn it is among requests that wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from otel_mlmon_processor.waiting import Queue, Request

ENOUGH, BYTES = 4, 100
sent = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=40)


def take_all(requests: list[Request]) -> list[list[Request]]:
    queue = Queue(10**6, 10**9)
    for request in requests:
        assert queue.admit(request)
    turns = []
    while queue.waits:
        turns.append(queue.take(ENOUGH, BYTES))
    return turns


@given(sent=sent)
def test_each_is_taken_once_in_the_order_of_its_client(sent):
    requests = [Request("metrics", bytes(size), client) for client, size in sent]
    taken = [request for turn in take_all(requests) for request in turn]
    for client in "abc":
        assert [r for r in taken if r.client == client] == [r for r in requests if r.client == client]


@given(sent=sent)
def test_a_turn_ends_when_it_has_enough(sent):
    for turn in take_all([Request("metrics", bytes(size), client) for client, size in sent]):
        assert 1 <= len(turn) <= ENOUGH
        assert sum(len(request.body) for request in turn[:-1]) < BYTES


@given(sent=sent, quiet=st.integers(0, 40))
def test_who_sends_little_waits_for_one_request_of_each_other(sent, quiet):
    requests = [Request("metrics", bytes(size), client) for client, size in sent]
    requests.insert(min(quiet, len(requests)), Request("metrics", b"", "quiet"))
    taken = [request.client for turn in take_all(requests) for request in turn]
    assert taken.index("quiet") <= 3


def test_the_next_turn_goes_on_with_the_next_client():
    requests = [Request("metrics", bytes(BYTES), client) for client in "aabbcc"]
    assert [[request.client for request in turn] for turn in take_all(requests)] == [[c] for c in "abcabc"]
