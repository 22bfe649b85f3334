"""The stream seam: pre-hooks on decoder layers that shorten hidden states, positions and rotary phases together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from laconic.cache.cache import CompressedCache
from laconic.errors import UnsupportedModelError
from laconic.step import gather


def check_layers(layer_types: list[str], first: int, deepstack: int = 0) -> None:
    """Refuse models with other than full attention from layer `first` on: windows would count kept tokens only, and
    recurrent states would miss the others. And those that add features to the whole stream after `deepstack` layers."""
    if first < deepstack:
        raise UnsupportedModelError(
            f"the stream would be shortened before layer {first}, but this model adds visual features to all of it after "
            f"each of its first {deepstack} layers. Shorten at layer {deepstack} or later."
        )
    other = [(i, kind) for i, kind in enumerate(layer_types) if i >= first and kind != "full_attention"]
    if other:
        i, kind = other[0]
        raise UnsupportedModelError(
            f"the stream would be shortened before layer {first}, but layer {i} is {kind}, which has to see "
            "every token. Shorten later, or use a method that acts on the cache only."
        )


def install(layers: nn.ModuleList, first: int, cache: Callable[[], CompressedCache]) -> list[RemovableHandle]:
    """Hook every layer from `first` on. Constant arguments come again at every layer, so each layer gathers them anew."""

    def shorten(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        current = cache()
        step = current.step
        assert step is not None
        hidden = args[0] if args else kwargs["hidden_states"]
        if current.selected is not None:
            chosen, current.selected = current.selected, None
            hidden = gather(hidden, chosen, 1)
            step.reduce(chosen)
            step.kept = chosen if step.kept is None else step.kept.gather(1, chosen)
        if step.kept is None:
            return args, kwargs
        kwargs = dict(kwargs)
        if args:
            args = (hidden, *args[1:])
        else:
            kwargs["hidden_states"] = hidden
        phases = kwargs.get("position_embeddings")
        if not isinstance(phases, tuple) or len(args) > 1:
            raise UnsupportedModelError(
                f"{type(module).__name__} does not take its rotary phases as the keyword position_embeddings=(cos, sin), "
                "so its stream cannot be shortened. Use a method that acts on the cache only."
            )
        kept = step.kept
        kwargs["position_embeddings"] = tuple(gather(phase, kept, -2) for phase in phases)
        if isinstance(kwargs.get("position_ids"), torch.Tensor):
            kwargs["position_ids"] = gather(kwargs["position_ids"], kept, -1)
        return args, kwargs

    return [layer.register_forward_pre_hook(shorten, with_kwargs=True) for layer in list(layers)[first:]]
