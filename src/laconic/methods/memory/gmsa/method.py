"""GMSA: means of groups of encoder states, aligned with the embedding space by one decoder block (arXiv 2505.12215)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.gmsa.network import MergedGroups


@register(
    "gmsa",
    site="memory",
    mechanism="merged groups, layer alignment",
    source="arXiv 2505.12215",
    query_aware=False,
    training="trained",
    inferred="stage 2, which trains the answering model's own projections, is left out: the model stays as it is",
)
@dataclass(kw_only=True)
class GMSA(MemoryMethod):
    """The mean of every group of r tokens' encoder states, through a trained copy of the decoder's first block.

    Every token weighs the same, and nothing is read one after another. The encoder is the model's first layers; the block
    brings their states back to what the model's own first layer expects. r is ``1 / keep``.

    Args:
        artifact: what `laconic fit gmsa` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> MergedGroups:
        return MergedGroups(model, artifact.data["segment"], artifact.data["layers"], artifact.data["aligning"])
