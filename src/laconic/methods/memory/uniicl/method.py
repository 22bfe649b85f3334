"""UniICL: the frozen model itself compresses demonstrations, selects among them, and answers (arXiv 2405.17062)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.uniicl.network import VirtualTokens


@register(
    "uniicl",
    site="memory",
    mechanism="soft tokens by segment",
    source="arXiv 2405.17062",
    query_aware=False,
    training="trained",
    inferred="all slots share one vector; no bias; the linear layer starts as a scaled identity; optimiser settings",
)
@dataclass(kw_only=True)
class UniICL(MemoryMethod):
    """The frozen model's own last states at learned slots after a demonstration, through one linear layer.

    Nothing else is trained. The mean of a demonstration's soft tokens is its embedding, by which `laconic.Bank` selects
    those nearest to a question.

    Args:
        artifact: what `laconic fit uniicl` wrote: a file, a shipped name, or a Hub id.
    """

    default_keep: ClassVar[float | None] = 0.5

    def build(self, model: PreTrainedModel, artifact: Artifact) -> VirtualTokens:
        return VirtualTokens(model, artifact.data["segment"])
