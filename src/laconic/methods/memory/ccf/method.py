"""CCF: states of memory tokens at every layer's input, which the model reads as keys and values (arXiv 2509.09199)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import PrefixMethod
from laconic.method import register
from laconic.methods.memory.ccf.network import SegmentStates


@register(
    "ccf",
    site="memory",
    mechanism="states of memory tokens",
    source="arXiv 2509.09199",
    query_aware=False,
    training="trained",
    inferred="full matrices instead of LoRA; what opens the prompt comes first; an answer's own segments do not collapse",
)
@dataclass(kw_only=True)
class CCF(PrefixMethod):
    """Every segment is encoded by itself; what its memory tokens bring to each layer's attention becomes keys and values.

    These come from matrices of their own. Text passes through the model's own weights alone, so without a memory it is the
    model. A last segment that is not full stays as it is.

    Args:
        artifact: what `laconic fit ccf` wrote: a file, a shipped name, or a Hub id.
    """

    default_keep: ClassVar[float | None] = 0.5

    def build(self, model: PreTrainedModel, artifact: Artifact) -> SegmentStates:
        return SegmentStates(model, artifact.data["segment"], artifact.data["marker"])
