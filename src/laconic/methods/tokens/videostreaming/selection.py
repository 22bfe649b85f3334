"""Which memories a question picks: the nearest ones, and in training a choice that gradients pass (arXiv 2405.16009)."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(scores: Tensor, count: int) -> Tensor:
    """Numbers of the `count` highest of scores [..., K], ascending, so in the order of time; all where there are no more."""
    return scores.topk(min(count, scores.shape[-1]), -1).indices.sort(-1).values


def gumbel(shape: torch.Size) -> Tensor:
    """Gumbel noise from torch's generator."""
    return -torch.log(torch.empty(shape).exponential_())


def drawn(scores: Tensor, count: int, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Weights of K memories, of which `count` are 1 and the others 0; the gradient is that of a relaxed choice.

    The choice is the top of ``scores / temperature + noise``. Its relaxation is a softmax for each of the `count` in turn,
    each among what the ones before have left.

    Args:
        scores: [..., K], K at least `count`. `noise`: like `scores`; None: none.
    """
    logits = scores / temperature if noise is None else scores / temperature + noise
    hard = torch.zeros_like(logits).scatter(-1, logits.topk(count, -1).indices, 1.0)
    soft = torch.zeros_like(logits)
    for _ in range(count):
        share = logits.softmax(-1)
        soft = soft + share
        logits = logits + torch.log((1 - share).clamp(min=1e-6))
    return hard + soft - soft.detach()
