"""What the trainings of codecs and generators share: samples drawn by number, a cosine schedule, AdamW on what learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from laconic.fit.warmed import WarmedFit
from laconic.tasks.task import EVALUATION_SEED


@dataclass(kw_only=True)
class CodecFit(WarmedFit):
    """A training beside no model, on samples that are drawn from their numbers.

    Args:
        batch_size: samples of a step.
    """

    clip: float | None = 1.0
    batch_size: int = 32

    standalone: ClassVar[bool] = True

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        learning = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.AdamW(learning, lr=self.lr, weight_decay=1e-4, betas=(0.9, 0.99))

    def first(self, step: int) -> int:
        """The number of the first sample of a step; no step reaches the seeds for evaluation."""
        return (self.seed * 7919 + step) * self.batch_size % (EVALUATION_SEED - self.batch_size)
