"""The decoder: noisy patches, or mask tokens, and the codes that are visible attend to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.embeddings import frequencies, sincos
from laconic.codec.modulated import Modulated

FREQUENCIES = 64
"""Numbers of the sinusoidal embedding of the time."""


class JointBlock(nn.Module):
    """Image tokens [B, n, w] and codes [B, K, w] attend to both, codes that are hidden excepted.

    Args:
        last: leave the codes as they are; nothing reads them after this block.
    """

    def __init__(self, width: int, heads: int, last: bool = False):
        super().__init__()
        self.last = last
        self.image, self.codes = Modulated(width, heads), Modulated(width, heads, last=last)

    def forward(self, image: Tensor, codes: Tensor, time: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """time [B, 1, w]; seen, whether each key is, [B, 1, 1, n + K]."""
        m, m_codes = self.image.modulation(time), self.codes.modulation(time)
        both = zip(self.image.project(image, m), self.codes.project(codes, m_codes), strict=True)
        q, k, v = (torch.cat(parts, 2) for parts in both)
        n = image.shape[1]
        if self.last:
            return self.image.write(image, F.scaled_dot_product_attention(q[:, :, :n], k, v, seen), m), codes
        attended = F.scaled_dot_product_attention(q, k, v, seen)
        written = self.image.write(image, attended[:, :, :n], m)
        return written, self.codes.write(codes, attended[:, :, n:], m_codes)


class Decoder(nn.Module):
    """The velocity of patches [B, n, numbers] at time t [B] (1 is noise), given the vectors [B, K, d] of the codes.

    Args:
        numbers: of a patch. `vector`: of a code, d. `side`: patches of the image's side.
        masked: a renderer, which sees one learned mask token in the place of every patch, and gives the patches themselves.
    """

    positions: Tensor

    def __init__(
        self, numbers: int, vector: int, tokens: int, side: int, width: int, depth: int, heads: int, masked: bool = False
    ):
        super().__init__()
        if masked:
            self.mask = nn.Parameter(0.02 * torch.randn(width))
        else:
            self.embed = nn.Linear(numbers, width)
        self.write = nn.Linear(vector, width)
        self.code_place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(JointBlock(width, heads, i == depth - 1) for i in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, numbers)
        self.register_buffer("positions", sincos(width, side), persistent=False)

    def forward(self, patches: Tensor, t: Tensor, vectors: Tensor, visible: Tensor) -> Tensor:
        """visible: whether each code is, [B, K]; hidden ones take no part."""
        return self._run(self.embed(patches), t, vectors, visible)

    def render(self, vectors: Tensor, visible: Tensor) -> Tensor:
        """Patches [B, n, numbers] in one pass; of a masked decoder."""
        image = self.mask.expand(len(vectors), len(self.positions), -1)
        return self._run(image, torch.ones(len(vectors), device=vectors.device), vectors, visible)

    def _run(self, image: Tensor, t: Tensor, vectors: Tensor, visible: Tensor) -> Tensor:
        time = self.time(frequencies(t, FREQUENCIES))[:, None]
        codes = self.write(vectors * visible[..., None]) + self.code_place
        image = image + self.positions
        always = visible.new_ones(len(image), image.shape[1])
        seen = torch.cat([always, visible], 1)[:, None, None]
        for block in self.blocks:
            image, codes = block(image, codes, time, seen)
        out: Tensor = self.head(self.norm(image))
        return out
