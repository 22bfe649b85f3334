"""Wanda: weights times the size of what they are multiplied with (arXiv 2306.11695)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.fit.calibration import CalibrationFit
from laconic.method import register
from laconic.weights.edit import FittedEdit
from laconic.weights.matrices import matrices
from laconic.weights.pruner import Pruner
from laconic.weights.walk import inputs_of, walk


@register(
    "wanda",
    site="weights",
    mechanism="unstructured pruning",
    source="arXiv 2306.11695",
    query_aware=False,
    training="calibration",
    fit="laconic.methods.weights.wanda:WandaFit",
)
@dataclass(kw_only=True)
class Wanda(Pruner, FittedEdit):
    """Set the weights of lowest ``|W_ij| * ||X_j||`` in each row to zero; X_j is what input j is over a text (equation 1).

    Those that make one output compete with each other. Layers are pruned in order, and a layer's inputs are those after all
    layers before it were pruned. The weights that stay are not changed.

    Args:
        pattern: see `Pruner`.
        artifact: the text, as `laconic fit wanda` wrote it; `laconic bake` reads one by itself.
    """

    def prune(self, model: PreTrainedModel) -> None:
        layers = matrices(model, self.name)
        for number, run in walk(model, self.found(model).tensors["ids"]):
            squares: dict[str, Tensor] = {}

            def add(name: str, x: Tensor, squares: dict[str, Tensor] = squares) -> None:
                squares[name] = squares.get(name, torch.zeros(())).to(x) + x.square().sum(0)

            with inputs_of(layers[number], add) as leader:
                run()
            for name, linear in layers[number].items():
                weight = linear.weight.detach()
                low = self.lowest(weight.float().abs() * squares[leader[name]].sqrt())
                linear.weight = nn.Parameter(weight.masked_fill(low, 0), requires_grad=False)


@dataclass(kw_only=True)
class WandaFit(CalibrationFit):
    """The text whose activations weights are judged by."""

    method: ClassVar[str] = "wanda"
