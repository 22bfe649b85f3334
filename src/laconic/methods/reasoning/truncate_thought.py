"""Baseline: thinking is cut after a number of tokens, and the model answers from what it has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from laconic.decode.contract import ReasoningMethod
from laconic.decode.thought import Thought
from laconic.method import register


@register(
    "truncate_thought",
    site="reasoning",
    mechanism="truncation",
    source="baseline",
    query_aware=False,
)
@dataclass(kw_only=True)
class TruncateThought(ReasoningMethod):
    """After `cap` tokens of thinking the mark is forced.

    Args:
        cap: most tokens of thinking; None: no cap, which is neutral.
        mark: text that ends the thinking; None: what the model or its vocabulary says.

    Raises:
        ValueError: a cap below 1.
    """

    cap: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"{self.name}: cap={self.cap}: thinking takes at least one token; `no_thought` leaves it out.")

    @property
    def neutral(self) -> bool:
        return self.cap is None

    def over(self, thought: Thought) -> Tensor:
        return super().over(thought) if self.cap is None else thought.thinking >= self.cap
