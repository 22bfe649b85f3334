"""Tuning of a model's decoder with a token method in place: questions about images, answered through a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.fit.images import numbered, with_answers
from laconic.fit.losses import RightAnswers, answer_loss, right, short_labels
from laconic.fit.thinker import Thinker
from laconic.fit.warmed import WarmedFit
from laconic.session import Session

Rows = tuple[int, dict[str, Tensor], Tensor]
"""The number of the step, prompts with answers, and labels [B, T]."""


@dataclass(kw_only=True)
class TunedFit(WarmedFit):
    """A copy of the model whose decoder's layers and final norm are trained; encoder, projector, embeddings and head stay. A
    subclass gives `compressed`.

    Args:
        rows: questions of a step.
        file: JSON lines with "image", "question" and "answer"; empty for drawn scenes.
    """

    rows: int = 32
    steps: int = 400
    lr: float = 5e-4
    clip: float | None = 1.0
    file: str = ""

    def compressed(self, model: PreTrainedModel, step: int) -> AbstractContextManager[Session | None]:
        """`model` as it is trained in `step`: the session that it is in, or None where nothing is compressed."""
        raise NotImplementedError(f"{type(self).__name__} must define compressed().")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Thinker:
        vision_family_of(model)  # refuses models that see no images
        self.model, self.processor = model, tokenizer
        self.asked = numbered(self.file, self.seed)
        self.right = RightAnswers()
        self.tuned = Thinker(model)
        return self.tuned

    def batch(self, step: int) -> Rows:
        given, labels = with_answers(self.processor, [self.asked(step * self.rows + i) for i in range(self.rows)])
        device = self.model.device
        return step, {name: x.to(device) for name, x in given.items()}, labels.to(device)

    def loss(self, batch: Rows) -> Iterator[Tensor]:
        """One term, given while the session is open, so that gradients are computed in it."""
        step, given, labels = batch
        with self.compressed(self.tuned.lm, step) as session:
            logits = self.tuned.lm(**given).logits
            wanted = short_labels(session, labels)[:, 1:]
            self.right.note(right(logits.detach(), wanted))
            yield answer_loss(session, logits, labels)

    def progress(self) -> str:
        return self.right.told()
