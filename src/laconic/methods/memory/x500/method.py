"""500xCompressor: the keys and values of memory tokens after a segment are its memory (arXiv 2408.03094)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import PrefixMethod
from laconic.method import register
from laconic.methods.memory.x500.network import KeyValueSlots


@register(
    "x500",
    site="memory",
    mechanism="keys and values of memory tokens",
    source="arXiv 2408.03094",
    query_aware=False,
    training="trained",
    inferred="a full copy of the model instead of LoRA; smaller shares use the first tokens; trained by answers alone",
)
@dataclass(kw_only=True)
class X500(PrefixMethod):
    """An encoder reads a segment and then learned memory tokens, whose keys and values of every layer are the memory.

    The frozen model finds them in its cache in the segment's place. Like an autoencoder's soft tokens, but nothing has to be
    read again, and every layer has entries of its own.

    Args:
        artifact: what `laconic fit x500` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> KeyValueSlots:
        return KeyValueSlots(model, artifact.data["segment"], artifact.data["slots"])
