"""The linear maps of a decoder's layers: the weights that methods for dense models prune and round."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import family_of

Matrices = dict[str, nn.Linear]
"""Linear maps by their full names in the model."""


def matrices(model: PreTrainedModel, method: str) -> list[Matrices]:
    """Those of each decoder layer, in the order of the modules. Embeddings, norms and the head are never among them.

    Raises:
        UnsupportedModelError: weights that are packed already, or experts, whose weights are no linear modules.
    """
    names = {id(module): name for name, module in model.named_modules()}
    found = [_of_layer(layer, names, method) for layer in family_of(model).layers(model)]
    if not all(found):
        raise UnsupportedModelError(f"{method}: a decoder layer of {type(model).__name__} has no linear maps.")
    return found


def _of_layer(layer: nn.Module, names: dict[int, str], method: str) -> Matrices:
    if any(p.ndim == 3 for p in layer.parameters()):
        raise UnsupportedModelError(
            f"{method}: {type(layer).__name__} is a mixture of experts, whose weights are no linear modules; choose a "
            "method for experts (`laconic methods --site weights` lists them)."
        )
    found = {names[id(module)]: module for module in layer.modules() if isinstance(module, nn.Linear)}
    for name, linear in found.items():
        if not linear.weight.is_floating_point() or type(linear.weight.data).__name__ != "Tensor":
            raise UnsupportedModelError(f"{method}: {name} is quantised already; load the model without quantisation.")
    return found
