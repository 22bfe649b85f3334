"""What a call of a model inside a session may ask for, and which cache it brings; what does not fit is refused here."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from laconic.cache.cache import CompressedCache
from laconic.cache.layer import CompressedLayer
from laconic.errors import SessionError
from laconic.running import Call


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call of `module` by their names; some models hand their decoder its arguments by place."""
    return kwargs | dict(zip(_parameters(type(module)), args, strict=False))  # type: ignore[arg-type]


@cache
def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def check_arguments(kwargs: dict[str, Any], model: PreTrainedModel, stack: PreTrainedModel) -> None:
    """Refuse a call of `model`, by its arguments, that stores nothing or asks for attention weights.

    Raises:
        SessionError: `use_cache` is off or `output_attentions` is on, by argument or by the model's configuration.
    """
    use_cache = kwargs.get("use_cache")
    if use_cache is False or (use_cache is None and stack.config.use_cache is False):
        raise SessionError("use_cache=False stores nothing, so there is nothing to compress; drop it or leave the session.")
    attentions = kwargs.get("output_attentions")
    if attentions or (attentions is None and model.config.output_attentions):
        raise SessionError("output_attentions is not available inside a session; run the model outside of it.")


def cache_of(given: Any, stack: PreTrainedModel) -> CompressedCache:
    """The cache for a call with `past_key_values` = `given`: a new one for an empty start, or the compressed one itself.

    An empty `DynamicCache` gets the layers of the new one, as transformers would fill it: it says how many tokens were seen,
    crops, and stands for the compressed cache in later calls.

    Raises:
        SessionError: it belongs to another model, or is any other cache that holds something.
    """
    if type(given) is DynamicCache:
        given = _behind(given)
    if isinstance(given, CompressedCache):
        if len(given.layers) != len(stack.layers):  # type: ignore[arg-type]
            raise SessionError(
                f"this cache has {len(given.layers)} layers, the model {len(stack.layers)}: "  # type: ignore[arg-type]
                "it belongs to another model."
            )
        return given
    if given is None or (type(given) is DynamicCache and given.get_seq_length() == 0 and not given.offloading):
        cache = CompressedCache(stack.config)
        if given is not None and any(getattr(layer, "record_past", False) for layer in given.layers):
            cache.activate_past_recording()  # assisted decoding has asked the cache that this one replaces
        if given is not None:
            given.layers, given.layer_class_to_replicate = cache.layers, None
        return cache
    state = f"holds {given.get_seq_length()} tokens" if isinstance(given, Cache) else "is no transformers cache"
    if getattr(given, "offloading", False):
        state = "offloads to the CPU"
    raise SessionError(
        f"past_key_values is a {type(given).__name__} that {state}; inside a session pass nothing, an empty "
        "DynamicCache, or the cache of an earlier turn of a session."
    )


def _behind(given: DynamicCache) -> Cache:
    """The compressed cache whose layers an earlier call has put into the user's own cache, or that cache itself."""
    layer = next((layer for layer in given.layers if isinstance(layer, CompressedLayer)), None)
    if layer is None:
        return given
    cache = layer.cache
    if given.layers is not cache.layers:
        raise SessionError(
            "this DynamicCache stood for a compressed cache that has been rewound since; pass that cache itself, which is "
            "session.cache after a call."
        )
    if cache.seen == 0:
        cache.reset()  # the user may have reset it through the layers alone
    return cache


def check_decoder(kwargs: dict[str, Any], decoder: nn.Module, call: Call | None) -> Call:
    """The call of the session's model that the decoder is called by, which passes its cache on.

    Raises:
        SessionError: it was called on its own: another cache, or none, came with it.
    """
    if call is None or kwargs.get("past_key_values") is not call.cache:
        raise SessionError(
            f"{type(decoder).__name__} was called on its own; inside a session call the model that was given to compress()."
        )
    return call


def input_of(kwargs: dict[str, Any]) -> torch.Tensor:
    """What the decoder is to read, ids [B, T] or embeddings [B, T, D].

    Raises:
        SessionError: there is neither, or it is empty.
    """
    ids = kwargs.get("input_ids")
    x: torch.Tensor | None = kwargs.get("inputs_embeds") if ids is None else ids
    if x is None:
        raise SessionError("the model was called without input_ids or inputs_embeds.")
    if 0 in x.shape[:2]:
        raise SessionError("the prompt is empty; give at least one token.")
    return x
