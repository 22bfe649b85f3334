"""EAS's search: a bandit that learns which attentions to skip while adapters are trained (arXiv 2403.15226, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.methods.weights.eas.network import Adapters, applied


class Search:
    """One score per candidate; a subset that does better than the others in its round raises the scores of its members.

    Args:
        candidates: layers whose attention may be skipped.
        k: how many will be skipped.
        lr: of the scores.
        rule: ``"softmax"``: p = softmax(10 s) (LaVIN), or ``"sigmoid"``: p = sigmoid(s) (METER, LLaVA).
    """

    def __init__(self, candidates: Sequence[int], k: int, *, lr: float = 2.0, rule: str = "softmax", seed: int = 0):
        if not 0 < k < len(candidates):
            raise ValueError(f"k={k} must lie between 1 and {len(candidates) - 1}, fewer than there are candidates.")
        if rule not in ("softmax", "sigmoid"):
            raise ValueError(f"rule={rule!r}: choose 'softmax' or 'sigmoid'.")
        self.candidates, self.k, self.lr, self.rule = tuple(candidates), k, lr, rule
        self.scores = torch.zeros(len(candidates), dtype=torch.float64)
        self._random = torch.Generator().manual_seed(seed)

    def probabilities(self) -> Tensor:
        """p of every candidate; with a softmax they sum to one."""
        return (10 * self.scores).softmax(0) if self.rule == "softmax" else self.scores.sigmoid()

    def draw(self, k: int | None = None) -> tuple[int, ...]:
        """`k` distinct layers, drawn one by one in proportion to p."""
        weights = self.probabilities().clamp(min=1e-12)
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

    def best(self) -> tuple[int, ...]:
        """The k layers with the largest scores."""
        order = self.scores.argsort(descending=True, stable=True)[: self.k]
        return tuple(sorted(self.candidates[i] for i in order.tolist()))


def search(
    model: PreTrainedModel,
    adapters: Adapters,
    state: Search,
    batches: Callable[[int], Any],
    loss: Callable[[PreTrainedModel, Any], Tensor],
    *,
    steps: int,
    warmup: int = 0,
    turn: int = 10,
    subsets: int = 3,
    lr: float = 1e-3,
    weight_decay: float = 0.02,
) -> tuple[int, ...]:
    """Train `adapters` (made with both=True) and the scores together; return the layers to skip. Train fresh adapters for
    them afterwards, with `loss` under `applied`.

    Args:
        batches: step -> what `loss` takes. `loss`: task loss of a batch with the adapters active.
        warmup: steps before the scores change. `turn`: steps between their updates, each from `subsets` candidate subsets.
        lr: of the adapters (AdamW); 0 leaves them as they are.
    """
    learning = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    optimiser = torch.optim.AdamW(adapters.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay) if lr else None
    try:
        for step in range(steps):
            batch = batches(step)
            if optimiser is not None:
                adapters.train()
                with applied(model, adapters, state.draw()):
                    value = loss(model, batch)
                    optimiser.zero_grad(set_to_none=True)
                    value.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
            if step < warmup or step % turn:
                continue
            adapters.eval()
            tried, losses = state.draw_distinct(subsets), []
            for subset in tried:
                with torch.no_grad(), applied(model, adapters, subset):
                    losses.append(float(loss(model, batch)))
            state.update(tried, losses)
    finally:
        for parameter, before in zip(model.parameters(), learning, strict=True):
            parameter.requires_grad_(before)
    return state.best()
