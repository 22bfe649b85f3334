"""CoLaR's parts: blocks of embeddings merged into one vector, and the head that draws the next vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def merged(embeddings: Tensor, real: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Embeddings [B, n, d] of which `real` [B, n] are no padding -> one vector for each block of `size`, [B, m, d], and the
    number of real tokens in it, [B, m].

    A block is the sum of its real embeddings divided by the square root of their number, which keeps the deviation of a
    single embedding; the mean would shrink it.
    """
    short = -embeddings.shape[1] % size
    x = F.pad(embeddings * real[..., None], (0, 0, 0, short)).unflatten(1, (-1, size))
    count = F.pad(real, (0, short)).unflatten(1, (-1, size)).sum(-1)
    return x.sum(2) / count.clamp(min=1).sqrt()[..., None], count


def block_labels(ids: Tensor, real: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """One real token of every block of `size`, drawn uniformly: ids [B, n] -> [B, m]; anything where a block has none."""
    short = -ids.shape[1] % size
    ids = F.pad(ids, (0, short)).unflatten(1, (-1, size))
    weight = F.pad(real, (0, short)).unflatten(1, (-1, size)) * torch.rand(ids.shape, generator=generator).to(ids.device)
    return ids.gather(2, weight.argmax(2, keepdim=True))[..., 0]


class LatentHead(nn.Module):
    """The distribution of the next vector, from the last hidden state; in units of the embeddings' deviation.

    Args:
        d: width of the model. `width`: of the head.
    """

    def __init__(self, d: int, width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.mean, self.log_std = nn.Linear(width, d), nn.Linear(width, d)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[..., d] -> mean and logarithm of the deviation, [..., d] each."""
        x = self.body(hidden)
        return self.mean(x), self.log_std(x)


def drawn(mean: Tensor, log_std: Tensor, temperature: float = 1.0) -> Tensor:
    """A sample of the distribution; its mean at temperature 0."""
    return mean + log_std.exp() * temperature * torch.randn_like(mean) if temperature else mean


def log_density(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, std), averaged over the d dimensions: [..., d] -> [...]."""
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(x).mean(-1)
