"""KeyDiff: keep the keys that differ most from the average direction (arXiv 2504.15364)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import register


@register("keydiff", site="cache", mechanism="eviction", source="arXiv 2504.15364", query_aware=False)
@dataclass(kw_only=True)
class KeyDiff(CacheMethod):
    """Keep the keys least like the mean direction: ``score = -cos(k, anchor)``, ``anchor = mean_j k_j / ||k_j||``.

    With ``prefill_chunk_size`` it cuts after every chunk, which is the paper's block-wise form (block 128).
    """

    def score(self, obs: Observation) -> torch.Tensor:
        keys = obs.keys
        inverse = 1 / torch.linalg.vector_norm(keys, dim=-1, dtype=torch.float32).clamp(min=1e-12)
        weight = inverse if obs.valid is None else inverse * obs.valid
        anchor = torch.matmul(weight.to(keys.dtype).unsqueeze(-2), keys).float()  # [B, Hkv, 1, D]
        anchor = anchor / torch.linalg.vector_norm(anchor, dim=-1, keepdim=True).clamp(min=1e-12)
        return -torch.matmul(keys, anchor.to(keys.dtype).transpose(-1, -2)).squeeze(-1).float() * inverse
