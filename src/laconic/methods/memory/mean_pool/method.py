"""Mean pooling: the average of every few hidden states, projected into the embedding space (arXiv 2510.20797)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.mean_pool.network import PooledStates


@register(
    "mean_pool",
    site="memory",
    mechanism="pooled states",
    source="arXiv 2510.20797",
    query_aware=False,
    training="trained",
    inferred="the encoder is the frozen model (published: trained); a projector of two layers adds to the mean embedding",
)
@dataclass(kw_only=True)
class MeanPool(MemoryMethod):
    """Every soft token is the mean of a few neighbouring hidden states of the frozen model, through a small projector.

    The plain rival of all learned memories: nothing but the projector is trained.

    Args:
        artifact: what `laconic fit mean_pool` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> PooledStates:
        return PooledStates(model, artifact.data["segment"])
