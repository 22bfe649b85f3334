"""Length penalty: reinforcement learning that pays less for long right answers (arXiv 2502.04463)."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.decode.contract import TrainedReasoning
from laconic.method import register


@register(
    "length_penalty",
    site="reasoning",
    mechanism="shorter chains",
    source="arXiv 2502.04463",
    query_aware=False,
    training="trained",
    inferred="the gradient of GRPO in the place of PPO with leave-one-out advantages",
)
@dataclass(kw_only=True)
class LengthPenalty(TrainedReasoning):
    """The model thinks in fewer words, because right answers were worth the less the longer they were.

    Nothing is different when it answers: the weights alone are other ones.

    Args:
        artifact: what `laconic fit length_penalty` wrote: a file, a shipped name, or a Hub id.
        mark: text that ends the thinking; None: what the model or its vocabulary says.
    """
