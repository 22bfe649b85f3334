"""Training of a student: a narrower model learns what the model finds likely (arXiv 1503.02531)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.fit.chains import IGNORED, Solutions, padded, recalled
from laconic.fit.contract import TrainingFit
from laconic.fit.losses import student_loss
from laconic.fit.schedules import warmup_cosine
from laconic.fit.text import FileSource, ProseSource, Source
from laconic.methods.weights.distillation.method import student_of


@dataclass(kw_only=True)
class DistillationFit(TrainingFit):
    """A narrower model beside the frozen one: cross-entropy with the model's probabilities of all tokens.

    Args:
        share: of the width that stays, below 1.
        text: a UTF-8 file; None: the training part of Python's documentation.
        tokens, batch_size: of one step.
        problems: instead of a text, problems with terse chains of thought; the loss is taken on chains and answers.
        known: with `problems`, half of the rows are some of so many facts that the model knows by heart.
    """

    share: float = 0.5
    steps: int = 1000
    lr: float = 3e-3
    clip: float | None = 1.0
    text: Path | None = None
    tokens: int = 128
    batch_size: int = 16
    problems: bool = False
    known: int = 0

    method: ClassVar[str] = "distillation"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "known")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.share < 1:
            raise ValueError(f"distillation: share={self.share} must be below 1: a student is narrower than its teacher.")
        if self.known and not self.problems:
            raise ValueError(f"distillation: known={self.known} facts are asked beside problems; give problems=true, too.")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"text": None if self.text is None else self.text.name}

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        self.model, self.tokenizer, self.student = model, tokenizer, student_of(model, self.share)
        self.source: Source | None = None
        if self.problems:
            self.solutions = Solutions(tokenizer, {"terse": 1.0})
        else:
            self.source = ProseSource(tokenizer) if self.text is None else FileSource(tokenizer, self.text.expanduser())
        return self.student.requires_grad_(True)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=0.01)

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, 0.05)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Token ids and labels, [B, T] each; what is not labelled teaches nothing."""
        if self.source is not None:
            ids, labels = self.source.batch(self.seed, step, self.batch_size, self.tokens)
        else:
            rng, rows = random.Random(f"{self.seed}-{step}"), self.batch_size // 2 if self.known else 0
            drawn = self.solutions.draw(rng, self.batch_size - rows)
            drawn += recalled(self.tokenizer, rng, self.known, rows) if rows else []
            ids, labels = padded(drawn, self.tokenizer.pad_token_id)
        return ids.to(self.model.device), labels.to(self.model.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, labels = batch
        asked = labels[:, 1:] != IGNORED
        with torch.no_grad():
            wanted = self.model(input_ids=ids, use_cache=False).logits[:, :-1][asked]
        return student_loss(self.student(input_ids=ids, use_cache=False).logits[:, :-1][asked], wanted)

    def facts(self) -> dict[str, Any]:
        return {"share": self.share}
