"""PyramidKV: lower layers spread their attention and need more entries than higher ones (arXiv 2406.02069)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic import checks
from laconic.budget import pyramid
from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.cache.scores import Pooling, check_window, window_scores
from laconic.method import register


@register(
    "pyramidkv",
    site="cache",
    mechanism="eviction",
    source="arXiv 2406.02069",
    query_aware=True,
    inferred="a layer with fewer than two windows of entries keeps only the newest half of its budget by force, so that the "
    "scores choose the rest",
)
@dataclass(kw_only=True)
class PyramidKV(CacheMethod):
    """Window scores as in SnapKV, with a budget that falls linearly from the first layer to the last.

    With ``C`` entries per layer on average and window ``w``: the last layer gets ``w + (C - w) / beta``, the first as much
    more as preserves the mean. Budgets are real-valued and rounded at the end, so the mean is exact (the release rounds
    down).

    Args:
        beta: the larger, the less the last layer gets (20); 1 gives equal budgets.
        window: last queries that vote and stay (8).
        kernel: width of the pooling, odd (7).
        pooling: ``"avg"`` or ``"max"``.
    """

    beta: float = 20.0
    window: int = 8
    kernel: int = 7
    pooling: Pooling = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.window, self.kernel)
        checks.at_least(self, "beta", 1)

    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        if mean <= self.window:
            return mean
        slope = pyramid(mean - self.window, self.beta, layers, seen - self.window)
        before = sum(slope[:layer])
        return self.window + round(before + slope[layer]) - round(before)

    def score(self, obs: Observation) -> torch.Tensor:
        return window_scores(obs, self.window, self.kernel, self.pooling)
