"""The largest attention that any of many queries pays to each key, from logits and log-sum-exps that are known already."""

from __future__ import annotations

import torch

_CELLS = 1 << 18
"""Scores of a block: few enough that they are still in the cache of a core when their maximum is taken."""


@torch.no_grad()
def strongest(
    q: torch.Tensor,
    k: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    weight: torch.Tensor | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """q [B, H, P, D], k [B, Hkv, n, D], lse [B, H, P] of each query's whole softmax -> fp32 [B, Hkv, n].

    ``max over queries and the group's heads of exp(q k^T scale - lse)``. Nothing is exponentiated but the maxima, and the
    log-sum-exp goes into the product as one more channel, so a block costs one matrix product and one maximum. Queries with
    lse = inf count for nothing; with P = 0 every key gets zero.

    Args:
        softcap: of the logits, ``softcap * tanh(logits / softcap)``, as in `attend`.
        weight: log of a factor per query and key's head, [B, H, P], added to the logits (such as ``-log |h|``).
    """
    b, h, p, d = q.shape
    hkv, n = k.shape[1], k.shape[2]
    if p == 0 or n == 0:
        return torch.zeros(b, hkv, n, device=k.device)
    offset = -lse.float() if weight is None else weight.float() - lse.float()
    # a query that sees nothing (padding) has no say: its offset would be infinite, and infinity times one is no sum
    offset = offset.nan_to_num(nan=-1e30, posinf=-1e30, neginf=-1e30)
    rows = torch.cat([q.float() * scale, offset[..., None]], -1).reshape(b * hkv, h // hkv * p, d + 1)
    one_more = k.new_full((b, hkv, n, 1), float(softcap is None), dtype=torch.float32)  # a cap comes before the log-sum-exp
    keys = torch.cat([k.float(), one_more], -1).reshape(b * hkv, n, d + 1)
    best = torch.empty(b * hkv, n, device=k.device)
    size = max(16, _CELLS // n)
    for one in range(b * hkv):
        columns = keys[one].T
        found = torch.full((n,), float("-inf"), device=k.device)
        for block in rows[one].split(size):
            logits = torch.mm(block, columns)
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap) + block[:, -1:]
            torch.maximum(found, logits.amax(0), out=found)
        best[one] = found
    return best.view(b, hkv, n).exp_()
