"""Which tokens travelled on, read off a trace."""

from types import SimpleNamespace

import torch

from laconic.cli.inspect_text import stream_of
from laconic.measure.trace import Trace


def run_of(*streams):
    trace = Trace()
    for layer, stream in streams:
        trace.add(layer, "m", 8, 4, None if stream is None else torch.tensor([stream]))
    return SimpleNamespace(session=SimpleNamespace(trace=trace))


def question(tokens, chunk=None, later=False):
    prompt = SimpleNamespace(tokens=tokens, context=range(tokens - 2))
    return SimpleNamespace(prompt=prompt, request=SimpleNamespace(chunk=chunk), later=later)


def test_where_all_ran_on_there_is_no_stream():
    assert stream_of(question(8), run_of((0, None), (1, None))) == (None, None)


def test_the_first_layer_without_the_others_is_the_next():
    kept, first = stream_of(question(8), run_of((0, None), (1, [0, 3, 7])))
    assert kept == [0, 3, 7] and first == 2


def test_pieces_of_a_prompt_count_from_where_they_begin():
    kept, first = stream_of(question(8, chunk=4), run_of((1, [0, 3]), (1, [1, 2])))
    assert kept == [0, 3, 5, 6] and first == 2


def test_a_question_that_comes_later_travels_whole():
    assert stream_of(question(8, later=True), run_of((1, [0, 3]))) == ([0, 3, 6, 7], 2)
