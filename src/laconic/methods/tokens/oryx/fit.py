"""Training of Oryx' compressor and projector by the answers of the frozen model, every step at one ratio (arXiv
2409.12961)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.oryx.network import Dynamic


@dataclass(kw_only=True)
class OryxFit(VisualFit):
    """Region attention and the shared projector.

    Args:
        regions: sides of the regions; each step draws one (1, 2 and 4 as published).
        inner: width of the attention (256 as published, for an encoder of width 1152).
    """

    regions: tuple[int, ...] = (1, 2, 4)
    inner: int = 256

    method: ClassVar[str] = "oryx"

    def network(self, model: PreTrainedModel) -> Dynamic:
        if wrong := [r for r in self.regions if self.side % r]:
            raise ValueError(f"oryx: regions={self.regions}: {wrong[0]} does not divide the {self.side} patches of a side.")
        return Dynamic(model, self.inner)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        patches = asked.states[self.family.feature_layer(self.model) + 1].unflatten(1, (self.side, self.side))
        each = len(asked.ids) // len(patches)
        soft = self.net(patches, rng.choice(self.regions)).repeat_interleave(each, 0)
        return self.answered(asked, soft, self.words(asked))

    def facts(self) -> dict[str, Any]:
        return {"regions": list(self.regions), "inner": self.inner}
