"""The encoder: learned queries read an image, which does not see them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.embeddings import frequencies, sincos
from laconic.codec.modulated import Modulated, split_heads
from laconic.codec.patches import patched

RGB = 3
FREQUENCIES = 64
"""Numbers of the sinusoidal embedding of a query's number."""


class DualBlock(nn.Module):
    """A layer of the image stream, then one of the queries, which attend to the image and to each other."""

    def __init__(self, image_width: int, width: int, heads: int):
        super().__init__()
        self.image = nn.TransformerEncoderLayer(
            image_width, heads, 4 * image_width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.seen = nn.Sequential(nn.LayerNorm(image_width), nn.Linear(image_width, 2 * width))
        self.query = Modulated(width, heads, zero=True)

    def forward(self, image: Tensor, queries: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """image [B, n, image_width], queries [B, K, w], modulated by what says which query is which, [K, w]."""
        image, m = self.image(image), self.query.modulation(places)
        q, k, v = self.query.project(queries, m)
        seen_k, seen_v = split_heads(self.seen(image), 2, self.query.heads)
        attended = F.scaled_dot_product_attention(q, torch.cat([seen_k, k], 2), torch.cat([seen_v, v], 2))
        return image, self.query.write(queries, attended, m)


class Encoder(nn.Module):
    """Images [B, 3, size, size] -> outputs of K queries, [B, K, numbers].

    Gates start at 0, so an untrained encoder gives the same for every image. Query i is told its number as the time
    ``1000 + 8 i``, which no time of the decoder is equal to.

    Args:
        side: patches of the image's side.
    """

    positions: Tensor
    numbers: Tensor

    def __init__(
        self, tokens: int, patch: int, side: int, image_width: int, width: int, depth: int, heads: int, numbers: int
    ):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(RGB * patch**2, image_width)
        self.queries = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.place = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(DualBlock(image_width, width, heads) for _ in range(depth))
        self.read = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, numbers))
        self.register_buffer("positions", sincos(image_width, side), persistent=False)
        self.register_buffer("numbers", frequencies(1 + 0.008 * torch.arange(tokens), FREQUENCIES), persistent=False)

    def streams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens and queries after the last block."""
        image, places = self.embed(patched(images, self.patch)) + self.positions, self.place(self.numbers)
        queries = self.queries.expand(len(images), -1, -1)
        for block in self.blocks:
            image, queries = block(image, queries, places)
        return image, queries

    def forward(self, images: Tensor) -> Tensor:
        read: Tensor = self.read(self.streams(images)[1])
        return read
