"""Magnitude pruning: the smallest weights are dispensable (arXiv 1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from laconic.method import register
from laconic.weights.pruner import Pruner


@register("magnitude", site="weights", mechanism="unstructured pruning", source="arXiv 1506.02626", query_aware=False)
@dataclass(kw_only=True)
class Magnitude(Pruner):
    """Set the weights of smallest size to zero, in each matrix; nothing is read and nothing is trained.

    The weights of one matrix compete with each other, as in later papers that compare with it; not those of all matrices.

    Args:
        pattern: see `Pruner`.
    """

    def prune(self, model: PreTrainedModel) -> None:
        for _, linear in self._each(model):
            size = linear.weight.detach().abs()
            low = self.lowest(size) if self.group else self.lowest(size.flatten()).view_as(size)
            linear.weight = nn.Parameter(linear.weight.detach().masked_fill(low, 0), requires_grad=False)
