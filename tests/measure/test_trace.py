"""Events, and what is read off them."""

import pytest
import torch

import laconic
from laconic.measure.trace import Event, Trace


def test_removed_adds_up_per_layer():
    trace = Trace()
    trace.add(0, "snapkv", 10, 4)
    trace.add(1, "snapkv", 10, 10)
    trace.add(0, "snapkv", 8, 5, torch.tensor([[1, 2]]))
    assert trace.removed() == {0: 9, 1: 0}
    assert [e.stream is None for e in trace.events] == [True, True, False]
    trace.clear()
    assert trace.events == [] and trace.removed() == {}


def test_events_do_not_change():
    with pytest.raises(AttributeError):
        Event(0, "x", 1, 1).after = 3


def test_a_new_cache_begins_a_new_trace(llama, prompt):
    with laconic.compress(llama, laconic.FastKV(keep=0.2, tsp_rate=0.5)) as session:
        llama(prompt(1, 40))
        first = list(session.trace.events)
        llama(prompt(1, 30))
    assert [(e.layer, e.before, e.after) for e in first] == [(0, 40, 8), (1, 40, 8), (2, 20, 8), (3, 20, 8)]
    assert [e.before for e in session.trace.events] == [30, 30, 15, 15]
    assert [None if e.stream is None else tuple(e.stream.shape) for e in first] == [None, (1, 20), None, None]
