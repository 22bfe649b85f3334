"""Training of ComprExIT: all that stands between the frozen model's states and the soft tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit
from laconic.methods.memory.comprexit.network import TransportedSlots


@dataclass(kw_only=True)
class ComprExITFit(MemoryFit):
    """Fusion over layers, transport to slots, and the projector.

    Args:
        width: of queries, keys and costs (published: 256).
    """

    width: int = 32

    method: ClassVar[str] = "comprexit"

    def network(self, model: PreTrainedModel) -> TransportedSlots:
        return TransportedSlots(model, self.segment, self.width)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "width": self.width}
