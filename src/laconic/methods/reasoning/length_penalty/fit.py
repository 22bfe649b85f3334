"""Training of the length penalty: among right answers to one question, short ones are worth more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.fit.grpo import PolicyFit


def discounted(right: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    """``right * (1 - alpha * sigmoid((length - mean) / std))``, [Q, G]; mean and deviation are of the right answers to each
    question."""
    count = right.sum(1, keepdim=True).clamp(min=1)
    mean = (right * lengths).sum(1, keepdim=True) / count
    spread = ((right * (lengths - mean).square()).sum(1, keepdim=True) / count).sqrt()
    return right * (1 - alpha * torch.sigmoid((lengths - mean) / spread.clamp(min=1e-6)))


@dataclass(kw_only=True)
class LengthPenaltyFit(PolicyFit):
    """A constant cap, and a discount on long right answers.

    Args:
        alpha: largest discount, below 1, so that a right answer is always worth more than a wrong one; 0: none.
    """

    alpha: float = 0.4

    method: ClassVar[str] = "length_penalty"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "alpha")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha >= 1:
            raise ValueError(f"{self.method}: alpha={self.alpha} must be below 1; else wrong answers may be worth more.")

    def worth(self, right: Tensor, lengths: Tensor) -> Tensor:
        return discounted(right, lengths, self.alpha)

    def facts(self) -> dict[str, Any]:
        return {"alpha": self.alpha}
