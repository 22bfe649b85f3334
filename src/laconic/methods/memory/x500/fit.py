"""Training of 500xCompressor: the frozen model answers from the memory tokens' keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import PrefixFit
from laconic.memory.compressor import slots_of
from laconic.methods.memory.x500.network import KeyValueSlots


@dataclass(kw_only=True)
class X500Fit(PrefixFit):
    """The encoder and the table of memory tokens."""

    method: ClassVar[str] = "x500"

    def network(self, model: PreTrainedModel) -> KeyValueSlots:
        return KeyValueSlots(model, self.segment, slots_of(self.segment, max(self.keeps)))

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "slots": slots_of(self.segment, max(self.keeps))}
