"""AutoCompressor: summaries of segments that accumulate, each made with the earlier ones in view (arXiv 2305.14788)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.autocompressor.network import Summaries


@register(
    "autocompressor",
    site="memory",
    mechanism="accumulated summaries",
    source="arXiv 2305.14788",
    query_aware=False,
    training="trained",
    inferred="the answering model is the base model, frozen (published: the tuned one); rates share one table",
)
@dataclass(kw_only=True)
class AutoCompressor(MemoryMethod):
    """Every segment is read after the summaries of those before it; its own summary vectors are added to them.

    Segments are therefore read in succession, and what comes late can refer to what came early.

    Args:
        artifact: what `laconic fit autocompressor` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> Summaries:
        return Summaries(model, artifact.data["segment"], artifact.data["slots"], artifact.data["marker"])
