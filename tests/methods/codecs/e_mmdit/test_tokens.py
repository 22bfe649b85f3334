"""Compressor, reconstructor and subregions against loops."""

import pytest
import torch

from laconic.methods.codecs.e_mmdit.tokens import (
    Compressor,
    Reconstructor,
    grid_of,
    line_of,
    rejoined,
    subregions,
)


def test_2_grids_are_read_line_by_line():
    x = torch.arange(2 * 16 * 3).view(2, 16, 3)
    assert torch.equal(grid_of(x, 4)[1, :, 2, 3], x[1, 11]) and torch.equal(line_of(grid_of(x, 4)), x)


@pytest.mark.parametrize("ratio", [2, 4])
def test_2_unshuffled_and_shuffled_with_identities_is_the_same_grid(ratio):
    """A width of r^2 * 3 in the middle carries everything: identity convolutions restore it."""
    x = torch.randn(2, 64, 3)
    squeezed = torch.nn.functional.pixel_unshuffle(grid_of(x, 8), ratio)
    assert squeezed.shape == (2, 3 * ratio**2, 8 // ratio, 8 // ratio)
    assert torch.equal(line_of(torch.nn.functional.pixel_shuffle(squeezed, ratio)), x)


def test_1_two_paths_after_one_another_in_the_order_of_the_lines():
    made = Compressor(8, 8)
    x = torch.randn(2, 64, 8)
    found = made(x)
    assert found.shape == (2, 16 + 4, 8)
    other = x.clone()
    other[:, 8 * 3 + 6] += 1  # line 3, column 6: token 1 * 4 + 3 of the first path, 0 * 2 + 1 of the second
    changed = (made(other) != found).any(-1)[0].nonzero()[:, 0].tolist()
    assert changed == [7, 16 + 1]


def test_the_reconstructor_puts_every_path_back_where_it_came_from():
    made = Reconstructor(16, 8)
    x, before = torch.randn(1, 20, 16), torch.randn(1, 64, 16)
    found = made(x, before)
    assert found.shape == (1, 64, 16)
    for token, cells in ((7, [(2, 6), (2, 7), (3, 6), (3, 7)]), (17, [(y, c) for y in range(4) for c in range(4, 8)])):
        other = x.clone()
        other[:, token] += 1
        changed = (made(other, before) != found).any(-1)[0].nonzero()[:, 0].tolist()
        assert changed == [8 * y + c for y, c in cells]
    other = before.clone()
    other[:, 5] += 1
    assert (made(x, other) != found).any(-1)[0].nonzero()[:, 0].tolist() == [5]


@pytest.mark.parametrize(("slices", "run"), [(4, 1), (4, 4), (2, 2), (1, 1), (1, 8)])
@pytest.mark.parametrize("n", [16, 80, 128])
def test_3_subregions_are_those_of_a_loop(slices, run, n):
    x = torch.randn(3, n, 2)
    slow = [[p for p in range(n) if p // run % slices == r] for r in range(slices)]
    found = subregions(x, slices, run)
    for b in range(3):
        for r in range(slices):
            assert torch.equal(found[b * slices + r], x[b, slow[r]])
    assert torch.equal(rejoined(found, slices, run), x)


def test_tokens_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="20 tokens do not divide into 4 subregions of runs of 4"):
        subregions(torch.zeros(1, 20, 2), 4, 4)
