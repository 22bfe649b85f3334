"""What a family adapter knows about a model, and how the adapter for a model is found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.rotary import phases

_REGISTRY: dict[str, Family] = {}


@dataclass(frozen=True)
class Family:
    """Where the parts of a decoder are.

    Attributes:
        name: for messages.
        model_types: `config.model_type` values of the text stack that it covers.
        half_rope: RoPE rotates channel i with channel i + D/2 (needed by methods that undo RoPE).
        proven: tested on the real class; False for the generic adapter.
    """

    name: str
    model_types: tuple[str, ...] = ()
    half_rope: bool = True
    proven: bool = True

    def stack(self, model: nn.Module) -> PreTrainedModel:
        """The text decoder: the module that owns `.layers` and `.rotary_emb`."""
        stack: nn.Module = model
        while not isinstance(getattr(stack, "layers", None), nn.ModuleList):
            inner = getattr(stack, "language_model", None) or getattr(stack, "model", None)
            if not isinstance(inner, nn.Module):
                raise UnsupportedModelError(
                    f"{type(model).__name__} has no decoder with a `.layers` list that laconic can find; pass a causal "
                    "language model such as LlamaForCausalLM."
                )
            stack = inner
        if not isinstance(stack, PreTrainedModel):
            raise UnsupportedModelError(f"{type(stack).__name__} is not a transformers PreTrainedModel; laconic needs one.")
        return stack

    def cos_sin(self, stack: nn.Module, layer: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of RoPE at `positions` [B, m] for decoder layer `layer`, fp32 [B, m, D_rot]."""
        if not self.half_rope:
            raise UnsupportedModelError(
                f"the {self.name} family's RoPE layout is not known to laconic, so queries cannot be un-rotated; "
                "choose a method that uses queries as they are."
            )
        return phases(stack.rotary_emb, torch.zeros(1, device=positions.device), positions)  # type: ignore[arg-type]


GENERIC = Family("generic", half_rope=False, proven=False)


def add(family: Family) -> Family:
    """Register a family for all its model types."""
    for model_type in family.model_types:
        _REGISTRY[model_type] = family
    return family


def supported_families() -> list[Family]:
    """Families that have their own adapter, by name."""
    return sorted(set(_REGISTRY.values()), key=lambda f: f.name)


def family_of(model: nn.Module) -> Family:
    """The adapter for a model: by the model type of its text stack, else the generic one.

    Raises:
        UnsupportedModelError: the layers are not supported (no decoder stack, no attention interface, no RoPE, shared keys).
    """
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"compress() needs a transformers model, got {type(model).__name__}.")
    stack = GENERIC.stack(model)
    family = _REGISTRY.get(stack.config.model_type, GENERIC)
    config = stack.config
    if getattr(config, "is_encoder_decoder", False) or not stack._can_set_attn_implementation():
        raise UnsupportedModelError(
            f"{type(model).__name__} does not route its attention through transformers' AttentionInterface, so laconic has "
            f"no place to hook into. Proven families: {', '.join(f.name for f in supported_families())}."
        )
    if getattr(config, "num_kv_shared_layers", 0) or getattr(config, "is_heterogeneous", False):
        raise UnsupportedModelError(
            f"{type(stack).__name__} shares keys and values between layers, or its layers differ in shape; laconic needs a "
            "cache of its own for every layer, all of one shape."
        )
    if not hasattr(stack, "rotary_emb"):
        raise UnsupportedModelError(f"{type(stack).__name__} has no rotary embedding; laconic supports RoPE decoders.")
    return family
