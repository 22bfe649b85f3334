"""Structures by script: chains of atoms with one bond length and two angles, and shells of voxels."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.float64]

BOND = 1.4
"""Length of every bond of a chain."""
ANGLES = (109.5, 120.0)
"""What neighbouring bonds of a chain include, in degrees: the first after kinds 0 and 1, the second after 2 and 3."""


def molecule(seed: int, kinds: int = 4) -> tuple[Tensor, Tensor]:
    """A chain of three to nine atoms: places [n, 3] and kinds [n].

    The kind of an atom says which angle its bonds include, so kinds and places depend on each other. Turns about a bond are
    free; atoms never come nearer than 1.1, so that none share a cell of 0.4.
    """
    rng = random.Random(f"molecule-{seed}")
    wanted = rng.randint(3, 9)
    places, found = [np.zeros(3)], [rng.randrange(kinds)]
    bond = _unit(rng)
    while len(places) < wanted:
        turned_bond = bond if len(places) == 1 else _turned(rng, bond, ANGLES[found[-1] * len(ANGLES) // kinds])
        place = places[-1] + BOND * turned_bond
        if min(np.linalg.norm(place - other) for other in places) < 1.1:
            continue  # another turn about the last bond
        places.append(place)
        found.append(rng.randrange(kinds))
        bond = turned_bond
    at = torch.from_numpy(np.stack(places))
    return turned(at, rng).float(), torch.tensor(found)


def shell(seed: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """The surface of a sphere, a box or a ring as voxels of a grid, [n, 3] in cells, and its kind, 0 to 2, at each [n]."""
    rng = random.Random(f"shell-{seed}")
    kind, middle = rng.randrange(3), torch.tensor([rng.uniform(0.45, 0.55) * side for _ in range(3)])
    at = torch.stack(torch.meshgrid(*[torch.arange(side) + 0.5] * 3, indexing="ij"), -1).reshape(-1, 3) - middle
    if kind == 0:
        distance = at.norm(dim=1) - rng.uniform(0.2, 0.4) * side
    elif kind == 1:
        half = torch.tensor([rng.uniform(0.15, 0.35) * side for _ in range(3)])
        distance = (at.abs() - half).amax(1)
    else:
        around = at[:, :2].norm(dim=1) - rng.uniform(0.22, 0.32) * side
        distance = torch.stack([around, at[:, 2]]).norm(dim=0) - rng.uniform(0.08, 0.14) * side
    surface = (distance <= 0) & (distance > -1)
    places = (at + middle)[surface].floor()
    return places, torch.full((len(places),), kind)


def turned(at: Tensor, rng: random.Random) -> Tensor:
    """Points [n, 3] under a rotation drawn uniformly."""
    q = torch.nn.functional.normalize(torch.tensor([rng.gauss(0, 1) for _ in range(4)], dtype=at.dtype), dim=0)
    w, x, y, z = q.tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return at @ torch.tensor(rows, dtype=at.dtype).T


def _unit(rng: random.Random) -> Vector:
    drawn = np.array([rng.gauss(0, 1) for _ in range(3)])
    return drawn / np.linalg.norm(drawn)


def _turned(rng: random.Random, bond: Vector, angle: float) -> Vector:
    """A direction that includes `angle` degrees with the way back, turned about it at random."""
    side = _unit(rng)
    side = side - (side @ bond) * bond
    away = math.radians(180 - angle)
    found: Vector = math.cos(away) * bond + math.sin(away) * side / np.linalg.norm(side)
    return found
