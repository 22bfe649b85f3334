"""Whose turn it is: contexts that are waited for and answers, neither of which stops the other."""

import asyncio

import pytest

from laconic.serve.config import Limits, Model
from laconic.serve.front.builds import Build
from laconic.serve.front.scheduler import BUILDS_IN_TURN, Scheduler
from laconic.serve.front.tickets import Ticket
from laconic.serve.job import Job
from laconic.serve.refusal import Refusal


def build(name, urgent=False):
    found = Build(name, {}, lambda said: None, lambda: None)
    found.urgent = urgent
    return found


def scheduler(*builds, answers=0):
    one = Scheduler(Model("tiny"), Limits(), {})
    for i in range(answers):
        job = Job(id=f"job{i}", messages=[], seconds=60)
        one.waiting.add(Ticket(job, "alice", 5, 0, False, 0.0, 60.0, lambda said: None))
    one.builds += builds
    return one


def turns(one, count):
    found = []
    for turn in range(1, count + 1):
        one._turns = turn
        chosen = one._next_build()
        found.append(None if chosen is None else chosen.name)
    return found


def test_contexts_that_are_waited_for_go_first_but_let_answers_in():
    names = [str(i) for i in range(6)]
    one = scheduler(*(build(name, urgent=True) for name in names), answers=1)
    found = turns(one, 9)
    assert found[0] == "0" and [name for name in found if name is not None] == names
    assert all(None in found[i : i + 3] for i in range(len(found) - 2))


def test_others_wait_for_their_turn_and_come():
    one = scheduler(build("a"), answers=1)
    assert turns(one, BUILDS_IN_TURN) == [None] * (BUILDS_IN_TURN - 1) + ["a"]


def test_without_answers_contexts_are_made_one_after_another():
    assert turns(scheduler(build("a"), build("b", urgent=True), build("c")), 4) == ["b", "a", "c", None]


def test_a_key_has_so_many_requests_at_once():
    one = scheduler()
    one.count("alice", 2)
    one.count("alice", 2)
    with pytest.raises(Refusal, match="2 requests at once already"):
        one.count("alice", 2)
    one.release("alice")
    one.count("alice", 2)
    one.release("alice")
    one.release("alice")
    assert not one._inflight


def test_a_request_that_is_left_while_it_is_prepared_is_forgotten_by_the_worker_too():
    """Its prompt may have been prepared by then, although nobody has waited for the reply."""
    one, sent = scheduler(), []

    async def never(op, **fields):
        await asyncio.sleep(60)

    async def run():
        one.backend.call, one.backend.send = never, sent.append
        entering = asyncio.create_task(one.enter(Job(id="j", messages=[], seconds=60), "alice", 2, 0, lambda said: None))
        await asyncio.sleep(0.01)
        assert one._inflight == {"alice": 1}
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)

    asyncio.run(run())
    assert not one._inflight and sent == [{"op": "cancel", "id": "j"}]
