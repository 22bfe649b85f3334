"""Trainings whose learning rate rises over a share of the steps and then falls along a cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import warmup_cosine


@dataclass(kw_only=True)
class WarmedFit(TrainingFit):
    """A training by `warmup_cosine`.

    Args:
        warmup: share of the steps before the cosine's peak.

    Raises:
        ValueError: a warm-up that no step follows.
    """

    warmup: float = 0.05

    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "warmup")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup >= 1:
            raise ValueError(f"{self.method}: warmup={self.warmup} must be at least 0 and below 1.")

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)
