"""What turns a vector into one of a finite number of codes, and back: a learned codebook (VQ), or rounded numbers (FSQ)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantised(NamedTuple):
    """Vectors [..., d] that carry gradients straight through, the numbers of their codes [...], and the quantiser's loss."""

    vectors: Tensor
    indices: Tensor
    loss: Tensor


class Quantiser(nn.Module):
    """A finite set of codes. `codes` is how many there are, `width` the length d of a vector."""

    codes: int
    width: int

    def forward(self, z: Tensor) -> Quantised:
        """The codes nearest to `z`, [..., d]."""
        raise NotImplementedError

    def vectors(self, indices: Tensor) -> Tensor:
        """The vectors [..., d] of code numbers [...]."""
        raise NotImplementedError


class VQ(Quantiser):
    """Nearest code of a learned codebook, both of length one (TiTok's quantiser, arXiv 2406.07550).

    The loss is ``mean((q - sg z)^2) + commitment * mean((sg q - z)^2)``: the first term moves codes, the second the encoder.
    """

    def __init__(self, codes: int, width: int, commitment: float = 0.25):
        super().__init__()
        self.codes, self.width, self.commitment = codes, width, commitment
        self.codebook = nn.Parameter(torch.empty(codes, width).uniform_(-1 / codes, 1 / codes))

    def forward(self, z: Tensor) -> Quantised:
        z = F.normalize(z.float(), dim=-1)
        indices = (z @ F.normalize(self.codebook, dim=-1).T).argmax(
            -1
        )  # of unit vectors, the nearest has the largest cosine
        q = self.vectors(indices)
        loss = F.mse_loss(q, z.detach()) + self.commitment * F.mse_loss(z, q.detach())
        return Quantised(z + (q - z).detach(), indices, loss)

    def vectors(self, indices: Tensor) -> Tensor:
        return F.normalize(self.codebook, dim=-1)[indices]


class FSQ(Quantiser):
    """Finite scalar quantisation (arXiv 2309.15505): number i of a vector is bounded and rounded to one of ``levels[i]``
    values, so every combination is a code and none can die. It has no parameters and no loss."""

    _levels: Tensor
    _radix: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.codes, self.width = math.prod(levels), len(levels)
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)
        self.register_buffer("_radix", torch.tensor([1, *levels[:-1]]).cumprod(0), persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        half = (self._levels - 1) * 1.001 / 2  # a little over, so that the outermost values are reached
        offset = 0.5 * (self._levels % 2 == 0)  # an even number of levels has none at zero
        bounded = torch.tanh(z.float() + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        digits = rounded.detach().round().long() + self._levels // 2
        return Quantised(rounded / (self._levels // 2), (digits * self._radix).sum(-1), z.new_zeros(()))

    def vectors(self, indices: Tensor) -> Tensor:
        half = self._levels // 2
        return (indices[..., None] // self._radix % self._levels - half) / half
