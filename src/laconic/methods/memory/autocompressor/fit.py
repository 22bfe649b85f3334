"""Training of AutoCompressor: the frozen model answers from the accumulated summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit
from laconic.memory.compressor import slots_of
from laconic.methods.memory.autocompressor.network import Summaries


@dataclass(kw_only=True)
class AutoCompressorFit(MemoryFit):
    """The encoder and the table of summary embeddings."""

    segment: int = 8

    method: ClassVar[str] = "autocompressor"

    def network(self, model: PreTrainedModel) -> Summaries:
        self.marker = int(self.tokenizer.eos_token_id)
        return Summaries(model, self.segment, self.slots, self.marker)

    @property
    def slots(self) -> int:
        """Summary embeddings of the largest share."""
        return slots_of(self.segment, max(self.keeps))

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "slots": self.slots, "marker": self.marker}
