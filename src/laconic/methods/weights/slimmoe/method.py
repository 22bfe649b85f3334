"""SlimMoE: every expert stays and becomes narrower, in stages of pruning and distillation (arXiv 2506.18349)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from laconic.errors import ArtifactError, BudgetError
from laconic.method import register
from laconic.weights.edit import FittedEdit
from laconic.weights.experts import mixtures, resized

MULTIPLE = 8
"""Widths that grouped kernels take: 16 bytes of bfloat16."""


@register(
    "slimmoe",
    site="weights",
    mechanism="structured pruning",
    source="arXiv 2506.18349",
    query_aware=False,
    training="trained",
    inferred="sizes of the stages, the optimiser; attention is not pruned",
    fit="laconic.methods.weights.slimmoe.fit:SlimMoEFit",
)
@dataclass(kw_only=True)
class SlimMoE(FittedEdit):
    """Keep all experts of a mixture and make each narrower, in stages of pruning and distillation.

    The neurons that the distillation loss is least sensitive to go, and the model is distilled from what it was. One
    `laconic fit slimmoe` is one stage, and the next begins with the artifact of the one before it (``start``). The share of
    the neurons that stays belongs to the artifact: leave ``keep`` out, or give the same; 1.0 changes nothing.

    Args:
        artifact: what `laconic fit slimmoe` wrote: all weights of the smaller model.
    """

    default_keep: ClassVar[float | None] = None
    fixed_budget: ClassVar[bool] = True
    saves: ClassVar[str] = "bytes, FLOPs and time: experts of fewer neurons"

    def prepare(self, model: PreTrainedModel) -> None:
        self._found, block = self.found(model), mixtures(model, self.name)[0]
        self._neurons = int(self._found.data["neurons"])
        if not 0 < self._neurons <= block.neurons or self._neurons % MULTIPLE:
            raise ArtifactError(
                f"slimmoe: the artifact keeps {self._neurons} of {block.neurons} neurons; grouped kernels take multiples of "
                f"{MULTIPLE} only, and there cannot be more than the model has; make one for this model."
            )
        share = self._neurons / block.neurons
        if self.keep is not None and abs(self.keep - share) > 0.005:
            raise BudgetError(f"slimmoe: keep={self.keep}, but the artifact keeps {share:g}: leave keep out, or give that.")

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        before = mixtures(model, self.name)[0].neurons
        put(model, self._found.tensors, self._neurons)
        return {"neurons": self._neurons, "neurons before": before}


def put(model: PreTrainedModel, tensors: dict[str, torch.Tensor], neurons: int) -> None:
    """Give `model` the weights of a narrower one.

    Raises:
        ArtifactError: they are not those of such a model.
    """
    for block in mixtures(model, "slimmoe"):
        block.narrow(torch.arange(neurons).expand(block.count, -1))
    resized(model, width=neurons)
    for name, old in list(model.named_parameters()):
        if name not in tensors or tensors[name].shape != old.shape:
            raise ArtifactError(f"slimmoe: the artifact has no {name} of shape {tuple(old.shape)}; make one for this model.")
        owner, _, leaf = name.rpartition(".")
        made = nn.Parameter(tensors[name].to(old), requires_grad=False)
        setattr(model.get_submodule(owner), leaf, made)
    model.tie_weights()
