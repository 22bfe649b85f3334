"""SnapKV: the end of the prompt knows what it will need (arXiv 2404.14469)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.cache.scores import Pooling, check_window, window_scores
from laconic.method import register


@register(
    "snapkv",
    site="cache",
    mechanism="eviction",
    source="arXiv 2404.14469",
    query_aware=True,
    inferred="scores are averaged over the query heads of a KV head (the release repeats keys: one list per query head)",
)
@dataclass(kw_only=True)
class SnapKV(CacheMethod):
    """Keep what the last queries of the prompt attend to, smoothed over neighbours; the window itself stays.

    Args:
        window: last queries that vote (32); they stay, up to half the budget.
        kernel: width of the pooling, odd (5).
        pooling: ``"avg"`` or ``"max"``.
    """

    window: int = 32
    kernel: int = 5
    pooling: Pooling = "avg"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.window, self.kernel)

    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def score(self, obs: Observation) -> torch.Tensor:
        return window_scores(obs, self.window, self.kernel, self.pooling)
