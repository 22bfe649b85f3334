"""Fewer tokens in the middle: the compressor of two paths, the reconstructor, and the subregions of attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def gelu() -> nn.Module:
    return nn.GELU("tanh")


def grid_of(x: Tensor, side: int) -> Tensor:
    """Tokens [B, side^2, D], line by line, as a grid [B, D, side, side]."""
    return x.mT.unflatten(2, (side, side))


def line_of(x: Tensor) -> Tensor:
    """A grid [B, D, side, side] as tokens [B, side^2, D]."""
    return x.flatten(2).mT


class Compressor(nn.Module):
    """Tokens [B, side^2, D] -> those of every path after one another, [B, sum of (side / ratio)^2, D]."""

    def __init__(self, width: int, side: int, ratios: Sequence[int] = (2, 4)):
        super().__init__()
        self.side = side
        self.paths = nn.ModuleList(
            nn.Sequential(nn.PixelUnshuffle(r), nn.Conv2d(r * r * width, width, 1), gelu(), nn.Conv2d(width, width, 1))
            for r in ratios
        )

    def forward(self, x: Tensor) -> Tensor:
        grid = grid_of(x, self.side)
        return torch.cat([line_of(path(grid)) for path in self.paths], 1)


class Reconstructor(nn.Module):
    """The compressor's tokens and the full ones from before it [B, side^2, D] -> full tokens."""

    def __init__(self, width: int, side: int, ratios: Sequence[int] = (2, 4)):
        super().__init__()
        self.sides = [side // r for r in ratios]
        self.paths = nn.ModuleList(
            nn.Sequential(nn.PixelShuffle(r), nn.Conv2d(width // (r * r), width, 1), gelu(), nn.Conv2d(width, width, 1))
            for r in ratios
        )
        self.merge = nn.Sequential(nn.Linear((len(ratios) + 1) * width, width), gelu(), nn.Linear(width, width))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        parts = x.split([side**2 for side in self.sides], 1)
        grids = [grid_of(part, side) for part, side in zip(parts, self.sides, strict=True)]
        full = [line_of(path(grid)) for path, grid in zip(self.paths, grids, strict=True)]
        merged: Tensor = self.merge(torch.cat([*full, before], -1))
        return merged


def subregions(x: Tensor, slices: int, run: int) -> Tensor:
    """Tokens [B, n, D] -> [B * slices, n / slices, D]: token p goes to slice ``floor(p / run) mod slices``.

    Raises:
        ValueError: n is not a multiple of ``slices * run``.
    """
    if x.shape[1] % (slices * run):
        raise ValueError(f"{x.shape[1]} tokens do not divide into {slices} subregions of runs of {run}; use a multiple.")
    return x.unflatten(1, (-1, slices, run)).transpose(1, 2).flatten(0, 1).flatten(1, 2)


def rejoined(x: Tensor, slices: int, run: int) -> Tensor:
    """The inverse of `subregions`."""
    return x.unflatten(0, (-1, slices)).unflatten(2, (-1, run)).transpose(1, 2).flatten(1, 3)
