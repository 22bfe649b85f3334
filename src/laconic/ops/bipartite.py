"""Bipartite soft matching: every second token goes to its most similar one of the others (ToMe, arXiv 2210.09461)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.ops.select import best
from laconic.ops.similarity import first_best, means, sums, unit


@dataclass(frozen=True)
class Merging:
    """Which of t tokens become one.

    Attributes:
        to: the number of every token among those that come out, [V, t] in 0 .. count - 1. `count`: how many come out.
    """

    to: Tensor
    count: int

    def merge(self, x: Tensor, size: Tensor) -> Tensor:
        """x [V, t, C], tokens behind each [V, t] -> means weighted by size [V, count, C], in the type of x."""
        return means(x, self.to, self.count, size)[0].to(x.dtype)

    def sizes(self, size: Tensor) -> Tensor:
        """Tokens behind each [V, t] -> tokens behind each that comes out [V, count]."""
        return sums(size[..., None], self.to, self.count)[..., 0]

    def unmerge(self, x: Tensor) -> Tensor:
        """x [V, count, C] -> every token's own [V, t, C]."""
        return x.gather(1, self.to[..., None].expand(-1, -1, x.shape[-1]))

    def behind(self, number: int) -> Merging:
        """The same without the first `number` tokens, which come out first, and alone."""
        return Merging(self.to[:, number:] - number, self.count - number)

    @staticmethod
    def none(views: int, tokens: int, device: torch.device) -> Merging:
        """Every token stays alone."""
        return Merging(torch.arange(tokens, device=device).repeat(views, 1), tokens)


def bipartite(metric: Tensor, r: int, cls: bool = False) -> Merging:
    """metric [V, t, d] -> the merging of `r` pairs.

    Tokens are split alternately into A (even) and B (odd); each of A proposes its most similar one of B (cosine), and the
    `r` best proposals merge, ``min(r, (t - cls) // 2)`` of them. Unmerged tokens of A come out first, then B; with r = 0
    tokens stay as they are. Equal similarities go to the earlier token.

    Args:
        cls: the first token merges with none.
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
