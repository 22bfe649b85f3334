"""C3: a small model's latent tokens are read by a larger one (arXiv 2511.15244)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import MemoryMethod
from laconic.method import register
from laconic.methods.memory.c3.network import Cascade, decoder_of


@register(
    "c3",
    site="memory",
    mechanism="memory tokens",
    source="arXiv 2511.15244",
    query_aware=False,
    training="trained",
    inferred="longer texts in segments, each with its own latent tokens; the model that reads them stays frozen (published: "
    "trained, too); no marks around the latent tokens",
)
@dataclass(kw_only=True)
class C3(MemoryMethod):
    """Context cascade compression: a smaller model's last states at learned queries, through a layer, are the memory.

    A segment has the same number of latent tokens whatever its length: ``keep * segment``, so a short text is compressed
    less. The smaller model must read the same token ids as the one that answers.

    Args:
        artifact: what `laconic fit c3` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> Cascade:
        data = artifact.data
        return Cascade(decoder_of(data["small"]), data["width"], data["segment"], data["latents"])
