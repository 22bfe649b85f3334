"""Training of TextHawk2's resampler and projector by the answers of the frozen model (arXiv 2410.05261)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.texthawk2.network import TwoSteps, tokens

STAGES = 4


@dataclass(kw_only=True)
class TextHawk2Fit(VisualFit):
    """Query proposal, resampler and the projector of joined queries.

    Args:
        pools: patches a side of a query; each step draws one, and the artifact serves them all.
        group: rows and columns of the queries that become one token. 1,4 as published; with pools=4, 1,1 is one step to as
            many tokens (an ablation).
        routing: for each block the stage that it reads, 0 the shallowest.
        stages: encoder layers, counted from 1, shallow to deep. None: four that end at the features and are a sixth of
            these layers apart (14, 18, 22 and 26 of 26, as published).
        expansion: of the MLPs (4 as published; less makes a smaller artifact).
        tile: patches a side of what is resampled by itself. 0: the whole view.
    """

    pools: tuple[int, ...] = (2,)
    group: tuple[int, ...] = (1, 4)
    routing: tuple[int, ...] = (3, 2, 1, 0)
    stages: tuple[int, ...] | None = None
    expansion: int = 4
    tile: int = 0

    method: ClassVar[str] = "texthawk2"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VisualFit.may_be_zero, "routing", "tile")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.group) != 2:
            raise ValueError(f"texthawk2: group={self.group} must be rows and columns, such as 1,4.")

    def network(self, model: PreTrainedModel) -> TwoSteps:
        last, self._tile = self.family.feature_layer(model) + 1, self.tile or self.side
        apart = max(1, last // 6)
        self._stages = self.stages or tuple(range(last - (STAGES - 1) * apart, last + 1, apart))
        if min(self._stages) < 1 or max(self._stages) > last:
            raise ValueError(f"texthawk2: stages={self._stages} must be of the encoder's layers 1 to {last}; name them.")
        if max(self.routing) >= len(self._stages):
            raise ValueError(f"texthawk2: routing={self.routing} must name stages 0 to {len(self._stages) - 1}.")
        rows, cols = self.group
        if self.side % self._tile:
            raise ValueError(f"texthawk2: tile={self.tile} does not divide the {self.side} patches of a side.")
        for pool in self.pools:
            if self._tile % pool or not tokens((self.side, self.side), pool, (rows, cols)):
                raise ValueError(
                    f"texthawk2: pools={self.pools}, group={self.group}: {self.side} x {self.side} patches, in tiles of "
                    f"{self._tile} x {self._tile}, cannot be divided by {pool} and then grouped so."
                )
        return TwoSteps(model, self.routing, (rows, cols), self.expansion)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        each = len(asked.ids) // len(asked.features)
        stages = [asked.states[layer].unflatten(1, (self.side, self.side)) for layer in self._stages]
        soft = self.net(stages, rng.choice(self.pools), self._tile).repeat_interleave(each, 0)
        return self.answered(asked, soft, self.words(asked))

    def facts(self) -> dict[str, Any]:
        return {
            "pools": list(self.pools),
            "group": list(self.group),
            "routing": list(self.routing),
            "stages": list(self._stages),
            "expansion": self.expansion,
            "tile": self._tile,
            "side": self.side,
        }
