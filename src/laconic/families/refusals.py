"""Models that do not fit, found in their class, configuration and modules before anything runs, each with the reason."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from laconic.errors import UnsupportedModelError


def check_class(model: PreTrainedModel, proven: str) -> None:
    """Refuse a class of models whose attention laconic has no place to hook into.

    Args:
        proven: names of families that work, for the message.
    """
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder, whose decoder also attends to the encoder; laconic supports decoders that stand "
            f"alone. Proven families: {proven}. What Whisper's decoder looks at is shortened by laconic.compress_encoder."
        )
    if not model._can_set_attn_implementation():
        raise UnsupportedModelError(
            f"{name} does not route its attention through transformers' AttentionInterface, so laconic has no place to hook "
            f"into. Proven families: {proven}."
        )


def no_decoder(model: nn.Module) -> UnsupportedModelError:
    """Why there is no decoder in `model` that fits: it has no attention, no RoPE, or its layers are elsewhere."""
    name, inside = type(model).__name__, " ".join(path for path, _ in model.named_modules()).lower()
    if not any(word in inside for word in ("attn", "attention")):
        return UnsupportedModelError(f"{name} has no attention layers, so there is no KV cache to compress.")
    if "rotary" not in inside or hasattr(model, "layers"):
        return UnsupportedModelError(f"{name} has no rotary embedding beside its layers; laconic supports RoPE decoders.")
    return UnsupportedModelError(
        f"{name} has no decoder with a `.layers` list that laconic can find; pass a causal language model such as "
        "LlamaForCausalLM."
    )


def check_decoder(stack: PreTrainedModel) -> None:
    """Refuse a decoder whose layers keep something else than one set of keys and values of their own, or attend otherwise
    than by a softmax over them."""
    name = type(stack).__name__
    for found, reason in TRAITS:
        what = found(stack)
        if what:
            raise UnsupportedModelError(f"{name} {reason.format(what=what)}")
    if not hasattr(stack, "rotary_emb"):
        raise no_decoder(stack)


def _shared(stack: PreTrainedModel) -> bool:
    return bool(getattr(stack.config, "num_kv_shared_layers", 0) or getattr(stack.config, "is_heterogeneous", False))


def _latent(stack: PreTrainedModel) -> bool:
    return bool(getattr(stack.config, "kv_lora_rank", None))


def _parameter(*names: str) -> Callable[[PreTrainedModel], str]:
    """The first parameter of the decoder's layers that has one of these names; "" without any."""

    def found(stack: PreTrainedModel) -> str:
        paths = (path for path, _ in stack.named_parameters())
        return next((path for path in paths if path.rpartition(".")[2] in names), "")

    return found


def _own_cache(stack: PreTrainedModel) -> str:
    """Name of the cache class that the decoder insists on, by the source of its `forward`; "" if it takes any cache."""
    try:
        source = inspect.getsource(type(stack).forward)
    except (OSError, TypeError):  # no source at hand: the first call says it
        return ""
    match = re.search(r"not isinstance\(past_key_values?, (\w+)\)", source)
    return "" if match is None or match[1] in (Cache.__name__, "DynamicCache") else match[1]


TRAITS: tuple[tuple[Callable[[PreTrainedModel], object], str], ...] = (
    (
        _shared,
        "shares keys and values between layers, or its layers differ in shape; laconic needs a cache of its own for every "
        "layer, all of one shape.",
    ),
    (
        _latent,
        "keeps latents in its cache, from which keys and values are made in every pass (multi-head latent attention, MLA); "
        "laconic chooses among keys and values, so its methods do not apply.",
    ),
    (
        _parameter("sinks"),
        "gives its attention learned sinks (`{what}`), logits beside those of the keys, which laconic's exact attention "
        "over parts does not have.",
    ),
    (
        _parameter("lambda_q1"),
        "subtracts one attention from another (differential attention, `{what}`) and cuts values in two after the cache, "
        "which does not fit laconic's attention over a compressed cache.",
    ),
    (
        _own_cache,
        "insists on a cache class of its own ({what}), so laconic's compressed cache cannot take its place.",
    ),
)
"""What a decoder may have that laconic cannot compress, and what is said of it. What does not fit and is not found here is
refused by the cache layer, at the first call."""
