"""Draws depend on the seed and the number of tokens alone."""

import torch

from laconic.stream.draws import drawn


def test_equal_seeds_draw_equal_numbers_whatever_was_drawn_before():
    first = drawn(20, 3)
    torch.rand(5)
    assert torch.equal(first, drawn(20, 3)) and not torch.equal(first, drawn(20, 4))
    assert first.shape == (20,) and float(first.min()) >= 0 and float(first.max()) < 1 and first.std() > 0.1
