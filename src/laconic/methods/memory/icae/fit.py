"""Training of ICAE: the frozen model gives the text back from the memory, or answers from it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit
from laconic.fit.slots import Reading
from laconic.memory.compressor import slots_of
from laconic.methods.memory.icae.network import MemorySlots


@dataclass(kw_only=True)
class ICAEFit(MemoryFit):
    """The encoder and the table of memory tokens.

    Args:
        restoring: share of the steps that ask for the text; 0 for a model that cannot copy.
    """

    restoring: float = 0.2

    method: ClassVar[str] = "icae"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "restoring")

    def network(self, model: PreTrainedModel) -> MemorySlots:
        return MemorySlots(model, self.segment, slots_of(self.segment, max(self.keeps)))

    def batch(self, step: int) -> tuple[Reading, float]:
        reading, keep = super().batch(step)
        if random.Random(f"restore-{self.seed}-{step}").random() < self.restoring:
            reading = replace(reading, rest=reading.context, learned=torch.ones_like(reading.context, dtype=torch.bool))
        return reading, keep

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        soft = self.compressor.contexts(self.model, reading.context, keep)
        if reading.rest is reading.context:
            wanted = self.compressor.restoring().expand(len(soft), -1, -1)  # type: ignore[operator]
            soft = torch.cat([soft[:, :-1], wanted], 1)
        return self.answer_loss(reading, soft)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "slots": slots_of(self.segment, max(self.keeps))}
