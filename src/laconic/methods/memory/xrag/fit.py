"""Training of xRAG's projector: answers, and the model's own probabilities with the documents in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.memory import MemoryFit, predicted
from laconic.fit.slots import Reading
from laconic.memory.compressor import embedded
from laconic.methods.memory.xrag.network import ProjectedEmbedding


@dataclass(kw_only=True)
class XRAGFit(MemoryFit):
    """The projector.

    Args:
        segment: tokens of a document; `keeps` is one token in that length.
        width: of the retriever's embeddings.
        distillation: weight of the divergence from the model with the documents themselves in view.
    """

    keeps: tuple[float, ...] = (0.25,)
    segment: int = 4
    width: int = 512
    distillation: float = 2.0

    method: ClassVar[str] = "xrag"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "distillation")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.keeps) != 1 or abs(self.keeps[0] * self.segment - 1) > 1e-6:
            given = ", ".join(f"{keep:g}" for keep in self.keeps)
            raise ValueError(
                f"xrag: keeps={given}: a document of segment={self.segment} tokens becomes one; give 1/segment."
            )

    def network(self, model: PreTrainedModel) -> ProjectedEmbedding:
        return ProjectedEmbedding(model, self.segment, self.width)

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        logits, wanted = predicted(self.model, reading, self.compressor.contexts(self.model, reading.context, keep))
        loss = self.scored(logits, wanted)
        if self.distillation:
            with torch.no_grad():
                teacher = predicted(self.model, reading, embedded(self.model, reading.context))[0]
            loss = loss + self.distillation * divergence(teacher, logits)
        return loss

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "width": self.width}


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of logits [N, V], mean over N, at temperature 1."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)
