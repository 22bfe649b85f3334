"""What the process of a model does when its front is gone: it ends, whatever was still on its way."""

import multiprocessing
import threading

import pytest

from laconic.serve.refusal import Refusal
from laconic.serve.wire import Wire
from laconic.serve.worker.process import serve


class Desk:
    """Answers the way it is told to."""

    facts: dict = {}

    def __init__(self, wire, hearing):
        self.wire, self.hearing, self.heard = wire, hearing, threading.Event()

    def hear(self, message):
        self.heard.set()
        self.hearing(self.wire, message)
        return False


def answers(wire, message):
    wire.send({"event": "reply", "id": message["id"], "padding": "x" * 1_000_000})


def refuses(wire, message):
    raise Refusal(400, "no", "no.")


def breaks(wire, message):
    raise ValueError("nobody foresaw it")


@pytest.mark.parametrize("hearing", [answers, refuses, breaks])
def test_a_worker_ends_when_its_front_was_killed_with_messages_on_their_way(hearing):
    ours, theirs = multiprocessing.Pipe()
    front, wire, closed = Wire(ours), Wire(theirs), threading.Event()
    desk = Desk(wire, hearing)
    worker = threading.Thread(target=serve, args=(wire, desk, closed.set), daemon=True)
    worker.start()
    assert front.receive() == {"event": "ready", "facts": {}}
    for number in range(3):
        front.send({"op": "ask", "id": f"call-{number}"})
    front.close()
    worker.join(10)
    assert desk.heard.is_set() and closed.is_set() and not worker.is_alive()


def test_a_worker_ends_when_nothing_was_on_its_way():
    ours, theirs = multiprocessing.Pipe()
    front, closed = Wire(ours), threading.Event()
    worker = threading.Thread(target=serve, args=(Wire(theirs), Desk(None, answers), closed.set), daemon=True)
    worker.start()
    assert front.receive() is not None
    front.close()
    worker.join(10)
    assert closed.is_set() and not worker.is_alive()
