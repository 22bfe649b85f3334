"""Scores that several methods share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from laconic.cache.observe import Observation

Pooling = Literal["avg", "max"]


def pool(scores: torch.Tensor, kernel: int, pooling: Pooling) -> torch.Tensor:
    """scores [..., n] -> the same shape, smoothed along the entries (stride 1, zero padding), so that the neighbours of an
    important entry stay too."""
    flat = scores.reshape(-1, 1, scores.shape[-1])
    if pooling == "max":
        flat = F.max_pool1d(flat, kernel, 1, kernel // 2)
    elif pooling == "avg":
        flat = F.avg_pool1d(flat, kernel, 1, kernel // 2)
    else:
        raise ValueError(f"pooling={pooling!r}: choose 'avg' or 'max'.")
    return flat.view(scores.shape)


def window_scores(obs: Observation, window: int, kernel: int, pooling: Pooling) -> torch.Tensor:
    """Attention of the last `window` queries, mean over them, pooled, mean over the group: [B, Hkv, n] (arXiv 2404.14469,
    eq. 1-6).

    The columns of the window itself are pooled separately, so that the window's attention does not leak into the context.
    """
    rows = obs.window(window)
    w = rows.shape[3]
    attention = rows.mean((2, 3)) if pooling == "avg" else rows.mean(3)  # average pooling is linear: group mean first
    n = rows.shape[-1]
    context, own = attention.split([n - w, w], -1)
    parts = [pool(part, kernel, pooling) for part in (context, own) if part.shape[-1]]
    pooled = torch.cat(parts, -1)
    return pooled if pooling == "avg" else pooled.mean(2)


def check_window(name: str, window: int, kernel: int) -> None:
    """Refuse windows and kernels that make no sense."""
    if not isinstance(window, int) or window < 1:
        raise ValueError(f"{name}: window={window!r} must be a whole number of at least 1.")
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"{name}: kernel={kernel!r} must be an odd whole number of at least 1.")
