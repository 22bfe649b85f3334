"""Truncate: the left, the right or the middle is dropped; content does not matter."""

import pytest
import torch
from helpers.reference import chosen, left_padding, observe

from laconic import Truncate

KEPT = {
    "left": [16, 17, 18, 19, 20, 21, 22],
    "right": [0, 1, 2, 3, 4, 5, 6],
    "middle": [0, 1, 2, 19, 20, 21, 22],
}


@pytest.mark.parametrize("side", KEPT)
def test_which_end_stays(side):
    selection = Truncate(side=side).select(observe(n=23, targets=[7, 7]))
    assert all(chosen(selection, b, h) == KEPT[side] for b in range(2) for h in range(2))


@pytest.mark.parametrize("side", KEPT)
def test_padding_is_not_an_end(side):
    seen = observe(n=29, valid=left_padding(29, 6, 0), targets=[7, 7])
    assert chosen(Truncate(side=side).select(seen), 0, 0) == [6 + j for j in KEPT[side]]


def test_content_does_not_matter():
    assert torch.equal(Truncate().score(observe(seed=0)), Truncate().score(observe(seed=1)))


def test_other_sides_are_refused():
    with pytest.raises(ValueError, match="side='top'"):
        Truncate(side="top")
