"""CompLLM: every short segment by itself becomes a few concept embeddings (arXiv 2509.19228)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.compllm.network import ConceptEmbeddings


@register(
    "compllm",
    site="memory",
    mechanism="soft tokens by segment",
    source="arXiv 2509.19228",
    query_aware=False,
    training="trained",
    inferred="segments are cut at their longest length, not at sentences; one artifact serves several rates",
)
@dataclass(kw_only=True)
class CompLLM(MemoryMethod):
    """Short segments become concept embeddings, each without a look at its neighbours, so that one can be reused anywhere.

    Compression is linear in the length of the context, and works on contexts longer than those that it was trained on. The
    model that answers stays as it is.

    Args:
        artifact: what `laconic fit compllm` wrote: a file, a shipped name, or a Hub id.
    """

    default_keep: ClassVar[float | None] = 0.5

    def build(self, model: PreTrainedModel, artifact: Artifact) -> ConceptEmbeddings:
        return ConceptEmbeddings(model, artifact.data["segment"], artifact.data["marker"])
