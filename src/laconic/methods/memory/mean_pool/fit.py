"""Training of mean pooling's projector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit
from laconic.methods.memory.mean_pool.network import PooledStates


@dataclass(kw_only=True)
class MeanPoolFit(MemoryFit):
    """The projector from pooled hidden states to soft tokens."""

    method: ClassVar[str] = "mean_pool"

    def network(self, model: PreTrainedModel) -> PooledStates:
        return PooledStates(model, self.segment)
