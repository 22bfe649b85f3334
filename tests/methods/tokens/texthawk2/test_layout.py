"""Tiles, groups and places of TextHawk2. "line n" is what the card must show."""

import math

import pytest
import torch

from laconic.methods.tokens.texthawk2.layout import Axis, Places, joined, tiles, untiled


def test_tiles_equal_a_loop_and_come_back():
    """line 2"""
    x = torch.randn(2, 4, 6, 3)
    found = tiles(x, 2)
    for number in range(6):
        row, col = divmod(number, 3)
        assert torch.equal(found[:, number], x[:, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2])
    assert torch.equal(untiled(found, 2), x)


@pytest.mark.parametrize("group", [(1, 4), (1, 3), (2, 2), (4, 1), (2, 3)])
def test_neighbours_are_joined_in_reading_order_and_can_be_taken_apart(group):
    """line 2: bit for bit"""
    rows, cols = group
    x = torch.randn(2, 4, 12, 3)
    found, number = joined(x, group), 0
    back = torch.empty_like(x)
    for top in range(0, 4, rows):
        for left in range(0, 12, cols):
            cells = [(top + r, left + c) for c in range(cols) for r in range(rows)]
            for (r, c), part in zip(cells, found[:, number].chunk(rows * cols, -1), strict=True):
                assert torch.equal(part, x[:, r, c])
                back[:, r, c] = part
            number += 1
    assert number == found.shape[1] and torch.equal(back, x)


def test_a_group_goes_on_in_the_next_line():
    x = torch.arange(36.0).view(1, 6, 6, 1)
    assert joined(x, (1, 4))[0].flatten().tolist() == list(range(36))
    assert joined(x, (1, 4))[0, 1].tolist() == [4, 5, 6, 7]


def test_reading_order_of_tiles_is_a_raster_scan_of_the_whole():
    """line 2: lines of the tiles of one row interleave"""
    x = torch.randn(1, 8, 16, 5)
    assert torch.equal(joined(untiled(tiles(x, 8), 1), (1, 4)), x.reshape(1, 32, 20))


def angle(a, b):
    return math.acos(min(1.0, float(a @ b) / float(a.norm() * b.norm())))


def test_codes_go_along_a_sphere():
    """line 3: ends, lengths, and angles that grow evenly; grids of any size have codes"""
    torch.manual_seed(0)
    axis = Axis(2, 8).requires_grad_(False)
    axis.radius.copy_(torch.tensor([[2.0], [3.0]]))
    found = axis(torch.linspace(0, 1, 5)).view(5, 2, 8)
    torch.testing.assert_close(found.norm(dim=-1), torch.tensor([2.0, 3.0]).expand(5, 2))
    for head in range(2):
        for place, end in ((0, axis.ends[0, head]), (4, axis.ends[1, head])):
            assert angle(found[place, head], end) == pytest.approx(0, abs=1e-3)
        whole = angle(axis.ends[0, head], axis.ends[1, head])
        for i in range(4):
            assert angle(found[i, head], found[i + 1, head]) == pytest.approx(whole / 4, abs=1e-3)
    assert axis(torch.rand(99)).shape == (99, 16)


def test_equal_ends_are_one_place_with_gradients():
    """line 3"""
    axis = Axis(1, 4)
    with torch.no_grad():
        axis.ends[1] = axis.ends[0]
    found = axis(torch.linspace(0, 1, 3))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[0], found[2], rtol=1e-3, atol=1e-3)
    found[1].sum().backward()
    assert bool(axis.ends.grad.isfinite().all())


def test_a_place_is_a_row_and_a_column_and_coarse_grids_agree_with_fine_ones():
    places = Places(2, 4).requires_grad_(False)
    fine, coarse = places(3, 9), places(1, 3)
    torch.testing.assert_close(fine[1, 1], places.rows(torch.tensor([0.5]))[0] + places.columns(torch.tensor([1.5 / 9]))[0])
    torch.testing.assert_close(coarse[0], fine[1, [1, 4, 7]])
