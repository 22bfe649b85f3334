"""TOVA: evict the token that the newest query attends to least (arXiv 2401.06104)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import register


@register("tova", site="cache", mechanism="eviction", source="arXiv 2401.06104", query_aware=True)
@dataclass(kw_only=True)
class TOVA(CacheMethod):
    """Keep what the last query attends to, mean over all heads of the layer; one token is evicted at every decoding step.

    All KV heads of a layer keep the same tokens (algorithm 1).
    """

    evicts_while_decoding = True

    def forced(self) -> tuple[int, int]:
        return 0, 1

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.last().mean((1, 2)).unsqueeze(1).expand(obs.keys.shape[:3])
