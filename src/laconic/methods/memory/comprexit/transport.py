"""Entropic optimal transport between the tokens of a window and its slots (step 7)."""

from __future__ import annotations

import torch
from torch import Tensor

ENTROPY = 0.1
ITERATIONS = 30


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, entropy: float = ENTROPY, steps: int = ITERATIONS) -> Tensor:
    """The plan [B, n, m] of least cost, softened by `entropy`, with marginals near `rows` and equal to `columns`.

    Iterations run in the log domain and in fp32, and gradients flow through them.

    Args:
        cost: [B, n, m]. `rows`: mass of the tokens [B, n], positive; `columns`: capacity of the slots [B, m], positive.
    """
    logits = -cost.float() / entropy
    row, column = rows.float().log(), columns.float().log()
    v = torch.zeros_like(column)
    for _ in range(steps):
        u = row - torch.logsumexp(logits + v[:, None], 2)
        v = column - torch.logsumexp(logits + u[..., None], 1)
    return (logits + u[..., None] + v[:, None]).exp()
