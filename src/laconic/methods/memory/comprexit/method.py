"""ComprExIT: slots filled from all frozen layers by an optimal-transport plan (arXiv 2602.03784)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.comprexit.network import TransportedSlots


@register(
    "comprexit",
    site="memory",
    mechanism="layer fusion, optimal transport",
    source="arXiv 2602.03784",
    query_aware=False,
    training="trained",
    inferred="every window is read by itself, from position 0, so that its slots do not depend on what surrounds it",
)
@dataclass(kw_only=True)
class ComprExIT(MemoryMethod):
    """The frozen model reads a window once; what all its layers know of each token is fused and transported to slots.

    A small attention over a token's own layers makes one anchor of it. An entropic optimal-transport plan, with equal
    capacity for every slot and a learned mass for every token, says which slots get it, so slots cannot all take the same.

    Args:
        artifact: what `laconic fit comprexit` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> TransportedSlots:
        return TransportedSlots(model, artifact.data["segment"], artifact.data["width"])
