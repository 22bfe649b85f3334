"""Training of GMSA: the frozen model gives the text back from the soft tokens (stage 1), or answers from them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit
from laconic.fit.slots import Reading
from laconic.methods.memory.gmsa.network import MergedGroups


@dataclass(kw_only=True)
class GMSAFit(MemoryFit):
    """The encoder's layers and the block that aligns.

    Args:
        layers: of the encoder. `aligning`: decoder blocks that align (1, as published).
        restoring: share of the steps that ask for the text, as all of the published stage 1 do.
    """

    layers: int = 4
    aligning: int = 1
    restoring: float = 0.2

    method: ClassVar[str] = "gmsa"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "aligning", "restoring")

    def network(self, model: PreTrainedModel) -> MergedGroups:
        return MergedGroups(model, self.segment, self.layers, self.aligning)

    def batch(self, step: int) -> tuple[Reading, float]:
        restores = random.Random(f"restore-{self.seed}-{step}").random() < self.restoring
        return self.drawn(step, copying=restores)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "layers": self.layers, "aligning": self.aligning}
