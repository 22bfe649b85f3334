"""Training of UniICL: first the model is to answer from demonstrations, then those that help are to be near the question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit, predicted
from laconic.fit.slots import Reading
from laconic.memory.compressor import slots_of
from laconic.methods.memory.uniicl.network import VirtualTokens

TURN = 3
"""Tokens of a question, its answer and its end; the first is preceded by what joins it to the context."""


@dataclass(kw_only=True)
class UniICLFit(MemoryFit):
    """The slot and the linear layer that make virtual tokens of demonstrations.

    A demonstration is a segment of the context. In the last part of the training the one that helps most with a question is
    pulled towards it, and the one that helps least is pushed away.

    Args:
        contrast: share of the steps, the last ones, that train the selection, too.
    """

    segment: int = 4
    contrast: float = 0.25

    method: ClassVar[str] = "uniicl"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "contrast")
    unused: ClassVar[tuple[str, ...]] = ("data", "following")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast > 1:
            raise ValueError(f"uniicl: contrast={self.contrast} is a share of the steps, at most 1.")
        if wrong := [n for n in self.lengths if n % self.segment or n == self.segment]:
            raise ValueError(
                f"uniicl: lengths={wrong[0]} must be two or more demonstrations of segment={self.segment} facts."
            )

    def network(self, model: PreTrainedModel) -> VirtualTokens:
        return VirtualTokens(model, self.segment)

    def batch(self, step: int) -> tuple[Reading, float]:
        self.selecting = step >= self.steps * (1 - self.contrast)
        return super().batch(step)

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        soft = self.compressor.contexts(self.model, reading.context, keep)
        loss = self.answer_loss(reading, soft)
        if not self.selecting:
            return loss
        slots = slots_of(self.segment, keep)
        candidates = soft.unflatten(1, (-1, slots))
        helps = usefulness(self.model, first_question(reading), candidates.detach())
        asked = reading.rest[:, 1:2]
        question = self.compressor.gain * self.compressor(self.model, asked, slots_of(1, keep))
        return loss + contrastive(question.mean(1), candidates.mean(2), helps.argmax(1), helps.argmin(1))


def first_question(reading: Reading) -> Reading:
    """The reading with its first question and answer alone."""
    return replace(reading, rest=reading.rest[:, : TURN + 1], learned=reading.learned[:, : TURN + 1])


@torch.no_grad()
def usefulness(model: PreTrainedModel, reading: Reading, candidates: Tensor) -> Tensor:
    """By how much each of the demonstrations [B, S, k, d], alone before the question, lowers the mean negative
    log-likelihood of its answer, below that without any: [B, S]."""

    def surprise(soft: Tensor) -> Tensor:
        logits, wanted = predicted(model, reading, soft)
        return F.cross_entropy(logits, wanted, reduction="none").view(len(soft), -1).mean(1)

    alone = surprise(candidates[:, 0, :0])
    return torch.stack([alone - surprise(candidates[:, i]) for i in range(candidates.shape[1])], 1)


def contrastive(question: Tensor, means: Tensor, best: Tensor, worst: Tensor) -> Tensor:
    """``-log(e^{cos(q, d+)} / (e^{cos(q, d+)} + e^{cos(q, d-)}))``, the mean over the batch: question [B, d], the means of
    all demonstrations [B, S, d], and which of them help most and least [B]."""
    near = F.cosine_similarity(question[:, None], means, dim=-1)
    pair = torch.stack([near.gather(1, best[:, None])[:, 0], near.gather(1, worst[:, None])[:, 0]], 1)
    return -pair.log_softmax(1)[:, 0].mean()
