"""A refusal that methods share: models whose other layers would store what has to leave no trace."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from laconic.errors import UnsupportedModelError
from laconic.families import family_of


def refuse_other_layers(name: str, model: PreTrainedModel) -> None:
    """Raise `UnsupportedModelError` for a model with sliding-window or recurrent layers, which would store pseudo tokens.

    Args:
        name: of the method that runs them.
    """
    stack = family_of(model).stack(model)
    others = {type(layer).__name__ for layer in DynamicCache(config=stack.config).layers if type(layer) is not DynamicLayer}
    if others:
        raise UnsupportedModelError(
            f"{name}: {type(model).__name__} has layers that are not full attention (cache layers: "
            f"{', '.join(sorted(others))}); they would store the pseudo tokens. Use a method that runs none on this model."
        )
