"""The thinking of a batch, token by token."""

import pytest
import torch
from torch import tensor

from laconic.decode.thought import FREE, Thought
from laconic.errors import SessionError

NONE = tensor([False, False])


def thought(opening=(), mark=(7,), ends=(2,)):
    return Thought(2, opening, mark, ends, torch.device("cpu"))


def test_the_opening_is_forced_and_is_not_thinking():
    state = thought(opening=(5, 6))
    for token in (5, 6):
        assert not state.opened
        assert state.next(NONE, 0).tolist() == [token, token]
        state.take(tensor([token, token]))
    assert state.opened and state.thinking.tolist() == [0, 0]
    assert state.next(NONE, 0).tolist() == [FREE, FREE]


def test_rows_end_apart_and_an_ended_row_is_free():
    state = thought()
    state.take(tensor([3, 3]))
    state.end(tensor([True, False]))
    assert state.next(NONE, 0).tolist() == [7, FREE]
    state.take(tensor([7, 4]))
    assert state.closed.tolist() == [True, False] and state.thinking.tolist() == [1, 2]
    state.end(tensor([True, True]))  # the closed one does not begin again
    assert state.next(NONE, 0).tolist() == [FREE, 7]


def test_a_mark_of_several_tokens_is_written_to_its_end():
    state = thought(mark=(7, 8, 9))
    state.end(tensor([True, True]))
    for token in (7, 8, 9):
        assert state.next(NONE, 0).tolist() == [token, token]
        assert not state.closed.any()
        state.take(tensor([token, token]))
    assert state.closed.all() and state.thinking.tolist() == [0, 0]
    assert state.next(NONE, 0).tolist() == [FREE, FREE]


def test_the_models_own_mark_and_the_end_of_an_answer_close_thinking():
    state = thought()
    state.take(tensor([7, 2]))
    assert state.closed.tolist() == [True, True] and state.thinking.tolist() == [0, 0]


def test_steps_without_words_are_counted_where_they_were_taken():
    state = thought()
    assert state.next(tensor([True, False]), 1).tolist() == [1, FREE]
    state.take(tensor([1, 4]))
    assert state.latent.tolist() == [1, 0] and state.thinking.tolist() == [1, 1]


def test_a_forced_token_that_was_replaced_is_an_error():
    state = thought(opening=(5,))
    state.next(NONE, 0)
    with pytest.raises(SessionError, match="without beams"):
        state.take(tensor([5, 6]))
