"""What the trainings of visual compressors share: several questions about each image, soft tokens in the place of its visual
tokens, and the frozen model's loss on the answers.

The image is encoded once for all its questions, and the decoder reads only what is left of it, so a step costs a fraction of
one through a session. The layout is the one that a session makes: every fit tests that both give the same logits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision import vision_family_of
from laconic.fit.images import conversations, with_answers
from laconic.fit.losses import RightAnswers, right
from laconic.fit.text import IGNORED
from laconic.fit.warmed import WarmedFit


@dataclass
class Asked:
    """Q = I * k questions about I images, those about one image one after the other.

    Attributes:
        features: of the images after the projector, [I, N, D].
        states: after the embeddings and after every encoder layer, without CLS, [I, N, C] each.
        ids, mask, labels: prompts with answers, padded on the left, [Q, T]; labels are -100 where nothing is asked.
        image: tokens that stand for patches, bool [Q, T].
    """

    features: Tensor
    states: list[Tensor]
    ids: Tensor
    mask: Tensor
    labels: Tensor
    image: Tensor

    @property
    def text(self) -> Tensor:
        """Tokens of the prompts' text, without the answers, bool [Q, T]."""
        return ~self.image & (self.mask == 1) & (self.labels == IGNORED)

    def stays(self, count: int) -> Tensor:
        """Tokens that are left when `count` stand for each image, the first ones in its place, bool [Q, T]."""
        return ~self.image | (self.image.cumsum(1) <= count)


@dataclass(kw_only=True)
class VisualFit(WarmedFit):
    """A network between encoder and decoder, trained by the answers of the frozen model. A subclass gives `network` and
    `logits`.

    Args:
        images: of a step. `questions`: about each of them (drawn scenes; a file has one each).
        lr: peak of the cosine.
        file: JSON lines with "image", "question" and "answer"; empty for drawn scenes.
    """

    images: int = 8
    questions: int = 8
    steps: int = 600
    lr: float = 1e-3
    clip: float | None = 1.0
    file: str = ""

    def network(self, model: PreTrainedModel) -> nn.Module:
        """What is trained."""
        raise NotImplementedError(f"{type(self).__name__} must define network().")

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        """The model's logits at the end of the prompts, as `answered` returns them; `rng` draws a size, say."""
        raise NotImplementedError(f"{type(self).__name__} must define logits().")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        self.family = vision_family_of(model)
        self.model, self.processor = model, tokenizer
        self.side, self.image = self.family.side(model), self.family.token_id(model, "image")
        self.shown = conversations(self.file, self.seed, self.questions)
        self.right = RightAnswers()
        self.net: Any = self.network(model)
        return self.net

    def batch(self, step: int) -> tuple[Asked, random.Random]:
        return self.asked(step), random.Random(f"{self.seed}-{step}")

    @torch.no_grad()
    def asked(self, number: int) -> Asked:
        """Batch `number`: the images encoded, and the questions about them.

        Raises:
            UnsupportedModelError: prompts whose image is not one view of all patches.
        """
        about = [self.shown(number * self.images + i) for i in range(self.images)]
        each = min(map(len, about))
        given, labels = with_answers(self.processor, [one for some in about for one in some[:each]])
        device = self.model.device
        ids = given["input_ids"].to(device)
        image = ids == self.image
        if bool((image.sum(1) != self.side**2).any()):
            raise UnsupportedModelError(
                f"{self.method} is fitted on prompts with one view of {self.side**2} patches each; these have "
                f"{image.sum(1).tolist()} visual tokens. Use a model of one view per image."
            )
        seen = self.family.core(self.model).get_image_features(given["pixel_values"][::each].to(device, self.model.dtype))
        states = [x[:, int(self.family.has_cls(self.model)) :] for x in seen.hidden_states]
        mask = given["attention_mask"].to(device)
        return Asked(torch.stack(list(seen.pooler_output)), states, ids, mask, labels.to(device), image)

    def words(self, asked: Asked) -> Tensor:
        """Embeddings of all tokens, [Q, T, D]; those of images mean nothing."""
        table: Any = self.model.get_input_embeddings()
        with torch.no_grad():
            return table(asked.ids)  # type: ignore[no-any-return]

    def answered(self, asked: Asked, soft: Tensor, words: Tensor) -> Tensor:
        """Logits of all tokens that are left when each image is `soft` [Q, m, D], [Q, T - N + m, V].

        Args:
            words: embeddings of the text, [Q, T, D].
        """
        stays = asked.stays(soft.shape[1])
        there = (asked.image & stays)[..., None]
        short = words.masked_scatter(there, soft.to(words))[stays].unflatten(0, (len(words), -1))
        mask = asked.mask[stays].unflatten(0, (len(words), -1))
        out: Tensor = self.model(inputs_embeds=short, attention_mask=mask, use_cache=False).logits
        return out

    def loss(self, batch: tuple[Asked, random.Random]) -> Tensor | Iterable[Tensor]:
        asked, rng = batch
        logits = self.logits(asked, rng)
        labels = asked.labels[:, -logits.shape[1] :]  # what an image loses, it loses before the answer
        wanted = labels[:, 1:]
        at = wanted != IGNORED
        self.right.note(right(logits.detach(), wanted))
        return F.cross_entropy(logits[:, :-1][at].float(), wanted[at])

    def progress(self) -> str:
        return self.right.told()
