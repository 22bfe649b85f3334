"""A joint block: image and text attend to each other, inside subregions or not, and are modulated by the time."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.methods.codecs.e_mmdit.tokens import gelu, rejoined, subregions


class Region(NamedTuple):
    """How the tokens of a block are split: into `slices`, by runs of `run` tokens; one slice is full attention."""

    slices: int = 1
    run: int = 1


def pattern(block: int, slices: int, runs: tuple[int, int]) -> Region:
    """Alternating Subregion Attention: full, then runs of the first length, then of the second, over and over."""
    return Region() if block % 3 == 0 else Region(slices, runs[block % 3 - 1])


class Stream(nn.Module):
    """What one of the two streams has for itself in a block: norms, projections, FFN, and AdaLN-affine.

    ``m = b + t6 * (1 + s)`` with b, s [6, D] learned: shift, scale and gate of attention, then of the FFN.

    Args:
        last: the text stream of the last block, which is read and not written.
    """

    def __init__(self, width: int, heads: int, ffn: int, last: bool = False):
        super().__init__()
        self.heads, self.last = heads, last
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))
        if not last:
            self.out = nn.Linear(width, width)
            self.ffn_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
            self.ffn = nn.Sequential(nn.Linear(width, ffn * width), gelu(), nn.Linear(ffn * width, width))
            self.bias, self.scale = (nn.Parameter(torch.randn(6, width) / width**0.5) for _ in range(2))

    def modulation(self, t6: Tensor) -> tuple[Tensor, ...]:
        """Six tensors [B, 1, D] from those of the time, [B, 6, D]."""
        return (self.bias + t6 * (1 + self.scale)).chunk(6, 1)

    def project(self, x: Tensor, region: Region) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B * slices, H, n / slices, d] of the normed input [B, n, D]."""
        parts = self.qkv(subregions(x, *region)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.q_norm(parts[0]), self.k_norm(parts[1]), parts[2]


class JointBlock(nn.Module):
    """One block over image tokens [B, n, D] and text tokens [B, m, D]. There is no mask: padding takes part.

    Slice r of the image meets slice r of the text alone.
    """

    def __init__(self, width: int, heads: int, ffn: int, region: Region, last: bool = False):
        super().__init__()
        self.region = region
        self.image, self.text = Stream(width, heads, ffn), Stream(width, heads, ffn, last)

    def forward(self, image: Tensor, text: Tensor, t6: Tensor) -> tuple[Tensor, Tensor]:
        streams, given = (self.image, self.text), (image, text)
        by_time = [None if stream.last else stream.modulation(t6) for stream in streams]
        normed = [
            stream.norm(x) if m is None else stream.norm(x) * (1 + m[1]) + m[0]
            for stream, x, m in zip(streams, given, by_time, strict=True)
        ]
        projected = [stream.project(x, self.region) for stream, x in zip(streams, normed, strict=True)]
        q, k, v = (torch.cat(parts, 2) for parts in zip(*projected, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        parts = mixed.split([part[0].shape[2] for part in projected], 1)
        return tuple(  # type: ignore[return-value]
            x if m is None else self._written(stream, x, rejoined(part, *self.region), m)
            for stream, x, part, m in zip(streams, given, parts, by_time, strict=True)
        )

    def _written(self, stream: Stream, x: Tensor, attended: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        x = x + m[2] * stream.out(attended)
        return x + m[5] * stream.ffn(stream.ffn_norm(x) * (1 + m[4]) + m[3])
