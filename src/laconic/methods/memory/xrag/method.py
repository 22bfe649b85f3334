"""xRAG: a document in one soft token, its retrieval embedding through a projector (arXiv 2405.13792)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.xrag.network import ProjectedEmbedding


@register(
    "xrag",
    site="memory",
    mechanism="one token a document",
    source="arXiv 2405.13792",
    query_aware=False,
    training="trained",
    inferred="the retriever is a fixed random-feature map of the mean token embedding (published: a large trained encoder)",
)
@dataclass(kw_only=True)
class XRAG(MemoryMethod):
    """Every document becomes exactly one soft token: its embedding by a frozen retriever, through a small projector.

    The projector alone is trained. A document is a segment, and `keep` one token in its length.

    Args:
        artifact: what `laconic fit xrag` wrote: a file, a shipped name, or a Hub id.
    """

    default_keep: ClassVar[float | None] = 0.25

    def build(self, model: PreTrainedModel, artifact: Artifact) -> ProjectedEmbedding:
        return ProjectedEmbedding(model, artifact.data["segment"], artifact.data["width"])
