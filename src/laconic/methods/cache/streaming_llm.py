"""StreamingLLM: attention sinks and a sliding window (arXiv 2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import Reuse, register


@register(
    "streaming_llm",
    site="cache",
    mechanism="eviction",
    source="arXiv 2309.17453",
    query_aware=False,
    inferred="keys keep their original positions; re-assigning them within the cache, as published, matters only beyond the "
    "trained length",
)
@dataclass(kw_only=True)
class StreamingLLM(CacheMethod):
    """Keep the first tokens (attention sinks) and the most recent ones; the window slides while decoding.

    Args:
        sinks: first tokens that always stay (section 3.2; 4).
    """

    sinks: int = 4

    reuse: ClassVar[Reuse] = "exact"
    evicts_while_decoding = True

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.index.float()
