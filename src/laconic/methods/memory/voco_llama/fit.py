"""Training of VoCo-LLaMA: the frozen model answers from the keys and values of the tokens after the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.fit.image_memory import ImageMemoryFit
from laconic.memory.summary import SummaryTokens


@dataclass(kw_only=True)
class VoCoLLaMAFit(ImageMemoryFit):
    """The copy of the decoder that reads images, and the token after them."""

    method: ClassVar[str] = "voco_llama"

    def network(self, model: PreTrainedModel) -> SummaryTokens:
        return SummaryTokens(model)
