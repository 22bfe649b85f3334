"""ICAE: memory tokens appended to a segment become its memory (arXiv 2307.06945)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.icae.network import MemorySlots


@register(
    "icae",
    site="memory",
    mechanism="memory tokens",
    source="arXiv 2307.06945",
    query_aware=False,
    training="trained",
    inferred="one artifact serves several rates: a smaller share uses the first memory tokens",
)
@dataclass(kw_only=True)
class ICAE(MemoryMethod):
    """In-context autoencoder: an encoder reads a segment and then learned memory tokens, whose last states are the memory.

    It is trained to give the text back as well as to answer. A learned embedding after the memory says which is wanted; the
    one for answers is part of the memory.

    Args:
        artifact: what `laconic fit icae` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> MemorySlots:
        return MemorySlots(model, artifact.data["segment"], artifact.data["slots"])
