"""KNorm: keys of low norm attract attention (arXiv 2406.11430)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.errors import BudgetError
from laconic.method import register


@register("knorm", site="cache", mechanism="eviction", source="arXiv 2406.11430", query_aware=False)
@dataclass(kw_only=True)
class KNorm(CacheMethod):
    """Keep the keys of lowest L2 norm: ``score = -||k||`` (section 3).

    Args:
        skip_layers: first layers left uncompressed, as the authors do on some models (2); the other layers get less, so the
            mean budget holds.
    """

    skip_layers: int = 0

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        if layer < self.skip_layers:
            return seen
        left = mean * layers - seen * self.skip_layers
        if left < layers - self.skip_layers:
            raise BudgetError(
                f"knorm: skip_layers={self.skip_layers} of {layers} layers already cost more than the budget "
                f"({self.budget}); raise the budget or skip fewer layers."
            )
        return left // (layers - self.skip_layers)

    def score(self, obs: Observation) -> torch.Tensor:
        return -torch.linalg.vector_norm(obs.keys, dim=-1, dtype=torch.float32)
