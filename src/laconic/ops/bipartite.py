"""Bipartite soft matching: every second token is matched with the most similar of the others (arXiv 2210.09461)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.ops.select import best
from laconic.ops.similarity import first_best, means, sums, unit


@dataclass(frozen=True)
class Merging:
    """Which of t tokens are merged into one.

    Attributes:
        to: the index of the output token that each token becomes part of, [V, t] in 0 .. count - 1.
        count: number of output tokens.
    """

    to: Tensor
    count: int

    def merge(self, x: Tensor, size: Tensor) -> Tensor:
        """x [V, t, C], tokens that each stands for [V, t] -> means weighted by size [V, count, C], in the type of x."""
        return means(x, self.to, self.count, size)[0].to(x.dtype)

    def sizes(self, size: Tensor) -> Tensor:
        """Tokens that each stands for [V, t] -> tokens that each output token stands for [V, count]."""
        return sums(size[..., None], self.to, self.count)[..., 0]

    def unmerge(self, x: Tensor) -> Tensor:
        """Output tokens x [V, count, C] -> the one that each token became part of [V, t, C]."""
        return x.gather(1, self.to[..., None].expand(-1, -1, x.shape[-1]))

    def without_first(self, number: int) -> Merging:
        """The same without the first `number` tokens, which come out first and unmerged."""
        return Merging(self.to[:, number:] - number, self.count - number)

    @staticmethod
    def none(views: int, tokens: int, device: torch.device) -> Merging:
        """No token is merged."""
        return Merging(torch.arange(tokens, device=device).repeat(views, 1), tokens)


def bipartite(metric: Tensor, r: int, cls: bool = False) -> Merging:
    """metric [V, t, d] -> the merging of `r` pairs.

    Tokens are split alternately into A (even) and B (odd); each token of A proposes the most similar token of B (cosine),
    and the `r` best proposals are merged, at most ``min(r, (t - cls) // 2)``. Unmerged tokens of A come out first, then B;
    with r = 0 tokens stay as they are. Equal similarities go to the earlier token.

    Args:
        cls: the first token is never merged.
    """
    views, t, _ = metric.shape
    r = max(0, min(r, (t - cls) // 2))
    if r == 0:
        return Merging.none(views, t, metric.device)
    metric = unit(metric)
    similar = metric[:, ::2] @ metric[:, 1::2].mT
    proposal = similar.amax(-1)
    if cls:
        proposal[:, 0] = float("-inf")
    moves = best(proposal, r)
    alone = moves.shape[1] - r
    to = torch.empty(views, t, dtype=torch.long, device=metric.device)
    to[:, ::2] = torch.where(moves, alone + first_best(similar), (~moves).long().cumsum(-1) - 1)
    to[:, 1::2] = alone + torch.arange(t // 2, device=metric.device)
    return Merging(to, t - r)
