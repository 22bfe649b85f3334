"""SIRI: reinforcement learning under a cap on the answers that falls and rises in cycles (arXiv 2509.25176)."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.decode.contract import TrainedReasoning
from laconic.method import register


@register(
    "siri",
    site="reasoning",
    mechanism="shorter chains",
    source="arXiv 2509.25176",
    query_aware=False,
    training="trained",
    inferred="8 answers to a question; the lower cap comes first in the stair schedule",
)
@dataclass(kw_only=True)
class SIRI(TrainedReasoning):
    """The model thinks in fewer words, because it was trained under a cap that fell and rose again.

    Nothing is different when it answers: the weights alone are other ones.

    Args:
        artifact: what `laconic fit siri` wrote: a file, a shipped name, or a Hub id.
        mark: text that ends the thinking; None: what the model or its vocabulary says.
    """
