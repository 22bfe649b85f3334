"""Bipartite soft matching: every second token is matched with the most similar of the others (arXiv 2210.09461)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.ops.select import best
from laconic.ops.similarity import first_best, means, sums, unit


@dataclass(frozen=True)
class Merging:
    """Which of t tokens are merged into one, and which are dropped.

    Attributes:
        to: the index of the output token that each token becomes part of, [V, t] in 0 .. count - 1; -1 where it is dropped.
        count: number of output tokens.
        weight: of each token in the mean that replaces it, [V, t]; None: the tokens that it stands for.
        passed: share of its size that each token passes on, [V, t]; None: all of it.
    """

    to: Tensor
    count: int
    weight: Tensor | None = None
    passed: Tensor | None = None

    def merge(self, x: Tensor, size: Tensor) -> Tensor:
        """x [V, t, C], tokens that each stands for [V, t] -> weighted means [V, count, C], in the type of x."""
        weight = size if self.weight is None else self.weight
        return means(x, self._bins(), self.count + 1, weight)[0][:, : self.count].to(x.dtype)

    def sizes(self, size: Tensor) -> Tensor:
        """Tokens that each stands for [V, t] -> tokens that each output token stands for [V, count], at least 1."""
        passed = size if self.passed is None else size * self.passed
        return sums(passed[..., None], self._bins(), self.count + 1)[:, : self.count, 0].clamp(min=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """Output tokens x [V, count, C] -> the one that each token became part of [V, t, C]; any for dropped tokens."""
        return x.gather(1, self.to.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))

    def then(self, source: Tensor) -> Tensor:
        """Which of the t tokens each original one is part of [V, N] -> which output token, -1 where it is dropped."""
        return self.to.gather(1, source.clamp(min=0)).where(source >= 0, -1)

    def without_first(self, number: int) -> Merging:
        """The same without the first `number` tokens, which come out first and unmerged."""
        to = (self.to[:, number:] - number).clamp(min=-1)
        rest = (None if x is None else x[:, number:] for x in (self.weight, self.passed))
        return Merging(to, self.count - number, *rest)

    def _bins(self) -> Tensor:
        """`to`, with one more output token for all that are dropped."""
        return self.to.where(self.to >= 0, self.count)

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
