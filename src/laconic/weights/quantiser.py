"""The contract of methods that round weights to few bits: the grid, and the folder of packed weights that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.weights.edit import WeightEdit
from laconic.weights.matrices import matrices
from laconic.weights.packed import Packed, save_packed


@dataclass(kw_only=True)
class WeightQuantiser(WeightEdit):
    """Rounds the decoder layers' linear maps to 4 or 8 bits, symmetric, with one step per group of inputs of a row.
    Embeddings, norms and the head stay.

    `laconic bake` writes the packed numbers (`laconic.weights.packed`). In a session the model runs with the rounded numbers
    in its own type.

    Args:
        bits: 4 or 8.
        group: weights in sequence along a row that share a step; it must divide all rows.
    """

    bits: int = 4
    group: int = 64
    default_keep: ClassVar[float | None] = None
    saves: ClassVar[str] = "bytes on disk and in memory: the linear maps are stored packed"

    def __post_init__(self) -> None:
        if self.keep not in (None, 1.0):
            raise BudgetError(f"{self.name}: keep={self.keep} has no meaning here: all weights stay, in bits=4 or 8.")
        super().__post_init__()
        checks.one_of(self, "bits", 4, 8)
        checks.whole(self, "group", 8)
        self.packed: dict[str, Packed] = {}

    def prepare(self, model: PreTrainedModel) -> None:
        for layer in matrices(model, self.name):
            check_groups(self.name, layer, self.group)
        super().prepare(model)

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        self.packed = {}
        self.quantise(model)
        stored = sum(packed.nbytes for packed in self.packed.values())
        numbers = sum(packed.codes.numel() for packed in self.packed.values())
        return {"bits per weight": 8 * stored / numbers, "bytes of linear maps": stored, "weights of linear maps": numbers}

    def quantise(self, model: PreTrainedModel) -> None:
        """Round all maps, with `put`."""
        raise NotImplementedError(f"{type(self).__name__} must define quantise().")

    def put(self, name: str, linear: nn.Linear, codes: Tensor, steps: Tensor) -> None:
        """Give a map the weights ``codes * steps``, and keep the codes for `write`."""
        packed = self.packed[name] = Packed(codes.to(torch.int8), steps, self.bits)
        linear.weight = nn.Parameter(packed.weights().to(linear.weight), requires_grad=False)

    def write(self, model: PreTrainedModel, folder: Path) -> None:
        save_packed(model, self.packed, self.bits, self.group, folder)


def check_groups(method: str, maps: Mapping[str, nn.Linear], group: int) -> None:
    """Raise `UnsupportedModelError` where `group` does not divide the rows of a map."""
    for name, linear in maps.items():
        if linear.in_features % group:
            raise UnsupportedModelError(
                f"{method}: group={group} does not divide the {linear.in_features} inputs of {name}; choose a group that "
                "divides all rows."
            )


def steps_of(weight: Tensor, bits: int) -> Tensor:
    """The step of a symmetric grid over the last dimension [..., n] -> [...], ``2 max|w| / (2^bits - 1)``, rounded to
    bfloat16 as it will be stored; never 0."""
    step = weight.abs().amax(-1) * 2 / (2**bits - 1)
    return step.masked_fill(step == 0, 1).to(torch.bfloat16).float()


def codes_of(weight: Tensor, steps: Tensor, bits: int) -> Tensor:
    """Whole numbers from -2^(bits-1) to 2^(bits-1) - 1, as floats."""
    half = 2 ** (bits - 1)
    return (weight / steps).round().clamp(-half, half - 1)
