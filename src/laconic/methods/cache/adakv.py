"""AdaKV: heads share one budget per layer, and flat heads give to sharp ones (arXiv 2407.11550)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import create_method, register
from laconic.ops.select import Selection, top_k_across_heads


@register(
    "adakv",
    site="cache",
    mechanism="eviction, ragged heads",
    source="arXiv 2407.11550",
    query_aware=True,
    inferred='over="model" is not of the paper',
)
@dataclass(kw_only=True)
class AdaKV(CacheMethod):
    """Any scorer, with a layer's budget given to the best entries of all its heads together; heads really differ in length.

    Every head keeps at least its best ``int(alpha * n_keep)`` entries; the rest of the budget goes to the highest scores of
    the whole layer. Entries that are not kept are freed, head by head.

    Args:
        scorer: a method that scores, or its name; its own budget is not used.
        alpha: share of the budget that is guaranteed to every head (0.2); not used with ``over="model"``.
        over: ``"layer"``, as published; or ``"model"``: the heads of all layers compete for one budget, with no share of
            their own. All entries of a pass are held until it has run through the model then. Scores have to be comparable
            across layers, as attention is.
    """

    scorer: CacheMethod | str = "snapkv:window=32,kernel=7,pooling=max"
    alpha: float = 0.2
    over: Literal["layer", "model"] = "layer"
    ragged = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between(self, "alpha")
        checks.one_of(self, "over", "layer", "model")
        inner = create_method(self.scorer) if isinstance(self.scorer, str) else self.scorer
        if not isinstance(inner, CacheMethod) or inner.ragged:
            raise TypeError(f"adakv: scorer={self.scorer!r} must be a cache method that scores entries, such as 'snapkv'.")
        self._scorer = inner

    @property
    def cuts_late(self) -> bool:
        return self.over == "model"

    @property
    def undoes_rope(self) -> bool:
        return self._scorer.undoes_rope

    def score(self, obs: Observation) -> torch.Tensor:
        return self._scorer.score(obs)

    def forced(self) -> tuple[int, int]:
        return self._scorer.forced()

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        return self._scorer.layer_entries(layer, layers, mean, seen)

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return self._scorer.columns(obs)

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        floors = [int(self.alpha * target) for target in obs.targets]
        return top_k_across_heads(rank, obs.targets, floors)
