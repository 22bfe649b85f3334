"""Where things are in TextHawk2: tiles of a grid, groups in reading order, and codes of places that any grid has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARALLEL = 1e-4
"""Sine of an angle below which the way between two directions is taken to be straight."""


def tiles(x: Tensor, side: int) -> Tensor:
    """x [B, H, W, C] in tiles of side x side in raster order, [B, H W / side^2, side, side, C]; `side` divides H and W."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
    return x.reshape(batch, -1, side, side, channels)


def untiled(x: Tensor, rows: int) -> Tensor:
    """The inverse: tiles [B, n, s, s, C] in `rows` rows -> [B, H, W, C]."""
    batch, count, side, _, channels = x.shape
    x = x.view(batch, rows, count // rows, side, side, channels).transpose(2, 3)
    return x.reshape(batch, rows * side, -1, channels)


def joined(x: Tensor, group: tuple[int, int]) -> Tensor:
    """x [B, H, W, C] with neighbours side by side, [B, H W / n, n C], n = rows x columns of a `group`.

    A permutation and a view: bands of rows are read column by column, from left to right, and cut after every n cells. A
    group goes on in the next band where its columns do not divide W.
    """
    batch, height, width, channels = x.shape
    rows, cols = group
    bands = x.view(batch, height // rows, rows, width, channels).transpose(2, 3)
    return bands.reshape(batch, -1, rows * cols * channels)


class Axis(nn.Module):
    """Codes of one axis: the way along a sphere between two learned directions, for each head by itself.

    With unit vectors e0, e1 at an angle theta and a learned radius s (sqrt(d) at first):

        e(t) = s (sin((1 - t) theta) e0 + sin(t theta) e1) / sin(theta)

    Args:
        heads: of the attention. `size`: d, channels of each.
    """

    def __init__(self, heads: int, size: int):
        super().__init__()
        self.ends = nn.Parameter(torch.randn(2, heads, size))
        self.radius = nn.Parameter(torch.full((heads, 1), size**0.5))

    def forward(self, t: Tensor) -> Tensor:
        """Places from 0 to 1, [n] -> [n, heads * size]. Equal ends give the same code everywhere."""
        first, last = F.normalize(self.ends, dim=-1)
        angle = (first * last).sum(-1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7).acos()
        t, sine = t[:, None, None], angle.sin()
        straight = sine < PARALLEL
        ahead = torch.where(straight, t, (t * angle).sin() / sine.clamp(min=PARALLEL))
        behind = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / sine.clamp(min=PARALLEL))
        return (self.radius * (behind * first + ahead * last)).flatten(1)


class Places(nn.Module):
    """Codes of a grid of any size: rows and columns apart, and added. A cell stands at its middle, as a share of the whole
    image, so a coarser grid over the same image agrees with a finer one."""

    def __init__(self, heads: int, size: int):
        super().__init__()
        self.rows, self.columns = Axis(heads, size), Axis(heads, size)

    def forward(self, height: int, width: int) -> Tensor:
        """[height, width, heads * size]."""
        device = self.rows.ends.device
        down, across = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
        return self.rows(down)[:, None] + self.columns(across)
