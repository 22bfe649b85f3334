"""The octree of a cloud of points: one token says which of a node's eight children hold points (arXiv 2503.16278)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.errors import MediaError


@dataclass(frozen=True)
class Grid:
    """A cube of ``2 ** levels`` cells a side.

    Args:
        cell: its length, in the unit of the points. `bins`: places along an axis within a cell.
    """

    levels: int
    cell: float
    bins: int

    def __post_init__(self) -> None:
        if not (1 <= self.levels <= 12 and self.cell > 0 and self.bins >= 1):
            raise ValueError(f"{self}: needs 1 to 12 levels, a positive cell and at least one bin.")

    @property
    def side(self) -> int:
        """Cells along an edge of the cube."""
        return 1 << self.levels

    @property
    def places(self) -> int:
        """Places within a cell."""
        return self.bins**3


@dataclass(frozen=True)
class Node:
    """A cube of ``2 ** level`` cells a side, at `corner`, in cells; one of level 0 is a cell with a point."""

    level: int
    corner: tuple[int, int, int]


@dataclass(frozen=True)
class Atom:
    """A point in a cell: its kind, and its bin along each axis."""

    kind: int
    bins: tuple[int, int, int]


Choice = int | Atom
"""What is chosen at a node: the children that there are, 1 to 255, or at a cell its point."""


class Growth:
    """A tree that grows node by node, breadth first, children in Z-order.

    Attributes:
        chosen: nodes that were decided, with what was chosen at them. `waiting`: those that come next.
    """

    def __init__(self, grid: Grid) -> None:
        self.chosen: list[tuple[Node, Choice]] = []
        self.waiting: deque[Node] = deque([Node(grid.levels, (0, 0, 0))])

    @property
    def next(self) -> Node | None:
        """The node that is decided next; None where all are."""
        return self.waiting[0] if self.waiting else None

    def take(self, choice: Choice) -> None:
        """Decide the next node.

        Raises:
            ValueError: children at a cell, a point above one, or no child.
        """
        node = self.waiting[0]
        if isinstance(choice, Atom) != (node.level == 0) or not (isinstance(choice, Atom) or 1 <= choice <= 255):
            wanted = "a point" if node.level == 0 else "children, 1 to 255"
            raise ValueError(f"{choice} was chosen at a node of level {node.level}, which takes {wanted}.")
        self.chosen.append((self.waiting.popleft(), choice))
        if isinstance(choice, int):
            half = 1 << (node.level - 1)
            x, y, z = node.corner
            for b in range(8):
                if choice >> b & 1:
                    corner = (x + half * (b & 1), y + half * (b >> 1 & 1), z + half * (b >> 2 & 1))
                    self.waiting.append(Node(node.level - 1, corner))


def placed(at: Tensor, grid: Grid, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cells [n, 3] and bins [n, 3] of points, the mean cell in the middle of the cube; what lies outside is moved to its
    side.

    Args:
        shift: added to the cells [3], so that a training does not see one place alone.
    """
    cells, bins = _cells(at, grid)
    cells = cells - origin(at, grid) + (0 if shift is None else shift)
    return cells.clamp(0, grid.side - 1), bins


def origin(at: Tensor, grid: Grid) -> Tensor:
    """The corner of the cube, in cells [3], that puts the mean cell of points [n, 3] into its middle."""
    return (_cells(at, grid)[0].double().mean(0) - grid.side / 2).round().long()


def _cells(at: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    scaled = at.double() / grid.cell
    cells = scaled.floor()
    bins = ((scaled - cells) * grid.bins).round()
    over = bins == grid.bins  # rounding has reached the next cell
    return (cells + over).long(), torch.where(over, 0.0, bins).long()


def z_order(cell: Sequence[int]) -> int:
    """The key of a cell: bits of x, y and z in turn, x the lowest."""
    return sum((cell[axis] >> bit & 1) << (3 * bit + axis) for bit in range(max(cell).bit_length()) for axis in range(3))


def grown(at: Tensor, kinds: Tensor, grid: Grid, shift: Tensor | None = None) -> Growth:
    """The whole tree of points [n, 3] with their kinds [n]. Of several in one cell the first one by bins and kind stays.

    Raises:
        MediaError: no points.
    """
    if not len(at):
        raise MediaError("an octree needs at least one point.")
    cells, bins = placed(at, grid, shift)
    held: dict[tuple[int, ...], Atom] = {}
    rows = sorted(zip(cells.tolist(), bins.tolist(), kinds.tolist(), strict=True))
    for cell, inside, kind in rows:
        held.setdefault(tuple(cell), Atom(kind, (inside[0], inside[1], inside[2])))
    keys = [z_order(cell) for cell in held]
    children: list[dict[int, int]] = []  # of every level from 1 on: a node's key -> its children
    for _ in range(grid.levels):
        found: dict[int, int] = {}
        for key in keys:
            found[key >> 3] = found.get(key >> 3, 0) | 1 << (key & 7)
        children.append(found)
        keys = list(found)
    growth = Growth(grid)
    while (node := growth.next) is not None:
        if node.level == 0:
            growth.take(held[node.corner])
        else:
            key = z_order([side >> node.level for side in node.corner])
            growth.take(children[node.level - 1][key])
    return growth


def points(growth: Growth, grid: Grid) -> tuple[Tensor, list[int | None]]:
    """Where the points of a tree are, relative to the middle of the cube [n, 3], and their kinds; a node that was not
    decided stands for one point of no kind in its own middle."""
    places: list[list[float]] = []
    kinds: list[int | None] = []
    for node, choice in growth.chosen:
        if isinstance(choice, Atom):
            places.append([corner + inside / grid.bins for corner, inside in zip(node.corner, choice.bins, strict=True)])
            kinds.append(choice.kind)
    for node in growth.waiting:
        places.append([corner + (1 << node.level) / 2 for corner in node.corner])
        kinds.append(None)
    return (torch.tensor(places, dtype=torch.float64) - grid.side / 2).float() * grid.cell, kinds
