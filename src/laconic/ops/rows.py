"""Rows of a batch that a mask names, packed to the front and put back."""

from __future__ import annotations

import torch
from torch import Tensor


def gathered(x: Tensor, where: Tensor) -> Tensor:
    """Rows of x [Q, T, D] where `where` [Q, T] is true, in order, followed by zeros: [Q, most, D]."""
    counts = where.sum(1)
    there = torch.arange(int(counts.max()), device=x.device) < counts[:, None]
    return x.new_zeros(*there.shape, x.shape[-1]).masked_scatter(there[..., None], x[where])


def scattered(x: Tensor, where: Tensor, rows: Tensor) -> Tensor:
    """x [Q, T, D] with `rows` [Q, most, D], as `gathered` laid them out, at `where` [Q, T]."""
    there = torch.arange(rows.shape[1], device=x.device) < where.sum(1)[:, None]
    return x.masked_scatter(where[..., None], rows[there].to(x))
