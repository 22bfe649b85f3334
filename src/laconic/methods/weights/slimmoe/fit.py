"""One stage of SlimMoE: prune to a width at once, then distil from the whole model (arXiv 2506.18349)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.fit.contract import TrainingFit
from laconic.fit.losses import student_loss
from laconic.fit.schedules import warmup_cosine
from laconic.fit.text import FileSource, ProseSource, Source
from laconic.methods.weights.slimmoe.method import MULTIPLE, put
from laconic.methods.weights.slimmoe.network import narrowed, sensitivity
from laconic.weights.experts import mixtures


@dataclass(kw_only=True)
class SlimMoEFit(TrainingFit):
    """A narrower copy of the model, trained on what the model finds likely. The paper takes two or three of these in a row,
    of geometric widths, each with the artifact of the one before it as `start`; on `testbed/moe` one did as well.

    Args:
        neurons: of each expert, that stay; a multiple of 8, which grouped kernels ask for.
        start: the artifact of the stage before; None: the model itself.
        top: of the model's most likely tokens, those that are learned.
        score_top: those by which neurons are chosen; fewer where 8 are nearly everything (a small vocabulary), because what
            they leave out is all that has a gradient in the first stage.
        scored: batches by which neurons are chosen.
        text: a UTF-8 file; None: the training part of Python's documentation.
        tokens, batch_size: of one step.
    """

    neurons: int = 64
    start: str | None = None
    top: int = 8
    score_top: int = 8
    scored: int = 8
    steps: int = 400
    lr: float = 1e-3
    clip: float | None = 1.0
    tokens: int = 128
    batch_size: int = 8
    text: Path | None = None

    method: ClassVar[str] = "slimmoe"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neurons % MULTIPLE:
            raise ValueError(
                f"slimmoe: neurons={self.neurons} must be a multiple of {MULTIPLE}: grouped kernels take no other width."
            )

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"text": None if self.text is None else self.text.name}

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        self.model, self.source = model, self._source(tokenizer)
        student = copy.deepcopy(model).float().eval()  # small steps vanish in the 8 bits of bfloat16
        if self.start is not None:
            before = Artifact.find(self.method, model, self.start)
            put(student, before.tensors, int(before.data["neurons"]))
        student.requires_grad_(True)
        now = mixtures(student, self.method)[0].neurons
        if self.neurons > now:
            raise ValueError(f"slimmoe: neurons={self.neurons}, and each expert has {now}; choose fewer.")
        if self.neurons < now:
            batches = (self._ids(1_000_000 - 1 - i) for i in range(self.scored))
            narrowed(student, sensitivity(student, model, batches, self.score_top), self.neurons)
        return student.requires_grad_(True)

    def _source(self, tokenizer: Any) -> Source:
        return ProseSource(tokenizer) if self.text is None else FileSource(tokenizer, self.text.expanduser())

    def _ids(self, step: int) -> Tensor:
        return self.source.batch(self.seed, step, self.batch_size, self.tokens)[0].to(self.model.device)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        self.student = module
        return torch.optim.AdamW(module.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.1)

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, 0.02)

    def batch(self, step: int) -> Tensor:
        return self._ids(step)

    def loss(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.model(input_ids=batch, use_cache=False).logits
        return student_loss(self.student(input_ids=batch, use_cache=False).logits, wanted, self.top)

    def facts(self) -> dict[str, Any]:
        return {"neurons": self.neurons}
