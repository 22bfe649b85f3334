"""What the trainings of image memories share: images as the decoder is given them, and the questions about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.errors import MediaError
from laconic.families.vision import vision_family_of
from laconic.families.vision.merged import merged
from laconic.fit.images import numbered, with_answers
from laconic.fit.losses import RightAnswers
from laconic.fit.memory import PrefixFit
from laconic.fit.slots import Reading
from laconic.fit.text import IGNORED
from laconic.memory.compressor import PrefixCompressor
from laconic.tasks.task import Sample


def shown(model: PreTrainedModel, processor: Any, asked: Sequence[Sample]) -> Reading:
    """Questions about one image each: the embeddings of the images [B, n, d] are the contexts, what follows them the rest,
    padded on the right, where nothing that is learned can see it.

    Raises:
        MediaError: images of different numbers of tokens, or other text than an opening before one.
    """
    given, labels = with_answers(processor, asked)
    given = {name: x.to(model.device) for name, x in given.items()}
    ids, labels = given["input_ids"], labels.to(model.device)
    visual = ids == vision_family_of(model).token_id(model, "image")
    embeddings = merged(model, given)
    counts, openings, rests = set(), set(), []
    for row, mask, there in zip(ids, given["attention_mask"], visual, strict=True):
        places = there.nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1])
        counts.add(len(places) if last - first + 1 == len(places) else -1)
        openings.add(tuple(row[:first][mask[:first] == 1].tolist()))
        rests.append(last + 1)
    if len(counts) > 1 or -1 in counts or len(openings) > 1:
        raise MediaError(
            "a batch of image memories needs one image a question, all of one number of tokens and first in their prompts; "
            "resize the images to one size, or train with batch_size=1."
        )
    padding = processor.tokenizer.pad_token_id or 0
    rest = pad_sequence([row[at:] for row, at in zip(ids, rests, strict=True)], True, padding)
    learned = pad_sequence([row[at:] != IGNORED for row, at in zip(labels, rests, strict=True)], True, False)
    context = embeddings[visual].view(len(ids), -1, embeddings.shape[-1])
    return Reading(torch.tensor(openings.pop(), dtype=torch.long, device=ids.device), context, rest, learned)


@dataclass(kw_only=True)
class ImageMemoryFit(PrefixFit):
    """A network that makes keys and values of images, trained so that the frozen model answers from them. A subclass gives
    `network`.

    Args:
        keeps: shares of the visual tokens; every step draws one.
        batch_size: questions of a step, each about an image of its own.
        file: lines of JSON with "image", "question" and "answer"; empty for the testbed's scenes.
    """

    keeps: tuple[float, ...] = (0.25,)
    batch_size: int = 16
    lr: float = 1e-3
    file: str = ""

    unused: ClassVar[tuple[str, ...]] = ("lengths", "segment", "data", "following", "ends")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> PrefixCompressor:
        self.model, self.tokenizer = model, tokenizer
        self.question = numbered(self.file, self.seed)
        self.right = RightAnswers()
        self.compressor: PrefixCompressor = self.adapted(self.network(model))
        return self.compressor

    def drawn(self, step: int, copying: bool = False) -> tuple[Reading, float]:
        asked = [self.question(step * self.batch_size + i) for i in range(self.batch_size)]
        return shown(self.model, self.tokenizer, asked), random.Random(f"{self.seed}-{step}").choice(self.keeps)
