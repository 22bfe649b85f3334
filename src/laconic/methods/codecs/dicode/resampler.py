"""From a frame to a few deep tokens: patch features, and learned latents that read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.modulated import split_heads

RGB = 3
CHANNELS = 64
"""Numbers of a patch feature."""


class Patches(nn.Module):
    """Frames [N, 3, size, size] -> features [N, (size / 4)^2, 64]: three convolutions, and learned positions."""

    def __init__(self, size: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(RGB, CHANNELS // 2, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(CHANNELS // 2, CHANNELS, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1),
        )
        self.place = nn.Parameter(0.02 * torch.randn((size // 4) ** 2, CHANNELS))

    def forward(self, frames: Tensor) -> Tensor:
        found: Tensor = self.layers(frames).flatten(2).mT + self.place
        return found


class Layer(nn.Module):
    """Latents [N, q, w] read features [N, n, w] and themselves, then an MLP; each is added."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.of_features, self.of_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.seen = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        normed = self.of_latents(latents)
        (q,) = split_heads(self.query(normed), 1, self.heads)
        k, v = split_heads(self.seen(torch.cat([self.of_features(features), normed], 1)), 2, self.heads)
        latents = latents + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        read: Tensor = latents + self.mlp(latents)
        return read


class Resampler(nn.Module):
    """Features [N, n, 64] -> tokens [N, q, numbers], normed (Perceiver resampler, arXiv 2204.14198)."""

    def __init__(self, tokens: int, numbers: int, width: int, depth: int, heads: int):
        super().__init__()
        self.embed = nn.Linear(CHANNELS, width)
        self.latents = nn.Parameter(torch.randn(tokens, width) / width**0.5)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.read, self.norm = nn.Linear(width, numbers), nn.LayerNorm(numbers)

    def forward(self, features: Tensor) -> Tensor:
        seen, latents = self.embed(features), self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(seen, latents)
        tokens: Tensor = self.norm(self.read(latents))
        return tokens
