"""Training of CompLLM: the model's hidden states at the answer with the memory are to be those with the text (section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit, mixed
from laconic.fit.slots import Reading
from laconic.memory.compressor import embedded
from laconic.methods.memory.compllm.network import ConceptEmbeddings


@dataclass(kw_only=True)
class CompLLMFit(MemoryFit):
    """The encoder and the linear layer that make concept embeddings of a segment.

    Args:
        distillation: weight of the published loss, on hidden states; the answers' cross-entropy has the rest of 1. Small
            models learn from answers far sooner.
    """

    segment: int = 8
    distillation: float = 0.0

    method: ClassVar[str] = "compllm"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "distillation")

    def network(self, model: PreTrainedModel) -> ConceptEmbeddings:
        self.marker = int(self.tokenizer.eos_token_id)
        return ConceptEmbeddings(model, self.segment, self.marker)

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        soft = self.compressor.contexts(self.model, reading.context, keep)
        loss = self.answer_loss(reading, soft) * (1 - self.distillation)
        if self.distillation:
            loss = loss + self.distillation * distillation(self.model, reading, soft)
        return loss

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "marker": self.marker}


def distillation(model: PreTrainedModel, reading: Reading, soft: Tensor) -> Tensor:
    """Sum over layers of the smooth L1 distance between hidden states at the learned tokens, with soft tokens [B, m, d] and
    with the context itself, each layer's divided by the deviation of the latter."""
    parts: Any = model
    with torch.no_grad():
        whole = mixed(model, reading, embedded(model, reading.context))
        teacher = parts.model(inputs_embeds=whole, output_hidden_states=True, use_cache=False).hidden_states
    short = mixed(model, reading, soft)
    student = parts.model(inputs_embeds=short, output_hidden_states=True, use_cache=False).hidden_states
    m = reading.rest.shape[1]  # aligned from the end: the sequences differ in length
    return layer_distances([x[:, -m:] for x in teacher[1:]], [x[:, -m:] for x in student[1:]], reading.learned)


def layer_distances(teacher: list[Tensor], student: list[Tensor], at: Tensor) -> Tensor:
    """Sum over layers of ``SmoothL1(student, teacher) / sigma``: hidden states [B, m, d] each, at positions `at` [B, m].

    sigma is the standard deviation of all the teacher's numbers of one sample, and the mean is taken within each sample.
    """
    total = teacher[0].new_zeros(())
    for wanted, got in zip(teacher, student, strict=True):
        for row, where in enumerate(at):
            target = wanted[row, where]
            sigma = target.std(correction=0).clamp(min=1e-6)
            total = total + F.smooth_l1_loss(got[row, where], target) / sigma
    return total / len(at)
