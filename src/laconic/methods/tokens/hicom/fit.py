"""Training of HICom's compressor by the answers of the frozen model (arXiv 2503.16036, stage 3 without the decoder)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.hicom.network import QUERIES, Hybrid
from laconic.ops.rows import gathered


@dataclass(kw_only=True)
class HIComFit(VisualFit):
    """Attention by question, learned queries and both readouts.

    Args:
        blocks: patches a side of every size to be trained; each step draws one, and the artifact serves them all.
        learned: global tokens (32 as published, for 32 frames of 27 x 27 patches). 0: none.
        query: "question", or for ablations "block" (the block's own mean) and "none" (average pooling).
    """

    blocks: tuple[int, ...] = (3,)
    learned: int = 4
    query: str = "question"

    method: ClassVar[str] = "hicom"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VisualFit.may_be_zero, "learned")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query not in QUERIES:
            raise ValueError(f"hicom: query={self.query!r}: choose one of {', '.join(QUERIES)}.")

    def network(self, model: PreTrainedModel) -> Hybrid:
        if max(self.blocks) > self.side:
            raise ValueError(f"hicom: blocks={self.blocks}: this model's views have {self.side} patches a side.")
        return Hybrid(model, self.learned, self.query)  # type: ignore[arg-type]

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        block, words = rng.choice(self.blocks), self.words(asked)
        patches = asked.states[self.family.feature_layer(self.model) + 1]
        patches = patches.unflatten(1, (1, self.side, self.side))
        question = gathered(words, asked.text).sum(1) / asked.text.sum(1)[:, None]
        return self.answered(asked, self.net(patches, question, (1, block, block)), words)

    def facts(self) -> dict[str, Any]:
        return {"blocks": list(self.blocks), "learned": self.learned, "query": self.query}
