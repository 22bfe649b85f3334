"""`random`: keep entries drawn uniformly. The baseline that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import register


@register("random", site="cache", mechanism="eviction", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class Random(CacheMethod):
    """Keep entries drawn uniformly, per head, from a seeded generator.

    The draw depends only on seed, layer, head and the token's place in its sequence, so batches, chunks and single runs
    agree.

    Args:
        seed: of the generator.
    """

    seed: int = 0

    def score(self, obs: Observation) -> torch.Tensor:
        index = obs.index.long()
        padding = [obs.step.start + obs.step.length - real for real in obs.step.real]
        if any(padding):  # count from the first real token, evicted or not, so that left padding changes nothing
            index = (index - torch.tensor(padding, device=index.device)[:, None, None]).clamp(min=0)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + obs.layer)
        draws = torch.rand(int(index.max()) + 1, index.shape[1], generator=generator).to(index.device)
        return draws.T.expand(index.shape[0], -1, -1).gather(2, index)
