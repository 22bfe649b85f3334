"""H2O: heavy hitters by accumulated attention, and recent tokens (arXiv 2306.14048)."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import register


@register("h2o", site="cache", mechanism="eviction", source="arXiv 2306.14048", query_aware=True)
@dataclass(kw_only=True)
class H2O(CacheMethod):
    """Keep the entries that received most attention from all queries, and as many recent ones: half the budget each.

    ``score(j) = sum_{i >= j} A[i, j]``, mean over the query heads of a KV head. The sums continue over chunks and decoding
    steps (they are stored per entry); while decoding, the lowest entry that is not recent is evicted at every step.

    Args:
        normalise: divide by the number of queries that can see an entry ("observed attention"), which removes the head start
            of old tokens.
    """

    normalise: bool = False
    evicts_while_decoding = True

    def forced(self) -> tuple[int, int]:
        return 0, sys.maxsize  # `rank` caps it at half the budget

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return {"mass": obs.mass()}

    def score(self, obs: Observation) -> torch.Tensor:
        mass = obs.mass()
        if not self.normalise:
            return mass
        end = obs.step.start + obs.step.length
        return mass / (end - obs.index).clamp(min=1)
