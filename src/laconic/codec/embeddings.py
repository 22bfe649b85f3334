"""Fixed embeddings of diffusion transformers: of the time, and of places in a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frequencies(t: Tensor, numbers: int) -> Tensor:
    """Sinusoidal embedding [B, numbers] of times [B] in 0 .. 1, a thousand steps apart."""
    half = numbers // 2
    angles = 1000 * t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    return torch.cat([angles.cos(), angles.sin()], 1)


def sincos(width: int, side: int) -> Tensor:
    """Fixed positions [side^2, width]: half of the numbers for the column, half for the line, each sine and cosine."""
    rates = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = [
        angle
        for place in (x, y)
        for angle in ((place.flatten()[:, None] * rates).sin(), (place.flatten()[:, None] * rates).cos())
    ]
    return torch.cat(parts, 1)
