"""The embeddings of prompts with their images in them, as the decoder is given them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.base import family_of
from laconic.families.vision.base import deepstack_of


class _Reached(Exception):
    """The decoder was about to run."""


@torch.no_grad()
def merged(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Run all of a model that comes before its decoder.

    Args:
        inputs: of the model: `input_ids` [B, T], pixels and what else comes with them.

    Returns:
        embeddings [B, T, d]: of the token ids, with the features of images in the places of their placeholders.

    Raises:
        UnsupportedModelError: a decoder that is told more about its images than these embeddings hold.
    """
    stack = family_of(model).stack(model)
    if deepstack_of(model) or "mrope_section" in (getattr(stack.config, "rope_parameters", None) or {}):
        raise UnsupportedModelError(
            f"{type(model).__name__} tells its decoder where the patches of an image are (M-RoPE or DeepStack), so "
            "embeddings alone do not show it; use a model whose tokens have one position each, such as LLaVA."
        )
    found: list[Tensor] = []

    def stop(module: nn.Module, args: Any, given: dict[str, Any]) -> None:
        found.append(given["inputs_embeds"])
        raise _Reached

    hook = stack.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]
