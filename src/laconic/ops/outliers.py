"""Outliers of one-dimensional scores: by quartiles, and by local density (LOF, Breunig et al. 2000)."""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 1.5
"""Values with a larger local outlier factor are outliers; scikit-learn's threshold for ``contamination="auto"``."""


def iqr_outliers(x: Tensor, factor: float = 1.5) -> Tensor:
    """Which of x [..., n] lie above Q3 + factor * (Q3 - Q1) of their row, bool [..., n]; quartiles interpolate linearly."""
    low, high = torch.quantile(x.float(), torch.tensor([0.25, 0.75], device=x.device), dim=-1, keepdim=True)
    return x.float() > high + factor * (high - low)


def lof(x: Tensor, neighbours: int) -> Tensor:
    """Local outlier factors of the values x [n], float64 [n]: how much sparser a value lies than its neighbours, about 1
    inside a cluster.

    Args:
        neighbours: m, at most n - 1. Of equally distant neighbours the smaller value counts first.

    Raises:
        ValueError: `neighbours` is not positive.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours={neighbours} must be at least 1.")
    n = len(x)
    m = min(neighbours, n - 1)
    if m < 1:
        return torch.ones(n, dtype=torch.float64, device=x.device)
    values, order = x.double().sort()
    places = torch.arange(n, device=x.device)
    near = places[:, None] + torch.cat([torch.arange(-m, 0), torch.arange(1, m + 1)]).to(x.device)  # sorted: enough
    inside = (near >= 0) & (near < n)
    near = near.clamp(0, n - 1)
    distances = (values[near] - values[:, None]).abs().masked_fill(~inside, float("inf"))
    distances, chosen = distances.sort(dim=-1, stable=True)
    distances, near = distances[:, :m], near.gather(1, chosen[:, :m])
    reach = torch.maximum(distances, distances[near, -1])
    density = 1 / (reach.mean(-1) + 1e-10)  # scikit-learn's guard for values that are all equal
    factors = density[near].mean(-1) / density
    return torch.empty_like(factors).scatter_(0, order, factors)


def outlier_share(x: Tensor, neighbours: int) -> float:
    """Share of the values x [n] that are outliers by `lof`, in 0 .. 1; 0 for no values."""
    return float((lof(x, neighbours) > LIMIT).double().mean()) if len(x) else 0.0
