"""Average pooling of rows in raster order, and of their positions."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_rows(rows: Tensor, stride: int) -> Tensor:
    """Means of `stride` consecutive rows, [v, ...] -> [v // stride, ...]; computed in fp32, returned in the type of `rows`.
    A remainder of fewer than `stride` rows at the end is dropped, as ``avg_pool1d`` does.

    Raises:
        ValueError: `stride` is not positive.
    """
    if stride < 1:
        raise ValueError(f"stride={stride} must be at least 1.")
    full = len(rows) // stride
    groups = rows[: full * stride].reshape(full, stride, *rows.shape[1:])
    return groups.float().mean(1).to(rows.dtype)


def pool_positions(positions: Tensor, stride: int) -> Tensor:
    """Mean positions of the same groups, rounded down, int [v] -> [v // stride]."""
    full = len(positions) // stride
    return torch.div(positions[: full * stride].reshape(full, stride).sum(1), stride, rounding_mode="floor")
