"""Training of LLaVA-Mini's compression and pre-fusion (stage 2), with the encoder, the projector and the decoder frozen
(arXiv 2501.03895)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.llava_mini.network import Mini
from laconic.ops.rows import gathered, scattered


@dataclass(kw_only=True)
class LlavaMiniFit(VisualFit):
    """Queries and pre-fusion layers, trained by the answers that the decoder gives after them.

    Args:
        sides: C of every size to be trained; each step draws one, and the artifact serves them all.
        fusion: decoder layers of the pre-fusion, copied from the model's first ones (4, as published; the model may have
            fewer to spare). 0: none.
    """

    sides: tuple[int, ...] = (1,)
    fusion: int = 4

    method: ClassVar[str] = "llava_mini"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VisualFit.may_be_zero, "fusion")

    def network(self, model: PreTrainedModel) -> Mini:
        if max(self.sides) > self.side:
            raise ValueError(f"llava_mini: sides={self.sides}: this model's views have {self.side} tokens a side.")
        return Mini(model, self.sides, self.fusion)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        """The answers themselves are read as they are: at inference nobody knows them."""
        side = rng.choice(self.sides)
        words, each = self.words(asked), len(asked.ids) // len(asked.features)
        text = self.net.fused(asked.features, gathered(words, asked.text))
        soft = self.net.compressed(asked.features, side).repeat_interleave(each, 0)
        return self.answered(asked, soft, scattered(words, asked.text, text))

    def facts(self) -> dict[str, Any]:
        return {"sides": list(self.sides), "fusion": self.fusion}
