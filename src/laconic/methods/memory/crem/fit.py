"""Training of CREM's chorus: images are to find their captions, and answers are to come from the chorus alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.errors import MediaError
from laconic.fit.image_memory import ImageMemoryFit, shown
from laconic.fit.images import scene_number
from laconic.fit.memory import predicted_after
from laconic.fit.slots import Reading
from laconic.methods.memory.crem.network import Chorus, info_nce
from laconic.tasks.scenes.captions import caption_of

Batch = tuple[Reading, list[str], float]


@dataclass(kw_only=True)
class CREMFit(ImageMemoryFit):
    """The copy of the decoder that reads, and the chorus. Every step takes one batch, which is asked and searched.

    Args:
        chorus: how many tokens it has.
        temperature: of the contrastive loss.
        retrieval, generation: weights of the two losses; 0 leaves one out. `file` does not go with retrieval: it has no
            captions.
    """

    chorus: int = 16
    keeps: tuple[float, ...] = (0.111,)
    temperature: float = 0.05
    retrieval: float = 1.0
    generation: float = 1.0

    method: ClassVar[str] = "crem"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "retrieval", "generation")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.retrieval and not self.generation:
            raise ValueError("crem: retrieval=0 and generation=0 leave nothing to train; give one of them a weight.")
        if self.file and self.retrieval:
            raise MediaError("crem: a file has no captions to find; give retrieval=0, or train on drawn scenes.")

    def network(self, model: PreTrainedModel) -> Chorus:
        self.chorus_tokens = Chorus(model, self.chorus)
        return self.chorus_tokens

    def batch(self, step: int) -> Batch:  # type: ignore[override]
        numbers = [step * self.batch_size + i for i in range(self.batch_size)]
        asked = [self.question(number) for number in numbers]
        captions = [caption_of(scene_number(self.seed, number)) for number in numbers] if self.retrieval else []
        keep = random.Random(f"{self.seed}-{step}").choice(self.keeps)
        return shown(self.model, self.tokenizer, asked), captions, keep

    def loss(self, batch: Batch) -> Iterable[Tensor]:  # type: ignore[override]
        reading, captions, keep = batch
        if self.generation:
            prefix = self.compressor(self.model, reading.opening, reading.context, keep)
            yield self.generation * self.scored(*predicted_after(self.model, reading, prefix))
        if self.retrieval:
            yield self.retrieval * self.contrast(reading, captions)

    def contrast(self, reading: Reading, captions: list[str]) -> Tensor:
        """InfoNCE of the images with their captions, which the same network embeds after the same opening."""
        images = self.chorus_tokens.embedding(self.model, reading.opening, reading.context)
        return info_nce(images, self.captions(reading.opening, captions), self.temperature)

    def captions(self, opening: Tensor, captions: list[str]) -> Tensor:
        """Embeddings of texts [B, d]; those of one length go through the network together, so none is padded."""
        encode = self.tokenizer.tokenizer.encode
        ids = [torch.tensor(encode(text, add_special_tokens=False), device=opening.device) for text in captions]
        found: dict[int, Tensor] = {}
        for length in sorted({len(x) for x in ids}):
            rows = [i for i, x in enumerate(ids) if len(x) == length]
            made = self.chorus_tokens.embedding(self.model, opening, pad_sequence([ids[i] for i in rows], True))
            found |= dict(zip(rows, made, strict=True))
        return torch.stack([found[i] for i in range(len(ids))])

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "chorus": self.chorus}
