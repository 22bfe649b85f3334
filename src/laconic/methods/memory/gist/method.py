"""Gist tokens: a prompt in the keys and values of a few tokens at its end (arXiv 2304.08467)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import PrefixMethod
from laconic.memory.summary import SummaryTokens
from laconic.method import register


@register(
    "gist",
    site="memory",
    mechanism="keys and values of gist tokens",
    source="arXiv 2304.08467",
    query_aware=False,
    training="trained",
    inferred="the model that answers stays frozen and a copy reads the context (published: one tuned model); what opens the "
    "prompt stays in view",
)
@dataclass(kw_only=True)
class Gist(PrefixMethod):
    """One learned token, repeated after the whole context, sees all of it; what follows sees its copies alone.

    Their keys and values stay at the positions where they arose.
    The published training masks the context from what follows. Two calls with a cache between them are the same, and that is
    what is done here.

    Args:
        artifact: what `laconic fit gist` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> SummaryTokens:
        return SummaryTokens(model)
