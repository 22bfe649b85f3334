"""Where ConceptMoE's concepts begin, what keeps their number, and how their outputs are spread over tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

SHARPNESS = 6.0
"""s: how much more certain the boundaries are that a training draws."""
LEAST = 1e-6
"""What 1 - p is at least in a logarithm."""


def boundary_probability(queries: Tensor, keys_before: Tensor) -> Tensor:
    """How much a token differs from the one before it: [B, T, d] twice -> [B, T], from 0 (alike) to 1 (opposite)."""
    return ((1 - cosine_similarity(queries, keys_before, dim=-1)) / 2).clamp(0, 1)


def sharpened(p: Tensor) -> Tensor:
    """Probabilities nearer to 0 and 1, by which boundaries are drawn in training: 0.6 -> 0.918, 0.4 -> 0.082."""
    return torch.where(p > 0.5, p ** (1 / SHARPNESS), 1 - (1 - p) ** (1 / SHARPNESS))


def ratio_loss(p: Tensor, boundary: Tensor, ratio: float) -> Tensor:
    """R / (R - 1) * ((R - 1) F G + (1 - F)(1 - G)), with F the share of boundaries and G the mean probability, over all
    tokens [n] together; 1 at F = G = 1 / R, and less nowhere near.

    Gradients flow through G alone: above the ratio it is pushed down, below it up.
    """
    share, mean = boundary.to(p.dtype).mean(), p.mean()
    return ratio / (ratio - 1) * ((ratio - 1) * share * mean + (1 - share) * (1 - mean))


def smoothed(concepts: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """e_i = (1 - p_i) e_{i-1} + p_i C_i: concepts [B, m, d] with their probabilities [B, m], after `before` [B, d] ->
    [B, m, d]. Padding has p = 0, and repeats what came before it.

    The closed form: C_j has the weight p_j times the product of (1 - p_k) over j < k <= i, all positions at once.
    """
    decay = (1 - p).clamp(min=LEAST).log().cumsum(1)
    apart = decay[:, :, None] - decay[:, None]
    causal = torch.ones_like(apart[0], dtype=torch.bool).tril()
    weights = apart.masked_fill(~causal, float("-inf")).exp() * p[:, None]
    return weights @ concepts + decay.exp()[..., None] * before[:, None]


def certainty(p: Tensor, boundary: Tensor) -> Tensor:
    """1, with the gradient of how probable each decision was, [B, T]; so the loss on words reaches the boundaries."""
    chosen = torch.where(boundary, p, 1 - p)
    return chosen + (1 - chosen).detach()
