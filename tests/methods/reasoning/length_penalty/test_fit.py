"""The length penalty: what right answers of different lengths are worth."""

import math

import pytest
import torch
from torch import tensor

from laconic.methods.reasoning.length_penalty.fit import LengthPenaltyFit, discounted


def test_the_discount_is_a_sigmoid_of_the_length_among_right_answers():
    right, lengths = tensor([[1.0, 1, 0, 1]]), tensor([[10.0, 20, 500, 30]])
    spread = math.sqrt((100 + 0 + 100) / 3)
    wanted = [1 - 0.4 / (1 + math.exp(-(n - 20) / spread)) for n in (10, 20, 30)]
    found = discounted(right, lengths, 0.4)[0]
    torch.testing.assert_close(found, tensor([wanted[0], wanted[1], 0.0, wanted[2]]))


def test_without_a_discount_or_right_answers_it_is_the_plain_reward():
    right, lengths = tensor([[1.0, 0], [0, 0]]), tensor([[3.0, 4], [5, 6]])
    assert torch.equal(discounted(right, lengths, 0.0), right)
    assert not discounted(right, lengths, 0.9)[1].any()
    assert torch.isfinite(discounted(tensor([[1.0, 1]]), tensor([[7.0, 7]]), 0.5)).all()


def test_a_right_answer_is_always_worth_more_than_a_wrong_one():
    with pytest.raises(ValueError, match=r"alpha=1\.0 must be below 1"):
        LengthPenaltyFit(alpha=1.0)
    assert LengthPenaltyFit(alpha=0).facts() == {"alpha": 0}
