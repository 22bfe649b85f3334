"""How many weights go, in which groups; budgets that have no meaning."""

import pytest
import torch
from helpers.zoo import Tiny

import laconic
from laconic import BudgetError, UnsupportedModelError
from laconic.weights.pruner import lowest


def test_the_lowest_and_the_earlier_among_equals():
    scores = torch.tensor([[3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert lowest(scores, 1).tolist() == [[False, True, False, False], [True, False, False, False]]
    assert lowest(scores, 2).tolist() == [[False, True, True, False], [True, True, False, False]]
    assert not lowest(scores, 0).any()


def test_a_pattern_takes_some_of_every_few_in_sequence():
    method = laconic.Magnitude(pattern="1:4")
    assert method.keep == 0.25
    low = method.lowest(torch.tensor([[4.0, 1.0, 2.0, 3.0, 1.0, 5.0, 6.0, 7.0]]))
    assert (~low).nonzero()[:, 1].tolist() == [0, 7]


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5])
def test_shares_out_of_range(keep):
    with pytest.raises(BudgetError, match="0 < keep <= 1"):
        laconic.Wanda(keep=keep)


def test_budgets_without_a_meaning():
    with pytest.raises(BudgetError, match="tokens=5 has no meaning for weights"):
        laconic.Magnitude(tokens=5)
    with pytest.raises(BudgetError, match="leave keep out"):
        laconic.Magnitude(keep=0.25, pattern="2:4")


@pytest.mark.parametrize("pattern", ["4:2", "2:2", "0:4", "2-4", "2:128"])
def test_patterns_that_are_none(pattern):
    with pytest.raises(ValueError, match="write such as '2:4'"):
        laconic.SparseGPT(pattern=pattern)


def test_rows_that_a_pattern_does_not_divide():
    model = Tiny("Llama", {"intermediate_size": 90}).build()
    with pytest.raises(UnsupportedModelError, match=r"mlp\.down_proj has 90"):
        laconic.compress(model, laconic.Magnitude(pattern="2:4"))
