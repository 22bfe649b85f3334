"""Sums over queries of the largest attention that any head pays, without a T x n matrix of all heads in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.ops.attend import attention_rows

_SCORES = 1 << 22


def peak_mass(
    q: Tensor, k: Tensor, scale: float, groups: Tensor, *, bias: Tensor | None = None, softcap: float | None = None
) -> Tensor:
    """q [B, H, T, D] (the last T positions), k [B, Hkv, n, D] -> causal attention, the maximum over all heads, summed over
    the queries of each group, fp64 [B, g, n].

    Args:
        groups: which queries belong to each of g groups, bool [B, g, T].
        bias: additive logits [B, Hkv, n]; -inf hides a key.
    """
    t, n = q.shape[2], k.shape[2]
    size = max(16, min(512, _SCORES // (q.shape[0] * q.shape[1] * n)))
    total = torch.zeros(*groups.shape[:2], n, dtype=torch.float64, device=q.device)
    for start in range(0, t, size):
        own = groups[:, :, start : start + size]
        if not bool(own.any()):
            continue
        block = q[:, :, start : start + size]
        seen = n - t + start + block.shape[2]
        rows = attention_rows(block, k[:, :, :seen], scale, bias=None if bias is None else bias[..., :seen], softcap=softcap)
        peaks = rows.amax((1, 2)).masked_fill(~own.any(1)[..., None], 0.0)  # queries of padding see nothing: nan
        total[..., :seen] += own.double() @ peaks.double()
    return total
