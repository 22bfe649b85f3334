"""EAS's search: a bandit that learns which attentions to skip while adapters are trained (arXiv 2403.15226, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Search(nn.Module):
    """One score per candidate; a subset that does better than the others in its round raises the scores of its members.

    Args:
        candidates: layers whose attention may be skipped.
        k: how many will be skipped.
        lr: of the scores.
        rule: ``"softmax"``: p = softmax(10 s) (LaVIN), or ``"sigmoid"``: p = sigmoid(s) (METER, LLaVA).
        seed: of the draws; None: torch's own generator, which a trainer seeds in every step.

    Attributes:
        scores: s, one per candidate; a buffer, so that checkpoints hold them.
    """

    scores: Tensor

    def __init__(
        self, candidates: Sequence[int], k: int, *, lr: float = 2.0, rule: str = "softmax", seed: int | None = None
    ):
        super().__init__()
        if not 0 < k < len(candidates):
            raise ValueError(f"k={k} must lie between 1 and {len(candidates) - 1}, fewer than there are candidates.")
        if rule not in ("softmax", "sigmoid"):
            raise ValueError(f"rule={rule!r}: choose 'softmax' or 'sigmoid'.")
        self.candidates, self.k, self.lr, self.rule = tuple(candidates), k, lr, rule
        self.register_buffer("scores", torch.zeros(len(candidates), dtype=torch.float64))
        self._random = None if seed is None else torch.Generator().manual_seed(seed)

    def probabilities(self) -> Tensor:
        """p of every candidate; with a softmax they sum to one."""
        return (10 * self.scores).softmax(0) if self.rule == "softmax" else self.scores.sigmoid()

    def draw(self, k: int | None = None) -> tuple[int, ...]:
        """`k` distinct layers, drawn one by one in proportion to p."""
        weights = self.probabilities().clamp(min=1e-12).cpu()
        drawn = torch.multinomial(weights, k or self.k, replacement=False, generator=self._random)
        return tuple(sorted(self.candidates[i] for i in drawn.tolist()))

    def draw_distinct(self, count: int) -> list[tuple[int, ...]]:
        """`count` different subsets; fewer if there are not that many."""
        found: list[tuple[int, ...]] = []
        for _ in range(50 * count):
            subset = self.draw()
            if subset not in found:
                found.append(subset)
            if len(found) == min(count, math.comb(len(self.candidates), self.k)):
                break
        return found

    def update(self, subsets: Sequence[Sequence[int]], losses: Sequence[float]) -> None:
        """Reward exp(-loss) relative to the mean of the round: ``s_i += lr (r_j - mean r) p_i (1 - p_i)`` for every i in
        subset j, with p from before the update."""
        rewards = torch.tensor([math.exp(-loss) for loss in losses], dtype=torch.float64)
        p, advantage = self.probabilities(), rewards - rewards.mean()
        for subset, gain in zip(subsets, advantage.tolist(), strict=True):
            for layer in subset:
                i = self.candidates.index(layer)
                self.scores[i] += self.lr * gain * float(p[i] * (1 - p[i]))

    def round(self, count: int, loss: Callable[[tuple[int, ...]], float]) -> None:
        """Try `count` different subsets, each of which has a `loss` on the same data, and update the scores."""
        tried = self.draw_distinct(count)
        self.update(tried, [loss(subset) for subset in tried])

    def best(self) -> tuple[int, ...]:
        """The k layers with the largest scores."""
        order = self.scores.argsort(descending=True, stable=True)[: self.k]
        return tuple(sorted(self.candidates[i] for i in order.tolist()))
