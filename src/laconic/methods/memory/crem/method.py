"""CREM: chorus tokens that are both an embedding for retrieval and a memory to answer from (arXiv 2602.19091)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.families.vision.merged import merged
from laconic.memory.contract import PrefixMethod
from laconic.method import register
from laconic.methods.memory.crem.network import Chorus
from laconic.prompts import media, text
from laconic.prompts.inputs import on_device
from laconic.prompts.reader import tokenizer_of
from laconic.prompts.text import PromptError


@register(
    "crem",
    site="memory",
    modality="image, text",
    mechanism="keys and values of chorus tokens, whose mean state is an embedding",
    source="arXiv 2602.19091",
    query_aware=False,
    training="trained",
    inferred="the model that answers stays frozen and a copy of its decoder reads (published: one tuned model), so answers "
    "without the memory are the model's own; temperature, weights of the losses and the final norm of the embedding",
)
@dataclass(kw_only=True)
class CREM(PrefixMethod):
    """K learned chorus tokens after an image or a text: their keys and values answer, the mean of their states is found.

    The embedding always takes the whole chorus; a memory takes as many of its first tokens as `keep` asks.

    Args:
        artifact: what `laconic fit crem` wrote: a file, a shipped name, or a Hub id.
    """

    reads: ClassVar[str] = "text or images"

    def build(self, model: PreTrainedModel, artifact: Artifact) -> Chorus:
        return Chorus(model, int(artifact.data["chorus"]))

    @torch.no_grad()
    def embed(self, model: PreTrainedModel, reader: Any, contexts: Sequence[str | Image.Image]) -> Tensor:
        """Embeddings of texts and images, of length 1, [contexts, d]: the nearer two are, the more they say the same.

        Args:
            model, reader: as `laconic.load` gives them; `attach(model)` came before.

        Raises:
            PromptError: an empty text.
        """
        found = []
        for one in contexts:
            opening, seen = _read(model, reader, one)
            found.append(self.network.embedding(model, opening, seen[None])[0])
        return torch.stack(found)


def _read(model: PreTrainedModel, reader: Any, context: str | Image.Image) -> tuple[Tensor, Tensor]:
    """Ids of what opens a prompt about a context [o], and the context's ids [n] or, of an image, embeddings [n, d]."""
    if isinstance(context, str):
        if not context.strip():
            raise PromptError("an empty text has no embedding; leave it out.")
        shown = text.build(tokenizer_of(reader), context, "?")
    else:
        shown = media.build(reader, [context], "", "?")
    ids = torch.tensor(shown.context, device=model.device)
    opening, rest = ids[: shown.opening], ids[shown.opening :]
    if not shown.inputs:
        return opening, rest
    return opening, merged(model, {**on_device(model, shown.inputs), "input_ids": ids[None]})[0, shown.opening :]
