"""Octrees of points: round trips, counts, order, and the numbers that a file of codes holds."""

import itertools
import random

import pytest
import torch

from laconic.errors import CodesError, MediaError
from laconic.methods.codecs.uni_3dar.numbering import alphabet, choice, number, numbered, regrown
from laconic.methods.codecs.uni_3dar.octree import Atom, Grid, Growth, grown, origin, points, z_order


def cloud(seed, n, grid, kinds=3):
    """Points no two of which share a cell, well within the cube."""
    rng = random.Random(seed)
    side = max(2, grid.side // 2)
    cells = rng.sample([(x, y, z) for x in range(side) for y in range(side) for z in range(side)], min(n, side**3))
    at = [[(c + rng.random() * 0.9) * grid.cell for c in cell] for cell in cells]
    return torch.tensor(at, dtype=torch.float64) - 0.37, torch.tensor([rng.randrange(kinds) for _ in cells])


@pytest.mark.parametrize("levels", range(3, 9))
def test_1_points_come_back_within_half_a_bin(levels):
    grid = Grid(levels, 0.24, 24)
    at, kinds = cloud(levels, 12, grid)
    found, names = points(grown(at, kinds, grid), grid)
    found = found.double() + (origin(at, grid) + grid.side / 2) * grid.cell
    apart = (found[:, None] - at[None]).abs().amax(-1)
    assert len(found) == len(at) and apart.amin(1).max() <= 0.005 + 1e-6
    assert [names[i] for i in apart.argmin(0).tolist()] == kinds.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_2_children_of_every_level_are_the_nodes_of_the_next(seed):
    grid = Grid(5, 0.4, 8)
    growth = grown(*cloud(seed, 20, grid), grid)
    for level in range(5, 0, -1):
        children = sum(c.bit_count() for node, c in growth.chosen if node.level == level)
        assert children == sum(node.level == level - 1 for node, _ in growth.chosen)
    assert sum(isinstance(c, Atom) for _, c in growth.chosen) == 20
    levels = [node.level for node, _ in growth.chosen]
    assert levels == sorted(levels, reverse=True)  # breadth first


def test_2_one_point_takes_a_token_a_level_and_one():
    grid = Grid(6, 1.0, 4)
    assert len(grown(torch.tensor([[3.3, -2.0, 8.1]]), torch.tensor([1]), grid).chosen) == 6 + 1


@pytest.mark.parametrize("seed", range(4))
def test_4_the_order_is_that_of_sorted_keys_whatever_the_order_of_the_points(seed):
    """A slow reference: at every level, nodes by the bits of their coordinates, x lowest; children by the same rule."""
    grid = Grid(4, 0.5, 4)
    at, kinds = cloud(seed, 15, grid)
    growth = grown(at, kinds, grid)
    order = torch.randperm(len(at), generator=torch.Generator().manual_seed(seed))
    assert grown(at[order], kinds[order], grid).chosen == growth.chosen
    cells = [node.corner for node, _ in growth.chosen if node.level == 0]

    def key(cell, level):
        return sum((cell[axis] >> (level + bit) & 1) << (3 * bit + axis) for bit in range(4) for axis in range(3))

    for level in range(4, -1, -1):
        want = sorted({key(cell, level) for cell in cells})
        got = [key(node.corner, level) for node, _ in growth.chosen if node.level == level]
        assert got == want
        if level:
            below = {key(cell, level - 1) for cell in cells}
            masks = [sum(1 << b for b in range(8) if 8 * k + b in below) for k in want]
            assert [c for node, c in growth.chosen if node.level == level] == masks
    assert [z_order(cell) for cell in cells] == [key(cell, 0) for cell in cells]


def test_rounding_carries_into_the_next_cell():
    grid = Grid(3, 1.0, 4)
    growth = grown(torch.tensor([[0.0, 0.0, 0.0], [0.99, 0.0, 0.0]]), torch.tensor([0, 0]), grid)
    atoms = [(node.corner, c.bins) for node, c in growth.chosen if node.level == 0]
    (a, first), (b, second) = sorted(atoms)
    assert b[0] == a[0] + 1 and first == second == (0, 0, 0)


def test_of_several_points_in_a_cell_one_stays_and_those_outside_move_to_the_side():
    grid = Grid(2, 1.0, 2)
    growth = grown(torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]]), torch.tensor([2, 1]), grid)
    assert [c for node, c in growth.chosen if node.level == 0] == [Atom(1, (0, 0, 0))]
    wide = grown(torch.tensor([[0.0, 0, 0], [100.0, 0, 0]]), torch.tensor([0, 0]), grid)
    assert {node.corner[0] for node, _ in wide.chosen if node.level == 0} == {0, 3}
    with pytest.raises(MediaError, match="at least one point"):
        grown(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), grid)


def test_numbers_stand_for_choices():
    grid = Grid(4, 0.5, 4)
    size = alphabet(grid, 3)
    assert size == 255 + 3 * 64
    assert [number(choice(value, grid), grid) for value in range(size)] == list(range(size))
    assert choice(0, grid) == 1 and choice(254, grid) == 255 and choice(255, grid) == Atom(0, (0, 0, 0))
    growth = grown(*cloud(5, 9, grid), grid)
    assert regrown(numbered(growth, grid), grid).chosen == growth.chosen


def test_a_first_part_is_a_coarse_shape():
    grid = Grid(4, 0.5, 4)
    at, kinds = cloud(5, 9, grid)
    values = numbered(grown(at, kinds, grid), grid)
    centred = at.float() - ((origin(at, grid) + grid.side / 2) * grid.cell).float()
    errors = []
    for kept in range(1, len(values) + 1):
        found, _ = points(regrown(values[:kept], grid), grid)
        errors.append(float(torch.cdist(centred, found).amin(1).max()))
    assert errors[-1] < 0.2 < 2 < errors[0]
    assert sum(b > a + 1e-6 for a, b in itertools.pairwise(errors)) <= len(errors) // 4


@pytest.mark.parametrize(
    ("values", "message"), [([255], "takes children"), ([0, 0, 0], "takes a point"), ([0, 0, 255, 0], "ended, at token 3")]
)
def test_numbers_that_are_no_tree_are_refused(values, message):
    with pytest.raises(CodesError, match=message):
        regrown(torch.tensor(values), Grid(2, 1.0, 2))


def test_no_child_cannot_be_chosen():
    with pytest.raises(ValueError, match="1 to 255"):
        Growth(Grid(2, 1.0, 2)).take(0)
