"""Training of CCF: the frozen model answers from the memories of all segments; gradients reach these in stages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.memory import PrefixFit, predicted_after
from laconic.fit.slots import Reading
from laconic.memory.compressor import slots_of
from laconic.methods.memory.ccf.network import SegmentStates
from laconic.methods.memory.ccf.staged import staged


@dataclass(kw_only=True)
class CCFFit(PrefixFit):
    """The encoder, the memory token's embedding, and the matrices that make keys and values of memories.

    Args:
        segment: tokens of a segment; shorter ones are not compressed.
        reservoir: segments whose encoding is kept for the answers' gradient (published: 2, with a loss after every segment;
            here only the answers have one).
    """

    reservoir: int = 4

    method: ClassVar[str] = "ccf"

    def network(self, model: PreTrainedModel) -> SegmentStates:
        self.marker = int(self.tokenizer.eos_token_id)
        return SegmentStates(model, self.segment, self.marker)

    def loss(self, batch: tuple[Reading, float]) -> Iterator[Tensor]:
        reading, keep = batch
        network: SegmentStates = self.compressor
        segments, slots = network.full(reading.context), slots_of(self.segment, keep)

        def answers(done: int, memories: list[Tensor]) -> Tensor | None:
            if done < len(segments):
                return None
            prefix = network.prefix(self.model, reading.opening, reading.context, memories)
            return self.scored(*predicted_after(self.model, reading, prefix))

        rng = random.Random(f"reservoir-{self.seed}-{reading.context.sum()}")
        return staged(segments, lambda piece: network.encode(self.model, piece, slots), answers, self.reservoir, rng)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "marker": self.marker}
