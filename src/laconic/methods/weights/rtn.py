"""Round to nearest: the baseline of weight quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.method import register
from laconic.weights.matrices import matrices
from laconic.weights.quantiser import WeightQuantiser, codes_of, steps_of


@register("rtn", site="weights", mechanism="quantisation", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class RTN(WeightQuantiser):
    """Round every weight to the nearest number of its group's grid; nothing is read.

    Args:
        bits, group: see `WeightQuantiser`.
    """

    def quantise(self, model: PreTrainedModel) -> None:
        for layer in matrices(model, self.name):
            for name, linear in layer.items():
                groups = linear.weight.detach().float().unflatten(-1, (-1, self.group))
                steps = steps_of(groups, self.bits)
                self.put(name, linear, codes_of(groups, steps[..., None], self.bits).flatten(-2), steps)
