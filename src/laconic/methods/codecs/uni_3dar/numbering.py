"""What is chosen at the nodes of an octree as whole numbers, for a file of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.errors import CodesError
from laconic.methods.codecs.uni_3dar.octree import Atom, Choice, Grid, Growth

TREE = 255
"""Different tokens of nodes: their children, less one, since there is at least one child."""


def alphabet(grid: Grid, kinds: int) -> int:
    """How many numbers there are."""
    return TREE + kinds * grid.places


def number(choice: Choice, grid: Grid) -> int:
    """The number of a choice: children first, then points by kind, then by place."""
    if isinstance(choice, int):
        return choice - 1
    x, y, z = choice.bins
    return TREE + choice.kind * grid.places + (z * grid.bins + y) * grid.bins + x


def choice(value: int, grid: Grid) -> Choice:
    """The choice that a number stands for."""
    if value < TREE:
        return value + 1
    kind, place = divmod(value - TREE, grid.places)
    return Atom(kind, (place % grid.bins, place // grid.bins % grid.bins, place // grid.bins**2))


def regrown(values: Tensor, grid: Grid) -> Growth:
    """The tree that numbers [n] describe, or as much of it as they do.

    Raises:
        CodesError: numbers that are no tree, or more than it has nodes.
    """
    growth = Growth(grid)
    for at, value in enumerate(values.tolist()):
        if growth.next is None:
            raise CodesError(f"these codes go on after their tree has ended, at token {at}; they belong together no more.")
        try:
            growth.take(choice(value, grid))
        except ValueError as error:
            raise CodesError(f"these codes are no octree: token {at}: {error}") from error
    return growth


def numbered(growth: Growth, grid: Grid) -> Tensor:
    """The numbers of all choices of a tree, in its order, int64 [n]."""
    return torch.tensor([number(chosen, grid) for _, chosen in growth.chosen])
