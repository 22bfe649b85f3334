"""Coconut: the last hidden state is the next input, in the place of a step in words (arXiv 2412.06769)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.decode.contract import Latents, TrainedReasoning
from laconic.decode.thought import Thought
from laconic.method import register


@register(
    "coconut",
    site="reasoning",
    mechanism="latent thinking",
    source="arXiv 2412.06769",
    query_aware=False,
    training="trained",
    inferred="no tokens around the thoughts; the optimiser goes on from stage to stage",
)
@dataclass(kw_only=True)
class Coconut(TrainedReasoning):
    """A fixed number of thoughts without words, and then in words whatever they do not cover.

    A thought is the last hidden state after the final norm, read again as the next input. The training replaced the first
    steps of chains by thoughts, one step more in every stage.

    Args:
        thoughts: how many; None: as many as the last stage of the training had.
        artifact: what `laconic fit coconut` wrote: a file, a shipped name, or a Hub id.
        mark: text that ends the thinking; None: what the model or its vocabulary says.

    Raises:
        ValueError: a negative number of thoughts.
    """

    thoughts: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thoughts is not None and self.thoughts < 0:
            raise ValueError(f"{self.name}: thoughts={self.thoughts} must be at least 0; None takes those of the training.")

    def attach(self, model: PreTrainedModel) -> None:
        super().attach(model)
        assert self.trained is not None
        self._count = int(self.trained.data["thoughts"]) if self.thoughts is None else self.thoughts

    def latents(self, thought: Thought, hidden: Tensor, logits: Tensor) -> Latents:
        return Latents(hidden, thought.thinking < self._count, torch.zeros_like(thought.closed))
