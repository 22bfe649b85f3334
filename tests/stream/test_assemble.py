"""The cut that keeps some visual tokens and all text."""

from types import SimpleNamespace

import pytest
import torch

from laconic.errors import BudgetError
from laconic.stream.assemble import assemble, choose


def stream(protected=None, valid=None):
    """Two rows of six: visual tokens at 1 to 4, of which 4 is a separator."""
    shown = torch.tensor([[False, True, True, True, False, False]] * 2)
    mask = shown.clone()
    mask[:, 4] = True
    place = torch.arange(6).expand(2, -1)
    hidden = torch.arange(24.0).view(2, 6, 2)
    return SimpleNamespace(
        shown=shown, visual=SimpleNamespace(mask=mask), place=place, hidden=hidden, protected=protected, valid=valid
    )


def test_the_best_stay_and_protected_ones_first():
    scores = torch.tensor([0.5, 0.9, 0.5, 0.1])
    assert choose(scores, 2).tolist() == [0, 1]  # equal scores go to the earlier one
    assert choose(scores, 2, torch.tensor([False, False, False, True])).tolist() == [1, 3]
    with pytest.raises(BudgetError, match="2 visual tokens are protected, but the budget leaves 1"):
        choose(scores, 1, torch.tensor([True, True, False, False]))


def test_rows_of_different_length_are_padded_on_the_left():
    cut = assemble(stream(), [torch.tensor([2]), torch.tensor([1, 3])])
    assert cut.keep.tolist() == [[-1, 0, 2, 4, 5], [0, 1, 3, 4, 5]] and cut.values is None


def test_separators_go_if_asked_and_padding_always():
    both = [torch.tensor([2]), torch.tensor([3])]
    assert assemble(stream(), both, separators=False).keep.tolist() == [[0, 2, 5], [0, 3, 5]]
    valid = torch.tensor([[True] * 6, [False] + [True] * 5])
    assert assemble(stream(valid=valid), both).keep.tolist() == [[0, 2, 4, 5], [-1, 3, 4, 5]]


def test_values_follow_their_tokens_in_the_given_order():
    kept = [torch.tensor([3, 1]), torch.tensor([1, 2])]
    values = [torch.tensor([[30.0, 31.0], [10.0, 11.0]]), None]
    cut = assemble(stream(), kept, values, order="given")
    assert cut.keep.tolist() == [[0, 3, 1, 4, 5], [0, 1, 2, 4, 5]]
    assert cut.values[0, 1:3].tolist() == [[30.0, 31.0], [10.0, 11.0]]
    assert torch.equal(cut.values[1], stream().hidden[1, [0, 1, 2, 4, 5]])  # as they are
    assert assemble(stream(), kept, values).keep.tolist()[0] == [0, 1, 3, 4, 5]


def test_scores_are_put_at_the_tokens_that_show_patches():
    cut = assemble(stream(), [torch.tensor([1])] * 2, scores=[torch.tensor([1.0, 2.0, 3.0])] * 2)
    assert cut.scores.nan_to_num(-1).tolist() == [[-1, 1, 2, 3, -1, -1]] * 2


def test_a_protected_token_is_never_removed():
    protected = torch.zeros(2, 6, dtype=torch.bool)
    protected[1, 3] = True
    with pytest.raises(BudgetError, match="1 protected visual tokens would be removed"):
        assemble(stream(protected), [torch.tensor([1]), torch.tensor([2])])
    assert assemble(stream(protected), [torch.tensor([1]), torch.tensor([3])]).keep.tolist()[1] == [0, 3, 4, 5]
