"""Who is answered together: keys in turn, first come first served, and only what has one context and one method."""

import pytest

from laconic.serve.front.tickets import Ticket, Waiting
from laconic.serve.job import Job, Stored


def ticket(name, key="a", tokens=10, shared=0, shares=True, n=1, context=None, compress=None, entered=0.0):
    stored = None if context is None else Stored("t", context)
    return Ticket(Job(name, n=n, context=stored, compress=compress), key, tokens, shared, shares, entered, 9.0, print)


def batches(tickets, most=4):
    waiting = Waiting()
    for one in tickets:
        waiting.add(one)
    found = []
    while batch := waiting.next_batch(most):
        found.append([one.job.id for one in batch])
    assert len(waiting) == 0 and waiting.tokens == 0
    return found


def test_keys_take_turns():
    found = batches([ticket("1"), ticket("2"), ticket("3"), ticket("4", key="b")], most=1)
    assert found == [["1"], ["4"], ["2"], ["3"]]


def test_what_goes_together_is_answered_together():
    some = [ticket("1", context="x"), ticket("2", context="y"), ticket("3", context="x", key="b"), ticket("4")]
    assert batches(some) == [["1", "3"], ["2"], ["4"]]


@pytest.mark.parametrize(
    ("others", "want"),
    [
        ([ticket("2", compress={"methods": ["m"]})], [["1"], ["2"]]),
        ([ticket("2", shares=False)], [["1"], ["2"]]),
        ([ticket("2", n=3)], [["1", "2"]]),
        ([ticket("2", n=4)], [["1"], ["2"]]),
        ([ticket("2", tokens=74)], [["1", "2"]]),
        ([ticket("2", tokens=75)], [["1"], ["2"]]),
        ([ticket("2", tokens=1000, shared=990)], [["1", "2"]]),
        ([ticket(str(i)) for i in range(2, 6)], [["1", "2", "3", "4"], ["5"]]),
    ],
)
def test_a_batch_has_rows_of_one_kind_and_like_length(others, want):
    assert batches([ticket("1"), *others]) == want


def test_older_ones_of_other_keys_come_first_into_a_batch():
    some = [ticket("1"), ticket("2", key="b", entered=2.0), ticket("3", key="c", entered=1.0)]
    assert batches(some, most=2) == [["1", "3"], ["2"]]


def test_one_that_left_is_gone():
    waiting, one = Waiting(), ticket("1")
    waiting.add(one)
    assert waiting.remove(one) and not waiting.remove(one) and not waiting.next_batch(4)
