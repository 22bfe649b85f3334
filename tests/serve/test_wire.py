"""Messages go whole over a wire, and a wire that is closed ends for everybody without touching another one's messages."""

import multiprocessing
import threading

import pytest

from laconic.serve.wire import Wire


@pytest.fixture
def wires():
    return tuple(Wire(end) for end in multiprocessing.Pipe())


def in_thread(work):
    """A thread that runs `work` and the list that its result is put into."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("message", [{"a": 1}, {"text": "lone \ud800, broad 漢字", "rows": [None, 0.5]}, {}])
def test_a_message_arrives_as_it_was(wires, message):
    ours, theirs = wires
    ours.send(message)
    theirs.send({"back": True})
    assert theirs.receive() == message and ours.receive() == {"back": True}


def test_what_no_json_holds_is_not_sent(wires):
    with pytest.raises(ValueError, match="JSON compliant"):
        wires[0].send({"x": float("nan")})
    wires[0].send({"x": 1})
    assert wires[1].receive() == {"x": 1}


@pytest.mark.parametrize("closing", [0, 1])
def test_closing_one_end_wakes_whoever_waits_at_either(wires, closing):
    waiting = [in_thread(wire.receive) for wire in wires]
    wires[closing].close()
    for thread, found in waiting:
        thread.join(10)
        assert found == [None]
    for wire in wires:
        wire.close()  # again
        with pytest.raises(OSError):
            wire.send({"late": 1})


def test_a_closed_wire_reads_nothing_of_the_next(wires):
    """The number of its descriptor is not given to another while a thread may wait on it."""
    ours, _ = wires
    number = ours._connection.fileno()
    ours.close()
    others = [multiprocessing.Pipe() for _ in range(8)]
    assert number not in {end.fileno() for pair in others for end in pair}
    assert ours.receive() is None
