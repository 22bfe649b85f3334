"""Keep the entries of which a small trained network expects that later tokens will look at them; no query is needed."""

from dataclasses import dataclass

import torch
from torch import nn

import laconic
from laconic.artifact import Artifact
from laconic.cache.observe import Observation


class Scorer(nn.Module):
    """One linear map per layer and KV head: what later tokens attend to, from an entry's key and value."""

    def __init__(self, layers: int, heads: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, heads, 2 * size))

    def forward(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Keys and values [B, Hkv, n, D] -> scores [B, Hkv, n]."""
        entries = torch.cat([keys, values], dim=-1).float()
        return torch.einsum("bhnd,hd->bhn", entries, self.weight[layer])


@laconic.register(
    "learned_scores", site="cache", mechanism="eviction", training="trained", source="worked example", query_aware=False
)
@dataclass(kw_only=True)
class LearnedScores(laconic.CacheMethod):
    """Keep entries whose key and value a trained linear map gives a high score.

    Args:
        artifact: what `laconic fit learned_scores` wrote: a file, or a folder that holds it.
        window: last tokens that stay, up to half the budget.
    """

    artifact: str | None = None
    window: int = 16

    def attach(self, model: nn.Module) -> None:
        found = Artifact.find(self.name, model, self.artifact)  # refuses one that was trained for other weights
        self.scorer = found.restore(Scorer(**found.data)).to(model.device)

    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def score(self, obs: Observation) -> torch.Tensor:
        return self.scorer(obs.layer, obs.keys, obs.values)
