"""Baseline: the thinking is closed before it begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.decode.contract import ReasoningMethod
from laconic.decode.thought import Thought
from laconic.method import register


@register(
    "no_thought",
    site="reasoning",
    mechanism="truncation",
    source="baseline",
    query_aware=False,
)
@dataclass(kw_only=True)
class NoThought(ReasoningMethod):
    """The mark comes right after the prompt, and the model answers at once.

    Args:
        mark: text that ends the thinking; None: what the model or its vocabulary says.
    """

    def over(self, thought: Thought) -> Tensor:
        return torch.ones_like(thought.closed)
