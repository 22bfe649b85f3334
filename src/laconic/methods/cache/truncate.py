"""`truncate`: cut the context, as one cuts a prompt that does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import register


@register("truncate", site="cache", mechanism="eviction", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class Truncate(CacheMethod):
    """Cut the context: drop its oldest tokens, its newest ones, or its middle.

    Unlike a shorter prompt, what stays was computed with the whole context in view.

    Args:
        side: the side that is cut: ``"left"`` keeps the newest tokens, ``"right"`` the oldest, ``"middle"`` both ends
            (LongBench's way).
    """

    side: Literal["left", "right", "middle"] = "left"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "side", "left", "right", "middle")

    def score(self, obs: Observation) -> torch.Tensor:
        index = obs.index.double()
        if self.side == "left":
            return obs.index.float()
        if self.side == "right":
            return -obs.index.float()
        real = torch.ones_like(obs.index, dtype=torch.bool) if obs.valid is None else obs.valid
        first = index.masked_fill(~real, float("inf")).amin(-1, keepdim=True)
        last = index.masked_fill(~real, float("-inf")).amax(-1, keepdim=True)
        return (index - (first + last) / 2 + 0.25).abs().float()  # the newer end wins a tie
