"""One pass: gathering with a broadcast batch, and the shortened stream."""

import pytest
import torch

from laconic.step import Step, gather


@pytest.mark.parametrize(("shape", "dim"), [((2, 7, 3), 1), ((1, 7, 3), 1), ((2, 7), -1), ((1, 7, 4), -2)])
def test_gather_takes_each_rows_own_positions(shape, dim):
    x = torch.randn(shape)
    index = torch.tensor([[0, 3, 6], [1, 2, 5]])
    got = gather(x, index, dim)
    for b in range(2):
        row = x[b if shape[0] > 1 else 0]
        assert torch.equal(got[b], row[index[b]])


def test_a_stream_is_shortened_twice():
    step = Step(10, 6, torch.arange(10, 16)[None], [16, 14], valid=torch.tensor([[True] * 6, [False] * 2 + [True] * 4]))
    assert step.token_index(2).tolist() == [list(range(10, 16))] * 2
    step.reduce(torch.tensor([[0, 2, 4, 5], [1, 2, 3, 5]]))
    assert step.token_index(2).tolist() == [[10, 12, 14, 15], [11, 12, 13, 15]]
    assert step.position_ids.tolist() == [[10, 12, 14, 15], [11, 12, 13, 15]]
    assert step.valid.tolist() == [[True] * 4, [False, True, True, True]]
    step.reduce(torch.tensor([[1, 3], [0, 3]]))
    assert step.token_index(2).tolist() == [[12, 15], [11, 15]] and step.position_ids.tolist() == [[12, 15], [11, 15]]


def test_rows_of_the_stream_are_places_in_the_pass():
    step = Step(10, 6, torch.arange(10, 16)[None], [16, 16])
    step.reduce(torch.tensor([[0, 2, 4, 5], [1, 2, 3, 5]]))
    assert step.places(torch.tensor([[-1, 1, 3], [0, 1, 2]])).tolist() == [[-1, 2, 5], [1, 2, 3]]


def test_a_stream_starts_again():
    step = Step(10, 4, torch.arange(10, 14)[None], [14])
    positions, shown = step.position_ids, torch.tensor([[True, True, False, False]])
    step.shown = shown
    step.reduce(torch.tensor([[2, 3]]), inside=True)
    assert step.kept.tolist() == [[2, 3]] and not step.shown.any()
    step.restart(positions, None, shown)
    assert step.kept is None and step.token_index(1).tolist() == [[10, 11, 12, 13]]
    assert step.position_ids is positions and step.valid is None and step.shown is shown


def test_what_counts_as_a_prompt():
    assert Step(0, 1, torch.zeros(1, 1), [1]).prefill and Step(5, 2, torch.zeros(1, 2), [7]).prefill
    assert not Step(5, 1, torch.zeros(1, 1), [6]).prefill
