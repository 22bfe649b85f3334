"""VoCo-LLaMA: an image in the keys and values of a few tokens after it (arXiv 2406.12275)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import PrefixMethod
from laconic.memory.summary import SummaryTokens
from laconic.method import register


@register(
    "voco_llama",
    site="memory",
    modality="image",
    mechanism="keys and values of tokens after the image",
    source="arXiv 2406.12275",
    query_aware=False,
    training="trained",
    inferred="the model that answers stays frozen and a copy of its decoder reads the image (published: one tuned model); "
    "what opens the prompt stays in view",
)
@dataclass(kw_only=True)
class VoCoLLaMA(PrefixMethod):
    """One learned token, repeated K times after the image, sees all of it; the text that follows sees these K alone.

    An image is read once, and any number of questions are asked of the K keys and values of every layer. Positions run on,
    so a question stands where it would after the whole image. The published K is 1 or 2, whatever the image; here it is a
    share of the visual tokens.

    Args:
        artifact: what `laconic fit voco_llama` wrote: a file, a shipped name, or a Hub id.
    """

    reads: ClassVar[str] = "images"

    def build(self, model: PreTrainedModel, artifact: Artifact) -> SummaryTokens:
        return SummaryTokens(model)
