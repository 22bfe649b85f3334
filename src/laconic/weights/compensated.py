"""The contract of edits whose weights make up for each other over a text, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic import checks
from laconic.weights.edit import FittedEdit
from laconic.weights.gram import grams
from laconic.weights.matrices import matrices
from laconic.weights.walk import walk


@dataclass(kw_only=True)
class CompensatedEdit(FittedEdit):
    """Changes weights so that outputs over the text of its artifact change least.

    Args:
        damping: what is added to the Gram matrix's diagonal, as a share of its mean.

    Raises:
        ValueError: damping outside [1e-8, 10].
    """

    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between(self, "damping", 1e-8, 10)

    def each(self, model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear, Tensor, Tensor]]:
        """Name, map, its weights in fp32 [out, in] and the Gram matrix [in, in] of its inputs, for all maps in order; a
        layer's inputs are those after the loop's body has changed all layers before it."""
        layers = matrices(model, self.name)
        for number, run in walk(model, self.found(model).tensors["ids"]):
            gram = grams(layers[number], run)
            for name, linear in layers[number].items():
                yield name, linear, linear.weight.detach().float(), gram[name]
